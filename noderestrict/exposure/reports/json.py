"""One JSON object for programs; ``docs/reference/exposure.schema.json`` describes it."""

import json

import msgspec

from noderestrict.exposure.findings import Findings


def report(findings: Findings, *, colour: bool) -> str:  # noqa: ARG001 (JSON has no colours)
    """Return the findings, in ASCII."""
    return json.dumps(msgspec.to_builtins(findings), indent=1) + "\n"
