"""Which stores may still be relied on, and whether the API server answers while some may not."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.telemetry.logs import LOGGER

#: Seconds, since the last event or bookmark; a bookmark comes every minute.
MAX_STALENESS = 90.0


class Freshness:
    """Tells which stores have not heard from the API server for too long.

    Args:
        ages: for each plural resource, what tells the seconds since its store equalled the
            cluster; None before it ever did.
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
        # A store only grows younger than it was found: until then nothing need be looked at.
        self._all_fresh_until = float("-inf")
        self.limit = limit

    def stale(self, plural: str) -> bool:
        """Tell whether a store is too old; one that has never been filled holds nothing old."""
        age = self._ages[plural]() if plural in self._ages else None
        return age is not None and age > self.limit

    def any_stale(self) -> bool:
        """Tell whether one of the stores is too old; nearly always that costs one comparison."""
        now = self._clock()
        if now <= self._all_fresh_until:
            return False
        ages = [age() for age in self._ages.values()]
        known = [age for age in ages if age is not None]
        if len(known) == len(ages):
            self._all_fresh_until = now - max(known, default=0.0) + self.limit
        return max(known, default=0.0) > self.limit


class Probe:
    """Asks whether the API server answers, while something else says that it may not.

    Stores wait longer and longer before they try again. What must not wait as long, readiness
    above all, goes by this.

    Args:
        connection: to the API server.
        troubled: tells whether there is a reason to ask.
        recovered: called when it answers again.
        sleep: waits for seconds.
    """

    #: A read of an object, as look-ups are; there need be no such Node.
    PATH = "/api/v1/nodes/noderestrict-probe"
    _NOT_FOUND = 404
    _SECONDS = 2.0
    _PAUSE = 1.0
    _LONG_PAUSE = 5.0

    def __init__(
        self,
        connection: Connection,
        troubled: Callable[[], bool],
        recovered: Callable[[], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._connection = connection
        self._troubled = troubled
        self._recovered = recovered
        self._sleep = sleep
        self.answers = True

    async def run(self) -> None:
        """Ask as long as there is a reason, until cancelled."""
        asked = False
        while True:
            # If it answers, what is wrong is not the way to the API server.
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
                        "the API server cannot be asked", extra={"error": str(error)[:500]}
                    )
                self.answers = False
                return
        if not self.answers:
            LOGGER.info("the API server can be asked again")
            self.answers = True
            self._recovered()
