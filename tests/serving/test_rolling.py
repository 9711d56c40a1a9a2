"""Two servers behind a TCP balancer are replaced one after the other, under load."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from noderestrict.pki.issue import Authority
from tests.serving.clients import EXAMPLES, Client, Tally, hang_up
from tests.serving.tls import Server, authority, serving

RESTARTS = 20
CLIENTS = 10


class Balancer:
    """Gives each new connection to a server that says it is ready."""

    def __init__(self) -> None:
        self.servers: list[Server] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self._turn = 0

    async def _ready(self, server: Server) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.metrics_port)
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = await reader.read()
            await hang_up(writer)
        except OSError:
            return False
        return answer.startswith(b"HTTP/1.1 200")

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            for _ in range(200):
                self._turn += 1
                server = self.servers[self._turn % len(self.servers)]
                if await self._ready(server):
                    break
                await asyncio.sleep(0.01)
            far_reader, far = await asyncio.open_connection("127.0.0.1", server.port)
            try:
                await asyncio.gather(_pump(reader, far), _pump(far_reader, writer))
            finally:
                await hang_up(far)
        await hang_up(writer)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def balancing() -> AsyncIterator[tuple[Balancer, int]]:
    balancer = Balancer()
    listener = await asyncio.start_server(balancer.handle, "127.0.0.1", 0)
    try:
        yield balancer, listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        for task in list(balancer.tasks):
            task.cancel()
        await asyncio.gather(*balancer.tasks, return_exceptions=True)


async def test_no_request_fails_while_servers_are_replaced(tmp_path: Path) -> None:
    ca = authority()
    tally = Tally()
    async with balancing() as (balancer, port), contextlib.AsyncExitStack() as stack:
        for number in range(2):
            balancer.servers.append(await _start(stack, tmp_path / f"first-{number}", ca))
        context = balancer.servers[0].context
        clients = [Client(port, context, tally, reconnect=50) for _ in range(CLIENTS)]
        tasks = [asyncio.create_task(client.run(pause=0.02)) for client in clients]
        for number in range(RESTARTS):
            old = balancer.servers[0]
            new = await _start(stack, tmp_path / f"next-{number}", ca)
            old.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(old.process.wait, 20) == 0
            balancer.servers = [balancer.servers[1], new]
        for client in clients:
            client.stopping = True
        await asyncio.gather(*tasks)
    assert tally.failures == []
    assert tally.wrong == []
    assert tally.answers.keys() == {200}


async def _start(stack: contextlib.AsyncExitStack, folder: Path, ca: Authority) -> Server:
    await asyncio.to_thread(folder.mkdir)
    running = serving(folder, "--state", str(EXAMPLES / "state.json"), ca=ca, state=False)
    server = await asyncio.to_thread(running.__enter__)
    stack.push_async_callback(asyncio.to_thread, running.__exit__, None, None, None)
    return server


async def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, "--shutdown-delay", "600") as server:
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log('"stopping"')
        code, _, headers = server.request("/livez")
        assert (code, headers["Connection"]) == (200, "close")
        assert server.request("/readyz")[0] == 503
        assert server.stop() == 0
