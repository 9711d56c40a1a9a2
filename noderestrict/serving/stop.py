"""Run a server until it is asked to stop."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from noderestrict.serving.signals import SIGNALS
from noderestrict.telemetry.logs import LOGGER, toggle_debug


class Stop:
    """Whether the process was asked to stop.

    The first time, it drains, or ends what it waits for if it has not started yet; the second
    time, it stops at once. To be made in the task that starts the server.
    """

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        self._starting = asyncio.current_task()

    def ask(self) -> None:
        """Ask to stop."""
        if self.first.is_set():
            self.second.set()
        self.first.set()
        if self._starting is not None:
            self._starting.cancel()

    def started(self) -> None:
        """Say that there is something to drain from now on."""
        self._starting = None


def run_event_loop(main: Callable[[Stop], Coroutine[Any, Any, None]], log_level: str) -> None:
    """Run a server to its end, on uvloop where it is installed.

    Args:
        main: starts it; cancelled if the process shall stop before it has started.
        log_level: the configured level, to which SIGUSR1 returns.
    """
    try:
        import uvloop
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_until_stopped(main, log_level))


async def _until_stopped(main: Callable[[Stop], Coroutine[Any, Any, None]], log_level: str) -> None:
    stop = Stop()
    handlers: dict[int, Callable[[], None]] = {
        signal.SIGTERM: stop.ask,
        signal.SIGINT: stop.ask,
        signal.SIGUSR1: partial(toggle_debug, log_level),
    }
    with SIGNALS.handed_to(asyncio.get_running_loop(), handlers):
        try:
            await main(stop)
        except asyncio.CancelledError:
            if not stop.first.is_set():
                raise
            LOGGER.info("stopped before the server was up")
