"""Write log lines without ever blocking on their reader."""

import os
import select
import threading
from collections import deque
from collections.abc import Callable

#: Bytes queued for a reader that has stopped; a pipe itself holds 64 KiB.
_LONGEST_QUEUE = 1024 * 1024
_BATCH_LINES = 100


class Writer:
    """Writes lines to a file descriptor, in its own thread.

    Lines that do not fit into the queue, and those that cannot be written, are dropped.

    Args:
        descriptor: written to, never closed.
        dropped: called with a number of lines, from any thread.
        longest_queue: in bytes.
    """

    def __init__(
        self, descriptor: int, dropped: Callable[[int], None], longest_queue: int = _LONGEST_QUEUE
    ) -> None:
        self._descriptor = descriptor
        self._dropped = dropped
        self._room = longest_queue
        self._lines: deque[bytes] = deque()
        # Reentrant: the garbage collector may run code that logs while this is held.
        self._changed = threading.Condition(threading.RLock())
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> bool:
        """Queue a line; return whether it fits."""
        data = line.encode("utf-8", "backslashreplace")
        with self._changed:
            if not self._closed and len(data) <= self._room:
                self._room -= len(data)
                self._lines.append(data)
                self._changed.notify_all()
                return True
        self._dropped(1)
        return False

    def close(self, seconds: float) -> None:
        """Accept no more lines, and wait at most so many seconds until all are written."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._lines:
                    if self._closed:
                        return
                    self._changed.wait()
                batch = [self._lines.popleft() for _ in range(min(_BATCH_LINES, len(self._lines)))]
            lost = self._write(b"".join(batch))
            if lost:
                self._dropped(lost)
            with self._changed:
                self._room += sum(map(len, batch))

    def _write(self, data: bytes) -> int:
        """Write all; return how many lines were lost."""
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:
                # Another process that shares the descriptor has made it non-blocking.
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll(1000)
            except OSError:
                return bytes(left).count(b"\n")
        return 0
