"""JSON lines for programs."""

import codecs
import json
from typing import Any

import msgspec

from noderestrict.policy.text import json_line
from noderestrict.replay.report import Report, decision
from noderestrict.replay.results import Asked, NotJudged, Result, Summary, Undecided


class JSONReport(Report):
    """One JSON object per line; the summary goes to the notes, so that every line parses."""

    on_unencodable = "jsonreplace"

    def write(self, result: Result) -> None:
        """Write one line."""
        line: dict[str, Any] = {
            **_asked(result),
            "decision": decision(result),
            "certainty": str(result.certainty),
            "restsOn": result.rests_on,
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
        if result.uncovered:
            line["uncovered"] = result.uncovered
        if self._options.explain:
            line["lookups"] = result.lookups
        self._out.write(json_line(line) + "\n")

    def leave(self, left: Undecided | NotJudged) -> None:
        """Write one line for what is not judged."""
        line = {**_asked(left), "decision": decision(left)}
        if isinstance(left, Undecided):
            line |= {"certainty": str(left.certainty), "rule": left.rule, "missing": left.missing}
        else:
            line |= {"why": left.why}
        self._out.write(json_line(line) + "\n")

    def end(self, summary: Summary) -> None:
        """Write the summary to the notes."""
        self._options.notes.write(f"{summary}\n")


def _asked(asked: Asked) -> dict[str, Any]:
    """Return who asked for what, and where that is recorded."""
    impersonator = {"impersonator": asked.impersonator} if asked.impersonator else {}
    return {
        "id": asked.id,
        "uid": asked.uid,
        "node": asked.node,
        **({"agent": asked.agent} if asked.agent else {}),
        "user": asked.user,
        **impersonator,
        "operation": asked.operation,
        "resource": asked.resource,
        "namespace": asked.namespace,
        "name": asked.name,
        "file": asked.file,
        "line": asked.line,
        "time": asked.time,
        "level": asked.level,
        "userAgent": asked.user_agent,
        "dryRun": asked.dry_run,
        "alreadyRefused": asked.already_refused,
    }


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Return characters that the output cannot express as JSON does."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error(JSONReport.on_unencodable, _escaped)

REPORT = JSONReport
