"""An API server whose audiences are not its issuer, and servers with each kind of credential."""

import base64
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from noderestrict.render.registration import cluster_role, cluster_role_binding
from tests.e2e.conftest import (
    Cluster,
    let_nodes_read_and_write,
    namespace_ready,
    register,
    wait_enforced,
)
from tests.e2e.control_plane import ISSUER, Client, ControlPlane
from tests.e2e.test_admission import TOKEN, refused, token_request
from tests.serving.tls import Server, serving

AUDIENCES = ("https://api.example.com", "api")
NAMESPACE = "/api/v1/namespaces/noderestrict"
RBAC = "/apis/rbac.authorization.k8s.io/v1"


@pytest.fixture(scope="module")
def api() -> Iterator[ControlPlane]:
    control_plane = ControlPlane({"api-audiences": ",".join(AUDIENCES)})
    try:
        admin = control_plane.admin
        namespace_ready(admin)
        let_nodes_read_and_write(admin)
        for name in ("n1", "n2"):
            admin.create("/api/v1/nodes", named("Node", name))
        admin.create("/api/v1/namespaces", named("Namespace", "noderestrict"))
        admin.create("/api/v1/namespaces/default/serviceaccounts", named("ServiceAccount", "web"))
        admin.create(f"{NAMESPACE}/serviceaccounts", named("ServiceAccount", "noderestrict"))
        admin.create(f"{RBAC}/clusterroles", cluster_role())
        account = {"kind": "ServiceAccount", "name": "noderestrict", "namespace": "noderestrict"}
        admin.create(f"{RBAC}/clusterrolebindings", cluster_role_binding(account))
        yield control_plane
    finally:
        control_plane.stop()


def named(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **fields}


def secret_token(api: ControlPlane) -> str:
    """Return the token of a Secret, which the control plane fills."""
    kind = "kubernetes.io/service-account-token"
    secret = named("Secret", "noderestrict-token", type=kind)
    secret["metadata"]["annotations"] = {"kubernetes.io/service-account.name": "noderestrict"}
    api.admin.create(f"{NAMESPACE}/secrets", secret)
    api.start_controllers("serviceaccount-token-controller")
    end = time.monotonic() + 30
    while True:
        data = api.admin.get(f"{NAMESPACE}/secrets/noderestrict-token").get("data") or {}
        if "token" in data:
            return base64.b64decode(data["token"]).decode()
        assert time.monotonic() < end
        time.sleep(0.1)


def minted(api: ControlPlane, *audiences: str, of: dict[str, Any] | None = None) -> str:
    spec: dict[str, Any] = {"audiences": list(audiences)}
    if of is not None:
        meta = of["metadata"]
        spec["boundObjectRef"] = {
            "apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"],
        }  # fmt: skip
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    path = f"{NAMESPACE}/serviceaccounts/noderestrict/token"
    return str(api.admin.create(path, request)["status"]["token"])


def our_pod(api: ControlPlane, name: str, *audiences: str) -> dict[str, Any]:
    sources = [
        {"serviceAccountToken": {"path": f"t{number}", **({"audience": one} if one else {})}}
        for number, one in enumerate(audiences)
    ]
    spec = {
        "nodeName": "n1",
        "serviceAccountName": "noderestrict",
        "automountServiceAccountToken": False,
        "containers": [{"name": "c", "image": "pause"}],
        "volumes": [{"name": "token", "projected": {"sources": sources}}],
    }
    return api.admin.create(f"{NAMESPACE}/pods", named("Pod", name, spec=spec))


@contextlib.contextmanager
def server(
    api: ControlPlane, folder: Path, token: str | None, *flags: str, account: Client | None = None
) -> Iterator[Server]:
    """Run a server that authenticates with a token, or else with the certificate of an account."""
    config = (account or api.admin).kubeconfig()
    if token is not None:
        config["users"][0]["user"] = {"token": token}
    folder.mkdir(exist_ok=True)
    (folder / "kubeconfig").write_text(json.dumps(config))
    given = ("--kubeconfig", str(folder / "kubeconfig"), *flags)
    with serving(folder, *given, ca=api.ca, state=False) as running:
        yield running


def ready(running: Server, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while running.request("/readyz")[0] != 200:
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def test_the_token_of_a_secret_tells_them(api: ControlPlane, tmp_path: Path) -> None:
    with server(api, tmp_path, secret_token(api)) as webhook:
        assert ready(webhook), webhook.log
        register(api.admin, webhook.port, api.ca.certificate)
        cluster = Cluster(api, webhook, api.admin, api.node("n1"), api.node("n2"))
        wait_enforced(cluster)
        default = {"name": "d", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}
        pod = cluster.pod("tokens", volumes=[default])
        assert cluster.n1.create(TOKEN, token_request(pod))["status"]["token"]
        for audience in (ISSUER, *AUDIENCES):
            refused(cluster, "POST", TOKEN, token_request(pod, audience), code=403)
        api.admin.delete(
            "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/noderestrict"
        )


def test_the_default_token_of_a_pod_tells_them(api: ControlPlane, tmp_path: Path) -> None:
    pod = our_pod(api, "default", "", "vault")
    with server(api, tmp_path, minted(api, of=pod)) as webhook:
        assert ready(webhook), webhook.log


@pytest.mark.parametrize("how", ["by hand", "for one", "for one of a pod", "certificate"])
def test_what_cannot_tell_them_is_not_ready_without_the_flag(
    api: ControlPlane, tmp_path: Path, how: str
) -> None:
    tokens = {
        "by hand": lambda: minted(api),
        "for one": lambda: minted(api, AUDIENCES[1]),
        "for one of a pod": lambda: minted(api, "api", of=our_pod(api, "asks", "api")),
    }
    account = api.user("system:serviceaccount:noderestrict:noderestrict")
    token = tokens[how]() if how in tokens else None
    with server(api, tmp_path, token, account=account) as webhook:
        webhook.wait_for_log("API audiences cannot be learned")
        status, text, _ = webhook.request("/readyz?verbose")
        assert status == 503
        assert b"--api-audiences" in text
    flag = f"--api-audiences={','.join(AUDIENCES)}"
    with server(api, tmp_path, token, flag, account=account) as webhook:
        assert ready(webhook), webhook.log
