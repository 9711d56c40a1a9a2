"""The page on the authorizer, followed word by word on a control-plane node with real kubelets."""

import time
from collections.abc import Iterator

import pytest

from tests.containers.authorizer import NOBODY, Authorizer
from tests.containers.cluster import Cluster, until
from tests.containers.conftest import emptied
from tests.containers.machine import Machine
from tests.containers.product import Product
from tests.containers.requests import leases, not_ready
from tests.containers.test_cold_start import heals, restart
from tests.containers.test_install import everything_runs_anew
from tests.containers.traffic import OURS

pytestmark = [pytest.mark.cluster, pytest.mark.full]

#: Seconds; the pods of a node that is not Ready for so long are evicted.
AWAY = 300
SHOP = ("-n", "shop")
LEASES = ("-n", "kube-node-lease")
SECRET = ("get", "secret")


@pytest.fixture(scope="module")
def product(running: Cluster) -> Product:
    """The admission half, without which nodes get no leave to renew Leases."""
    if not isinstance(running, Machine):
        pytest.skip("the page needs a shell on a control-plane node")
    installed = emptied(running)
    installed.install("control-plane")
    return installed


@pytest.fixture(scope="module")
def authorizer(product: Product) -> Iterator[Authorizer]:
    """The other half, installed as the page says, and undone likewise."""
    cluster = product.cluster
    assert isinstance(cluster, Machine)
    cluster.kubectl("create", "secret", "generic", "other", *SHOP, "--from-literal=a=b")
    installed = Authorizer(cluster)
    try:
        installed.install()
        installed.keep_nodes_ready()
        yield installed
    finally:
        installed.undo()
        refusal = cluster.kubelet("w1").refusal(*SECRET, "other", *SHOP)
        cluster.kubectl("delete", "secret", "other", *SHOP)
        assert "no relationship found" in refusal


def answered(cluster: Cluster) -> bool:
    """Tell whether nodes read what their pods refer to; nothing else, by our word, ever."""
    pods = cluster.kubectl.json("get", "pods", *SHOP, "-l", "app=web")["items"]
    nodes = {one["spec"]["nodeName"] for one in pods if one["status"]["phase"] == "Running"}
    for node in nodes:
        kubelet = cluster.kubelet(node)
        refusal = kubelet.refusal(*SECRET, "other", *SHOP)
        kubelet(*SECRET, "web", *SHOP)
        if f"nothing on node {node} refers to" not in refusal:
            return False
    return bool(nodes)


def test_nodes_are_answered_by_the_webhook_alone(authorizer: Authorizer) -> None:
    cluster = authorizer.machine
    assert authorizer.is_asked()
    until("nodes are answered", lambda: answered(cluster))
    everything_runs_anew(cluster)


def test_a_cluster_that_was_off_heals(product: Product, authorizer: Authorizer) -> None:
    heals(product, restart(product.cluster, *product.cluster.nodes))
    until("nodes are answered", lambda: answered(authorizer.machine))


def test_while_it_is_away_nodes_stay_ready_and_renew_their_own_leases_only(
    authorizer: Authorizer,
) -> None:
    cluster = authorizer.machine
    node, other = cluster.workers
    kubelet = cluster.kubelet(node)
    authorizer.stop()
    try:
        since, end, tried = time.time(), time.monotonic() + AWAY, 0
        while time.monotonic() < end:
            assert not_ready(cluster) == []
            assert NOBODY in kubelet.refusal(*SECRET, "web", *SHOP)
            lease = kubelet("get", "lease", other, *LEASES, "-o", "json")
            refusal = kubelet.refusal("replace", "-f", "-", stdin=lease)
            # Its owner may have renewed it in the meantime.
            assert OURS in refusal or "the object has been modified" in refusal, refusal
            tried += OURS in refusal
            time.sleep(5)
        renewed = leases(cluster)
        print(f"  {tried} attempts on the Lease of another node refused by admission")
        assert tried > AWAY / 20
        assert min(renewed[one] for one in cluster.nodes) > since + AWAY - 40
        assert not_ready(cluster) == []
    finally:
        authorizer.start()
    until("nodes are answered", lambda: answered(cluster))
    everything_runs_anew(cluster)
