"""A server in the test's own event loop, over plain HTTP, with limits and a judge of its choice."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence, Set
from dataclasses import dataclass

import uvloop

from noderestrict import admission
from noderestrict.agents.agents import InForce
from noderestrict.policy.decision import Allowed, Denied
from noderestrict.policy.settings import Settings
from noderestrict.replay.state import load_state
from noderestrict.serving.app import App, Endpoint
from noderestrict.serving.authorize import Authorizer
from noderestrict.serving.capture import Capture
from noderestrict.serving.connections import Connection, Server
from noderestrict.serving.limits import Limits
from noderestrict.serving.listener import Listener, listening_sockets
from noderestrict.serving.local import LocalJudge
from noderestrict.serving.modes import Modes
from noderestrict.serving.reporter import Reporter
from noderestrict.serving.room import Room
from noderestrict.serving.settle import Judge
from noderestrict.telemetry.metrics import Metrics
from tests.serving.clients import BAD, EXAMPLES, http, read_answer

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def run(loop: str, test: Awaitable[None]) -> None:
    """Run a test on one of the loops."""

    async def within_time() -> None:
        async with asyncio.timeout(120):
            await test

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(within_time())


class WaitingJudge(LocalJudge):
    """Judges what is not surely allowed once it may."""

    def __init__(self) -> None:
        super().__init__(Settings.for_version(), load_state([str(EXAMPLES / "state.json")]))
        self.may = asyncio.Event()

    async def judge(
        self,
        request: admission.Request,
        deadline: float,
        skipped: Set[str] = frozenset(),
        peer: str = "",
        run: admission.Run = admission.inline,
    ) -> Allowed | Denied:
        await self.may.wait()
        return await super().judge(request, deadline, skipped, peer, run)


@dataclass
class Running:
    """A server that listens on a port of 127.0.0.1; with what it counts."""

    port: int
    server: Server
    app: App
    metrics: Metrics

    def ended(self, reason: str) -> float:
        return self._value("noderestrict_closed_connections_total", port="webhook", reason=reason)

    def shed(self, limit: str) -> float:
        return self._value("noderestrict_shed_requests_total", limit=limit)

    def _value(self, name: str, **labels: str) -> float:
        value = self.metrics.registry.get_sample_value(name, labels)
        assert value is not None
        return value

    async def connect(self) -> "Client":
        return Client(*await asyncio.open_connection("127.0.0.1", self.port))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what happens soon."""
        while not condition():  # noqa: ASYNC110 (of the server, which tells nobody)
            await asyncio.sleep(0.005)


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def answer(self, request: bytes = http(BAD)) -> tuple[int, bytes, bool]:
        """Return status, body, and whether the server closes."""
        self.writer.write(request)
        return await read_answer(self.reader)

    async def is_closed(self) -> bool:
        try:
            return await self.reader.read() == b""
        except OSError:
            return True

    def abort(self) -> None:
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def listening(
    limits: Limits,
    judge: Judge | None = None,
    kept: int = 1000,
    capture: Capture | None = None,
    authorizer: Authorizer | None = None,
    agents: InForce | None = None,
    modes: Modes | None = None,
    reporters: Sequence[Reporter] = (),
    traced: Callable[[str, Endpoint], Endpoint] | None = None,
) -> AsyncIterator[Running]:
    if judge is None:
        judge = WaitingJudge()
        judge.may.set()
    metrics = Metrics()
    app = App(judge, metrics, limits, authorizer, modes, capture, agents, reporters, traced)
    room: Room[Connection] = Room(limits.fresh, kept)
    server = Server(
        app.handle, limits, room, app.state.in_flight, metrics.closed_connections("webhook")
    )
    sockets = await listening_sockets("127.0.0.1", 0)
    # So that what a client leaves unread is soon felt.
    sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    listener = Listener(sockets, server, metrics)
    try:
        yield Running(listener.port, server, app, metrics)
    finally:
        listener.close()
        await server.shutdown(1)
        assert app.state.in_flight.bytes == 0
        assert app.state.in_flight.requests == 0
        assert len(room) == 0
