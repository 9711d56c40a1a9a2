"""Far more load than the limits admit."""

import asyncio
import json
import ssl
from pathlib import Path

from tests.serving.clients import BAD, EXAMPLES, Tally, hang_up, http, read_answer
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
    request = http(body, "?timeout=5s")
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


async def test_what_is_too_much_is_refused_and_the_rest_is_right(tmp_path: Path) -> None:
    flags = ("--state", str(EXAMPLES / "state.json"), "--max-in-flight", str(LIMIT))
    with serving(tmp_path, *flags, state=False) as server:
        tally = Tally()
        body = large_review()
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(slow_client(server.port, server.context, tally, body))
        assert tally.wrong == []
        assert tally.answers.keys() <= {200, 503, 0}
        assert tally.answers[200] > 0
        assert tally.answers[503] > 0
        assert resident_mib(server) < BOUND_MIB
        # It has recovered: everything is let go of again.
        code, answer, _ = await asyncio.to_thread(server.request, "/validate", BAD)
        assert (code, b'"allowed":false' in answer) == (200, True)
        exposition = await asyncio.to_thread(server.metrics)
        assert "noderestrict_requests_in_flight 0.0" in exposition
        assert 'noderestrict_shed_requests_total{limit="requests"} 0.0' not in exposition


async def test_a_refusal_for_overload_says_when_to_try_again(tmp_path: Path) -> None:
    with serving(tmp_path, "--max-in-flight", "1") as server:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", server.port, ssl=server.context, server_hostname="localhost"
        )
        writer.write(http(BAD)[:-10])
        while True:
            code, body, headers = await asyncio.to_thread(server.request, "/validate", BAD)
            if code != 200:
                break
        assert (code, headers["Retry-After"]) == (503, "1")
        assert b"overloaded: the limit on requests" in body
        writer.write(http(BAD)[-10:])
        assert (await read_answer(reader))[0] == 200
        await hang_up(writer)
