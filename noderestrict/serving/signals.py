"""Signals, from the first moment of the process to its last.

The kernel delivers a signal to process 1 of a container only if it has a handler, and SIGHUP and
SIGUSR1 kill any other process that has none. So handlers are installed before anything that takes
time to import, and stay to the end.
"""

import atexit
import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

#: Those that stop a server, and all that it handles.
STOPPING = (signal.SIGTERM, signal.SIGINT)
HANDLED = (*STOPPING, signal.SIGHUP, signal.SIGUSR1)


class Signals:
    """Handles the signals of the process.

    Before an event loop takes over, SIGTERM ends the process with exit code 0 and the others do
    nothing; after the loop, none does anything.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handlers: Mapping[int, Callable[[], None]] = {}
        self._ended = False

    def install(self) -> None:
        """Install the handlers; SIGINT raises KeyboardInterrupt until an event loop runs."""
        for number in HANDLED:
            if number != signal.SIGINT:
                signal.signal(number, self._handle)
        # While Python ends, it takes handlers away; what is ignored it leaves so.
        atexit.register(_ignore)

    @contextlib.contextmanager
    def handed_to(
        self, loop: "asyncio.AbstractEventLoop", handlers: Mapping[int, Callable[[], None]]
    ) -> Iterator[None]:
        """Call handlers in an event loop, by signal.

        The loop's own add_signal_handler would leave them without a handler when the loop closes.
        """
        self._handlers = handlers
        self._loop = loop
        for number in HANDLED:
            signal.signal(number, self._handle)
        try:
            yield
        finally:
            self._ended = True
            self._loop = None

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._loop is not None:
            handler = self._handlers.get(number)
            if handler is not None:
                self._loop.call_soon_threadsafe(handler)
        elif number in STOPPING and not self._ended:
            raise SystemExit(0)


def _ignore() -> None:
    for number in HANDLED:
        signal.signal(number, signal.SIG_IGN)


#: Of this process.
SIGNALS = Signals()
