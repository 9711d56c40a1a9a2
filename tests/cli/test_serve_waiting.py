"""What asks a server that still waits for the cluster gets its answer once that is there."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from noderestrict.cli import build_parser, serve
from noderestrict.cli.config import Sources
from noderestrict.cli.serve_config import ServeConfig
from noderestrict.cluster import start
from noderestrict.serving.server import StartError
from noderestrict.serving.stop import Stop
from tests.cli import cluster
from tests.e2e.control_plane import free_port
from tests.serving.clients import hang_up, http, read_answer
from tests.serving.tls import authority, leaf, write_pair

USER = {"user": "system:node:n1", "groups": ["system:nodes"]}
READ = {"verb": "get", "version": "v1", "resource": "secrets", "namespace": "ns", "name": "used"}
REVIEW = {
    "apiVersion": "authorization.k8s.io/v1",
    "kind": "SubjectAccessReview",
    "spec": {**USER, "resourceAttributes": READ},
}
ASKED = http(json.dumps(REVIEW).encode(), path="/authorize")


@contextlib.asynccontextmanager
async def waiting(folder: Path, port: int, *flags: str) -> AsyncIterator[None]:
    """Run a server for a cluster that is not there yet."""
    write_pair(folder, leaf(authority()))
    cluster.kubeconfig(folder / "kubeconfig", 1, {})
    options = build_parser()[0].parse_args(
        ["serve", "--authorizer", f"--tls-dir={folder}", f"--kubeconfig={folder / 'kubeconfig'}",
         "--bind-address=127.0.0.1", f"--port={port}", "--metrics-address=", "--shutdown-delay=0",
         *flags],
    )  # fmt: skip
    sources = Sources(ServeConfig, options, {})
    config = sources.read()
    sockets = await serve._opened(config)
    stops: list[Stop] = []

    async def run() -> None:
        stops.append(Stop())
        await serve._with_cluster(serve._Server(config, sources, sockets))(stops[0])

    task = asyncio.create_task(run())
    try:
        yield
    finally:
        stops[0].ask()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        for sock in sockets:
            sock.close()


async def connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection to a server that may not be there yet, which it verifies nothing of."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return await asyncio.open_connection("127.0.0.1", port, ssl=context)


async def listens(port: int) -> bool:
    try:
        await hang_up((await asyncio.open_connection("127.0.0.1", port))[1])
    except ConnectionRefusedError:
        return False
    return True


async def until_it_listens(port: int) -> None:
    async with asyncio.timeout(60):
        while not await listens(port):  # noqa: ASYNC110 (it tells nobody)
            await asyncio.sleep(0.01)


async def test_an_api_server_that_asks_before_it_answers_gets_the_right_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "_PAUSE_SECONDS", 0.01)
    port = free_port()
    async with waiting(tmp_path, port), asyncio.timeout(60):
        await until_it_listens(port)
        asked = asyncio.create_task(connected(port))
        await asyncio.sleep(0.05)
        assert not asked.done()
        async with cluster.running(cluster.Recorder(cluster.world())) as api_server:
            cluster.kubeconfig(tmp_path / "kubeconfig", api_server, {})
            reader, writer = await asked
            writer.write(ASKED)
            status, body, _ = await read_answer(reader)
            await hang_up(writer)
    assert status == 200
    assert json.loads(body)["status"]["allowed"] is True


async def test_a_server_that_takes_over_from_another_lets_that_one_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    async with waiting(tmp_path, port, "--share-port"), asyncio.timeout(60):
        while "the API server does not answer" not in caplog.text:  # noqa: ASYNC110 (a log)
            await asyncio.sleep(0.01)
        assert not await listens(port)


async def test_an_address_that_is_taken_is_told_before_the_cluster_is_there(tmp_path: Path) -> None:
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    async with taken:
        with pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{port}"):
            async with waiting(tmp_path, port):
                pass
