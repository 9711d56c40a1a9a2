"""JUnit XML for CI."""

from xml.etree import ElementTree as ET

from noderestrict.policy.text import printable
from noderestrict.verify.results import FAILS, NOTHING, UNTOLD, Findings

_TAGS = {FAILS: "failure", UNTOLD: "error", NOTHING: "skipped"}


def report(findings: Findings, *, colour: bool) -> str:  # noqa: ARG001 (XML has no colours)
    """Return one test case per rule: a failure does not hold, an error could not be told."""
    counts = findings.counts
    suite = ET.Element(
        "testsuite",
        name="noderestrict verify",
        tests=str(len(findings.rules)),
        failures=str(counts[FAILS]),
        errors=str(counts[UNTOLD]),
        skipped=str(counts[NOTHING]),
    )
    for rule in findings.rules:
        case = ET.SubElement(suite, "testcase", name=rule.rule, classname=rule.half)
        tag = _TAGS.get(rule.result)
        if tag:
            why = printable("; ".join(rule.why))
            ET.SubElement(case, tag, message=why).text = printable(rule.demands)
        elif rule.by:
            ET.SubElement(case, "system-out").text = printable(f"held by {' and '.join(rule.by)}")
    text = ET.tostring(suite, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'
