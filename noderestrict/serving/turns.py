"""A queue that admits so many a second."""

import asyncio
from collections import deque
from collections.abc import Callable


class Turns:
    """Admits waiters in order, at a fixed rate; a cancelled one takes no turn.

    Args:
        per_second: the rate.
        burst: most turns at once after a quiet time.
        clock: seconds; the event loop's if None.
    """

    def __init__(
        self, per_second: float, burst: int, clock: Callable[[], float] | None = None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock = clock or self._loop.time
        self._gap = 1 / per_second
        self._burst = burst
        # When all turns that were taken have been earned.
        self._earned = self._clock()
        self._line: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self) -> None:
        """Return when it is one's turn."""
        if not self._line and self._take() <= 0:
            return
        turn = self._loop.create_future()
        self._line.append(turn)
        self._go_on()
        await turn

    def _take(self) -> float:
        """Take a turn and return 0, or return the seconds until there is one."""
        now = self._clock()
        earned = max(self._earned, now - self._gap * self._burst)
        early = earned + self._gap - now
        if early > 0:
            return early
        self._earned = earned + self._gap
        return 0

    def _go_on(self) -> None:
        if self._timer is not None:
            return
        while self._line:
            if self._line[0].done():
                self._line.popleft()
                continue
            early = self._take()
            if early > 0:
                self._timer = self._loop.call_later(early, self._next)
                return
            self._line.popleft().set_result(None)

    def _next(self) -> None:
        self._timer = None
        self._go_on()
