"""Logs that a hostile node cannot forge or flood."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from noderestrict.telemetry import logs
from noderestrict.telemetry.logs import LOGGER, NodeLimiter


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    before = LOGGER.handlers[:], LOGGER.level, LOGGER.propagate
    yield io.StringIO()
    LOGGER.handlers[:], LOGGER.propagate = before[0], before[2]
    LOGGER.setLevel(before[1])


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
