"""Logs that a hostile node cannot forge or flood."""

import io
import json
import logging
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from noderestrict.telemetry import logs
from noderestrict.telemetry.logs import DROPS, LOGGER, NodeLimiter
from noderestrict.telemetry.metrics import Metrics


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = LOGGER.handlers[:], LOGGER.level, LOGGER.propagate, root.handlers[:]
    yield io.StringIO()
    LOGGER.handlers[:], LOGGER.propagate, root.handlers[:] = before[0], before[2], before[3]
    LOGGER.setLevel(before[1])
    DROPS.reported(DROPS.unreported())


def test_a_json_line_has_time_level_message_and_fields(stream: io.StringIO) -> None:
    logs.configure("info", "json", stream)
    LOGGER.warning("refused", extra={"node": "n1", "code": 403})
    LOGGER.debug("allowed")
    line = json.loads(stream.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {"level": "warning", "message": "refused", "node": "n1", "code": 403}


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_newline_in_a_value_starts_no_line(form: str, stream: io.StringIO) -> None:
    logs.configure("info", form, stream)
    LOGGER.warning("refused", extra={"object": 'a\n{"level":"info"}\r\x1b[2J'})
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert "\x1b" not in text
    assert "\r" not in text


def test_an_exception_is_one_json_line(stream: io.StringIO) -> None:
    logs.configure("info", "json", stream)
    try:
        int("broken")
    except ValueError:
        LOGGER.exception("internal error")
    assert "ValueError: invalid literal" in json.loads(stream.getvalue())["exception"]


def test_a_signal_switches_debug_on_and_off(stream: io.StringIO) -> None:
    logs.configure("warning", "json", stream)
    logs.toggle_debug("warning")
    assert LOGGER.level == logging.DEBUG
    logs.toggle_debug("warning")
    assert LOGGER.level == logging.WARNING


#: What may start a line or colours, show another text than is there, or not be encoded at all.
HOSTILE = (
    "\x00 \x07 \x1b[31m \r \n \x7f \x85 \x9b2J \u200b \u200f \u2028 \u2029 \u202e \u2066 \ufeff "
    "\U000e0041 \ud800"
)


@pytest.mark.parametrize("form", ["json", "console"])
def test_what_is_not_printable_is_escaped_wherever_it_comes_from(
    form: str, stream: io.StringIO
) -> None:
    logs.configure("info", form, stream)
    LOGGER.warning(f"message {HOSTILE}", extra={"value": HOSTILE, "list": [HOSTILE]})
    logging.getLogger("aiohttp.server").error(HOSTILE)
    text = stream.getvalue()
    assert text.endswith("\n")
    assert text.count("\n") == 2
    assert text.replace("\n", "").isprintable()
    if form == "json":
        line = json.loads(text.splitlines()[0])
        assert line["value"] == HOSTILE
        assert line["list"] == [HOSTILE]


def test_the_text_of_an_exception_starts_no_line_of_the_console(stream: io.StringIO) -> None:
    logs.configure("info", "console", stream)
    error = ValueError(f"bad\n12:00:00.000 INFO forged {HOSTILE}")
    LOGGER.error("internal error", exc_info=error)
    first, *more = stream.getvalue().removesuffix("\n").split("\n")
    assert "internal error" in first
    assert more
    assert all(line.startswith("    ") and line.isprintable() for line in more)


def test_a_record_that_cannot_be_formatted_is_counted_and_hurts_nobody(
    stream: io.StringIO,
) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

    logs.configure("info", "json", stream)
    before = DROPS.of("reader")
    LOGGER.warning("%d lines", "no number")
    LOGGER.warning("broken", extra={"value": Broken()})
    assert DROPS.of("reader") == before + 2
    assert stream.getvalue() == ""
    LOGGER.warning("good")
    assert json.loads(stream.getvalue().splitlines()[0])["message"] == "good"


class BadHTTPError(Exception):
    """As aiohttp raises it for a malformed request."""


BadHTTPError.__module__ = "aiohttp.http_exceptions"


@pytest.mark.parametrize(
    ("error", "traceback"),
    [
        (BadHTTPError("GARBAGE"), False),
        (ConnectionResetError("gone"), False),
        (ssl.SSLError("no TLS"), False),
        (KeyError("a defect"), True),
    ],
)
def test_libraries_log_as_we_do_and_without_tracebacks_of_clients_faults(
    stream: io.StringIO, error: Exception, traceback: bool
) -> None:
    logs.configure("info", "json", stream)
    logging.getLogger("aiohttp.server").error("Error handling request", exc_info=error)
    line = json.loads(stream.getvalue())
    assert line["logger"] == "aiohttp.server"
    assert line["level"] == "error"
    assert str(error.args[0]) in line["error"]
    assert ("exception" in line) is traceback


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("logger", "burst"), [(LOGGER, 1000), (logging.getLogger("aiohttp.server"), 50)]
)
def test_all_lines_together_are_bounded_and_what_is_dropped_is_told(
    stream: io.StringIO, logger: logging.Logger, burst: int
) -> None:
    clock = Clock()
    logs.configure("info", "json", stream)
    (handler,) = LOGGER.handlers
    assert isinstance(handler, logs.Handler)
    limited = logs.Handler(logs.JSONFormatter(), stream.write, clock)
    for logging_ in (LOGGER, logging.getLogger()):
        logging_.handlers[logging_.handlers.index(handler)] = limited
    before = DROPS.of("rate")
    for _ in range(burst + 5000):
        logger.warning("flood")
    assert len(lines(stream)) == burst
    assert DROPS.of("rate") == before + 5000
    # Another kind of line still gets through, and says what is missing.
    LOGGER.error("important")
    important, told = lines(stream)[-2:]
    assert important["message"] == "important"
    assert told["message"] == "log lines were dropped"
    assert told["lines"] == 5000
    assert told["by_reason"] == {"rate": 5000}
    logs.report_drops()
    assert lines(stream)[-1] == told
    clock.now = 100
    logger.warning("after the flood")
    assert lines(stream)[-1]["message"] == "after the flood"


def test_of_many_errors_some_have_a_traceback_and_all_are_named(stream: io.StringIO) -> None:
    logs.configure("info", "json", stream)
    for _ in range(200):
        LOGGER.error("internal error", exc_info=ZeroDivisionError("again"))
    told = lines(stream)
    assert len(told) == 200
    assert 20 <= sum("exception" in line for line in told) < 100
    assert all("exception" in line or line["error"].endswith("again") for line in told)


def test_drops_are_exposed_by_reason() -> None:
    metrics = Metrics()
    name = "noderestrict_dropped_log_lines_total"
    for reason in ("node", "rate", "reader"):
        before = metrics.registry.get_sample_value(name, {"reason": reason})
        DROPS.count(reason, 3)
        assert metrics.registry.get_sample_value(name, {"reason": reason}) == (before or 0) + 3
    DROPS.reported(DROPS.unreported())


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_node_writes_so_many_lines_in_a_window_and_others_are_not_touched() -> None:
    clock = Clock()
    limiter = NodeLimiter(lines=2, window=60, clock=clock)
    assert [limiter.allow("a") for _ in range(4)] == [True, True, False, False]
    assert limiter.allow("b")
    clock.now = 60
    assert limiter.allow("a")


def test_what_is_remembered_of_nodes_is_bounded() -> None:
    limiter = NodeLimiter(nodes=10, clock=Clock())
    for number in range(1000):
        limiter.allow(f"n{number}")
    assert len(limiter._seen) == 10
