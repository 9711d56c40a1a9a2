"""Far more load than the limits admit."""

import asyncio
import contextlib
import gc
import itertools
import json
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import Mock

import pytest
from aiohttp import web
from aiohttp.streams import StreamReader

from noderestrict.serving.connections import Connection
from noderestrict.serving.limits import Limits
from tests.serving.clients import BAD, EXAMPLES, GOOD, Tally, hang_up, http, read_answer
from tests.serving.inprocess import LOOPS, Client, Running, WaitingJudge, listening, run
from tests.serving.tls import Server, serving

LIMIT = 8
CLIENTS = 10 * LIMIT
ROUNDS = 20
#: What the process may hold, with the bodies of all connections.
BOUND_MIB = 300


def resident_mib(server: Server) -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    kib = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(kib.split()[1]) / 1024


def large_review() -> bytes:
    review = json.loads(BAD)
    review["request"]["object"]["metadata"]["annotations"]["padding"] = "x" * 300_000
    return json.dumps(review).encode()


async def slow_client(port: int, context: ssl.SSLContext, tally: Tally, body: bytes) -> None:
    """Send each request in two halves, so that many are in flight at a time."""
    request = http(body, "?timeout=30s")
    for _ in range(ROUNDS):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname="localhost"
        )
        try:
            writer.write(request[: len(request) // 2])
            await asyncio.sleep(0.05)
            writer.write(request[len(request) // 2 :])
            status, answer, _ = await read_answer(reader)
        except (OSError, EOFError):
            # Refused while the rest of the body was under way.
            tally.count(0)
        else:
            tally.count(status)
            if status == 200 and b'"allowed":false' not in answer:
                tally.wrong.append(answer.decode())
        finally:
            await hang_up(writer)


async def test_many_slow_bodies_are_all_judged_within_bounded_memory(tmp_path: Path) -> None:
    flags = ("--state", str(EXAMPLES / "state.json"), "--max-in-flight", str(LIMIT))
    with serving(tmp_path, *flags, state=False) as server:
        tally = Tally()
        body = large_review()
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(slow_client(server.port, server.context, tally, body))
        assert tally.wrong == []
        # A request is one only once it is here.
        assert tally.answers == {200: CLIENTS * ROUNDS}
        assert resident_mib(server) < BOUND_MIB
        exposition = await asyncio.to_thread(server.metrics)
        assert "noderestrict_requests_in_flight 0.0" in exposition
        assert "noderestrict_held_bytes 0.0" in exposition


@pytest.mark.parametrize("loop", LOOPS)
def test_what_is_too_much_is_refused_and_says_when_to_try_again(loop: str) -> None:
    async def test() -> None:
        judge = WaitingJudge()
        async with listening(Limits(requests=LIMIT), judge) as running:
            clients = [await running.connect() for _ in range(CLIENTS)]
            waiting = [asyncio.create_task(client.answer()) for client in clients]
            await running.until(lambda: running.shed("requests") == CLIENTS - LIMIT)
            refused = [task.result() for task in waiting if task.done()]
            assert {status for status, _, _ in refused} <= {503}
            client = await running.connect()
            client.writer.write(http(BAD))
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"Retry-After: 1\r\n" in head
            assert b"overloaded: the limit on requests" in await client.reader.read(1000)
            judge.may.set()
            answers = await asyncio.gather(*waiting)
            assert sorted(status for status, _, _ in answers) == [200] * LIMIT + [503] * (
                CLIENTS - LIMIT
            )
            assert all(b'"allowed":false' in body for status, body, _ in answers if status == 200)
            # It has recovered: everything is let go of again.
            assert (await client.answer())[0] == 200
            for one in (client, *clients):
                one.abort()

    run(loop, test())


SMALL = Limits(total_bytes=100_000, body_seconds=60)


def part(size: int, announced: int = 1_000_000) -> bytes:
    """Return a request of whose body so many bytes are sent."""
    head = http(b"").replace(b"Content-Length: 0", b"Content-Length: %d" % announced)
    return head + b" " * size


@pytest.mark.parametrize("loop", LOOPS)
def test_bytes_that_do_not_fit_in_are_those_of_who_never_sent_a_review(loop: str) -> None:
    async def test() -> None:
        async with listening(SMALL) as running:
            reviewed = await running.connect()
            assert (await reviewed.answer())[0] == 200
            reviewed.writer.write(http(b" " * 30_000 + BAD)[:-1])
            small, large = await running.connect(), await running.connect()
            small.writer.write(part(20_000))
            await running.until(lambda: running.app.state.in_flight.bytes > 50_000)
            large.writer.write(part(80_000))
            assert await large.is_closed()
            assert running.ended("bytes") == 1
            reviewed.writer.write(BAD[-1:])
            assert (await read_answer(reviewed.reader))[0] == 200
            large.abort()
            small.abort()
            reviewed.abort()
            await running.until(lambda: running.app.state.in_flight.bytes == 0)

    run(loop, test())


@pytest.mark.parametrize("loop", LOOPS)
def test_who_sent_a_review_gets_an_answer_even_if_its_bytes_do_not_fit_in(loop: str) -> None:
    async def test() -> None:
        async with listening(SMALL) as running:
            hoarders = [await running.connect() for _ in range(3)]
            for client in hoarders:
                assert (await client.answer())[0] == 200
            for size, client in zip((20_000, 50_000, 60_000), hoarders, strict=True):
                client.writer.write(part(size))
            status, body, closes = await read_answer(hoarders[2].reader)
            assert (status, closes) == (503, True)
            assert b"the limit on bytes" in body
            assert running.shed("bytes") == 1
            honest = await running.connect()
            assert (await honest.answer())[0] == 200
            for client in (honest, *hoarders):
                client.abort()

    run(loop, test())


@pytest.mark.parametrize("loop", LOOPS)
def test_a_body_is_refused_while_others_are_being_answered(loop: str) -> None:
    async def test() -> None:
        judge = WaitingJudge()
        async with listening(SMALL, judge) as running:
            first, second = await running.connect(), await running.connect()
            answered = asyncio.create_task(first.answer(http(b" " * 70_000 + BAD)))
            await running.until(lambda: running.app.state.in_flight.requests == 1)
            status, body, _ = await second.answer(http(b" " * 70_000 + BAD))
            assert status == 503
            assert b"the limit on bytes" in body
            # A small one is not: a few large ones do not stop all others.
            small = asyncio.create_task(second.answer(http(b" " * 40_000 + BAD)))
            await running.until(lambda: running.app.state.in_flight.requests == 2)
            judge.may.set()
            assert (await small)[0] == 200
            assert (await answered)[0] == 200
            first.abort()
            second.abort()

    run(loop, test())


@pytest.mark.parametrize("loop", LOOPS)
def test_pipelined_requests_are_counted_out_one_by_one(loop: str) -> None:
    async def test() -> None:
        async with listening(SMALL) as running:
            client = await running.connect()
            # Never idle, and never more than fits in.
            request = http(b" " * 20_000 + BAD)
            client.writer.write(request * 3)
            for _ in range(20):
                client.writer.write(request)
                assert (await read_answer(client.reader))[0] == 200
            for _ in range(3):
                assert (await read_answer(client.reader))[0] == 200
            assert running.app.state.in_flight.bytes == 0
            assert (await client.answer())[0] == 200
            client.abort()

    run(loop, test())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("request_", [http(b"{}"), b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"])
def test_who_does_not_read_its_answers_is_cut_off(loop: str, request_: bytes) -> None:
    async def test() -> None:
        async with listening(Limits(answer_seconds=0.2, header_seconds=60)) as running:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", running.port))
            _, writer = await asyncio.open_connection(sock=sock, limit=1)
            try:
                while not writer.transport.is_closing() and not running.ended("unread"):
                    writer.write(request_ * 100)
                    async with asyncio.timeout(1):
                        await writer.drain()
            except (OSError, TimeoutError):
                pass
            await running.until(lambda: running.ended("unread") == 1)
            writer.transport.abort()

    run(loop, test())


@pytest.mark.parametrize("loop", LOOPS)
def test_a_connection_that_is_not_kept_ends_with_its_answer(loop: str) -> None:
    async def test() -> None:
        async with listening(Limits(), kept=2) as running:
            clients = [await running.connect() for _ in range(3)]
            answers = [await client.answer() for client in clients]
            assert [closes for _, _, closes in answers] == [False, False, True]
            assert {status for status, _, _ in answers} == {200}
            assert running.ended("share") == 1
            assert await clients[2].is_closed()
            # A place that becomes free is taken by the next.
            clients[0].abort()
            await running.until(lambda: len(running.server.room) == 1)
            last = await running.connect()
            assert [(await last.answer())[2] for _ in range(2)] == [False, False]
            for client in (*clients, last):
                client.abort()

    run(loop, test())


class _Clock:
    """A loop's clock that a test puts forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        loop = asyncio.get_running_loop()
        time = loop.time
        self.now = lambda: time() + self.ahead
        self._patch = monkeypatch

    def of(self, running: Running) -> None:
        """Have the connections of a server go by it."""
        for peer in running.server.room._peers.values():
            for connection in (*peer.fresh, *peer.kept):
                loop = Mock(wraps=connection._loop, time=self.now)
                self._patch.setattr(connection, "_loop", loop)


@contextlib.asynccontextmanager
async def ageing(
    age: float, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Running, Client, _Clock]]:
    """Run a server whose connections get so old, with one that has had an answer and its clock."""
    clock = _Clock(monkeypatch)
    async with listening(Limits(age_seconds=age)) as running:
        client = await running.connect()
        assert not (await client.answer())[2]
        clock.of(running)
        yield running, client, clock
        client.abort()


@pytest.mark.parametrize("loop", LOOPS)
def test_an_old_connection_ends_with_an_answer(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with ageing(1000, monkeypatch) as (running, client, clock):
            clock.ahead = 499
            assert not (await client.answer())[2]
            clock.ahead = 1001
            # However old it is, it does not end while it is idle.
            await asyncio.sleep(0.01)
            assert len(running.server.room) == 1
            status, _, closes = await client.answer()
            assert (status, closes) == (200, True)
            assert running.ended("age") == 1
            assert await client.is_closed()

    run(loop, test())


@pytest.mark.parametrize("loop", LOOPS)
def test_without_an_age_connections_do_not_end(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with ageing(0, monkeypatch) as (_, client, clock):
            clock.ahead = 1e9
            assert not (await client.answer())[2]

    run(loop, test())


@pytest.mark.parametrize("loop", LOOPS)
def test_an_old_connection_ends_only_after_all_that_was_sent_on_it(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with ageing(1000, monkeypatch) as (_, client, clock):
            clock.ahead = 1001
            client.writer.write(http(BAD) * 3)
            answers = [await read_answer(client.reader) for _ in range(3)]
            assert [closes for _, _, closes in answers] == [False, False, True]
            assert {status for status, _, _ in answers} == {200}

    run(loop, test())


async def test_connections_do_not_all_end_at_once() -> None:
    async with listening(Limits(age_seconds=1000)) as running:
        ages = [running.server.age() for _ in range(200)]
        assert 500 <= min(ages) < 600
        assert 900 < max(ages) <= 1000


@pytest.mark.parametrize("loop", LOOPS)
def test_what_is_being_answered_outlives_a_flood(loop: str) -> None:
    async def test() -> None:
        judge = WaitingJudge()
        limits = Limits(connections=40)
        async with listening(limits, judge) as running:
            client = await running.connect()
            answered = asyncio.create_task(client.answer())
            await running.until(lambda: running.app.state.in_flight.requests == 1)
            flood = [await running.connect() for _ in range(100)]
            await running.until(lambda: running.ended("evicted") == 101 - limits.fresh)
            judge.may.set()
            assert (await answered)[0] == 200
            for one in (client, *flood):
                one.abort()

    run(loop, test())


INTERNAL_ERRORS = "noderestrict_internal_errors_total"
HANGING_UP = {
    "after a review": http(BAD),
    "in a body": http(BAD)[:-5],
    "in a head": http(BAD)[:20],
    "after another question": b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n",
    "after nothing": b"",
    "after no HTTP": b"\x00\r\n\r\n",
}


@pytest.mark.parametrize("sent", HANGING_UP.values(), ids=list(HANGING_UP))
def test_what_a_connection_held_is_free_as_soon_as_its_client_is_gone(sent: bytes) -> None:
    """Not when the collector comes, which is seldom: until then, bodies would pile up."""

    def connections(server: web.Server) -> int:
        return sum(
            isinstance(thing, Connection) and thing._server is server for thing in gc.get_objects()
        )

    async def test() -> None:
        async with listening(Limits()) as running:
            for _ in range(5):
                client = await running.connect()
                client.writer.write(sent)
                await client.writer.drain()
                await asyncio.sleep(0.02)
                client.abort()
                del client
            await running.until(lambda: len(running.server.room) == 0)
            await running.until(lambda: connections(running.server) == 0)
            assert running.metrics.registry.get_sample_value(INTERNAL_ERRORS) == 0

    # A record that is kept keeps a traceback.
    logging.disable(logging.CRITICAL)
    gc.disable()
    try:
        run("uvloop", test())
    finally:
        gc.enable()
        logging.disable(logging.NOTSET)


def in_chunks(body: bytes, size: int, extension: bytes = b"") -> bytes:
    """Return a request whose body comes in chunks of a size."""
    chunks = (body[at : at + size] for at in range(0, len(body), size))
    head = http(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    return (
        head + b"".join(b"%x%b\r\n%b\r\n" % (len(c), extension, c) for c in chunks) + b"0\r\n\r\n"
    )


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("size", "extension"), [(1, b""), (5, b""), (1, b";" + b"x" * 500)])
def test_a_body_in_tiny_chunks_ends_its_connection_before_many_are_parsed(
    loop: str, size: int, extension: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed, fed = StreamReader.feed_data, 0

    def counting(stream: StreamReader, *data: Any) -> Any:
        nonlocal fed
        fed += 1
        return feed(stream, *data)

    monkeypatch.setattr(StreamReader, "feed_data", counting)

    async def test() -> None:
        async with listening(Limits()) as running:
            client = await running.connect()
            client.writer.write(in_chunks(BAD + b" " * 50_000, size, extension))
            assert await client.is_closed()
            await hang_up(client.writer)
            assert running.ended("chunks") == 1
            assert 0 < fed < 5_000

    run(loop, test())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("body", "size"), [(BAD, 1), (BAD + b" " * 300_000, 100)])
def test_a_body_in_some_small_chunks_is_answered(loop: str, body: bytes, size: int) -> None:
    async def test() -> None:
        async with listening(Limits()) as running:
            client = await running.connect()
            for _ in range(2):
                assert (await client.answer(in_chunks(body, size)))[0] == 200
            await hang_up(client.writer)

    run(loop, test())


def pieces_of(random: Random) -> list[bytes]:
    """Return some things that a client may send, cut up anywhere."""
    good = (http(BAD), http(GOOD), http(b"{}"), http(b" " * random.randrange(90_000) + BAD))
    chunked = http(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    odd = (
        chunked + b"5\r\nhello\r\n0\r\n\r\n",
        chunked + b"5;x=y\r\nhel",
        b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /livez HTTP/1.0\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"\x16\x03\x01\x00",
        part(random.randrange(60_000)),
        http(BAD)[: random.randrange(len(BAD))],
    )
    sent = b"".join(random.choice(good + odd) for _ in range(random.randrange(1, 5)))
    cuts = sorted(random.randrange(len(sent)) for _ in range(random.randrange(4)))
    return [sent[a:b] for a, b in itertools.pairwise([0, *cuts, len(sent)])]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("seed", range(3))
def test_whatever_clients_send_everything_is_let_go_of_in_the_end(loop: str, seed: int) -> None:
    random = Random(seed)

    async def client(running: Running, pieces: list[bytes]) -> None:
        one = await running.connect()
        # uvloop raises RuntimeError for what is closed.
        with contextlib.suppress(OSError, RuntimeError):
            for piece in pieces:
                one.writer.write(piece)
                await one.writer.drain()
                await asyncio.sleep(random.random() / 50)
        one.abort()

    async def test() -> None:
        limits = Limits(connections=30, total_bytes=200_000, header_seconds=0.1, body_seconds=0.1)
        async with listening(limits, kept=10) as running:
            await asyncio.gather(*(client(running, pieces_of(random)) for _ in range(100)))
            await running.until(lambda: len(running.server.room) == 0)
            assert running.app.state.in_flight.bytes == 0
            assert running.metrics.registry.get_sample_value(INTERNAL_ERRORS) == 0
            last = await running.connect()
            assert (await last.answer())[0] == 200
            last.abort()

    run(loop, test())
