"""All nodes off and on: nothing may wait for us that we wait for."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.containers.cert_manager import run_cert_manager
from tests.containers.cluster import Cluster, until
from tests.containers.machine import Machine
from tests.containers.product import Product
from tests.containers.test_install import everything_runs_anew, hostile_requests_are_refused

pytestmark = pytest.mark.cluster

#: From the API server's first answer on.
SECONDS = 120


def restart(cluster: Cluster, *nodes: str) -> float:
    """Cut the power of nodes at once; returns when the API server answers again."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(cluster.stop, nodes))
        list(pool.map(cluster.start, nodes))
    return cluster.answers()


def proxied(cluster: Cluster, node: str) -> bool:
    """Tell whether kube-proxy of a node has written its rules, which it loses with the power."""
    return "KUBE-SVC" in cluster.exec(node, "iptables-save", "-t", "nat")


def heals(product: Product, since: float) -> None:
    """Wait until every node has Services, gets tokens for new pods, and we refuse again.

    Args:
        product: in a cluster that was off.
        since: when its API server first answered.
    """
    cluster = product.cluster
    left = SECONDS - (time.monotonic() - since)
    until("kube-proxy works", lambda: all(proxied(cluster, one) for one in cluster.nodes), left)
    print(f"  Services {time.monotonic() - since:.0f} s after the API server's first answer")
    # kubectl shows pods of before the cut as running: only new ones tell.
    everything_runs_anew(cluster)
    took = time.monotonic() - since
    print(f"  new pods {took:.0f} s after the API server's first answer")
    assert took < SECONDS
    product.ready()
    hostile_requests_are_refused(cluster)


@pytest.mark.parametrize("overlay", ["control-plane", "self-signed"])
def test_a_cluster_that_was_off_heals(product: Product, overlay: str) -> None:
    product.install(overlay)
    heals(product, restart(product.cluster, *product.cluster.nodes))


@pytest.mark.full
@pytest.mark.parametrize("overlay", ["control-plane", "self-signed", "cert-manager"])
def test_a_control_plane_node_that_was_off_heals(product: Product, overlay: str) -> None:
    if overlay == "cert-manager":
        if not isinstance(product.cluster, Machine):
            pytest.skip("a kind cluster has no cert-manager")
        run_cert_manager(product.cluster)
    product.install(overlay)
    heals(product, restart(product.cluster, product.cluster.control_plane))
