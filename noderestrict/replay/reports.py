"""Reports: a table for people, JSON lines for programs."""

from typing import Any, Protocol, TextIO

import msgspec

from noderestrict.policy.text import json_line, printable
from noderestrict.replay.run import Row, Summary

_RED, _GREEN, _YELLOW, _PLAIN = "\033[31m", "\033[32m", "\033[33m", "\033[0m"


class Report(Protocol):
    """Something that results are written to."""

    def result(self, row: Row) -> None:
        """Write one result."""

    def end(self, summary: Summary) -> None:
        """Write the summary."""


class TableReport:
    """One line a case: id, node, request, verdict, rule, message.

    Args:
        out: where to.
        colour: use terminal colours.
        explain: add the look-ups that were made, and their answers.
    """

    def __init__(self, out: TextIO, *, colour: bool, explain: bool) -> None:
        self._out = out
        self._colour = colour
        self._explain = explain

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._colour else text

    def result(self, row: Row) -> None:
        """Write one result."""
        node = "-" if row.node is None else row.node or '""'
        if row.allowed:
            verdict = self._paint(_GREEN, "allowed")
            tail = ""
        else:
            verdict = self._paint(_RED, f"{'denied ' + str(row.code):<10}")
            tail = f"  {row.rule}: {printable(row.explanation)}"
        mark = ""
        if row.ok is False and row.expect is not None:
            wanted = row.expect
            shown = "allowed" if wanted.allowed else f"denied {wanted.code or ''}".rstrip()
            mark = self._paint(_YELLOW, f"  NOT AS EXPECTED ({shown})")
        who = f"{printable(row.id):<24}  {printable(node):<8}"
        line = f"{who}  {printable(row.what):<44}  {verdict}{mark}{tail}"
        self._out.write(f"{line.rstrip()}\n")
        for note in row.notes if not row.allowed else ():
            self._out.write(f"    {printable(note)}\n")
        if self._explain:
            for line in row.lookups or ("no look-up was needed",):
                self._out.write(f"    {printable(line)}\n")

    def end(self, summary: Summary) -> None:
        """Write the summary as the last line."""
        self._out.write(f"{summary}\n")


class JSONReport:
    """One JSON object a line; the summary goes to another stream, so that all lines parse.

    Args:
        out: where results go.
        notes: where the summary goes.
        explain: add ``lookups``.
    """

    def __init__(self, out: TextIO, notes: TextIO, *, explain: bool) -> None:
        self._out = out
        self._notes = notes
        self._explain = explain

    def result(self, row: Row) -> None:
        """Write one result."""
        line: dict[str, Any] = {
            "id": row.id,
            "uid": row.uid,
            "allowed": row.allowed,
            "code": row.code,
            "reason": row.reason,
            "rule": row.rule,
            "message": row.message,
        }
        if row.detail:
            line["detail"] = row.detail
        if row.expect is not None:
            line["expected"] = msgspec.to_builtins(row.expect)
            line["ok"] = row.ok
        if row.notes:
            line["notes"] = row.notes
            line["userAgent"] = row.user_agent
        if self._explain:
            line["lookups"] = row.lookups
        self._out.write(json_line(line) + "\n")

    def end(self, summary: Summary) -> None:
        """Write the summary."""
        self._notes.write(f"{summary}\n")
