"""A second control-plane node joins while the first one enforces."""

import time
from datetime import datetime
from typing import Any

import pytest

from tests.containers.cluster import until
from tests.containers.machine import Machine
from tests.containers.product import Product
from tests.containers.requests import honest
from tests.containers.test_install import everything_runs_anew, hostile_requests_are_refused
from tests.containers.traffic import Traffic, refused_by_us

pytestmark = [pytest.mark.cluster, pytest.mark.full]


def test_a_second_control_plane_node_joins_under_enforcement(product: Product) -> None:
    cluster = product.cluster
    if not isinstance(cluster, Machine):
        pytest.skip("a kind cluster gets no further nodes")
    product.install("control-plane")
    node, started = cluster.workers[0], time.time()
    try:
        with Traffic(cluster, node, honest(cluster, node)) as traffic:
            second = cluster.add_control_plane()
            until("both nodes have a server", lambda: len(product.pods()) == 2)
            product.ready()
            ready = time.time()
            traffic.wait(10)
        written = [one for one in cluster.written(started) if second in one["user"]["username"]]
        refused = [one for one in written if refused_by_us(one)]
        spread = sorted(map(received, refused))
        print(f"  {len(refused)} of {len(written)} writes of the new kubelet refused"
              + (f" in {spread[-1] - spread[0]:.0f} s" if spread else ""))  # fmt: skip
        assert traffic.lost() == 0
        # Until our pod is there its own API server has nobody to ask, and it asks again.
        assert all("failed calling webhook" in message(one) for one in refused)
        assert all(received(one) < ready for one in refused)
        hostile_requests_are_refused(cluster)
        everything_runs_anew(cluster)
    finally:
        cluster.remove_control_plane()


def received(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp()


def message(event: dict[str, Any]) -> str:
    return str(event["responseStatus"]["message"])
