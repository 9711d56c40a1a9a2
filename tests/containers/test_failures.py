"""What a kubelet notices when something of ours fails, is replaced or is taken away."""

import base64
import datetime as dt
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from noderestrict.pki.issue import Authority, Leaf
from noderestrict.render.workload import NAMESPACE
from tests.containers.cluster import Cluster, until
from tests.containers.product import Product
from tests.containers.requests import honest, hostile
from tests.containers.test_install import hostile_requests_are_refused
from tests.containers.traffic import Traffic

pytestmark = [pytest.mark.cluster, pytest.mark.full]

CONTROL_PLANE_LABEL = "node-role.kubernetes.io/control-plane"
CERTIFICATE, CA = "noderestrict-tls", "noderestrict-ca"


@pytest.fixture(params=["control-plane", "self-signed"])
def installed(request: pytest.FixtureRequest, product: Product) -> Product:
    """Each overlay that enforces, installed."""
    product.install(request.param)
    return product


@pytest.fixture
def spread(product: Product) -> Iterator[Product]:
    """The overlay with two replicas, on two nodes."""
    kubectl, second = product.cluster.kubectl, product.cluster.workers[1]
    kubectl("label", "node", second, f"{CONTROL_PLANE_LABEL}=")
    try:
        product.install("self-signed")
        placed = {pod["spec"]["nodeName"] for pod in product.pods()}
        assert placed == {product.cluster.control_plane, second}
        yield product
    finally:
        kubectl("label", "node", second, f"{CONTROL_PLANE_LABEL}-")


def watched(cluster: Cluster) -> Traffic:
    """Return honest and hostile requests of the first worker, to be sent meanwhile."""
    node, other = cluster.workers
    return Traffic(cluster, node, honest(cluster, node) + hostile(cluster, node, other)[:1])


def breached(traffic: Traffic) -> bool:
    """Tell whether a hostile request was allowed."""
    return any("200" in one.wrong or "201" in one.wrong
               for name, one in traffic.answers.items() if name.startswith("hostile"))  # fmt: skip


def kill(product: Product, pod: dict[str, Any], *, whole: bool) -> None:
    """Kill the process that serves, as a crash does, or its whole container.

    The kernel does the latter when memory is short, with cgroup v2.
    """
    container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    node = pod["spec"]["nodeName"]
    info = product.cluster.exec(node, "ctr", "-n", "k8s.io", "tasks", "ls")
    first = next(line.split()[1] for line in info.splitlines() if line.startswith(container))
    children = product.cluster.exec(node, "cat", f"/proc/{first}/task/{first}/children").split()
    product.cluster.exec(node, "kill", "-9", first if whole else (*children, first)[0])


@pytest.mark.parametrize("whole", [False, True], ids=["process", "container"])
def test_a_killed_server_loses_what_it_was_answering(installed: Product, *, whole: bool) -> None:
    pods = installed.pods()
    with watched(installed.cluster) as traffic:
        traffic.wait(5)
        # Each of them: one alone may get all requests.
        for pod in pods:
            kill(installed, pod, whole=whole)
            time.sleep(2)
            installed.ready()
            traffic.wait(5)
    assert not breached(traffic)
    gap = max(one.longest for one in traffic.answers.values())
    print(f"  {traffic.lost()} lost, back after {gap:.1f} s")
    if not whole:
        assert traffic.lost() <= len(pods)
    elif len(pods) > 1:
        # Connections are refused until kube-proxy has heard of it.
        assert traffic.lost() <= 3 * len(pods)
    else:
        # Nobody else serves until the kubelet has started it again.
        assert gap < 15


def test_a_rollout_loses_nothing(installed: Product) -> None:
    with watched(installed.cluster) as traffic:
        traffic.wait(3)
        installed.restart()
        traffic.wait(3)
    assert not breached(traffic)
    assert traffic.lost() == 0


def test_a_drain_loses_nothing(spread: Product) -> None:
    kubectl, node = spread.cluster.kubectl, spread.cluster.workers[1]
    with watched(spread.cluster) as traffic:
        try:
            kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force",
                    "--timeout=180s")  # fmt: skip
            spread.ready()
        finally:
            kubectl("uncordon", node)
    assert not breached(traffic)
    assert traffic.lost() == 0


def test_a_lost_node_costs_what_its_server_was_asked(spread: Product) -> None:
    cluster, node = spread.cluster, spread.cluster.workers[1]
    with watched(cluster) as traffic:
        traffic.wait(3)
        cluster.stop(node)
        traffic.wait(60)
    cluster.start(node)
    cluster.kubectl("wait", "--for=condition=Ready", f"node/{node}", "--timeout=180s")
    assert not breached(traffic)
    assert max(one.longest for one in traffic.answers.values()) < 45


def test_without_any_server_nodes_stay_ready_and_nothing_hostile_passes(installed: Product) -> None:
    cluster = installed.cluster
    node, other = cluster.workers
    with Traffic(cluster, node, hostile(cluster, node, other)) as traffic:
        run_servers(installed, False)
        cluster.kubectl("delete", "pods", "-n", NAMESPACE, "--all", "--force")
        until("no server runs", lambda: not installed.pods())
        # Longer than a lease lasts, and than a node may go unheard.
        traffic.wait(60)
        for one in cluster.kubectl.json("get", "nodes")["items"]:
            states = {each["type"]: each["status"] for each in one["status"]["conditions"]}
            assert states["Ready"] == "True", one["metadata"]["name"]
    assert not breached(traffic)
    assert traffic.lost()
    run_servers(installed, True)
    since = time.monotonic()
    installed.ready()
    hostile_requests_are_refused(cluster)
    print(f"  back within {time.monotonic() - since:.0f} s")


def run_servers(product: Product, wanted: bool) -> None:
    """Let our servers run, or none of them."""
    kubectl, workload = product.cluster.kubectl, product.workload()
    name = f"{workload['kind']}/{workload['metadata']['name']}"
    if workload["kind"] == "Deployment":
        kubectl("scale", name, "-n", NAMESPACE, f"--replicas={2 if wanted else 0}")
    else:
        selector = {"nodeSelector": {"nowhere": None if wanted else ""}}
        patch = {"spec": {"template": {"spec": selector}}}
        kubectl("patch", name, "-n", NAMESPACE, "-p", json.dumps(patch))


def running(pod: dict[str, Any]) -> bool:
    return bool(pod["status"].get("phase") == "Running")


def replace_certificate(product: Product, certificate: bytes, key: bytes) -> None:
    """Put another certificate where the servers have theirs from."""
    data = {"tls.crt": certificate, "tls.key": key}
    encoded = {name: base64.b64encode(value).decode() for name, value in data.items()}
    product.cluster.kubectl("patch", "secret", CERTIFICATE, "-n", NAMESPACE, "-p",
                            json.dumps({"data": encoded}))  # fmt: skip


def test_a_deleted_certificate_costs_nothing_and_is_made_again(installed: Product) -> None:
    with watched(installed.cluster) as traffic:
        installed.cluster.kubectl("delete", "secret", CERTIFICATE, "-n", NAMESPACE)
        traffic.wait(10)
        installed.install(installed.overlay or "")
        traffic.wait(10)
    assert not breached(traffic)
    assert traffic.lost() == 0


def expired(product: Product) -> Leaf:
    """Return a certificate that ours was two days ago."""
    secret = product.cluster.kubectl.json("get", "secret", CA, "-n", NAMESPACE)["data"]
    pair = [base64.b64decode(secret[name]) for name in ("tls.crt", "tls.key")]
    then = dt.datetime.now(dt.UTC) - dt.timedelta(days=3)
    names = [f"noderestrict.{NAMESPACE}.svc", "127.0.0.1"]
    return Authority(*pair).issue(names, lifetime=dt.timedelta(days=1), now=then)


def test_an_expired_certificate_is_repaired_within_seconds(installed: Product) -> None:
    cluster = installed.cluster
    pair = expired(installed)
    replace_certificate(installed, pair.certificate, pair.key)
    # What runs may keep the last good one; what starts has this one alone.
    cluster.kubectl("delete", "pods", "-n", NAMESPACE, "--all", "--force")
    with watched(cluster) as traffic:
        until("new servers run", lambda: all(map(running, installed.pods())))
        traffic.wait(20)
        assert not answered(installed)
        since = time.monotonic()
        installed.run(
            f"noderestrict certs renew --secret {NAMESPACE}/{CERTIFICATE}"
            f" --ca-secret {NAMESPACE}/{CA} --kubeconfig $KUBECONFIG"
        )
        renewed = time.monotonic()
        until("the API server gets answers", lambda: answered(installed), 150)
    print(f"  renewed in {renewed - since:.1f} s, served {time.monotonic() - renewed:.1f} s later")
    assert not breached(traffic)
    assert time.monotonic() - renewed < 5


def answered(product: Product) -> bool:
    """Tell whether the API server gets an answer of ours to a kubelet's hostile request."""
    node = product.cluster.workers[0]
    kubelet = product.cluster.kubelet(node)
    label = ("label", "node", node, "node-restriction.kubernetes.io/a=b", "--dry-run=server")
    return "denied the request" in kubelet.refusal(*label)
