"""Staleness: which stores are too old, and whether the API server answers when some are."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.telemetry.logs import LOGGER

#: Seconds since the last event or bookmark; a bookmark arrives every minute.
MAX_STALENESS = 90.0


class Freshness:
    """Knows which stores have not heard from the API server for too long.

    Args:
        ages: for each plural resource, a function that returns the seconds since its store equalled
            the cluster; None if it never has.
        limit: seconds.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        ages: Mapping[str, Callable[[], float | None]],
        limit: float = MAX_STALENESS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ages = ages
        self._clock = clock
        # Before this time no store can become stale, so none needs to be checked.
        self._all_fresh_until = float("-inf")
        self.limit = limit

    def stale(self, plural: str) -> bool:
        """Return whether a store is too old; one that was never filled is not."""
        age = self._ages[plural]() if plural in self._ages else None
        return age is not None and age > self.limit

    def any_stale(self) -> bool:
        """Return whether any store is too old; this nearly always takes one comparison."""
        now = self._clock()
        if now <= self._all_fresh_until:
            return False
        ages = [age() for age in self._ages.values()]
        known = [age for age in ages if age is not None]
        if len(known) == len(ages):
            self._all_fresh_until = now - max(known, default=0.0) + self.limit
        return max(known, default=0.0) > self.limit


class Probe:
    """Checks whether the API server answers, while there are signs that it does not.

    Stores back off for longer and longer before they try again. Whatever cannot wait that long,
    above all readiness, uses this.

    Args:
        connection: to the API server.
        troubled: returns whether there is a reason to check.
        lost: called when the API server is found not to answer.
        recovered: called when the API server answers again.
        sleep: waits for seconds.
    """

    #: Reads an object, as lookups do; the Node need not exist.
    PATH = "/api/v1/nodes/noderestrict-probe"
    _NOT_FOUND = 404
    _SECONDS = 2.0
    _PAUSE = 1.0
    _LONG_PAUSE = 5.0

    def __init__(
        self,
        connection: Connection,
        troubled: Callable[[], bool],
        lost: Callable[[], None],
        recovered: Callable[[], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._connection = connection
        self._troubled = troubled
        self._lost = lost
        self._recovered = recovered
        self._sleep = sleep
        self.answers = True

    async def run(self) -> None:
        """Check while there is a reason to, until cancelled."""
        asked = False
        while True:
            # If it answers, the connection to the API server is not the problem.
            await self._sleep(self._LONG_PAUSE if asked and self.answers else self._PAUSE)
            asked = not self.answers or self._troubled()
            if asked:
                await self._ask()

    async def _ask(self) -> None:
        try:
            await self._connection.get(self.PATH, seconds=self._SECONDS)
        except ClusterError as error:
            if error.code != self._NOT_FOUND:
                if self.answers:
                    LOGGER.warning(
                        "the API server does not answer", extra={"error": str(error)[:500]}
                    )
                    self._lost()
                self.answers = False
                return
        if not self.answers:
            LOGGER.info("the API server answers again")
            self.answers = True
            self._recovered()
