"""Installing, and switching from one overlay to the next, in a real cluster."""

import pytest

from tests.containers.cluster import Cluster
from tests.containers.product import Product
from tests.containers.requests import honest, hostile
from tests.containers.traffic import Traffic

pytestmark = pytest.mark.cluster


def test_from_nothing_over_audit_to_enforcing_on_the_control_plane(product: Product) -> None:
    cluster = product.cluster
    node = cluster.workers[0]
    with Traffic(cluster, node, honest(cluster, node)) as traffic:
        product.install("audit")
        product.install("control-plane")
        traffic.wait(5)
    assert traffic.lost() == 0
    hostile_requests_are_refused(cluster)
    everything_runs_anew(cluster)


def test_what_was_uninstalled_leaves_nothing_and_can_be_installed_again(product: Product) -> None:
    cluster = product.cluster
    node = cluster.workers[0]
    before = product.objects()
    with Traffic(cluster, node, honest(cluster, node)) as traffic:
        product.install("control-plane")
        product.uninstall()
        assert product.objects() == before
        product.install("control-plane")
        hostile_requests_are_refused(cluster)
        product.uninstall()
    assert traffic.lost() == 0


def everything_runs_anew(cluster: Cluster) -> None:
    """Replace pods on every node: their kubelets need tokens, Secrets and ConfigMaps for it."""
    for workload in ("deployment/web", "daemonset/agent"):
        cluster.kubectl("rollout", "restart", workload, "-n", "shop")
        cluster.kubectl("rollout", "status", workload, "-n", "shop", "--timeout=180s")


def hostile_requests_are_refused(cluster: Cluster) -> None:
    """Try with a kubelet's credential what must be refused."""
    node, other = cluster.workers
    with Traffic(cluster, node, hostile(cluster, node, other)) as traffic:
        traffic.wait(5)
    for name, answers in traffic.answers.items():
        assert answers.right, (name, answers)
        assert not answers.lost, (name, answers)
