"""Large bodies are judged one at a time, in a thread, so that small ones do not wait for them.

A thread yields to the event loop every few milliseconds, but only between bytecodes; decoding is
one call, and blocks everything else. So the thread rests for as long as it worked, which leaves
half of the time to the others, whatever anybody sends.
"""

import asyncio
import contextlib
import time
from collections import OrderedDict, deque
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
    """Runs calls one after the other, taking clients in turn.

    Args:
        executor: runs them; if None, a pool of one thread.
    """

    def __init__(self, executor: Executor | None = None) -> None:
        self._executor = ThreadPoolExecutor(1, "large") if executor is None else executor
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._taken = False
        # Seconds worked since the last rest.
        self._owed = 0.0

    def of(self, client: str, deadline: float) -> Run:
        """Return what runs calls for a client.

        Args:
            client: its address.
            deadline: of time.monotonic(), seconds, before which a call must start.
        """

        async def run(call: Callable[[], _T], /) -> _T:
            return await self._run(call, client, deadline)

        return run

    async def _run(self, call: Callable[[], _T], client: str, deadline: float) -> _T:
        """Run a call when it is its turn.

        Raises:
            CrowdedError: its turn does not come in time.
        """
        await self._turn(client, deadline)

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

    async def _turn(self, client: str, deadline: float) -> None:
        if not self._taken:
            self._taken = True
            return
        waiting = self._waiting.setdefault(client, deque())
        if sum(map(len, self._waiting.values())) >= MOST_WAITING:
            # The newest call of the client that has most gives way.
            crowd = max(self._waiting.values(), key=len)
            if len(crowd) <= len(waiting) + 1:
                raise CrowdedError("large_bodies")
            crowd.pop().set_exception(CrowdedError("large_bodies"))
        turn = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await turn
        except TimeoutError:
            self._leave(turn, waiting)
            raise CrowdedError("deadline") from None
        except asyncio.CancelledError:
            self._leave(turn, waiting)
            raise

    def _leave(self, turn: "asyncio.Future[None]", waiting: "deque[asyncio.Future[None]]") -> None:
        if turn.cancelled():
            # It may have been skipped already.
            with contextlib.suppress(ValueError):
                waiting.remove(turn)
        elif turn.exception() is None:
            # Its turn came at this very moment: pass it on.
            self._next()

    def _next(self) -> None:
        while self._waiting:
            client, waiting = self._waiting.popitem(last=False)
            turn = waiting.popleft() if waiting else None
            if waiting:
                self._waiting[client] = waiting
            if turn is not None and not turn.done():
                turn.set_result(None)
                return
        self._taken = False
