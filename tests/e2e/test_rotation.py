"""Certificates and CAs are replaced under load: no call of the API server fails."""

import base64
import contextlib
import datetime as dt
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict.cli import main
from noderestrict.pki.bundle import certificates
from noderestrict.pki.check import KeyPairError, check_chain
from noderestrict.pki.issue import Authority
from noderestrict.render.registration import webhook_configuration
from noderestrict.render.workload import CA_SECRET, NAMESPACE, TLS_SECRET
from tests.e2e.conftest import USER, Cluster
from tests.e2e.control_plane import APIError
from tests.e2e.test_tls_secret import RBAC, SECRETS, apply, served, until_served
from tests.render.overlays import FILES
from tests.serving.tls import DAY, NOW, Server, leaf, serving, write_pair

pytestmark = pytest.mark.long

WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
NAME = "rotating"
PLACES = ("--secret", f"{NAMESPACE}/{TLS_SECRET}", "--ca-secret", f"{NAMESPACE}/{CA_SECRET}")
NAMES = ("--dns-names", "127.0.0.1,localhost")
#: As long as an API server takes to notice a changed registration.
NOTICED_SECONDS = 2.0


@dataclass
class Load:
    """Calls through the webhook and new handshakes, again and again.

    Attributes:
        calls: how many succeeded.
        handshakes: how many were verified.
        failures: what went wrong.
    """

    cluster: Cluster
    server: Server
    calls: int = 0
    handshakes: int = 0
    failures: list[str] = field(default_factory=list)
    _bundles: list[tuple[float, bytes]] = field(default_factory=list)
    _end: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._call), threading.Thread(target=self._verify)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._end.set()
            for thread in threads:
                thread.join(60)

    def _call(self) -> None:
        node = self.cluster.control_plane.node("n1")
        while not self._end.is_set():
            patch = {"status": {"capacity": {"example.com/load": str(self.calls)}}}
            try:
                node.request("PATCH", "/api/v1/nodes/n1/status", patch,
                             "application/merge-patch+json")  # fmt: skip
            except APIError as error:
                self.failures.append(f"call: {error}")
            self.calls += 1
        node.close()

    def _verify(self) -> None:
        """Handshake as API servers do that see the registration late, and those that do not."""
        while not self._end.is_set():
            with contextlib.suppress(APIError):
                value = self.cluster.admin.get(f"{WEBHOOKS}/{NAME}")
                bundle = base64.b64decode(value["webhooks"][0]["clientConfig"]["caBundle"])
                self._bundles.append((time.monotonic(), bundle))
            chain = served(self.server)
            late = [one for at, one in self._bundles if at < time.monotonic() - NOTICED_SECONDS]
            for trusted in {*late[-1:], self._bundles[-1][1]}:
                try:
                    now = dt.datetime.now(dt.UTC)
                    check_chain([chain], now=now, dns_names=["localhost"], roots=trusted)
                except KeyPairError as error:
                    self.failures.append(f"handshake: {error}")
                self.handshakes += 1
            self._end.wait(0.02)


@pytest.fixture
def rotating(cluster: Cluster, tmp_path: Path) -> Iterator[tuple[Load, Callable[..., str]]]:
    admin = cluster.admin
    with contextlib.suppress(APIError):
        admin.create(
            "/api/v1/namespaces",
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        )
    role, binding = yaml.safe_load_all(FILES["base/certificate-rbac.yaml"])
    binding["subjects"] = [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": USER}]
    admin.create(f"{RBAC}/roles", role)
    admin.create(f"{RBAC}/rolebindings", binding)
    operator = tmp_path / "operator"
    operator.write_text(json.dumps(admin.kubeconfig()))
    user = tmp_path / "user"
    user.write_text(json.dumps(cluster.control_plane.user(USER).kubeconfig()))

    def certs(*flags: str) -> str:
        assert main(["certs", *flags, *PLACES, *NAMES, "--kubeconfig", str(operator)]) == 0
        value: str = admin.get(f"{SECRETS}/{TLS_SECRET}")["data"]["tls.crt"]
        return value

    certs("bootstrap")
    ca = base64.b64decode(admin.get(f"{SECRETS}/{TLS_SECRET}")["data"]["ca.crt"])
    (tmp_path / "tls").mkdir()
    write_pair(tmp_path / "tls", leaf(cluster.control_plane.ca, now=NOW - DAY / 4))
    flags = ("--kubeconfig", str(user), "--tls-secret", f"{NAMESPACE}/{TLS_SECRET}")
    with serving(tmp_path / "tls", *flags, state=False) as server:
        client = {
            "url": f"https://localhost:{server.port}/validate",
            "caBundle": base64.b64encode(ca).decode(),
        }
        value = webhook_configuration(client)
        value["metadata"]["name"] = NAME
        admin.create(WEBHOOKS, value)
        try:
            yield Load(cluster, server), certs
        finally:
            for path in (
                f"{WEBHOOKS}/{NAME}",
                f"{RBAC}/roles/{role['metadata']['name']}",
                f"{RBAC}/rolebindings/{binding['metadata']['name']}",
                f"{SECRETS}/{TLS_SECRET}",
                f"{SECRETS}/{CA_SECRET}",
            ):
                admin.delete(path)


def test_no_call_fails_while_certificates_and_cas_are_replaced(
    rotating: tuple[Load, Callable[..., str]],
) -> None:
    load, certs = rotating
    admin = load.cluster.admin

    def bundle() -> list[Any]:
        value = admin.get(f"{WEBHOOKS}/{NAME}")
        (found,) = {one["clientConfig"]["caBundle"] for one in value["webhooks"]}
        return certificates(base64.b64decode(found))

    with load.running():
        for _ in range(3):
            certs("renew", "--force")
        first = bundle()
        for _ in range(2):
            before = bundle()
            certs("rotate", "--webhook-configuration", NAME,
                  "--served-at", f"localhost:{load.server.port}")  # fmt: skip
            assert len(bundle()) == 1
            assert bundle() != before
        assert bundle() != first
        kept = admin.get(f"{SECRETS}/{CA_SECRET}")["data"]
        ca = Authority(*(base64.b64decode(kept[name]) for name in ("tls.crt", "tls.key")))
        for _ in range(10):
            pair = leaf(ca)
            apply(admin, pair, ca.certificate)
            until_served(load.server, pair)
    print(f"{load.calls} calls and {load.handshakes} handshakes while certificates were replaced")
    assert load.failures == []
    assert load.calls > 10
    assert load.handshakes > 10
