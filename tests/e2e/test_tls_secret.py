"""Replicas that watch the Secret of their certificate, with the rights of the manifests."""

import base64
import contextlib
import json
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict.pki.issue import Leaf
from noderestrict.render.workload import NAMESPACE, TLS_SECRET
from tests.e2e.conftest import USER, Cluster
from tests.e2e.control_plane import APIError, Client
from tests.render.overlays import FILES
from tests.serving.tls import DAY, NOW, SECONDS, Server, leaf, serving

SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
RBAC = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}"


def secret(pair: Leaf, ca: bytes) -> dict[str, Any]:
    data = {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": ca}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": TLS_SECRET},
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


def apply(admin: Client, pair: Leaf, ca: bytes) -> None:
    """Write the Secret as cert-manager does: by server-side apply."""
    path = f"{SECRETS}/{TLS_SECRET}?fieldManager=cert-manager&force=true"
    admin.request("PATCH", path, secret(pair, ca), "application/apply-patch+yaml")


def served(server: Server) -> bytes:
    pem = ssl.get_server_certificate(("127.0.0.1", server.port))
    return ssl.PEM_cert_to_DER_cert(pem)


def until_served(server: Server, pair: Leaf) -> None:
    wanted = ssl.PEM_cert_to_DER_cert(pair.certificate.decode())
    end = time.monotonic() + SECONDS
    while served(server) != wanted:
        assert time.monotonic() < end
        time.sleep(0.01)


@dataclass
class Watching:
    cluster: Cluster
    replicas: list[Server]
    kubeconfig: Path

    def write(self, pair: Leaf) -> None:
        apply(self.cluster.admin, pair, self.cluster.control_plane.ca.certificate)

    def leaf(self) -> Leaf:
        return leaf(self.cluster.control_plane.ca)


@pytest.fixture(scope="module")
def watching(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watching]:
    admin, ca = cluster.admin, cluster.control_plane.ca
    with contextlib.suppress(APIError):
        admin.create(
            "/api/v1/namespaces",
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        )
    role, binding = yaml.safe_load_all(FILES["base/certificate-rbac.yaml"])
    binding["subjects"] = [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": USER}]
    admin.create(f"{RBAC}/roles", role)
    admin.create(f"{RBAC}/rolebindings", binding)
    apply(admin, leaf(ca), ca.certificate)
    admin.create(SECRETS, {**secret(leaf(ca), b""), "metadata": {"name": "another"}})
    folder = tmp_path_factory.mktemp("watching")
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(json.dumps(cluster.control_plane.user(USER).kubeconfig()))
    with contextlib.ExitStack() as stack:
        replicas = []
        for number in range(2):
            own = folder / str(number)
            own.mkdir()
            old = leaf(ca, now=NOW - DAY / 4)
            (own / "tls.crt").write_bytes(old.certificate)
            (own / "tls.key").write_bytes(old.key)
            replicas.append(
                stack.enter_context(
                    serving(
                        own, "--kubeconfig", str(kubeconfig),
                        "--tls-secret", f"{NAMESPACE}/{TLS_SECRET}", "--tls-poll", "3600",
                        ca=ca, state=False,
                    )
                )
            )  # fmt: skip
        yield Watching(cluster, replicas, kubeconfig)
        # Let go of what other tests of the session expect not to exist.
        admin.delete(f"{RBAC}/roles/{role['metadata']['name']}")
        admin.delete(f"{RBAC}/rolebindings/{binding['metadata']['name']}")


def test_every_replica_serves_a_new_pair_at_once(watching: Watching) -> None:
    slowest = 0.0
    for _ in range(5):
        pair = watching.leaf()
        began = time.monotonic()
        watching.write(pair)
        for server in watching.replicas:
            until_served(server, pair)
        slowest = max(slowest, time.monotonic() - began)
    print(f"a new pair is served by two replicas after {slowest * 1000:.0f} ms at most")
    for server in watching.replicas:
        assert 'noderestrict_certificate_source{source="secret"} 1.0' in server.metrics()
        assert f"from Secret {NAMESPACE}/{TLS_SECRET}" in (
            server.request("/readyz?verbose")[1].decode()
        )


def test_a_bad_pair_and_a_deleted_secret_keep_the_last_good_one(watching: Watching) -> None:
    good = watching.leaf()
    watching.write(good)
    for server in watching.replicas:
        until_served(server, good)
    watching.write(Leaf(watching.leaf().certificate, watching.leaf().key))
    for server in watching.replicas:
        server.wait_for_log("the key does not belong to the first certificate")
        until_served(server, good)
    watching.cluster.admin.delete(f"{SECRETS}/{TLS_SECRET}")
    for server in watching.replicas:
        server.wait_for_log("it does not exist")
        until_served(server, good)
    again = watching.leaf()
    watching.write(again)
    for server in watching.replicas:
        until_served(server, again)
        assert "noderestrict_certificate_problem 0.0" in server.metrics()


def test_no_other_secret_can_be_read_with_these_rights(watching: Watching) -> None:
    user = watching.cluster.control_plane.user(USER)
    name = f"fieldSelector=metadata.name%3D{TLS_SECRET}"
    assert user.get(f"{SECRETS}/{TLS_SECRET}")["kind"] == "Secret"
    assert len(user.get(f"{SECRETS}?{name}")["items"]) == 1
    for path in (
        SECRETS,
        f"{SECRETS}/another",
        f"{SECRETS}?fieldSelector=metadata.name%3Danother",
        "/api/v1/secrets",
        f"/api/v1/secrets?{name}",
    ):
        with pytest.raises(APIError) as error:
            user.get(path)
        assert error.value.code == 403
