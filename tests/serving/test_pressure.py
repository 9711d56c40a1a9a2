"""Clients that take up connections, and send nothing on them."""

import asyncio
import contextlib
import re
import resource
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from noderestrict.serving.limits import Limits
from tests.serving.clients import BAD, hang_up, http, read_answer
from tests.serving.tls import SECONDS, Server, serving

JSON = b"POST /validate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
#: Few, so that they are soon used up: 160 connections, of which 53 may be fresh.
FILES = 256
#: How long a head may take where a test waits for the end of that: a client that sends at once is
#: faster on any machine.
HEAD_SECONDS = 3.0
SLOW_HEAD = ("--header-timeout", str(HEAD_SECONDS))

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(server: Server) -> Streams:
    return await asyncio.open_connection(
        "127.0.0.1", server.port, ssl=server.context, server_hostname="localhost"
    )


async def answer(streams: Streams, request: bytes = http(BAD)) -> tuple[int, bytes, bool]:
    reader, writer = streams
    writer.write(request)
    async with asyncio.timeout(SECONDS):
        return await read_answer(reader)


@contextlib.asynccontextmanager
async def sending(server: Server, request: bytes, number: int) -> AsyncIterator[None]:
    """Keep connections on which no more comes than this."""
    opened = []
    for _ in range(number):
        streams = await connect(server)
        streams[1].write(request)
        opened.append(streams)
    try:
        yield
    finally:
        for _, writer in opened:
            writer.transport.abort()
        await asyncio.gather(*(hang_up(writer) for _, writer in opened))


@pytest.mark.parametrize(
    ("head", "number"),
    [
        (JSON + b"Transfer-Encoding: chunked\r\n\r\n", 20),
        (JSON + b"Transfer-Encoding: chunked\r\n\r\n1\r\n", 20),
        (JSON + b"Content-Length: 8388608\r\n\r\n", 20),
        (JSON + b"Content-Length: 8388608\r\n\r\n{", 20),
        (JSON + b"Content-Length: 1\r\n\r\n", 520),
        (JSON + b"Content-Length: 2\r\n\r\n{", 520),
    ],
    ids=["chunked", "in a chunk", "8 MiB", "8 MiB begun", "1 byte", "2 bytes begun"],
)
async def test_bodies_that_do_not_come_hinder_nobody(
    tmp_path: Path, head: bytes, number: int
) -> None:
    with serving(tmp_path) as server:
        async with sending(server, head, number):
            streams = await connect(server)
            status, body, _ = await answer(streams)
            assert (status, b'"allowed":false' in body) == (200, True)
            await hang_up(streams[1])


def open_silently(port: int, number: int) -> list[socket.socket]:
    """Return plain connections on which nothing is sent; those that are refused are left out."""
    opened = []
    for _ in range(number):
        with contextlib.suppress(OSError):
            opened.append(socket.create_connection(("127.0.0.1", port), 5))
    return opened


def is_closed(sock: socket.socket) -> bool:
    """Return whether the other side closes, however late."""
    sock.settimeout(SECONDS)
    try:
        return sock.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def counted(server: Server, metric: str) -> float:
    found = re.search(rf"^{re.escape(metric)} (\S+)$", server.metrics(), re.MULTILINE)
    assert found, metric
    return float(found[1])


def test_silent_connections_to_the_metrics_port_lock_nobody_out(tmp_path: Path) -> None:
    with serving(tmp_path, "--header-timeout", "3", files=1024) as server:
        silent = open_silently(server.metrics_port, 1100)
        try:
            assert server.request("/validate", BAD)[0] == 200
            assert "noderestrict_build_info" in server.metrics()
            assert all(map(is_closed, silent))
            assert counted(server, 'noderestrict_open_connections{port="metrics"}') == 1
            assert counted(server, "noderestrict_accept_errors_total") == 0
        finally:
            for sock in silent:
                sock.close()


@pytest.mark.parametrize("secure", [False, True], ids=["before TLS", "after the handshake"])
def test_silent_connections_make_room_for_others(tmp_path: Path, secure: bool) -> None:
    with serving(tmp_path, "--header-timeout", "60", files=FILES) as server:
        silent = open_silently(server.port, FILES)
        if secure:
            for index, sock in enumerate(silent):
                with contextlib.suppress(OSError):
                    silent[index] = server.context.wrap_socket(sock, server_hostname="localhost")
        try:
            assert server.request("/validate", BAD)[0] == 200
            assert server.metrics()
            assert counted(server, 'noderestrict_open_connections{port="webhook"}') <= FILES / 4
        finally:
            for sock in silent:
                sock.close()


async def test_a_connection_that_carried_a_review_outlives_a_flood(tmp_path: Path) -> None:
    with serving(tmp_path, "--header-timeout", "60", files=FILES) as server:
        streams = await connect(server)
        assert await answer(streams)
        silent = await asyncio.to_thread(open_silently, server.port, 2 * FILES)
        status, _, closes = await answer(streams)
        assert (status, closes) == (200, False)
        await hang_up(streams[1])
        for sock in silent:
            sock.close()


async def test_idle_connections_that_carried_a_review_do_not_lock_others_out(
    tmp_path: Path,
) -> None:
    with serving(tmp_path, files=FILES) as server:
        opened = []
        for _ in range(FILES):
            streams = await connect(server)
            status, _, _ = await answer(streams)
            assert status == 200
            opened.append(streams)
        assert counted(server, 'noderestrict_open_connections{port="webhook"}') <= FILES / 2
        assert counted(
            server, 'noderestrict_closed_connections_total{port="webhook",reason="share"}'
        )
        for _, writer in opened:
            await hang_up(writer)


def test_files_are_left_for_other_uses(tmp_path: Path) -> None:
    reviews = tmp_path / "captured"
    flags = ("--capture", str(reviews), "--header-timeout", "60")
    with serving(tmp_path, *flags, files=FILES) as server:
        silent = open_silently(server.port, FILES) + open_silently(server.metrics_port, FILES)
        try:
            assert server.request("/validate", BAD)[0] == 200
            assert len(list(Path(f"/proc/{server.process.pid}/fd").iterdir())) < FILES - 40
        finally:
            for sock in silent:
                sock.close()
        assert server.stop() == 0
    assert [file.read_bytes() for file in reviews.iterdir() if file.suffix == ".jsonl"] != [b""]


def test_the_limit_on_files_is_raised(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        limits = Path(f"/proc/{server.process.pid}/limits").read_text()
        soft, hard = re.search(r"Max open files +(\d+) +(\d+)", limits).groups()  # type: ignore[union-attr]
        assert int(soft) >= min(int(hard), Limits().files)


async def test_what_cannot_be_accepted_now_is_later(tmp_path: Path) -> None:
    with serving(tmp_path, "--header-timeout", "60") as server:
        silent = await asyncio.to_thread(open_silently, server.port, 50)
        # Those that still wait to be accepted would take the places of the ones that give way.
        while counted(server, 'noderestrict_open_connections{port="webhook"}') < 50:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        # Less than is in use: as if others had opened all that the machine has.
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (20, 4096))
        waiting = asyncio.create_task(connect(server))
        await asyncio.to_thread(server.wait_for_log, "cannot accept a connection")
        status, _, _ = await answer(await waiting)
        assert status == 200
        (await waiting)[1].transport.abort()
        for sock in silent:
            sock.close()


def test_each_slow_head_is_cut_off(tmp_path: Path) -> None:
    with serving(tmp_path, *SLOW_HEAD) as server, contextlib.ExitStack() as stack:
        connections = []
        for begun in (b"P", b"POST /validate HTTP/1.1\r\nHost: localhost\r\nX: "):
            for together in (False, True):
                tls = stack.enter_context(open_tls(server))
                tls.sendall(http(BAD) + (begun if together else b""))
                assert tls.recv(65536).startswith(b"HTTP/1.1 200")
                if not together:
                    tls.sendall(begun)
                connections.append(tls)
        assert all(map(is_closed, connections))
        assert (
            counted(server, 'noderestrict_closed_connections_total{port="webhook",reason="header"}')
            == 4
        )


@contextlib.contextmanager
def open_tls(server: Server) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS) as plain,
        server.context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        yield tls


def test_a_head_that_drips_is_cut_off_all_the_same(tmp_path: Path) -> None:
    with serving(tmp_path, *SLOW_HEAD) as server, open_tls(server) as tls:
        tls.sendall(http(BAD))
        assert tls.recv(65536).startswith(b"HTTP/1.1 200")
        tls.settimeout(0.1)
        tls.sendall(b"POST /validate HTTP/1.1\r\nX: ")
        for _ in range(200):
            try:
                tls.sendall(b"x")
                assert tls.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                pass
            return
        pytest.fail("the connection stayed open")


def test_a_head_without_end_is_cut_off(tmp_path: Path) -> None:
    with serving(tmp_path) as server, open_tls(server) as tls:
        with contextlib.suppress(OSError):
            tls.sendall(b"POST /validate HTTP/1.1\r\n")
            for number in range(100):
                tls.sendall(b"X-%d: " % number + b"x" * 8000 + b"\r\n")
        assert is_closed(tls)
        assert server.request("/validate", BAD)[0] == 200


def test_an_idle_connection_stays_open_only_if_it_carried_a_review(tmp_path: Path) -> None:
    with (
        serving(tmp_path, *SLOW_HEAD) as server,
        open_tls(server) as asked,
        open_tls(server) as reviewed,
    ):
        reviewed.sendall(http(BAD))
        assert reviewed.recv(65536).startswith(b"HTTP/1.1 200")
        asked.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert asked.recv(65536).startswith(b"HTTP/1.1 200")
        assert is_closed(asked)
        reviewed.sendall(http(BAD))
        assert reviewed.recv(65536).startswith(b"HTTP/1.1 200")


CHUNKED = (
    http(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    + b"%x\r\n" % len(BAD)
    + BAD
    + b"\r\n0\r\n\r\n"
)


def test_a_connection_stays_open_however_its_review_came_in(tmp_path: Path) -> None:
    livez = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    requests = [
        (f"{name} in {pieces} pieces", request, pieces, 1)
        for name, request in (("length", http(BAD)), ("chunked", CHUNKED))
        for pieces in (1, 2, 5)
    ]
    with serving(tmp_path, *SLOW_HEAD) as server, contextlib.ExitStack() as stack:
        connections = {}
        for what, request, pieces, answers in (
            *requests, ("after another question", livez + http(BAD), 1, 2)
        ):  # fmt: skip
            tls = connections[what] = stack.enter_context(open_tls(server))
            size = len(request) // pieces + 1
            for start in range(0, len(request), size):
                tls.sendall(request[start : start + size])
                time.sleep(0.02)
            received = b""
            while received.count(b"HTTP/1.1 200") < answers:
                received += tls.recv(65536)
        time.sleep(1.5 * HEAD_SECONDS)
        for what, tls in connections.items():
            tls.sendall(http(BAD))
            assert tls.recv(65536).startswith(b"HTTP/1.1 200"), what


def test_who_sends_too_much_gets_the_answer_that_says_so(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        for _ in range(5):
            code, body, _ = server.request("/validate", b" " * (8 * 1024 * 1024 + 1))
            assert code == 413
            assert b"the limit is 8388608 bytes" in body


async def test_scrapes_in_a_storm_wait_for_their_turn_and_probes_get_theirs(tmp_path: Path) -> None:
    request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answered = 0

    async def scrape(port: int) -> None:
        nonlocal answered
        while True:
            with contextlib.suppress(OSError, EOFError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    while True:
                        writer.write(request)
                        await read_answer(reader)
                        answered += 1
                finally:
                    writer.transport.abort()

    with serving(tmp_path) as server:
        scrapers = [asyncio.create_task(scrape(server.metrics_port)) for _ in range(100)]
        await asyncio.sleep(1)
        before, start = answered, time.monotonic()
        for _ in range(5):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", server.metrics_port, local_addr=("127.0.0.2", 0)
            )
            writer.write(request.replace(b"/metrics", b"/readyz"))
            async with asyncio.timeout(SECONDS):
                assert (await read_answer(reader))[0] == 200
            await hang_up(writer)
        # The bound is a rate, so that a slow machine passes all the more.
        assert answered - before < 220 * (time.monotonic() - start) + 64
        for task in scrapers:
            task.cancel()
        await asyncio.gather(*scrapers, return_exceptions=True)
        assert not [line for line in server.log if "internal error" in line or "Traceback" in line]


def test_a_connection_ends_with_an_answer_once_it_is_as_old_as_the_flag_says(
    tmp_path: Path,
) -> None:
    with serving(tmp_path, "--connection-age", "0.01") as server, open_tls(server) as tls:
        answers: list[bytes] = []
        while not answers or b"Connection: close" not in answers[-1]:
            tls.sendall(http(BAD))
            answers.append(tls.recv(65536))
            time.sleep(0.01)
        assert all(one.startswith(b"HTTP/1.1 200") for one in answers)
        # The first review cannot have come too late.
        assert len(answers) > 1
        assert tls.recv(1) == b""
