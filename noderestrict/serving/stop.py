"""Run a server until it is asked to stop."""

import asyncio
import atexit
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NoReturn

from noderestrict.serving.signals import SIGNALS
from noderestrict.telemetry import logs
from noderestrict.telemetry.logs import LOGGER, toggle_debug


class Stop:
    """Whether the process was asked to stop.

    The first request drains the server, or cancels its start; the second stops it immediately.
    Create this in the task that starts the server.
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
        """Note that there is something to drain from now on."""
        self._starting = None


def run_event_loop(main: Callable[[Stop], Coroutine[Any, Any, None]], log_level: str) -> None:
    """Run a server, on uvloop if it is installed, and exit the process when it has stopped.

    Args:
        main: runs the server; cancelled when the process is asked to stop before it has started.
        log_level: the configured level, which SIGUSR1 restores.
    """
    try:
        import uvloop
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_until_stopped(main, log_level))
        _leave()


def _leave() -> NoReturn:
    """Exit without joining threads, which may be blocked, for example in a DNS lookup."""
    logs.close()
    # There is no public function; without it, keys of a kubeconfig would stay in temporary files.
    atexit._run_exitfuncs()  # noqa: SLF001
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
    os._exit(0)


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
