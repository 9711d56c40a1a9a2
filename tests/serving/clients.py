"""Clients that keep connections open and count what goes wrong."""

import asyncio
import contextlib
import ssl
from dataclasses import dataclass, field
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
GOOD = (EXAMPLES / "own-pod-status-review.json").read_bytes()
BAD = (EXAMPLES / "mirror-pod-review.json").read_bytes()


@dataclass
class Tally:
    """What clients saw."""

    answers: dict[int, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def count(self, status: int) -> None:
        self.answers[status] = self.answers.get(status, 0) + 1


def http(body: bytes, query: str = "", path: str = "/validate") -> bytes:
    """Return a whole request."""
    head = (
        f"POST {path}{query} HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """Return status, body, and whether the server closes."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length"))
    body = await reader.readexactly(length)
    return int(lines[0].split()[1]), body, "connection: close" in lines


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close a connection to its end, so that no transport is left to the garbage collector."""
    writer.close()
    with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
        async with asyncio.timeout(5):
            await writer.wait_closed()


class Client:
    """Sends a good and a bad review in turn; reconnects when told to, or every so often."""

    def __init__(self, port: int, context: ssl.SSLContext, tally: Tally, reconnect: int) -> None:
        self._port = port
        self._context = context
        self._tally = tally
        self._reconnect = reconnect
        self.stopping = False

    async def run(self, pause: float = 0.002) -> None:
        while not self.stopping:
            try:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", self._port, ssl=self._context, server_hostname="localhost"
                )
            except (OSError, ssl.SSLError) as error:
                self._tally.failures.append(f"handshake: {error!r}")
                await asyncio.sleep(0.05)
                continue
            try:
                await self._requests(reader, writer, pause)
            except (OSError, ssl.SSLError, EOFError) as error:
                self._tally.failures.append(f"request: {error!r}")
            finally:
                await hang_up(writer)

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pause: float
    ) -> None:
        for number in range(self._reconnect):
            if self.stopping:
                return
            body = BAD if number % 2 else GOOD
            writer.write(http(body))
            status, answer, closing = await read_answer(reader)
            self._tally.count(status)
            expected = b'"allowed":false' if number % 2 else b'"allowed":true'
            if status == 200 and expected not in answer:
                self._tally.wrong.append(answer.decode())
            if closing:
                return
            await asyncio.sleep(pause)
