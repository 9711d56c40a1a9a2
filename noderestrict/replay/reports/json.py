"""JSON lines for programs."""

from typing import Any

import msgspec

from noderestrict.policy.text import json_line
from noderestrict.replay.report import Report
from noderestrict.replay.results import Result, Summary


class JSONReport(Report):
    """One JSON object per line; the summary goes to the notes, so that every line parses."""

    def write(self, result: Result) -> None:
        """Write one line."""
        line: dict[str, Any] = {
            "id": result.id,
            "uid": result.uid,
            "allowed": result.allowed,
            "code": result.code,
            "reason": result.reason,
            "rule": result.rule,
            "message": result.message,
        }
        if result.detail:
            line["detail"] = result.detail
        if result.expect is not None:
            line["expected"] = msgspec.to_builtins(result.expect)
            line["ok"] = result.ok
        if result.notes:
            line["notes"] = result.notes
            line["userAgent"] = result.user_agent
        if self._options.explain:
            line["lookups"] = result.lookups
        self._out.write(json_line(line) + "\n")

    def end(self, summary: Summary) -> None:
        """Write the summary to the notes."""
        self._options.notes.write(f"{summary}\n")


REPORT = JSONReport
