"""Large bodies are judged one at a time, in a thread, so that small ones do not wait for them.

A thread yields to the event loop every few milliseconds, but only between bytecodes; decoding is
one call, and blocks everything else. So the thread rests for as long as it worked, which leaves
half of the time to the others, whatever anybody sends.

The smaller ones come first, and those of clients of which fewer wait: a node's status, of some
hundred KiB, does not wait for bodies of 8 MiB, from however many addresses they come.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, TypeVar

from noderestrict.admission import Run
from noderestrict.errors import NoderestrictError

_T = TypeVar("_T")

#: A review of this size takes a few milliseconds at worst, and few are larger.
LARGE_BYTES = 128 * 1024
#: Most calls that may wait.
MOST_WAITING = 256
_SHORTEST_REST, _LONGEST_REST = 0.005, 1.0


class CrowdedError(NoderestrictError):
    """A call cannot start before its deadline, or too many are waiting.

    Attributes:
        limit: which was reached, ``deadline`` or ``large_bodies``.
    """

    def __init__(self, limit: str) -> None:
        super().__init__(limit)
        self.limit = limit


class Lane:
    """Runs calls one after the other.

    What is due first runs first, and when there is no place, what is due last gives way. A call is
    due after so many bytes of others as its own body has, times the calls of its client that wait,
    itself included: so nothing waits for ever.

    Args:
        executor: runs them; if None, a pool of one thread.
    """

    def __init__(self, executor: Executor | None = None) -> None:
        self._executor = ThreadPoolExecutor(1, "large") if executor is None else executor
        # By when each is due, and its number of arrival and client.
        self._waiting: dict[asyncio.Future[None], tuple[int, int, str]] = {}
        self._arrivals = 0
        # When what ran last was due, in bytes.
        self._now = 0
        self._taken = False
        # Seconds worked since the last rest.
        self._owed = 0.0

    def of(self, client: str, size: int, deadline: float) -> Run:
        """Return what runs calls for a client.

        Args:
            client: its address.
            size: of the body that each call goes through, in bytes.
            deadline: of time.monotonic(), seconds, before which a call must start.
        """

        async def run(call: Callable[[], _T], /) -> _T:
            return await self._run(call, client, size, deadline)

        return run

    async def _run(self, call: Callable[[], _T], client: str, size: int, deadline: float) -> _T:
        """Run a call when it is its turn.

        Raises:
            CrowdedError: its turn does not come in time.
        """
        await self._turn(client, size, deadline)

        def measured() -> _T:
            started = time.thread_time()
            try:
                return call()
            finally:
                self._owed += time.thread_time() - started

        try:
            work = asyncio.get_running_loop().run_in_executor(self._executor, measured)
        except RuntimeError:
            # The system cannot start a thread.
            self._next()
            raise
        work.add_done_callback(self._rest)
        # The call continues when the client disconnects.
        return await asyncio.shield(work)

    def _rest(self, work: "asyncio.Future[Any]") -> None:
        if not work.cancelled():
            # Mark it as retrieved: nobody may be left to do so.
            work.exception()
        if self._owed < _SHORTEST_REST:
            self._next()
            return
        seconds, self._owed = min(self._owed, _LONGEST_REST), 0.0
        asyncio.get_running_loop().call_later(seconds, self._next)

    async def _turn(self, client: str, size: int, deadline: float) -> None:
        if not self._taken:
            self._taken = True
            self._now += size
            return
        waiting = self._waiting
        due = self._now + size * (1 + sum(who == client for _, _, who in waiting.values()))
        if len(waiting) >= MOST_WAITING:
            last = max(waiting, key=waiting.__getitem__, default=None)
            if last is None or waiting[last][0] <= due:
                raise CrowdedError("large_bodies")
            del waiting[last]
            last.set_exception(CrowdedError("large_bodies"))
        turn = asyncio.get_running_loop().create_future()
        self._arrivals += 1
        waiting[turn] = due, self._arrivals, client
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await turn
        except TimeoutError:
            self._leave(turn)
            raise CrowdedError("deadline") from None
        except asyncio.CancelledError:
            self._leave(turn)
            raise

    def _leave(self, turn: "asyncio.Future[None]") -> None:
        waited = self._waiting.pop(turn, None) is not None
        if not (waited or turn.cancelled() or turn.exception()):
            # Its turn came at this very moment: pass it on.
            self._next()

    def _next(self) -> None:
        while self._waiting:
            turn = min(self._waiting, key=self._waiting.__getitem__)
            due, _, _ = self._waiting.pop(turn)
            if not turn.done():
                self._now = max(self._now, due)
                turn.set_result(None)
                return
        self._taken = False
