"""Credentials of each kind expire for a real API server, and are renewed: no answer is lost."""

import datetime as dt
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from noderestrict.cluster.exec_plugin import VERSIONS
from noderestrict.pki.issue import Leaf
from noderestrict.render.registration import cluster_role, cluster_role_binding
from tests.e2e.conftest import USER, namespace_ready
from tests.e2e.control_plane import ISSUER, ControlPlane
from tests.e2e.issuer import CLIENT, Issuer, issuing
from tests.e2e.test_partition import deletion
from tests.serving.tls import Server, authority, client_leaf, leaf, serving

pytestmark = pytest.mark.long

Object = dict[str, Any]
#: A credential lives this long, and is renewed about halfway.
LIFE = 40.0
STEP = 5.0
NOT_FOUND = 404


class World:
    """A control plane that knows the users of an issuer."""

    def __init__(self, control_plane: ControlPlane, issuer: Issuer) -> None:
        self.control_plane = control_plane
        self.issuer = issuer

    def certificate(self) -> Leaf:
        end = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=LIFE)
        return client_leaf(self.control_plane.ca, USER, not_after=end)

    def kubeconfig(self, user: Object) -> Object:
        value = self.control_plane.admin.kubeconfig()
        value["users"][0]["user"] = user
        return value


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("issuer")
    ca = authority()
    (folder / "ca.crt").write_bytes(ca.certificate)
    with issuing(USER, leaf(ca), folder, LIFE) as issuer:
        control_plane = ControlPlane(
            {
                "oidc-issuer-url": issuer.url,
                "oidc-client-id": CLIENT,
                "oidc-ca-file": str(folder / "ca.crt"),
                "oidc-username-claim": "sub",
                "oidc-username-prefix": "-",
            }
        )
        try:
            admin = control_plane.admin
            namespace_ready(admin)
            rbac = "/apis/rbac.authorization.k8s.io/v1"
            subject = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": USER}
            admin.create(f"{rbac}/clusterroles", cluster_role())
            admin.create(f"{rbac}/clusterrolebindings", cluster_role_binding(subject))
            node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}
            admin.create("/api/v1/nodes", node)
            yield World(control_plane, issuer)
        finally:
            control_plane.stop()


class Kind:
    """One kind of credential, in a folder of its own."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.folder = folder
        folder.mkdir()

    def user(self) -> Object:
        """Return the user of the kubeconfig."""
        raise NotImplementedError

    def renew(self) -> None:
        """Have a new credential ready."""

    def spoil(self) -> None:
        """Make the next renewal fail."""
        raise NotImplementedError


class TokenFile(Kind):
    """Somebody else writes a token to a file."""

    def user(self) -> Object:
        self.renew()
        return {"tokenFile": "token"}

    def renew(self) -> None:
        (self.folder / "new").write_text(f"{self.world.issuer.token(LIFE)}\n")
        (self.folder / "new").rename(self.folder / "token")

    def spoil(self) -> None:
        (self.folder / "token").unlink()


class CertificateFiles(Kind):
    """Somebody else writes a client certificate and its key to files."""

    def user(self) -> Object:
        self.renew()
        return {"client-certificate": "client.crt", "client-key": "client.key"}

    def renew(self) -> None:
        pair = self.world.certificate()
        (self.folder / "client.crt").write_bytes(pair.certificate)
        (self.folder / "client.key").write_bytes(pair.key)

    def spoil(self) -> None:
        (self.folder / "client.crt").write_bytes(self.world.certificate().certificate)


class Exec(Kind):
    """A plugin prints a token."""

    def user(self) -> Object:
        script = self.folder / "plugin"
        script.write_text(
            '#!/bin/sh\ncd "$(dirname "$0")"\n'
            "if rm spoiled 2>/dev/null; then echo 'no route to host' >&2; exit 1; fi\ncat answer\n"
        )
        script.chmod(0o755)
        self.renew()
        command = {"command": "./plugin", "apiVersion": VERSIONS[0], "interactiveMode": "Never"}
        return {"exec": command}

    def status(self) -> Object:
        return {"token": self.world.issuer.token(LIFE)}

    def renew(self) -> None:
        end = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=LIFE)
        status = {**self.status(), "expirationTimestamp": end.isoformat()}
        answer = {"apiVersion": VERSIONS[0], "kind": "ExecCredential", "status": status}
        (self.folder / "new").write_text(json.dumps(answer))
        (self.folder / "new").rename(self.folder / "answer")

    def spoil(self) -> None:
        (self.folder / "spoiled").touch()


class ExecCertificate(Exec):
    """A plugin prints a client certificate."""

    def status(self) -> Object:
        pair = self.world.certificate()
        return {
            "clientCertificateData": pair.certificate.decode(),
            "clientKeyData": pair.key.decode(),
        }


class AuthProvider(Kind):
    """A refresh token is exchanged for an ID token."""

    def user(self) -> Object:
        config = {
            "idp-issuer-url": self.world.issuer.url,
            "client-id": CLIENT,
            "refresh-token": "r",
            "id-token": self.world.issuer.token(LIFE),
            "idp-certificate-authority": str(self.folder.parent / "issuer-ca.crt"),
        }
        return {"auth-provider": {"name": "oidc", "config": config}}

    def spoil(self) -> None:
        # Once with the client in a header, and once in the form.
        self.world.issuer.failures += 2


KINDS = (TokenFile, CertificateFiles, Exec, ExecCertificate, AuthProvider)


class Watched:
    """A server that is asked all the time, and what it answers."""

    def __init__(self, kind: Kind, server: Server) -> None:
        self.kind = kind
        self.server = server
        self.answers: list[tuple[float, bool, int]] = []
        self.ready: list[int] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> "Watched":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        number = 0
        while not self._stop.wait(0.2):
            number += 1
            # Nobody has this pod: a lookup confirms it each time.
            body = self.server.request("/validate?timeout=10s", deletion(f"none-{number}"))[1]
            response = json.loads(body)["response"]
            code = response.get("status", {}).get("code", 0)
            self.answers.append((time.monotonic(), response["allowed"], code))
            self.ready.append(self.server.request("/readyz")[0])

    def metric(self, name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.server.metrics(), re.MULTILINE)
        assert found, name
        return float(found[1])

    def renewals(self, result: str) -> float:
        return self.metric(f'noderestrict_credential_renewals_total{{result="{result}"}}')

    def has(self, *, renewed: float = 0, failed: float = 0, ready: bool = False) -> bool:
        """Return whether there were so many renewals, and whether the server is ready."""
        if ready and self.server.request("/readyz")[0] != 200:
            return False
        return self.renewals("renewed") >= renewed and self.renewals("failed") >= failed

    @property
    def problem(self) -> float:
        return self.metric("noderestrict_credential_problem")

    @property
    def expiry(self) -> float:
        return self.metric("noderestrict_credential_expiry_timestamp_seconds")

    def credential_line(self) -> str:
        text = self.server.request("/readyz?verbose")[1].decode()
        return next(line for line in text.splitlines() if "] credential" in line)


def until(condition: Callable[[], object], what: str, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def started(world: World, kind: Kind) -> tuple[str, ...]:
    file = kind.folder / "kubeconfig"
    file.write_text(json.dumps(world.kubeconfig(kind.user())))
    return ("--kubeconfig", str(file), "--api-audiences", ISSUER)


@contextmanager
def renewing(kinds: list[Kind], spoiled: threading.Event) -> Iterator[None]:
    """Renew the credentials of all servers that run, or spoil them once instead."""
    stop = threading.Event()

    def renew() -> None:
        done = False
        while not stop.wait(STEP):
            for one in () if done and spoiled.is_set() else tuple(kinds):
                (one.spoil if spoiled.is_set() else one.renew)()
            done = spoiled.is_set()

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def spoiled() -> threading.Event:
    """Say whether the credentials are spoiled."""
    return threading.Event()


@pytest.fixture
def watched(world: World, tmp_path: Path, spoiled: threading.Event) -> Iterator[list[Watched]]:
    """Run a server with each kind of credential."""
    ca = world.control_plane.ca
    issuer_ca = Path(world.control_plane._flags["oidc-ca-file"])
    (tmp_path / "issuer-ca.crt").write_bytes(issuer_ca.read_bytes())
    with ExitStack() as stack:
        found: list[Watched] = []
        kinds: list[Kind] = []
        stack.enter_context(renewing(kinds, spoiled))
        for number, make in enumerate(KINDS):
            kind = make(world, tmp_path / f"kind-{number}")
            flags = started(world, kind)
            kinds.append(kind)
            server = stack.enter_context(serving(kind.folder, *flags, ca=ca, state=False))
            one = Watched(kind, server)
            until(partial(one.has, ready=True), make.__name__)
            found.append(one)
        for one in found:
            stack.enter_context(one)
        yield found


def test_no_answer_is_lost_while_credentials_are_renewed_three_times(
    watched: list[Watched], spoiled: threading.Event
) -> None:
    for one in watched:
        until(partial(one.has, renewed=1), f"{one.kind}: 1st renewal")
    before = [one.renewals("failed") for one in watched]
    counts = [one.renewals("renewed") for one in watched]
    spoiled.set()
    told = []
    # Files stay as they are until somebody writes them again, which must be soon.
    for one, failed in zip(watched, before, strict=True):
        if isinstance(one.kind, TokenFile | CertificateFiles):
            until(partial(one.has, failed=failed + 1), f"{one.kind}: failure")
            told.append((one.kind, one.credential_line(), one.problem))
    spoiled.clear()
    for one, failed in zip(watched, before, strict=True):
        until(partial(one.has, failed=failed + 1), f"{one.kind}: failure")
    for one, count in zip(watched, counts, strict=True):
        until(partial(one.has, renewed=count + 2), f"{one.kind}: next renewals")
    for kind, said, problem in told:
        # It still works, but not for long.
        assert said.startswith("[+] credential: expires at "), kind
        assert "the last renewal failed, see the log" in said, kind
        assert problem == 1, kind
    for one in watched:
        name = type(one.kind).__name__
        assert one.problem == 0, name
        assert time.time() < one.expiry < time.time() + LIFE + 1, name
        assert len(one.answers) > 50, name
        lost = [answer for answer in one.answers if answer[1:] != (False, NOT_FOUND)]
        assert not lost, (name, lost, one.server.log)
        assert set(one.ready) == {200}, name
        logged = one.server.wait_for_log("the credential cannot be renewed")
        assert "users[u].user" in logged[0], name


def test_a_server_whose_credential_expired_is_not_ready_until_there_is_another(
    world: World, tmp_path: Path
) -> None:
    kind = TokenFile(world, tmp_path / "kind")
    flags = started(world, kind)
    # Starting may take longer than a token lives.
    with renewing([kind], threading.Event()), ExitStack() as stack:
        server = stack.enter_context(
            serving(kind.folder, *flags, ca=world.control_plane.ca, state=False)
        )
        until(lambda: server.request("/readyz")[0] == 200, "ready")
        running = stack.pop_all()
    with running:
        one = Watched(kind, server)
        until(lambda: server.request("/readyz")[0] == 503, "not ready", LIFE + 60)
        assert time.time() > one.expiry
        line = one.credential_line()
        assert line.startswith("[-] credential: ")
        assert "expired at" in line
        assert one.problem == 1
        response = json.loads(server.request("/validate?timeout=1s", deletion("x"))[1])["response"]
        assert (response["allowed"], response["status"]["code"]) == (False, 500)
        # The API server says so as well.
        until(lambda: "the API server refuses it" in one.credential_line(), "refused")
        kind.renew()
        until(lambda: server.request("/readyz")[0] == 200, "ready again")
        assert one.problem == 0
        response = json.loads(server.request("/validate?timeout=9s", deletion("x"))[1])["response"]
        assert response["status"]["code"] == NOT_FOUND
