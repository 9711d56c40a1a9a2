"""Run the server in a child process, and another one at once when a signal kills it.

The parent holds the listening sockets: what connects meanwhile waits for the next child instead of
being refused. It shares with its children the memory of what is imported.
"""

import ctypes
import gc
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from types import FrameType

from noderestrict.serving.signals import HANDLED, SIGNALS, STOPPING

#: So many children are replaced within so many seconds; then whoever runs the parent decides.
_MOST, _WITHIN_SECONDS = 3, 60.0
#: As shells report a process that a signal ended.
_KILLED = 128
#: Of Linux' prctl.
_PR_SET_PDEATHSIG = 1


def forked(sockets: Sequence[socket.socket]) -> str | int:
    """Fork, again for each child that a signal kills, and return in every process.

    Args:
        sockets: that children listen at; the parent closes them when it is asked to stop.

    Returns:
        In a child, which is to serve: the name of the signal that killed the one before, "" in the
        first. In the parent: the exit code of the last child, 128 and its number if a signal
        killed it.
    """
    # What lives from here on is shared until somebody writes to it, as the collector would.
    gc.collect()
    gc.freeze()
    parent = _Parent(sockets)
    killed: deque[float] = deque(maxlen=_MOST)
    killer = ""
    while (code := parent.fork()) is not None:
        now = time.monotonic()
        often = len(killed) == _MOST and now - killed[0] < _WITHIN_SECONDS
        if code >= 0:
            return code
        if often or parent.stopping:
            return _KILLED - code
        killed.append(now)
        killer = signal.Signals(-code).name
    return killer


def _die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(_KILLED + signal.SIGKILL)


class _Parent:
    """Hands on signals to the child that runs.

    Args:
        sockets: closed with the first signal that stops: the kernel goes on giving connections to a
            socket that anybody holds.
    """

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self._sockets = sockets
        self._child = 0
        self.stopping = False
        for number in HANDLED:
            signal.signal(number, self._hand_on)

    def fork(self) -> int | None:
        """Return the exit code of a child, negative if a signal killed it; None in the child.

        There is no other child once the parent is asked to stop.
        """
        # Neither process is prepared at first.
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        if self.stopping:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
            return -signal.SIGTERM
        parent, self._child = os.getpid(), os.fork()
        if not self._child:
            _die_with(parent)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            SIGNALS.install()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        if not self._child:
            return None
        _, status = os.waitpid(self._child, 0)
        self._child = 0
        return os.waitstatus_to_exitcode(status)

    def _hand_on(self, number: int, _frame: FrameType | None) -> None:
        if number in STOPPING:
            self.stopping = True
            for sock in self._sockets:
                sock.close()
        if self._child:
            os.kill(self._child, number)
