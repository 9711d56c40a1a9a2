"""Logs: one JSON object or one console line a record."""

import datetime as dt
import logging
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TextIO

import msgspec

LOGGER = logging.getLogger("noderestrict")
LEVELS = ("debug", "info", "warning", "error")

_RECORD_FIELDS = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}


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
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


class ConsoleFormatter(logging.Formatter):
    """``12:00:00.000 WARNING message key=value``; values that callers choose are quoted."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line, plus a traceback where there is one."""
        fields = " ".join(
            f"{key}={msgspec.json.encode(value, enc_hook=str).decode()}"
            for key, value in _fields(record).items()
        )
        line = f"{_time(record)[11:23]} {record.levelname:<7} {record.getMessage()} {fields}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line.rstrip()


def configure(level: str, form: str, stream: TextIO | None = None) -> None:
    """Send our log records to a stream, standard error by default.

    Args:
        level: one of ``LEVELS``.
        form: ``json`` or ``console``.
        stream: where to.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JSONFormatter() if form == "json" else ConsoleFormatter())
    LOGGER.handlers[:] = [handler]
    LOGGER.propagate = False
    LOGGER.setLevel(level.upper())


def toggle_debug(level: str) -> None:
    """Switch between debug and the configured level, for SIGUSR1."""
    debug = LOGGER.level == logging.DEBUG
    LOGGER.setLevel(level.upper() if debug else logging.DEBUG)
    LOGGER.warning("log level is now %s", logging.getLevelName(LOGGER.level).lower())


class NodeLimiter:
    """Let each node write so many lines in a window, so that a hostile one cannot flood the log.

    Args:
        lines: per node and window.
        window: seconds.
        clock: seconds, monotonic.
        nodes: how many nodes are remembered; the oldest is forgotten first.
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
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def allow(self, node: str) -> bool:
        """Tell whether this node may write one more line now."""
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
