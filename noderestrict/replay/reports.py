"""Reports: a table for people, JSON lines for programs."""

from typing import Any, Protocol, TextIO

import msgspec

from noderestrict.admission import resource_path
from noderestrict.policy.decision import Denied
from noderestrict.replay.run import Result, Summary

_RED, _GREEN, _YELLOW, _PLAIN = "\033[31m", "\033[32m", "\033[33m", "\033[0m"


def _printable(text: str) -> str:
    """Escape what would start lines, colours or anything else that a node could forge."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Report(Protocol):
    """Something that results are written to."""

    def result(self, result: Result) -> None:
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

    def result(self, result: Result) -> None:
        """Write one result."""
        request, decision = result.request, result.decision
        node = "-" if request.node is None else request.node or '""'
        at = f"{request.namespace}/{request.name}" if request.namespace else request.name
        what = _printable(f"{request.operation} {resource_path(request)} {at}".rstrip())
        if isinstance(decision, Denied):
            verdict = self._paint(_RED, f"{'denied ' + str(decision.code):<10}")
            tail = f"  {decision.rule}: {_printable(decision.message)}"
        else:
            verdict = self._paint(_GREEN, "allowed")
            tail = ""
        mark = ""
        if result.ok is False and result.case.expect is not None:
            wanted = result.case.expect
            shown = "allowed" if wanted.allowed else f"denied {wanted.code or ''}".rstrip()
            mark = self._paint(_YELLOW, f"  NOT AS EXPECTED ({shown})")
        who = f"{_printable(result.case.id):<24}  {_printable(node):<8}"
        line = f"{who}  {what:<44}  {verdict}{mark}{tail}"
        self._out.write(f"{line.rstrip()}\n")
        if self._explain:
            for line in result.lookups or ("no look-up was needed",):
                self._out.write(f"    {_printable(line)}\n")

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

    def result(self, result: Result) -> None:
        """Write one result."""
        decision = result.decision
        denied = decision if isinstance(decision, Denied) else None
        line: dict[str, Any] = {
            "id": result.case.id,
            "uid": result.request.uid,
            "allowed": denied is None,
            "code": denied.code if denied else 200,
            "reason": denied.reason if denied else "",
            "rule": decision.rule,
            "message": denied.message if denied else "",
        }
        if result.case.expect is not None:
            line["expected"] = msgspec.to_builtins(result.case.expect)
            line["ok"] = result.ok
        if self._explain:
            line["lookups"] = result.lookups
        self._out.write(msgspec.json.encode(line).decode() + "\n")

    def end(self, summary: Summary) -> None:
        """Write the summary."""
        self._notes.write(f"{summary}\n")
