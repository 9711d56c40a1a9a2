"""The chart from its packed file: installed, enforced, upgraded, rolled back and uninstalled."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from noderestrict.render.workload import IMAGE, NAMESPACE
from tests.containers.cluster import Cluster
from tests.containers.machine import Machine
from tests.containers.product import Product
from tests.containers.requests import honest
from tests.containers.test_install import everything_runs_anew, hostile_requests_are_refused
from tests.containers.traffic import Traffic
from tests.e2e.helm import CHART, Helm

pytestmark = [pytest.mark.cluster, pytest.mark.full]

PATIENCE = ("--wait", "--timeout", "300s")
NAME = "noderestrict"
OTHER_TAG = "next"


@pytest.fixture
def retagged(cluster: Cluster) -> str:
    """Let every node have our image under another tag; return that."""
    if not isinstance(cluster, Machine):
        pytest.skip("images of a kind cluster are not ours to name")
    name = f"docker.io/library/{IMAGE}"
    other = f"{name.rpartition(':')[0]}:{OTHER_TAG}"
    for node in cluster.nodes:
        cluster.exec(node, "ctr", "-n", "k8s.io", "images", "tag", "--force", name, other)
    return OTHER_TAG


@contextlib.contextmanager
def nothing_lost(cluster: Cluster, step: str) -> Iterator[None]:
    """See that no honest request of a node fails meanwhile."""
    node = cluster.workers[0]
    with Traffic(cluster, node, honest(cluster, node)) as traffic:
        yield
        traffic.wait(3)
    print(f"  {step}: {traffic.lost()} of {traffic.answered()} lost", flush=True)
    assert traffic.lost() == 0, step


def failure_policies(cluster: Cluster) -> set[str]:
    """Return what API servers do when our webhooks do not answer; nothing without any webhook."""
    name = ("validatingwebhookconfigurations", NAME, "--ignore-not-found")
    policies = "jsonpath={.webhooks[*].failurePolicy}"
    return set(cluster.kubectl("get", *name, "-o", policies).split())


def tags(product: Product) -> set[str]:
    """Return the tags of the image that servers run."""
    return {
        container["image"].rpartition(":")[2]
        for pod in product.cluster.kubectl.json("get", "pods", "-n", NAMESPACE)["items"]
        if "deletionTimestamp" not in pod["metadata"]
        for container in pod["spec"]["containers"]
        if "serve" in container["args"]
    }


@pytest.mark.parametrize("placement", ["control-plane", "service"])
def test_no_request_is_lost_from_installation_to_uninstallation(
    product: Product, retagged: str, tmp_path: Path, placement: str
) -> None:
    cluster, before = product.cluster, product.objects()
    helm = Helm(tmp_path, cluster.kubeconfig, cluster.local)
    helm("package", str(CHART), "--destination", str(tmp_path))
    (packed,) = map(str, tmp_path.glob("*.tgz"))
    space = ("--namespace", NAMESPACE)
    upgrade = ("upgrade", NAME, packed, *space, "--reset-then-reuse-values", *PATIENCE)

    with nothing_lost(cluster, "audit"):
        helm("install", NAME, packed, *space, "--create-namespace",
             "--set", f"placement={placement}", *PATIENCE)  # fmt: skip
    assert failure_policies(cluster) == {"Ignore"}
    assert "Succeeded" in helm("test", NAME, *space)
    first = tags(product)

    with nothing_lost(cluster, "enforce"):
        helm(*upgrade, "--set", "mode=enforce")
    assert failure_policies(cluster) == {"Fail"}
    hostile_requests_are_refused(cluster)

    with nothing_lost(cluster, "upgrade"):
        helm(*upgrade, "--set", f"image.tag={retagged}")
    assert tags(product) == {retagged}
    hostile_requests_are_refused(cluster)

    with nothing_lost(cluster, "rollback"):
        helm("rollback", NAME, *space, *PATIENCE)
    assert tags(product) == first
    hostile_requests_are_refused(cluster)
    everything_runs_anew(cluster)

    with nothing_lost(cluster, "uninstall"):
        helm("uninstall", NAME, *space, *PATIENCE)
        cluster.kubectl("delete", "namespace", NAMESPACE, "--timeout=120s")
    assert failure_policies(cluster) == set()
    assert product.objects() == before
