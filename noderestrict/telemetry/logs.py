"""Logs: one JSON object or console line for each record, ours or a library's."""

import datetime as dt
import logging
import os
import sys
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TextIO

from noderestrict.policy.hostile import brief
from noderestrict.policy.text import json_line, printable
from noderestrict.telemetry.writer import Writer

LOGGER = logging.getLogger("noderestrict")
LEVELS = ("debug", "info", "warning", "error")
#: Why lines are dropped: too many for one node; too many at all; nobody reads them.
NODE, RATE, READER = "node", "rate", "reader"

_RECORD_FIELDS = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}
#: Burst and rate per second of lines, by level. Libraries share one at all levels: clients can make
#: them log at will.
_RATES = {
    logging.DEBUG: (5000, 1000),
    logging.INFO: (1000, 100),
    logging.WARNING: (1000, 100),
    logging.ERROR: (1000, 100),
}
_FOREIGN_RATE = (50, 5)
#: Of lines with a traceback; the others only name the error.
_TRACEBACK_RATE = (20, 1)
_LONGEST_FOREIGN = 1000
_LONGEST_TRACEBACK = 10_000
_CLOSE_SECONDS = 2.0


class Drops:
    """Counts dropped lines by reason; may be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._counts: Counter[str] = Counter()
        self._reported: Counter[str] = Counter()

    def count(self, reason: str, lines: int = 1) -> None:
        """Count dropped lines."""
        with self._lock:
            self._counts[reason] += lines

    def of(self, reason: str) -> int:
        """Return how many lines were dropped since the process started."""
        return self._counts[reason]

    def unreported(self) -> Counter[str]:
        """Return how many lines were dropped since the last report, by reason."""
        with self._lock:
            return self._counts - self._reported

    def reported(self, lines: Counter[str]) -> None:
        """Note that these were reported."""
        with self._lock:
            self._reported += lines


#: Of this process, as its loggers are.
DROPS = Drops()


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in record.__dict__.items() if key not in _RECORD_FIELDS}


def _time(record: logging.LogRecord) -> str:
    moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JSONFormatter(logging.Formatter):
    """``{"time": …, "level": …, "message": …, …fields}``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)[-_LONGEST_TRACEBACK:]
        return json_line(line)


class ConsoleFormatter(logging.Formatter):
    """``12:00:00.000 WARNING message key=value``; values are quoted as JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line, and its traceback, if any, indented below."""
        fields = " ".join(f"{key}={json_line(value)}" for key, value in _fields(record).items())
        message = printable(record.getMessage())
        line = f"{_time(record)[11:23]} {record.levelname:<7} {message} {fields}".rstrip()
        if record.exc_info:
            text = self.formatException(record.exc_info)[-_LONGEST_TRACEBACK:]
            line += "".join(f"\n    {printable(part)}" for part in text.split("\n"))
        return line


def _adopted(record: logging.LogRecord) -> logging.LogRecord:
    """Return a library's record as one of ours: short, with no traceback for a client's error."""
    message = record.getMessage()[:_LONGEST_FOREIGN]
    fields = {"logger": record.name}
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        fields["error"] = brief(error)
    adopted = logging.makeLogRecord(
        {
            "name": record.name,
            "levelno": record.levelno,
            "levelname": record.levelname,
            "created": record.created,
            "msg": message,
            **fields,
        }
    )
    if error is not None and not _is_of_a_client(error):
        adopted.exc_info = record.exc_info
    return adopted


def _without_traceback(record: logging.LogRecord) -> logging.LogRecord:
    """Return a record that has its error in a field instead."""
    error = record.exc_info[1] if record.exc_info else None
    fields = {"exc_info": None, "error": brief(error) if error is not None else ""}
    return logging.makeLogRecord({**record.__dict__, **fields})


def _is_of_a_client(error: BaseException) -> bool:
    """Return whether a client caused an error: broken HTTP or TLS, a lost connection."""
    return isinstance(error, OSError | EOFError) or type(error).__module__.startswith("aiohttp.")


class Bucket:
    """A token bucket.

    Args:
        burst: most tokens.
        per_second: rate at which it refills.
        clock: seconds, monotonic.
    """

    def __init__(self, burst: float, per_second: float, clock: Callable[[], float]) -> None:
        self._burst = burst
        self._per_second = per_second
        self._clock = clock
        self._left = burst
        self._since = clock()

    def take(self) -> bool:
        """Take a token; return whether there was one."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._since) * self._per_second)
        self._since = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Handler(logging.Handler):
    """Limits, formats and writes all records of the process.

    Args:
        formatter: of records.
        write: gets a line with its line feed; must not block.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        formatter: logging.Formatter,
        write: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._write = write
        self._buckets = {level: Bucket(*rate, clock) for level, rate in _RATES.items()}
        self._foreign = Bucket(*_FOREIGN_RATE, clock)
        self._tracebacks = Bucket(*_TRACEBACK_RATE, clock)
        self._reports = Bucket(1, 1, clock)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or count it as dropped."""
        try:
            level = min(logging.ERROR, max(logging.DEBUG, record.levelno // 10 * 10))
            foreign = record.name != LOGGER.name
            bucket = self._foreign if foreign else self._buckets[level]
            if not bucket.take():
                DROPS.count(RATE)
                return
            if foreign:
                record = _adopted(record)
            if record.exc_info and not self._tracebacks.take():
                record = _without_traceback(record)
            self._write(f"{self.format(record)}\n")
            if DROPS.unreported() and self._reports.take():
                self.report_drops()
        except Exception:  # noqa: BLE001 (counted; logging must not fail its caller)
            DROPS.count(READER)

    def report_drops(self) -> None:
        """Write how many lines were dropped since the last report, if any."""
        self.acquire()
        try:
            unreported = DROPS.unreported()
            if unreported and self._write(f"{self.format(_summary(unreported))}\n"):
                DROPS.reported(unreported)
        finally:
            self.release()


def _summary(unreported: Mapping[str, int]) -> logging.LogRecord:
    return logging.makeLogRecord(
        {
            "name": LOGGER.name,
            "levelno": logging.WARNING,
            "levelname": "WARNING",
            "msg": "log lines were dropped",
            "lines": sum(unreported.values()),
            "by_reason": dict(unreported),
        }
    )


#: Of this process; None while records go straight to a stream.
_writer: Writer | None = None


def configure(level: str, form: str, stream: TextIO | None = None) -> None:
    """Send the log records of the process to a stream.

    Args:
        level: of our own records, one of ``LEVELS``; of libraries, warnings and errors are shown.
        form: ``json`` or ``console``.
        stream: written to directly; None for standard error, which is never waited for.
    """
    global _writer
    formatter = JSONFormatter() if form == "json" else ConsoleFormatter()
    close()
    # A new log does not report what an earlier one dropped.
    DROPS.reported(DROPS.unreported())
    if stream is None:
        _writer = _on_standard_error()
        _log_what_python_reports()
    handler = Handler(formatter, stream.write if stream is not None else _write)
    LOGGER.handlers[:] = [handler]
    LOGGER.propagate = False
    LOGGER.setLevel(level.upper())
    root = logging.getLogger()
    others = [other for other in root.handlers if not isinstance(other, Handler)]
    root.handlers[:] = [*others, handler]


def report_drops() -> None:
    """Write how many lines were dropped since the last report, if any."""
    for handler in LOGGER.handlers:
        if isinstance(handler, Handler):
            handler.report_drops()


def close() -> None:
    """Write queued lines, for at most two seconds; drop later ones."""
    if _writer is not None:
        report_drops()
        _writer.close(_CLOSE_SECONDS)


def _write(line: str) -> bool:
    if _writer is not None:
        return _writer.write(line)
    DROPS.count(READER)
    return False


def _on_standard_error() -> Writer | None:
    if sys.__stderr__ is None:
        # Closed from the start; what stands in for it takes everything, and nobody reads that.
        return None
    try:
        # A duplicate, so that nothing else in the process can close or redirect it.
        descriptor = os.dup(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):
        return None
    return Writer(descriptor, lambda lines: DROPS.count(READER, lines))


def _log_what_python_reports() -> None:
    """Log what Python would write to standard error itself, blocking until it is read."""

    def of_thread(args: threading.ExceptHookArgs) -> None:
        LOGGER.error("a thread failed", exc_info=args.exc_value)

    def unraisable(args: "sys.UnraisableHookArgs") -> None:
        LOGGER.error("an exception was ignored", exc_info=args.exc_value)

    logging.captureWarnings(capture=True)
    threading.excepthook = of_thread
    sys.unraisablehook = unraisable


def toggle_debug(level: str) -> None:
    """Switch between debug and the configured level, for SIGUSR1."""
    debug = LOGGER.level == logging.DEBUG
    LOGGER.setLevel(level.upper() if debug else logging.DEBUG)
    LOGGER.warning("log level is now %s", logging.getLevelName(LOGGER.level).lower())


class NodeLimiter:
    """Limits the lines of each node in a window, so that a hostile one cannot flood the log.

    A node counts once for each client address, since anybody may claim to be a node.

    Args:
        lines: per node and window.
        window: seconds.
        clock: seconds, monotonic.
        nodes: how many are remembered; the one logged least recently is forgotten first.
    """

    def __init__(
        self,
        lines: int = 20,
        window: float = 60,
        *,
        clock: Callable[[], float] = time.monotonic,
        nodes: int = 10_000,
    ) -> None:
        self._lines = lines
        self._window = window
        self._clock = clock
        self._nodes = nodes
        self._seen: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()

    def allow(self, node: Hashable) -> bool:
        """Return whether this node may write one more line now."""
        now = self._clock()
        start, count = self._seen.get(node, (now, 0))
        if now - start >= self._window:
            start, count = now, 0
        if count >= self._lines:
            return False
        self._seen[node] = (start, count + 1)
        self._seen.move_to_end(node)
        if len(self._seen) > self._nodes:
            self._seen.popitem(last=False)
        return True
