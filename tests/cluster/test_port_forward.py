"""A port of a pod is reached through its kubelet."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from aiohttp import WSMsgType, web
from aiohttp.typedefs import Handler

from noderestrict.cluster.connection import Connection
from noderestrict.cluster.errors import ClusterError
from noderestrict.cluster.port_forward import exchange
from tests.cluster.test_transport import opened

PATH = "/api/v1/namespaces/ns/pods/web/portforward"
#: What both channels begin with: their port, 9090, the least significant byte first.
BEGIN = (b"\x00\x82\x23", b"\x01\x82\x23")


@contextlib.asynccontextmanager
async def answering(folder: Path, handle: Handler) -> AsyncIterator[Connection]:
    """Serve every path; yields a connection to it."""
    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    try:
        async with opened(folder, port, {"token": "t"}, server=f"http://127.0.0.1:{port}") as to:
            yield to
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def kubelet(
    folder: Path, *answers: bytes, closes: bool = True, status: int = 101
) -> AsyncIterator[tuple[Connection, list[object]]]:
    """Serve one port of one pod; yields a connection to it, and what it was asked and sent."""
    seen: list[object] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        if status != 101:
            return web.Response(status=status)
        seen.append((request.path_qs, request.headers.get("Authorization")))
        socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
        await socket.prepare(request)
        for one in BEGIN:
            await socket.send_bytes(one)
        message = await socket.receive()
        if message.type is WSMsgType.BINARY:
            seen.append(message.data)
        for answer in answers:
            await socket.send_bytes(answer)
        if not closes:
            await socket.receive()
        await socket.close()
        return socket

    async with answering(folder, handle) as to:
        yield to, seen


async def ask(to: Connection, seconds: float = 10) -> bytes:
    return await exchange(to, "ns", "web", 9090, b"hello", seconds=seconds, most=1_000_000)


async def test_all_that_a_pod_answers_is_returned(tmp_path: Path) -> None:
    async with kubelet(tmp_path, b"\x00one ", b"\x00two") as (to, seen):
        assert await ask(to) == b"one two"
    assert seen == [(f"{PATH}?ports=9090", "Bearer t"), b"\x00hello"]


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ((b"\x01connection ", b"\x01refused\n"), f"{PATH}: connection refused"),
        ((b"\x00half", b"\x01reset by peer"), f"{PATH}: reset by peer"),
        ((), f"{PATH}: nothing answers on port 9090"),
        ((b"", b"\x07?"), f"{PATH}: nothing answers on port 9090"),
        ((b"\x01no\nroute\t", b"\x01\xff"), f"{PATH}: no route \ufffd"),
        ((b"\x01" + b"x" * 600,), f"{PATH}: {'x' * 500}"),
    ],
)
async def test_a_port_that_does_not_answer_is_an_error(
    tmp_path: Path, answers: Sequence[bytes], problem: str
) -> None:
    async with kubelet(tmp_path, *answers) as (to, _):
        with pytest.raises(ClusterError) as caught:
            await ask(to)
    assert str(caught.value) == problem


@pytest.mark.parametrize("channel", [b"\x00", b"\x01"])
async def test_an_answer_without_end_is_given_up_before_it_fills_the_memory(
    tmp_path: Path, channel: bytes
) -> None:
    async with kubelet(tmp_path, *[channel + b"x" * 300_000] * 4) as (to, _):
        with pytest.raises(ClusterError, match="port 9090 answers with over 1000000 bytes"):
            await ask(to)


async def test_what_comes_on_other_channels_is_not_kept(tmp_path: Path) -> None:
    other = [bytes((channel,)) + b"x" * 300_000 for channel in range(2, 8)]
    async with kubelet(tmp_path, *other, b"\x00one") as (to, _):
        assert await ask(to) == b"one"


async def test_a_message_that_cannot_be_taken_is_an_error(tmp_path: Path) -> None:
    async with kubelet(tmp_path, b"\x00one", b"\x00" + b"x" * 5_000_000) as (to, _):
        with pytest.raises(ClusterError, match="exceeds limit"):
            await ask(to)


async def test_who_may_not_forward_ports_is_told(tmp_path: Path) -> None:
    async with kubelet(tmp_path, status=403) as (to, _):
        with pytest.raises(ClusterError, match="403 Forbidden") as caught:
            await ask(to)
    assert caught.value.code == 403


async def test_a_pod_that_never_ends_its_answer_is_given_up(tmp_path: Path) -> None:
    async with kubelet(tmp_path, b"\x00one", closes=False) as (to, _):
        with pytest.raises(ClusterError, match="timed out"):
            await ask(to, 0.5)


async def test_an_error_without_end_is_given_up_too(tmp_path: Path) -> None:
    """What an API server hands on from a kubelet or a pod may be one."""

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=502)
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b"no " * 100_000)
        return response

    async with answering(tmp_path, endless) as to:
        with pytest.raises(ClusterError, match="502 no no"):
            await to.get("/metrics", seconds=60)
