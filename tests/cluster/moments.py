"""Time that passes when a test says so."""

import asyncio


class Moments:
    """A clock, and what waits for it.

    Attributes:
        now: seconds.
    """

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now
        self._waiting: asyncio.Queue[tuple[float, asyncio.Event]] = asyncio.Queue()

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        over = asyncio.Event()
        self._waiting.put_nowait((seconds, over))
        await over.wait()

    async def waits(self) -> float:
        """Return for how long something waits next, and let that pass."""
        async with asyncio.timeout(60):
            seconds, over = await self._waiting.get()
        self.now += seconds
        over.set()
        return seconds
