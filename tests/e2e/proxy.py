"""A network between webhook and API server that can be taken away."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator


class Network:
    """Forwards connections to a port of this machine, from a thread of its own."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        #: One for all connections of a time; those made while they are held come through again.
        self._gate = asyncio.Event()
        self._gate.set()
        self._gates = {self._gate}
        self.port = 0
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    async def _run(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far: asyncio.StreamWriter | None = None
        gate = self._gate
        try:
            await gate.wait()
            far_reader, far = await asyncio.open_connection("127.0.0.1", self._to)
            self._writers |= {writer, far}
            await asyncio.gather(
                self._pump(reader, far, gate), self._pump(far_reader, writer, gate)
            )
        except (OSError, asyncio.CancelledError):
            pass  # a broken connection, or the end of the network, is told by closing both ends
        finally:
            for end in (writer, far):
                if end is not None:
                    self._writers.discard(end)
                    end.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event
    ) -> None:
        while data := await reader.read(65536):
            await gate.wait()
            writer.write(data)
            await writer.drain()
        writer.close()

    def part(self) -> None:
        """Let nothing through any more; nobody is told."""
        self._loop.call_soon_threadsafe(self._gate.clear)

    def freeze(self) -> None:
        """Let nothing through the connections that there are; new ones work."""

        def replace() -> None:
            self._gate.clear()
            self._gate = asyncio.Event()
            self._gate.set()
            self._gates.add(self._gate)

        self._loop.call_soon_threadsafe(replace)

    def heal(self, *, reset: bool = False) -> None:
        """Let everything through again, what was held back included.

        Args:
            reset: break the old connections off instead.
        """

        def reopen() -> None:
            if reset:
                for writer in self._writers:
                    writer.transport.abort()
            for gate in self._gates:
                gate.set()
            self._gates = {self._gate}

        self._loop.call_soon_threadsafe(reopen)

    @classmethod
    @contextlib.contextmanager
    def between(cls, port: int) -> Iterator["Network"]:
        """Run a network to a port."""
        network = cls(port)
        network._thread.start()
        assert network._started.wait(10)
        try:
            yield network
        finally:
            network._loop.call_soon_threadsafe(network._stop.set)
            network._thread.join(10)
            network._loop.close()
