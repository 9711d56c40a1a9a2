"""A cluster with a workload, once for all tests.

``CLUSTER=kind`` chooses a kind cluster instead of one of containers on this machine, and
``CLUSTER_KEEP=1`` keeps it for the next run.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers import kind, machine
from tests.containers.cluster import Cluster, until
from tests.containers.product import Product
from tests.containers.requests import leases

HERE = Path(__file__).parent


def made() -> Cluster:
    """Return the kind of cluster that was chosen."""
    if os.environ.get("CLUSTER") == "kind":
        if problem := kind.missing():
            pytest.exit(f"no kind cluster on this machine: {problem}", returncode=1)
        return kind.Kind()
    if problem := machine.missing():
        pytest.skip(f"no cluster of containers on this machine: {problem}")
    return machine.Machine()


def pytest_exception_interact(call: pytest.CallInfo[None]) -> None:
    """Say at once what failed: the summary may be an hour away."""
    print(f"\n  {call.excinfo and call.excinfo.exconly()}", flush=True)


@pytest.fixture(scope="session")
def running() -> Iterator[Cluster]:
    cluster = made()
    keep = bool(os.environ.get("CLUSTER_KEEP"))
    try:
        if keep and cluster.is_up():
            cluster.take_over()
        else:
            cluster.up()
            cluster.kubectl("apply", "-f", str(HERE / "workload.yaml"))
        yield cluster
    finally:
        if not keep:
            cluster.down()


def emptied(running: Cluster) -> Product:
    """Remove what is installed of us, wait until everything else runs, and return ours."""
    running.answers()
    product = Product(running)
    product.remove()
    running.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=180s")
    until("every node has a Lease", lambda: leases(running).keys() >= set(running.nodes))
    for workload in ("deployment/web", "daemonset/agent", "statefulset/db"):
        running.kubectl("rollout", "status", workload, "-n", "shop", "--timeout=180s")
    return product


@pytest.fixture
def cluster(running: Cluster) -> Cluster:
    """A cluster in which nothing of ours is installed, and everything else runs."""
    emptied(running)
    return running


@pytest.fixture
def product(cluster: Cluster) -> Product:
    return Product(cluster)
