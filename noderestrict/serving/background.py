"""What runs beside the server for as long as it does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from noderestrict.policy.hostile import brief, is_failure
from noderestrict.telemetry.logs import LOGGER
from noderestrict.telemetry.metrics import Metrics

#: By name, what starts a job that runs until it is cancelled.
Jobs = Mapping[str, Callable[[], Awaitable[Any]]]

_FIRST_DELAY = 1.0
_LONGEST_DELAY = 60.0


async def supervise(
    name: str,
    start: Callable[[], Awaitable[Any]],
    metrics: Metrics,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    clock: Callable[[], float] | None = None,
) -> None:
    """Run a job, and start it again whenever it ends, until cancelled.

    Waiting doubles from one second to a minute, and starts over once the job has run longer than
    that.

    Args:
        name: of the job, told in the log and counted.
        start: begins it.
        metrics: counted into.
        sleep: waits so many seconds.
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
            "a background job ended, and starts again",
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
