"""Findings as programs read them."""

import json
from collections.abc import Iterable

import msgspec

from noderestrict.doctor.check import Check
from noderestrict.doctor.findings import Finding


def as_json(findings: Iterable[tuple[Check, Finding]]) -> str:
    """Return findings as a JSON array of objects: ``check``, and the attributes of ``Finding``."""
    values = [{"check": check.name, **msgspec.to_builtins(finding)} for check, finding in findings]
    return json.dumps(values, indent=2) + "\n"
