"""The walk-through of Node authorization, with our webhooks alone: no mode Node."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict.render.authorizer import authorization_configuration, webhook_kubeconfig
from noderestrict.render.registration import cluster_role, cluster_role_binding
from tests.e2e.conftest import namespace_ready
from tests.e2e.control_plane import ISSUER, APIError, Client, ControlPlane, free_port
from tests.e2e.test_registration import LEASES, lease
from tests.serving.tls import serving

SECRETS = "/api/v1/namespaces/default/secrets"
PODS = "/api/v1/namespaces/default/pods"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    folder = tmp_path_factory.mktemp("authorizer")
    port = free_port()
    config, webhook = folder / "authorization.yaml", folder / "webhook.yaml"
    config.write_text(yaml.safe_dump(authorization_configuration(str(webhook))))
    ca = folder / "ca.crt"
    webhook.write_text(
        yaml.safe_dump(webhook_kubeconfig(f"https://127.0.0.1:{port}/authorize", str(ca)))
    )
    control_plane = ControlPlane(
        {"authorization-mode": "", "authorization-config": str(config)}, ca_file=ca
    )
    try:
        admin = control_plane.admin
        rbac = "/apis/rbac.authorization.k8s.io/v1"
        admin.create(f"{rbac}/clusterroles", cluster_role())
        user = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "noderestrict"}
        admin.create(f"{rbac}/clusterrolebindings", cluster_role_binding(user))
        namespace_ready(admin)
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(json.dumps(control_plane.user("noderestrict").kubeconfig()))
        flags = (
            *("--kubeconfig", str(kubeconfig), "--api-audiences", ISSUER),
            *("--authorizer", "--port", str(port)),
        )
        with serving(folder, *flags, ca=control_plane.ca, state=False) as server:
            end = time.monotonic() + 30
            while server.request("/readyz")[0] != 200:
                assert time.monotonic() < end, server.request("/readyz?verbose")
                time.sleep(0.1)
            yield control_plane
    finally:
        control_plane.stop()


def secret(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "stringData": {"password": "x"},
    }


def app(node: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "myapp"},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "c", "image": "pause"}],
            "volumes": [{"name": "s", "secret": {"secretName": "mysecret"}}],
        },
    }


def forbidden(client: Client, path: str) -> str:
    with pytest.raises(APIError) as error:
        client.get(path)
    assert error.value.code == 403
    return str(error.value)


def eventually(seconds: float, check: Any) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            check()
        except (APIError, AssertionError, pytest.fail.Exception):
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


def test_a_node_reads_what_its_pods_name_and_nothing_else(cluster: ControlPlane) -> None:
    admin, worker1, worker2 = cluster.admin, cluster.node("worker-1"), cluster.node("worker-2")
    for name in ("mysecret", "othersecret"):
        admin.create(SECRETS, secret(name))
    admin.create(PODS, app("worker-1"))
    worker1.get(f"{SECRETS}/mysecret")
    assert "nothing on node worker-1 refers to" in forbidden(worker1, f"{SECRETS}/othersecret")
    forbidden(worker2, f"{SECRETS}/mysecret")
    forbidden(worker2, f"{SECRETS}/othersecret")
    forbidden(worker1, SECRETS)


def deployment(node: str) -> dict[str, Any]:
    spec = {**app(node)["spec"], "automountServiceAccountToken": False}
    labels = {"app": "myapp"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "myapp"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def test_the_walk_through_with_a_deployment_and_kubectl(
    cluster: ControlPlane, tmp_path: Path
) -> None:
    cluster.needs("kubectl", "kube-controller-manager")
    cluster.start_controllers("deployment-controller,replicaset-controller")

    def kubectl(user: Client, *arguments: str, stdin: object = None) -> tuple[int, str]:
        config = tmp_path / "kubeconfig"
        config.write_text(json.dumps(user.kubeconfig()))
        return cluster.kubectl(config, *arguments, stdin=json.dumps(stdin) if stdin else "")

    admin, worker1, worker2 = cluster.admin, cluster.node("worker-1"), cluster.node("worker-2")
    for name in ("walked", "othersecret"):
        kubectl(admin, "create", "secret", "generic", name, "--from-literal=password=x")
    wanted = deployment("worker-1")
    wanted["spec"]["template"]["spec"]["volumes"] = [
        {"name": "s", "secret": {"secretName": "walked"}}
    ]
    code, output = kubectl(admin, "apply", "-f", "-", stdin=wanted)
    assert code == 0, output

    def pod_is_there() -> None:
        pods = admin.get(f"{PODS}?labelSelector=app%3Dmyapp")["items"]
        assert pods
        assert pods[0]["spec"]["nodeName"] == "worker-1"

    eventually(30, pod_is_there)
    code, output = kubectl(worker1, "get", "secret", "walked", "-o", "name")
    assert (code, output.strip()) == (0, "secret/walked")
    code, output = kubectl(worker1, "get", "secret", "othersecret")
    assert code != 0
    assert "Forbidden" in output
    assert "nothing on node worker-1 refers to" in output
    for name in ("walked", "othersecret"):
        code, output = kubectl(worker2, "get", "secret", name)
        assert code != 0
        assert "Forbidden" in output
    assert kubectl(admin, "delete", "deployment", "myapp", "--wait=false")[0] == 0


def test_access_follows_pods_as_they_come_and_go(cluster: ControlPlane) -> None:
    admin, worker1, worker2 = cluster.admin, cluster.node("worker-1"), cluster.node("worker-2")
    path = f"{SECRETS}/mysecret"
    admin.delete(f"{PODS}/myapp")
    # The API server remembers an answer for a second.
    eventually(5, lambda: forbidden(worker1, path))
    admin.create(PODS, app("worker-2"))
    eventually(5, lambda: worker2.get(path))
    forbidden(worker1, path)


def test_a_kubelet_may_do_what_every_node_may(cluster: ControlPlane) -> None:
    worker1 = cluster.node("worker-1")
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker-1"}}
    worker1.create("/api/v1/nodes", node)
    worker1.get("/api/v1/nodes/worker-1")
    worker1.get("/api/v1/services")
    worker1.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dworker-1")
    forbidden(worker1, "/api/v1/pods")
    forbidden(worker1, "/api/v1/pods?fieldSelector=spec.nodeName%3Dworker-2")
    forbidden(worker1, "/api/v1/nodes/worker-2")


def asked(cluster: ControlPlane) -> float:
    """Return how often the API server has asked what follows from a request alone."""
    _, text = cluster.admin.send("GET", "/metrics")
    return sum(
        float(line.rpartition(" ")[2])
        for line in text.decode().splitlines()
        if line.startswith("apiserver_authorization_webhook_evaluations_total{")
        and 'name="noderestrict-by-request"' in line
    )


def test_a_node_that_renews_its_lease_is_asked_about_once(cluster: ControlPlane) -> None:
    worker1, namespace = cluster.node("worker-1"), {"metadata": {"name": "kube-node-lease"}}
    with contextlib.suppress(APIError):
        cluster.admin.create("/api/v1/namespaces", namespace)
    worker1.create(LEASES, lease("worker-1"))
    before = asked(cluster)
    for seconds in (40, 41):
        worker1.patch(f"{LEASES}/worker-1", {"spec": {"leaseDurationSeconds": seconds}})
        # Longer than what depends on the cluster is cached for.
        time.sleep(1.2)
    assert asked(cluster) == before + 1
    worker1.get(f"{LEASES}/worker-1")
    assert asked(cluster) == before + 2
