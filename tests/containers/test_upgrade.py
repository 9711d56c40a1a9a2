"""kubeadm replaces the control plane under enforcement, and etcd goes back to an earlier time."""

import json
import time
from typing import Any

import pytest

from tests.containers.cluster import CommandError, until
from tests.containers.images import PAUSE_IMAGE
from tests.containers.machine import Machine
from tests.containers.product import Product
from tests.containers.requests import TOKENS, honest, token_request
from tests.containers.test_failures import breached, watched
from tests.containers.test_install import everything_runs_anew, hostile_requests_are_refused
from tests.containers.traffic import Request, Traffic

pytestmark = [pytest.mark.cluster, pytest.mark.full]


@pytest.fixture(params=["control-plane", "self-signed"])
def installed(request: pytest.FixtureRequest, product: Product) -> Product:
    """Each overlay that enforces, installed in a cluster whose control plane we can reach."""
    if not isinstance(product.cluster, Machine):
        pytest.skip("kind has a control plane of its own making")
    product.install(request.param)
    return product


def test_kubeadm_upgrades_under_enforcement(installed: Product) -> None:
    cluster = installed.cluster
    assert isinstance(cluster, Machine)
    before = process_of(cluster, "kube-apiserver")
    with watched(cluster) as traffic:
        # Other flags: every component is replaced.
        cluster.upgrade_control_plane(vmodule=f"nothing={int(time.time())}")
        cluster.answers()
        traffic.wait(20)
    assert process_of(cluster, "kube-apiserver") != before
    assert not breached(traffic)
    # The API server's own authorizer knows no pods at first.
    assert traffic.lost_to_us() == 0
    everything_runs_anew(cluster)
    hostile_requests_are_refused(cluster)


def process_of(cluster: Machine, command: str) -> str:
    return cluster.exec(cluster.control_plane, "pgrep", "-f", f"^{command} ")


def pod(name: str, node: str) -> str:
    """Return a pod of the workload's account on a node."""
    container = {"name": "c", "image": PAUSE_IMAGE, "imagePullPolicy": "Never"}
    spec = {"nodeName": node, "serviceAccountName": "web", "terminationGracePeriodSeconds": 0}
    metadata = {"name": name, "namespace": "shop"}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata,
                       "spec": {**spec, "containers": [container]}})  # fmt: skip


def run_pod(cluster: Machine, name: str, node: str) -> dict[str, Any]:
    """Run such a pod, and return it."""
    cluster.kubectl("create", "-f", "-", stdin=pod(name, node))
    cluster.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "-n", "shop", "--timeout=120s")
    found: dict[str, Any] = cluster.kubectl.json("get", "pod", name, "-n", "shop")
    return found


def test_after_a_restore_nothing_is_judged_by_what_is_gone(installed: Product) -> None:
    cluster = installed.cluster
    assert isinstance(cluster, Machine)
    node = cluster.workers[0]
    kubectl = cluster.kubectl
    for name in ("kept", "gone"):
        kubectl("delete", "pod", name, "-n", "shop", "--ignore-not-found", "--force")
    kept = run_pod(cluster, "kept", node)
    cluster.save_etcd()
    kubectl("delete", "pod", "kept", "-n", "shop", "--force")
    gone = run_pod(cluster, "gone", node)
    # Until the restore it is the other way round.
    asked = [
        Request("token of a pod that is there again", "POST", TOKENS, token_request(kept), 201),
        Request("token of a pod that never was", "POST", TOKENS, token_request(gone), 404),
    ]
    cluster.restore_etcd()
    if installed.overlay != "control-plane":
        restart_what_resumes(cluster)
    since = time.monotonic()
    until("both are judged rightly", lambda: judged_rightly(cluster, node, asked), 60)
    print(f"  within {time.monotonic() - since:.0f} s")
    restart_what_resumes(cluster)
    everything_runs_anew(cluster)
    with Traffic(cluster, node, asked + honest(cluster, node)) as traffic:
        traffic.wait(10)
    assert traffic.lost() == 0
    hostile_requests_are_refused(cluster)
    kubectl("delete", "pod", "kept", "-n", "shop", "--force")


def restart_what_resumes(cluster: Machine) -> None:
    """Restart what resumes its watches at versions that never were.

    kube-proxy has heard that the API server left the Service by which pods reach it, and will not
    hear that it is back.
    """
    for node in cluster.nodes:
        cluster.restart_kubelet(node)
        cluster.exec(node, "pkill", "-x", "kube-proxy")
    until("kube-proxy leads to the API server", lambda: all(
        "KUBE-SEP" in cluster.exec(node, "sh", "-c", "iptables-save -t nat | grep kubernetes:https")
        for node in cluster.nodes
    ))  # fmt: skip


def judged_rightly(cluster: Machine, node: str, asked: list[Request]) -> bool:
    """Tell whether a short while of requests has all the answers that it has to have."""
    try:
        with Traffic(cluster, node, asked) as traffic:
            traffic.wait(0.5)
    except CommandError:
        return False
    return all(one.right and not one.lost for one in traffic.answers.values())
