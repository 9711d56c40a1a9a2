"""Keep the API server's audiences as they are, as far as our own token tells them."""

import asyncio
import time
from collections.abc import Callable

from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.live import Coalescer
from noderestrict.cluster.questions import learn_audiences
from noderestrict.telemetry.logs import LOGGER

_KNOWN_SECONDS = 60.0
_UNKNOWN_SECONDS = 2.0
#: A refusal rests on audiences that are not older than this.
_FRESH_SECONDS = 1.0
#: What helps where they cannot be learned.
REMEDY = "give --api-audiences as the API server has it"


class APIAudiences:
    """Learns the audiences, again and again: an API server may get others when it starts anew.

    Those that were learned are kept while they cannot be learned again.

    Args:
        connection: to the API server.
        changed: called with the audiences when they differ from those before.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        connection: Connection,
        changed: Callable[[tuple[str, ...]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._changed = changed
        self._clock = clock
        self._calls: Coalescer[None] = Coalescer()
        self._learned: float | None = None
        self._audiences: tuple[str, ...] | None = None
        self._problem = ""

    async def run(self) -> None:
        """Keep them until cancelled."""
        while True:
            try:
                await self._learn()
            except ClusterError as error:
                problem = str(error)[:500]
                if problem != self._problem:
                    LOGGER.warning(
                        "API audiences cannot be learned, %s", REMEDY, extra={"error": problem}
                    )
                self._problem = problem
            await asyncio.sleep(_UNKNOWN_SECONDS if self._audiences is None else _KNOWN_SECONDS)

    async def confirm(self, seconds: float) -> None:
        """Learn them again, unless that was done just now.

        Raises:
            ClusterError: they could not be learned, or not in time.
        """
        if self._learned is not None and self._clock() - self._learned < _FRESH_SECONDS:
            return
        try:
            await self._calls.ask("audiences", self._learn, seconds)
        except TimeoutError:
            raise ClusterError("the API audiences could not be learned in time") from None

    async def _learn(self) -> None:
        asked = self._clock()
        audiences = await learn_audiences(self._connection)
        self._learned = asked
        self._problem = ""
        if audiences != self._audiences:
            LOGGER.info("API audiences", extra={"audiences": list(audiences)})
            self._audiences = audiences
            self._changed(audiences)
