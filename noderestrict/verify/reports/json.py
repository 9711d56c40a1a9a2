"""One JSON object for programs."""

import json
from typing import Any

import msgspec

from noderestrict.verify.results import Findings


def report(findings: Findings, *, colour: bool) -> str:  # noqa: ARG001 (JSON has no colours)
    """Return the findings with all attempts, in ASCII."""
    value: dict[str, Any] = {
        **msgspec.to_builtins(findings),
        "counts": findings.counts,
        "exitCode": findings.exit_code,
    }
    for rule, shown in zip(findings.rules, value["rules"], strict=True):
        for attempt, one in zip(rule.attempts, shown["attempts"], strict=True):
            one["since"] = str(attempt.since)
    return json.dumps(value, indent=2) + "\n"
