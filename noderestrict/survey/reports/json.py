"""One JSON object for programs; ``docs/reference/agents-find.schema.json`` describes it."""

import json

import msgspec

from noderestrict.survey.findings import Findings


def report(findings: Findings, *, colour: bool) -> str:  # noqa: ARG001 (JSON has no colours)
    """Return the findings, in ASCII."""
    return json.dumps(msgspec.to_builtins(findings), indent=2) + "\n"
