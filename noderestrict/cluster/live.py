"""Live lookups at the API server: coalesced, with a deadline, and limited per node."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from http import HTTPStatus
from typing import Generic, TypeVar

from noderestrict.api.resources import RESOURCES, ObjectKey
from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.objects import ObjectDecoder, Unreadable
from noderestrict.errors import NoderestrictError
from noderestrict.policy.records import RECORDS, Record

_T = TypeVar("_T")
CALL_SECONDS = 5.0
# Every this many bytes of an object cost another call. Reading 1.5 MB takes far longer than most
# objects do, and whoever may write it can cause repeated lookups.
_BYTES_OF_A_CALL = 128 * 1024


class BudgetExhaustedError(NoderestrictError):
    """A share of the budget has no live lookups left."""


#: Names without a Node share one budget, because anybody can make up any number of them.
UNKNOWN_NODES = ("", "")


class Budget:
    """A token bucket for each share, so that no client can flood the API server.

    A share is a node at a client address, because anybody may pose as a node, or
    ``UNKNOWN_NODES``.

    Args:
        burst: calls at once.
        per_second: calls over time.
        clock: seconds, monotonic.
        shares: how many to keep; the least recently used one is evicted first.
    """

    def __init__(
        self,
        burst: float = 200,
        per_second: float = 20,
        *,
        clock: Callable[[], float] = time.monotonic,
        shares: int = 20_000,
    ) -> None:
        self._burst = burst
        self._per_second = per_second
        self._clock = clock
        self._shares = shares
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def spend(self, share: Hashable, calls: int = 1) -> None:
        """Take calls from the bucket of a share.

        Raises:
            BudgetExhaustedError: there are not enough calls left.
        """
        if self._left(share) < calls:
            whom = "names without a Node" if share == UNKNOWN_NODES else "this node"
            raise BudgetExhaustedError(f"too many live lookups for {whom}")
        self.charge(share, calls)

    def charge(self, share: Hashable, calls: int) -> None:
        """Take calls from the bucket of a share, even if it has too few."""
        self._buckets[share] = (self._left(share) - calls, self._clock())
        self._buckets.move_to_end(share)
        if len(self._buckets) > self._shares:
            self._buckets.popitem(last=False)

    def _left(self, share: Hashable) -> float:
        now = self._clock()
        left, since = self._buckets.get(share, (self._burst, now))
        return min(self._burst, left + (now - since) * self._per_second)


class Coalescer(Generic[_T]):
    """Makes one call for concurrent callers with the same key.

    A caller that arrives during a call does not get its answer, which may be older than the
    request. It waits for the next call, which all later callers share.
    """

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Task[_T]] = {}
        self._next: dict[Hashable, asyncio.Task[_T]] = {}

    async def ask(self, key: Hashable, call: Callable[[], Awaitable[_T]], seconds: float) -> _T:
        """Return the answer of a call that starts later than this one.

        Raises:
            TimeoutError: no answer came in time; the call continues for the others.
        """
        task = self._next.get(key)
        if task is None:
            running = self._running.get(key)
            task = asyncio.get_running_loop().create_task(self._run(key, call, running))
            if running is None:
                self._running[key] = task
            else:
                self._next[key] = task
        return await asyncio.wait_for(asyncio.shield(task), max(0.0, seconds))

    async def _run(
        self, key: Hashable, call: Callable[[], Awaitable[_T]], before: asyncio.Task[_T] | None
    ) -> _T:
        own = asyncio.current_task()
        if before is not None:
            await asyncio.wait((before,))
            if self._next.get(key) is own:
                self._running[key] = self._next.pop(key)
        try:
            return await call()
        finally:
            if self._running.get(key) is own:
                del self._running[key]


class LiveLookups:
    """Reads single objects from the API server.

    Args:
        connection: to the API server.
        budget: per node and client address.
        counted: called with resource and result (``found``, ``not_found``, ``error``).
    """

    def __init__(
        self,
        connection: Connection,
        budget: Budget,
        counted: Callable[[str, str], None] = lambda _resource, _result: None,
    ) -> None:
        self._connection = connection
        self._budget = budget
        self._counted = counted
        self._calls: Coalescer[Record | None] = Coalescer()
        self._decoders = {plural: ObjectDecoder(RESOURCES[plural].struct) for plural in RECORDS}

    async def get(self, key: ObjectKey, share: Hashable, seconds: float) -> Record | None:
        """Return the record of an object; None if it does not exist.

        Args:
            key: of the object.
            share: of the budget to spend.
            seconds: how long to wait.

        Raises:
            BudgetExhaustedError: the share is used up.
            ClusterError: the API server did not answer, or not in time.
        """
        self._budget.spend(share)
        try:
            return await self._calls.ask(key, lambda: self._fetch(key, share), seconds)
        except TimeoutError:
            raise ClusterError(f"{key}: no answer in time") from None

    async def _fetch(self, key: ObjectKey, share: Hashable) -> Record | None:
        plural, namespace, name = key
        if not is_path_segment(name) or (namespace and not is_path_segment(namespace)):
            return None
        path = RESOURCES[plural].path(namespace, name)
        try:
            body = await self._connection.get(path, seconds=CALL_SECONDS)
            self._budget.charge(share, len(body) // _BYTES_OF_A_CALL)
        except ClusterError as error:
            if error.code == HTTPStatus.NOT_FOUND:
                self._counted(plural, "not_found")
                return None
            self._counted(plural, "error")
            raise
        try:
            record = await self._record(plural, body)
        except Exception as error:  # noqa: BLE001 (a bad object must affect only itself)
            self._counted(plural, "error")
            raise ClusterError(f"{key}: {error}") from None
        self._counted(plural, "found")
        return record

    async def _record(self, plural: str, body: bytes) -> Record:
        decoder = self._decoders[plural]
        value = decoder.quick(body)
        if value is None:
            value = await decoder.decode(body)
        if isinstance(value, Unreadable):
            raise ClusterError(value.problem)
        return RECORDS[plural](value)


def is_path_segment(text: str) -> bool:
    """Return whether a name chosen by a node is safe in a path; the names of all objects are."""
    return (
        bool(text)
        and all(char.isalnum() or char in "-._:" for char in text)
        and (text.isascii() and text not in (".", ".."))
    )
