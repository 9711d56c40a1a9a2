"""Jobs that run beside the server for as long as it does."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from noderestrict.policy.hostile import brief, is_failure
from noderestrict.serving.state import ServerState
from noderestrict.telemetry.logs import LOGGER
from noderestrict.telemetry.metrics import Metrics

#: By name, what starts a job; a job runs until it is cancelled.
Jobs = Mapping[str, Callable[[], Awaitable[Any]]]

_FIRST_DELAY = 1.0
_LONGEST_DELAY = 60.0
_LAG_INTERVAL = 0.05


async def supervise(
    name: str,
    start: Callable[[], Awaitable[Any]],
    metrics: Metrics,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    clock: Callable[[], float] | None = None,
) -> None:
    """Run a job, and restart it whenever it ends, until cancelled.

    The delay before a restart doubles from one second to a minute, and is reset once the job has
    run for longer than that.

    Args:
        name: of the job, for the log and the metrics.
        start: starts it.
        metrics: counted into.
        sleep: waits that many seconds.
        clock: seconds, monotonic; the event loop's if None.
    """
    now = clock or asyncio.get_running_loop().time
    delay = _FIRST_DELAY
    while True:
        begun = now()
        failure: BaseException | None = None
        try:
            await start()
        except BaseException as error:
            if not is_failure(error):
                raise
            failure = error
        if now() - begun > _LONGEST_DELAY:
            delay = _FIRST_DELAY
        metrics.background_failures.labels(name).inc()
        LOGGER.error(
            "a background job ended; restarting it",
            extra={
                "job": name,
                "problem": "it returned" if failure is None else brief(failure),
                "seconds": delay,
            },
            exc_info=failure,
        )
        await sleep(delay)
        delay = min(delay * 2, _LONGEST_DELAY)


@contextlib.asynccontextmanager
async def running(jobs: Jobs, metrics: Metrics) -> AsyncIterator[None]:
    """Run jobs, each supervised, until the body ends."""
    tasks = [
        asyncio.get_running_loop().create_task(supervise(name, start, metrics), name=name)
        for name, start in jobs.items()
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def measure_lag(state: ServerState, metrics: Metrics) -> None:
    """Measure again and again how late the event loop is.

    Args:
        state: gets the seconds.
        metrics: observe them.
    """
    while True:
        # Not the loop's own clock: uvloop updates it once per iteration, in milliseconds.
        due = time.monotonic() + _LAG_INTERVAL
        await asyncio.sleep(_LAG_INTERVAL)
        state.lag = max(0.0, time.monotonic() - due)
        metrics.loop_lag.observe(state.lag)
