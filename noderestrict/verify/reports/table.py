"""A table for terminals: one line per rule, with the reasons below."""

from collections.abc import Sequence

from noderestrict.policy.text import printable
from noderestrict.verify.results import FAILS, HOLDS, NOTHING, UNTOLD, Findings, RuleResult

_RED, _GREEN, _YELLOW, _PLAIN = "\033[31m", "\033[32m", "\033[33m", "\033[0m"
_COLOURS = {HOLDS: _GREEN, FAILS: _RED, UNTOLD: _YELLOW, NOTHING: ""}
_HEAD = ("RULE", "RESULT", "BY", "NODERESTRICT")


def report(findings: Findings, *, colour: bool) -> str:
    """Return the table, what the cluster is, and the counts as the last line."""
    rows = [(rule.rule, rule.result, " and ".join(rule.by), rule.ours) for rule in findings.rules]
    cells = [tuple(map(printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(_HEAD, *cells, strict=True)]
    user = f"{findings.user or 'you'}{', impersonating it' if findings.impersonated else ''}"
    lines = [
        printable(f"node {findings.node}, Kubernetes {findings.version}, as {user}"),
        "",
        _line(_HEAD, widths),
    ]
    for rule, row in zip(findings.rules, cells, strict=True):
        line = _line(row, widths)
        if colour and _COLOURS[rule.result]:
            painted = f"{_COLOURS[rule.result]}{rule.result}{_PLAIN}"
            line = line.replace(rule.result, painted, 1)
        lines += [line, *_reasons(rule)]
    lines += ["", f"The rules are {findings.release}."]
    lines += [printable(f"Note: {note}") for note in findings.notes]
    lines.append(f"{len(findings.rules)} rules: {findings.summary}")
    return "\n".join(lines) + "\n"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
    return "  ".join(cells).rstrip()


def _reasons(rule: RuleResult) -> list[str]:
    return [printable(f"    {text}") for text in rule.why]
