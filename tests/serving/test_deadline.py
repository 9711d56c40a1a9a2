"""A review is judged within the time that its API server waits, and not when there is none left."""

import json
import time
from collections.abc import Set

import pytest

from noderestrict import admission
from noderestrict.policy.decision import Allowed, Denied
from noderestrict.serving.limits import Limits
from tests.serving.clients import BAD, http
from tests.serving.inprocess import LOOPS, Running, WaitingJudge, listening, run


class TimedJudge(WaitingJudge):
    """Keeps the deadlines that it is given, each with the time when it was."""

    def __init__(self) -> None:
        super().__init__()
        self.may.set()
        self.given: list[tuple[float, float]] = []

    async def judge(
        self,
        request: admission.Request,
        deadline: float,
        skipped: Set[str] = frozenset(),
        peer: str = "",
        run: admission.Run = admission.inline,
    ) -> Allowed | Denied:
        self.given.append((deadline, time.monotonic()))
        return await super().judge(request, deadline, skipped, peer, run)


async def asked(running: Running, query: str) -> tuple[int, str]:
    """Return status and message, or body, of the answer to a bad review."""
    client = await running.connect()
    status, body, _ = await client.answer(http(BAD, query))
    client.abort()
    return status, json.loads(body).get("message", body.decode())


@pytest.mark.parametrize(
    ("query", "seconds"),
    [
        # The network, and the API server itself, need some of it.
        ("?timeout=5s", 4.5),
        ("?timeout=300ms", 0.27),
        ("?timeout=1500ms", 1.35),
        ("?timeout=2000000us", 1.8),
        ("?timeout=1s&timeout=9s", 0.9),
        # The API server waits no longer than this, whatever a client asks for.
        ("?timeout=1m", 27),
        ("?timeout=300m", 27),
        # And so long where it does not say.
        ("", 9),
        ("?timeout=", 9),
        ("?timeout=soon", 9),
        ("?timeout=0s", 9),
        ("?dry=run", 9),
    ],
)
async def test_the_deadline_is_what_the_api_server_leaves(query: str, seconds: float) -> None:
    judge = TimedJudge()
    async with listening(Limits(), judge) as running:
        for _ in range(2):
            before = time.monotonic()
            assert (await asked(running, query))[0] == 200
            deadline, judged = judge.given.pop()
            assert before + seconds <= deadline + 1e-6
            assert deadline <= judged + seconds + 1e-6


@pytest.mark.parametrize("loop", LOOPS)
def test_a_review_that_has_waited_longer_than_it_may_is_refused_and_not_judged(loop: str) -> None:
    async def test() -> None:
        judge = TimedJudge()
        async with listening(Limits(), judge) as running:
            running.app.state.lag = 0.9
            status, message = await asked(running, "?timeout=1s")
            assert status == 503
            assert "deadline" in message
            assert running.shed("deadline") == 1
            assert judge.given == []
            # Where more time is left it is judged, but not as if it had just come.
            before = time.monotonic()
            assert (await asked(running, "?timeout=2s"))[0] == 200
            deadline, judged = judge.given.pop()
            assert before + 0.9 <= deadline + 1e-6
            assert deadline <= judged + 0.9 + 1e-6

    run(loop, test())


async def test_queries_that_are_never_the_same_do_not_fill_the_memory() -> None:
    async with listening(Limits()) as running:
        client = await running.connect()
        for number in range(300):
            assert (await client.answer(http(BAD, f"?timeout=5s&{number}")))[0] == 200
        client.abort()
        assert 1 <= len(running.app._routes) <= 100


def chunked(*chunks: bytes, end: bool) -> bytes:
    head = http(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return head + body + (b"0\r\n\r\n" if end else b"")


LIMIT = 10_000
PADDED = b" " * (LIMIT + 1 - len(BAD)) + BAD


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (http(b"").replace(b"Length: 0", b"Length: %d" % (LIMIT + 1)), "the limit is 10000 bytes"),
        (chunked(PADDED, end=True), "over 10000 bytes"),
        # More is still to come: nobody waits for it.
        (chunked(PADDED[:6000], PADDED[:6000], end=False), "over 10000 bytes"),
    ],
    ids=["announced", "here", "under way"],
)
def test_a_body_that_is_too_large_is_refused_before_its_end(
    loop: str, request_: bytes, says: str
) -> None:
    async def test() -> None:
        async with listening(Limits(body_bytes=LIMIT)) as running:
            client = await running.connect()
            status, body, _ = await client.answer(request_)
            assert status == 413
            assert says in json.loads(body)["message"]
            client.abort()

    run(loop, test())


@pytest.mark.parametrize("loop", LOOPS)
def test_a_body_of_exactly_the_limit_is_judged(loop: str) -> None:
    async def test() -> None:
        async with listening(Limits(body_bytes=LIMIT)) as running:
            client = await running.connect()
            for request in (http(PADDED[1:]), chunked(PADDED[1:], end=True)):
                status, body, _ = await client.answer(request)
                assert status == 200
                assert b'"allowed":false' in body
            client.abort()

    run(loop, test())


async def test_a_packed_body_is_refused() -> None:
    async with listening(Limits()) as running:
        client = await running.connect()
        packed = http(BAD).replace(b"Host:", b"Content-Encoding: gzip\r\nHost:")
        assert (await client.answer(packed))[0] == 415
        client.abort()


@pytest.mark.parametrize("loop", LOOPS)
def test_who_sends_no_end_of_a_body_is_told_and_let_go(loop: str) -> None:
    async def test() -> None:
        async with listening(Limits(body_seconds=0.05)) as running:
            client = await running.connect()
            status, body, closes = await client.answer(http(BAD)[:-1])
            assert (status, closes) == (408, True)
            assert "did not arrive within 0.05 s" in json.loads(body)["message"]
            assert await client.is_closed()
            client.abort()

    run(loop, test())
