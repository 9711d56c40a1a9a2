"""The credential is renewed in time, again after a failure, and whenever it is refused."""

import asyncio
import base64
import datetime as dt
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from noderestrict.cluster.connection import ClusterError, Connection, ConnectionFailedError
from noderestrict.cluster.credentials import Credential, Credentials
from noderestrict.cluster.locate import find_access
from tests.cluster.moments import Moments
from tests.cluster.scripted import connected
from tests.cluster.test_kubeconfig import CASES, V1, config, no_other_configuration

Object = dict[str, Any]
__all__ = ["no_other_configuration"]


def jwt(expires: float | None, **claims: Any) -> str:
    """Return a token that looks like one of an issuer's."""
    if expires is not None:
        claims["exp"] = expires
    parts = ({"alg": "none"}, claims)
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts]
    return ".".join([*(part.rstrip("=") for part in encoded), "~"])


class Renewed:
    """A credential that is renewed as a kubeconfig says, while its time passes by hand."""

    def __init__(self, folder: Path, user: Object) -> None:
        file = folder / "kubeconfig"
        file.write_text(yaml.safe_dump(config(user, server="http://h")))
        self.time = Moments()
        self.credentials = Credentials(
            access=find_access(str(file), None), clock=self.time.clock, sleep=self.time.sleep
        )
        self.counts: list[str] = []
        self.credentials.counted = self.counts.append

    @property
    def sent(self) -> str:
        return self.credentials.current.authorization

    async def read(self) -> None:
        assert self.credentials._access is not None
        self.credentials.current = await self.credentials._read(self.credentials._access)

    async def waits(self, times: int = 1) -> list[float]:
        """Let time pass until the next renewals are over; return how long each took to come."""
        found = []
        for _ in range(times):
            tried = self.credentials._tried
            found.append(await self.time.waits())
            await asyncio.wait_for(tried.wait(), 60)
        return found


@asynccontextmanager
async def renewed(folder: Path, user: Object) -> AsyncIterator[Renewed]:
    it = Renewed(folder, user)
    await it.read()
    task = asyncio.get_running_loop().create_task(it.credentials.run())
    try:
        yield it
    finally:
        task.cancel()
        await asyncio.wait((task,))


# Files.


async def test_a_token_file_is_read_again_and_again(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one\n")
    async with renewed(tmp_path, {"tokenFile": "token"}) as it:
        assert it.sent == "Bearer one"
        assert await it.waits() == [10]
        assert it.counts == []
        file.write_text(" two \r\n\n")
        assert await it.waits() == [10]
        assert it.sent == "Bearer two"
        assert it.counts == ["renewed"]


@pytest.mark.parametrize("bad", ["missing", "empty", "directory", "binary"])
async def test_a_bad_token_file_is_tried_again_while_the_last_token_serves(
    tmp_path: Path, bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "token"
    file.write_text("one")
    async with renewed(tmp_path, {"tokenFile": "token"}) as it:
        file.unlink()
        if bad == "empty":
            file.write_text(" \n")
        elif bad == "directory":
            file.mkdir()
        elif bad == "binary":
            file.write_bytes(b"\x00\x01\xff")
        assert await it.waits(6) == [10, 1, 2, 4, 8, 10]
        assert it.sent == "Bearer one"
        assert it.counts == ["failed"] * 6
        assert it.credentials.has_problem()
        # It may well be good still.
        assert it.credentials.works()
        assert "the last renewal failed" in it.credentials.detail()
        told = [one for one in caplog.records if one.message == "the credential cannot be renewed"]
        assert len(told) == 6
        assert "kubeconfig: users[u].user" in told[0].error  # type: ignore[attr-defined]
        if bad == "directory":
            file.rmdir()
        file.write_text("two")
        assert await it.waits() == [10]
        assert (it.sent, it.counts[-1]) == ("Bearer two", "renewed")
        assert not it.credentials.has_problem()
        assert await it.waits() == [10]


async def test_a_token_that_says_when_it_expires_does_not_work_any_longer(tmp_path: Path) -> None:
    it = Renewed(tmp_path, {"tokenFile": "token"})
    (tmp_path / "token").write_text(jwt(it.time.now + 3600))
    await it.read()
    assert it.credentials.expiry() == it.time.now + 3600
    assert it.credentials.works()
    it.time.now += 3600
    assert not it.credentials.works()
    assert "expired at 1970-01-12T14:46:40Z" in it.credentials.detail()
    # Unless the API server knows better: clocks differ.
    it.time.now += 1
    it.credentials.answered(404, it.credentials.current)
    assert it.credentials.works()
    it.credentials.answered(401, it.credentials.current)
    assert not it.credentials.works()


async def test_the_file_of_a_token_comes_before_the_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("file")
    async with renewed(tmp_path, {"token": "inline\n", "tokenFile": "token"}) as it:
        assert it.sent == "Bearer file"
        # What was read once is not given up.
        file.unlink()
        await it.waits()
        assert it.sent == "Bearer file"


async def test_the_token_stands_in_for_a_file_that_was_never_there(tmp_path: Path) -> None:
    async with renewed(tmp_path, {"token": "inline\n", "tokenFile": "token"}) as it:
        assert it.sent == "Bearer inline"
        (tmp_path / "token").write_text("file")
        await it.waits()
        assert it.sent == "Bearer file"


@pytest.mark.parametrize(
    ("user", "sent"),
    [
        ({}, ""),
        ({"token": "t"}, "Bearer t"),
        ({"username": "me", "password": "öh"}, "Basic bWU6w7Zo"),
        # As in client-go, a plugin is for those who have nothing else.
        ({"token": "t", "exec": {"apiVersion": V1, "command": "none"}}, "Bearer t"),
    ],
)
async def test_what_stands_in_the_kubeconfig_needs_no_renewal(
    tmp_path: Path, user: Object, sent: str
) -> None:
    it = Renewed(tmp_path, user)
    await it.read()
    assert it.sent == sent
    await it.credentials.run()
    assert not await it.credentials.replaced(it.credentials.current, 60)


async def test_a_token_file_that_no_header_can_hold_is_named(tmp_path: Path) -> None:
    (tmp_path / "odd").write_text("a\nhush\n")
    with pytest.raises(ConnectionFailedError) as error:
        await Renewed(tmp_path, {"tokenFile": "odd"}).read()
    assert f"users[u].user: the token in tokenFile {tmp_path}/odd holds" in str(error.value)
    assert "hush" not in str(error.value)


async def test_a_token_that_no_header_can_hold_is_refused_but_not_quoted(tmp_path: Path) -> None:
    for token in ("a\nhush", "hüsh", "a\x00hush"):
        with pytest.raises(ConnectionFailedError, match=r"users\[u\].user: the token") as error:
            await Renewed(tmp_path, {"token": token}).read()
        assert "sh" not in str(error.value).rpartition("user:")[2]


# Plugins.


class Plugin:
    """An exec plugin whose runs a test decides."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        script = folder / "plugin"
        script.write_text(
            '#!/bin/sh\ncd "$(dirname "$0")"\necho run >> runs\n'
            'printf %s "$KUBERNETES_EXEC_INFO" > info\n. ./does\n'
        )
        script.chmod(0o755)
        self.does("exit 1")

    @property
    def user(self) -> Object:
        return {"exec": {"apiVersion": V1, "command": "./plugin", "interactiveMode": "Never"}}

    @property
    def runs(self) -> int:
        file = self.folder / "runs"
        return len(file.read_text().split()) if file.exists() else 0

    def does(self, script: str) -> None:
        (self.folder / "does").write_text(script)

    def gives(self, token: str = "", expires: float | None = None, **status: str) -> None:
        if token:
            status["token"] = token
        if expires is not None:
            status["expirationTimestamp"] = moment(expires)
        answer = {"apiVersion": V1, "kind": "ExecCredential", "status": status}
        (self.folder / "answer").write_text(json.dumps(answer))
        self.does("cat answer")


def moment(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat().replace("+00:00", "Z")


async def test_a_plugin_runs_again_five_minutes_before_its_credential_expires(
    tmp_path: Path,
) -> None:
    plugin = Plugin(tmp_path)
    plugin.gives("one", 1_000_000 + 3600)
    async with renewed(tmp_path, plugin.user) as it:
        assert (it.sent, plugin.runs) == ("Bearer one", 1)
        plugin.gives("two", 1_000_000 + 3300 + 200)
        assert await it.waits() == [3300]
        assert (it.sent, plugin.runs) == ("Bearer two", 2)
        # Half of a shorter life.
        plugin.gives("two", 1_000_000 + 3300 + 200)
        assert await it.waits(2) == [100, 50]
        # The plugin keeps its own until the end, but is not asked more often than that.
        assert await it.waits(3) == [25, 12.5, 10]
        assert it.counts == ["renewed"]


async def test_a_plugin_that_names_no_end_runs_again_when_its_token_is_refused(
    tmp_path: Path,
) -> None:
    plugin = Plugin(tmp_path)
    plugin.gives("one")
    async with renewed(tmp_path, plugin.user) as it:
        assert it.credentials.expiry() == float("inf")
        plugin.gives("two")
        assert await it.credentials.replaced(it.credentials.current, 60)
        assert it.sent == "Bearer two"


async def test_a_plugin_that_fails_runs_again_with_back_off(tmp_path: Path) -> None:
    plugin = Plugin(tmp_path)
    plugin.gives("one", 1_000_000 + 400)
    async with renewed(tmp_path, plugin.user) as it:
        plugin.does("echo 'no route to host' >&2; exit 3")
        assert await it.waits(9) == [100, 1, 2, 4, 8, 16, 32, 60, 60]
        assert it.counts == ["failed"] * 9
        assert it.sent == "Bearer one"
        assert it.credentials.works()
        assert "exited with code 3: no route to host" in it.credentials.problem
        assert await it.waits(2) == [60, 60]
        # It has expired now.
        assert not it.credentials.works()
        plugin.gives("two", it.time.now + 3600)
        assert await it.waits() == [60]
        assert it.sent == "Bearer two"
        assert it.credentials.works()
        assert it.credentials.detail().startswith("expires at ")
        assert await it.waits() == [3240]


async def test_the_plugin_that_fails_once_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COUNT_FILE", str(tmp_path / "count"))
    script = str(CASES / "f01-exec-fails-once.sh")
    user = {"exec": {"apiVersion": V1, "command": script, "interactiveMode": "Never"}}
    it = Renewed(tmp_path, user)
    it.time.now = time.time()
    await it.read()
    task = asyncio.get_running_loop().create_task(it.credentials.run())
    assert it.sent == "Bearer t1"
    [first] = await it.waits()
    assert 8 < first <= 10.1
    assert it.counts == ["failed"]
    assert "connection reset by token service" in it.credentials.problem
    assert it.sent == "Bearer t1"
    assert await it.waits() == [1]
    assert (it.sent, it.counts) == ("Bearer t2", ["failed", "renewed"])
    task.cancel()


async def test_a_plugin_is_told_about_the_cluster_if_it_wants_to_know(tmp_path: Path) -> None:
    plugin = Plugin(tmp_path)
    plugin.gives("one")
    await Renewed(tmp_path, plugin.user).read()
    info = json.loads((tmp_path / "info").read_text())
    assert info == {"apiVersion": V1, "kind": "ExecCredential", "spec": {"interactive": False}}

    user = plugin.user
    user["exec"]["provideClusterInfo"] = True
    value = config(user, server="https://h:6443", certificate_authority="ca.crt")
    value["clusters"][0]["cluster"] |= {
        "tls-server-name": "other",
        "proxy-url": "http://p:1",
        "extensions": [
            {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "a"}},
            {"name": "x", "extension": 1},
        ],
    }
    (tmp_path / "ca.crt").write_bytes(b"pem")
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(value))
    with pytest.raises(ConnectionFailedError, match=r"ca\.crt: no certificate in PEM"):
        await Credentials.read(find_access(str(file), None))
    assert json.loads((tmp_path / "info").read_text())["spec"] == {
        "interactive": False,
        "cluster": {
            "server": "https://h:6443",
            "certificate-authority-data": base64.b64encode(b"pem").decode(),
            "tls-server-name": "other",
            "proxy-url": "http://p:1",
            "config": {"audience": "a"},
        },
    }


async def test_a_plugin_has_our_environment_and_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OURS", "1")
    monkeypatch.setenv("BOTH", "2")
    plugin = Plugin(tmp_path)
    plugin.does(
        'printf \'{"apiVersion":"%s","kind":"ExecCredential","status":{"token":"%s"}}\' '
        f'{V1}beta1 "$OURS$BOTH$THEIRS$1"'
    )
    exec_ = {**plugin.user["exec"], "apiVersion": f"{V1}beta1", "args": ["5"]}
    exec_["env"] = [{"name": "BOTH", "value": "3"}, {"name": "THEIRS", "value": "4"}]
    it = Renewed(tmp_path, {"exec": exec_})
    await it.read()
    assert it.sent == "Bearer 1345"


def wrote(**changes: Any) -> str:
    answer = {"apiVersion": V1, "kind": "ExecCredential", "status": {"token": "hush"}, **changes}
    return f"cat <<'EOF'\n{json.dumps(answer)}\nEOF"


@pytest.mark.parametrize(
    ("does", "told"),
    [
        ("exit 7", "plugin' exited with code 7"),
        ("kill -9 $$", "plugin' was killed by signal 9"),
        ("exit 0", "plugin' did not write an ExecCredential: "),
        ("echo hello", "did not write an ExecCredential: "),
        ("cat /dev/zero", "wrote over 1048576 bytes"),
        (wrote(kind="Pod"), f"wrote {V1} Pod, not {V1} ExecCredential"),
        (wrote(apiVersion=f"{V1}beta1"), f"wrote {V1}beta1 ExecCredential, not {V1}"),
        (wrote(status=None), "wrote neither a token nor a client certificate"),
        (wrote(status={"token": " "}), "wrote neither a token nor a client certificate"),
        (wrote(status={"token": 5}), "Expected `str | null`, got `int` - at `$.status.token`"),
        (wrote(status={"clientKeyData": "hush"}), "only one of clientCertificateData and"),
        (wrote(status={"token": "hush", "expirationTimestamp": "soon"}), "Invalid RFC3339"),
        (wrote(status={"token": "hush", "expirationTimestamp": "1970-01-01T00:00:00"}), "timezone"),
        (wrote(status={"token": "hush", "expirationTimestamp": "1970-01-02T00:00:00Z"}),
         "the new credential expired at 1970-01-02T00:00:00Z"),
        (wrote(status={"token": "hu\u00fcsh"}), "characters that no token may have"),
    ],
)  # fmt: skip
async def test_what_a_plugin_does_wrong_is_told(tmp_path: Path, does: str, told: str) -> None:
    plugin = Plugin(tmp_path)
    plugin.does(does)
    with pytest.raises(ClusterError) as error:
        await Renewed(tmp_path, plugin.user).read()
    assert told in str(error.value)
    assert "users[u].user" in str(error.value)
    assert "hush" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"command": "no-such-plugin", "installHint": "install\nit"},
         "exec.command: 'no-such-plugin': No such file or directory; install it"),
        ({"command": "./kubeconfig"}, "/kubeconfig': Permission denied"),
        ({"command": "a\0b"}, "embedded null byte"),
        ({"interactiveMode": "Always"}, "exec.interactiveMode: 'Always', but standard input"),
    ],
)  # fmt: skip
async def test_a_plugin_that_cannot_run_is_a_bad_configuration(
    tmp_path: Path, change: Object, told: str
) -> None:
    user = {"exec": {**Plugin(tmp_path).user["exec"], **change}}
    with pytest.raises(ConnectionFailedError) as error:
        await Renewed(tmp_path, user).read()
    assert told in str(error.value)
    assert "\n" not in str(error.value)


async def test_a_plugin_that_hangs_is_ended_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noderestrict.cluster.exec_plugin._SECONDS", 0.5)
    plugin = Plugin(tmp_path)
    plugin.does("sleep 1000 & echo $! > child; wait")
    with pytest.raises(ClusterError, match=r"did not end within 0\.5 s"):
        await Renewed(tmp_path, plugin.user).read()
    child = (tmp_path / "child").read_text().strip()
    await until(lambda: not runs(child))


def runs(process: str) -> bool:
    try:
        return " Z " not in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 (another process)
            await asyncio.sleep(0.01)


# Requests that are refused.


class Guarded:
    """An API server that knows which tokens are good."""

    def __init__(self, *good: str) -> None:
        self.good = {f"Bearer {token}" for token in good}
        self.sent: list[str] = []
        self.refused: Callable[[], Awaitable[object]] | None = None

    async def __call__(self, request: web.Request) -> web.Response:
        sent = request.headers.get("Authorization", "")
        self.sent.append(sent)
        if sent in self.good:
            return web.json_response({"seen": await request.text()})
        if self.refused is not None:
            await self.refused()
        return web.json_response({"message": "Unauthorized"}, status=401)


@asynccontextmanager
async def opened(folder: Path, server: Guarded, user: Object) -> AsyncIterator[Connection]:
    async with connected(server) as other:
        file = folder / "kubeconfig"
        file.write_text(yaml.safe_dump(config(user, server=str(other._api.configuration.host))))
        connection = await Connection.open(str(file), None)
        try:
            yield connection
        finally:
            await connection.close()


async def test_a_refused_request_is_sent_again_with_the_new_token(tmp_path: Path) -> None:
    server = Guarded("two")
    file = tmp_path / "token"
    file.write_text("one")
    async with opened(tmp_path, server, {"tokenFile": "token"}) as connection:
        file.write_text("two")
        assert json.loads(await connection.post("/x", {"a": 1})) == {"seen": '{"a": 1}'}
        assert server.sent == ["Bearer one", "Bearer two"]
        assert connection.credentials.works()
        assert await connection.token() == "two"
        pieces = [piece async for piece in connection.stream("/x", {}, inactivity=60)]
        assert b"".join(pieces) == b'{"seen": ""}'
        assert len(server.sent) == 3


async def test_many_refused_requests_cause_one_renewal(tmp_path: Path) -> None:
    server = Guarded("two")
    plugin = Plugin(tmp_path)
    plugin.gives("one")
    async with opened(tmp_path, server, plugin.user) as connection:
        plugin.gives("two")
        await asyncio.gather(*(connection.get("/x") for _ in range(30)))
        assert plugin.runs == 2


async def test_a_refused_request_waits_for_a_renewal_that_fails_first(tmp_path: Path) -> None:
    server = Guarded("two")
    plugin = Plugin(tmp_path)
    plugin.gives("one")
    async with opened(tmp_path, server, plugin.user) as connection:
        plugin.does("rm -f does; mv later does; exit 1")
        (tmp_path / "later").write_text("cat answer")
        plugin_answer = {"apiVersion": V1, "kind": "ExecCredential", "status": {"token": "two"}}
        (tmp_path / "answer").write_text(json.dumps(plugin_answer))
        assert await connection.get("/x", seconds=60)
        assert plugin.runs == 3


async def test_a_renewal_to_no_avail_is_not_repeated_for_each_request(tmp_path: Path) -> None:
    server = Guarded()
    plugin = Plugin(tmp_path)
    plugin.gives("one")
    async with opened(tmp_path, server, plugin.user) as connection:
        for _ in range(20):
            with pytest.raises(ClusterError, match="GET /x: 401 Unauthorized"):
                await connection.get("/x")
        assert plugin.runs <= 4
        assert not connection.credentials.works()
        assert connection.credentials.has_problem()
        assert "the API server refuses it" in connection.credentials.detail()
        server.good.add("Bearer one")
        assert await connection.get("/x")
        assert connection.credentials.works()


async def test_a_token_that_cannot_be_renewed_is_refused_once(tmp_path: Path) -> None:
    server = Guarded()
    async with opened(tmp_path, server, {"token": "t"}) as connection:
        with pytest.raises(ClusterError, match="401 Unauthorized") as error:
            await connection.get("/x")
        assert error.value.code == 401
        assert server.sent == ["Bearer t"]
        assert not connection.credentials.works()


async def test_what_was_renewed_meanwhile_is_not_renewed_again(tmp_path: Path) -> None:
    credentials = Renewed(tmp_path, {"tokenFile": "token"}).credentials
    assert await credentials.replaced(Credential("Bearer old"), 60)
    # Nor does a late answer to the old one say anything about the new one.
    credentials.answered(401, Credential("Bearer old"))
    assert credentials.works()


async def test_a_plugin_that_runs_is_ended_with_the_connection(tmp_path: Path) -> None:
    plugin = Plugin(tmp_path)
    plugin.gives("one")
    async with opened(tmp_path, Guarded(), plugin.user) as connection:
        plugin.does("echo $$ > child; sleep 1000")
        asking = asyncio.get_running_loop().create_task(connection.get("/x"))
        file = tmp_path / "child"
        await until(lambda: file.exists() and bool(file.read_text()))
        asking.cancel()
    assert not runs(file.read_text().strip())


async def test_a_plugin_that_is_about_to_run_is_ended_with_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    connect, connects = loop.connect_read_pipe, asyncio.Event()

    async def connect_late(*given: Any) -> Any:
        await connects.wait()
        return await connect(*given)

    plugin = Plugin(tmp_path)
    plugin.gives("one")
    async with opened(tmp_path, Guarded(), plugin.user) as connection:
        monkeypatch.setattr(loop, "connect_read_pipe", connect_late)
        plugin.does("sleep 1000 & echo $! > child; wait")
        asking = loop.create_task(connection.get("/x"))
        file = tmp_path / "child"
        await until(lambda: file.exists() and bool(file.read_text()))
        asking.cancel()
        loop.call_later(0.1, connects.set)
    assert not runs(file.read_text().strip())


# Impersonation.


async def test_impersonation_is_sent_and_nobody_else_is_impersonated_on_top_of_it(
    tmp_path: Path,
) -> None:
    seen: list[list[tuple[str, str]]] = []

    async def server(request: web.Request) -> web.Response:
        headers = request.headers.items()
        seen.append([pair for pair in headers if pair[0].startswith("Impersonate")])
        return web.json_response({})

    user = {"token": "t", "as": "me", "as-groups": ["a", "b"], "as-user-extra": {"k": ["1", "2"]}}
    async with opened(tmp_path, server, user) as connection:  # type: ignore[arg-type]
        await connection.get("/x")
        with pytest.raises(ClusterError, match="cannot impersonate n as me"):
            await connection.post("/x", {}, headers={"Impersonate-User": "n"})
    assert seen == [
        [
            ("Impersonate-User", "me"),
            ("Impersonate-Group", "a"),
            ("Impersonate-Group", "b"),
            ("Impersonate-Extra-k", "1"),
            ("Impersonate-Extra-k", "2"),
        ],
    ]
