"""A control plane with the webhook registered, once for all tests."""

import base64
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from noderestrict.render.registration import (
    cluster_role,
    cluster_role_binding,
    webhook_configuration,
)
from tests.e2e.control_plane import ISSUER, APIError, Client, ControlPlane
from tests.serving.tls import Server, serving

USER = "noderestrict"


@dataclass
class Cluster:
    """A cluster with two nodes, and the webhook."""

    control_plane: ControlPlane
    webhook: Server
    admin: Client
    n1: Client
    n2: Client

    def pod(self, name: str, node: str = "n1", **spec: object) -> dict[str, object]:
        """Create a pod that runs on a node, and return it."""
        return self.admin.create(
            "/api/v1/namespaces/default/pods",
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name},
                "spec": {
                    "nodeName": node,
                    "containers": [{"name": "c", "image": "pause"}],
                    "serviceAccountName": "web",
                    "automountServiceAccountToken": False,
                    **spec,
                },
            },
        )


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    running = ControlPlane(
        {"runtime-config": "certificates.k8s.io/v1beta1=true",
         "feature-gates": "PodCertificateRequest=true"},
    )  # fmt: skip
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def cluster(
    control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    admin = control_plane.admin
    folder = tmp_path_factory.mktemp("webhook")
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    admin.create(f"{rbac}/clusterroles", cluster_role())
    subject = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": USER}
    admin.create(f"{rbac}/clusterrolebindings", cluster_role_binding(subject))
    let_nodes_read_and_write(admin)
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(json.dumps(control_plane.user(USER).kubeconfig()))
    namespace_ready(admin)
    for name in ("n1", "n2"):
        admin.create(
            "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        )
    admin.create(
        "/api/v1/namespaces/default/serviceaccounts",
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "web"}},
    )
    with serving(
        folder,
        "--kubeconfig", str(kubeconfig),
        "--feature-gates", "PodCertificateRequest=true",
        "--api-audiences", ISSUER,
        ca=control_plane.ca,
        state=False,
    ) as webhook:  # fmt: skip
        register(admin, webhook.port, control_plane.ca.certificate)
        n1, n2 = control_plane.node("n1"), control_plane.node("n2")
        running = Cluster(control_plane, webhook, admin, n1, n2)
        wait_enforced(running)
        yield running


def register(admin: Client, port: int, ca: bytes, **options: object) -> None:
    """Register the webhook by URL."""
    client_config = {
        "url": f"https://127.0.0.1:{port}/validate",
        "caBundle": base64.b64encode(ca).decode(),
    }
    admin.create(
        "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
        webhook_configuration(client_config),
    )


def let_nodes_read_and_write(admin: Client) -> None:
    """Let nodes read and write all of the core group, but use no verbs beyond that."""
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    verbs = ["get", "list", "watch", "create", "update", "patch", "delete"]
    rules = [{"apiGroups": [""], "resources": ["*"], "verbs": verbs}]
    admin.create(
        f"{rbac}/clusterroles", {**cluster_role(), "metadata": {"name": "all"}, "rules": rules}
    )
    nodes = {"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:nodes"}
    binding = cluster_role_binding(nodes)
    binding["metadata"]["name"] = binding["roleRef"]["name"] = "all"
    admin.create(f"{rbac}/clusterrolebindings", binding)


def let_nodes_do_all(admin: Client) -> None:
    """Bind node users to cluster-admin, so that admission alone is in the way."""
    group = {"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:nodes"}
    binding = cluster_role_binding(group)
    binding["metadata"]["name"], binding["roleRef"]["name"] = "everything", "cluster-admin"
    admin.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)


def namespace_ready(admin: Client) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            admin.get("/api/v1/namespaces/default")
        except APIError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
        else:
            return


def wait_enforced(cluster: Cluster) -> None:
    """Wait until the API server asks the webhook, and the webhook is ready."""
    end = time.monotonic() + 60
    while True:
        try:
            cluster.n1.patch("/api/v1/nodes/n1", {"metadata": {"labels": {"k8s.io/x": "y"}}})
        except APIError as error:
            if "admission webhook" in str(error) and cluster.webhook.request("/readyz")[0] == 200:
                return
        assert time.monotonic() < end, "the webhook is not asked"
        time.sleep(0.1)


HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.e2e)
