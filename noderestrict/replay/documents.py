"""Reports as whole documents: HTML for people, Markdown for pull requests, JUnit for CI.

Everything that a node chose is escaped.
"""

from collections import Counter
from collections.abc import Iterator
from html import escape
from typing import Any, TextIO
from xml.etree import ElementTree as ET

import msgspec

from noderestrict.policy.text import json_line, printable
from noderestrict.replay.run import Row, Summary

#: Refusals that are shown one by one; all are counted.
_SHOWN = 2_000
_CHANGES = 40
_VALUE = 200


class _Collected:
    """Counts of all rows, and the first of those that are worth a look."""

    def __init__(self) -> None:
        self.rules: Counter[str] = Counter()
        self.nodes: Counter[str] = Counter()
        self.agents: Counter[str] = Counter()
        self.rows: list[Row] = []
        self.left_out = 0

    def add(self, row: Row) -> None:
        if row.allowed and row.ok is not False:
            return
        if not row.allowed:
            self.rules[row.rule] += 1
            self.nodes[row.node or "-"] += 1
            if row.user_agent:
                self.agents[row.user_agent] += 1
        if len(self.rows) < _SHOWN:
            self.rows.append(row)
        else:
            self.left_out += 1


def _verdict(row: Row) -> str:
    verdict = "allowed" if row.allowed else f"denied {row.code}"
    if row.ok is False and row.expect is not None:
        wanted = "allowed" if row.expect.allowed else f"denied {row.expect.code or ''}".rstrip()
        return f"{verdict}, expected {wanted}"
    return verdict


def changes(old: bytes, new: bytes) -> list[tuple[str, str, str]]:
    """Return field, value before and value after of what differs between two objects, JSON."""
    try:
        before, after = msgspec.json.decode(old), msgspec.json.decode(new)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []
    if before is None or after is None:
        return []
    found: list[tuple[str, str, str]] = []
    for path, was, becomes in _differences(before, after, ""):
        if len(found) == _CHANGES:
            found.append(("…", "", "further fields differ"))
            break
        found.append((path, _shown(was), _shown(becomes)))
    return found


_ABSENT = object()
_ABSENT_TEXT = "(absent)"
_OF_THE_API_SERVER = ("managedFields", "resourceVersion")


def _differences(old: Any, new: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            if path == "metadata" and key in _OF_THE_API_SERVER:
                continue
            step = f"[{key!r}]" if not key.isidentifier() else f".{key}" if path else key
            yield from _differences(old.get(key, _ABSENT), new.get(key, _ABSENT), path + step)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (was, becomes) in enumerate(zip(old, new, strict=True)):
            yield from _differences(was, becomes, f"{path}[{index}]")
    elif old is not new and old != new:
        yield path, old, new


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return _ABSENT_TEXT
    text = json_line(value)
    return text if len(text) <= _VALUE else f"{text[:_VALUE]}…"


_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bad: #c0271b; --good: #1a7f37; --soft: #8881; }
@media (prefers-color-scheme: dark) { :root { --bad: #ff8078; --good: #57c878; } }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem;
  overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.sums { display: flex; flex-wrap: wrap; gap: .75rem; padding: 0; list-style: none; }
.sums li { border: 1px solid var(--line); border-radius: .5rem; padding: .5rem 1rem; }
.sums b { display: block; font-size: 1.5rem; }
.tables { display: flex; flex-wrap: wrap; gap: 2rem; }
table { border-collapse: collapse; } th { text-align: left; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .75rem .25rem 0;
  vertical-align: top; }
.scroll th, .scroll td { min-width: 5.5rem; }
@media (min-width: 40rem) { .scroll td:first-child { overflow-wrap: normal; } }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
details { border: 1px solid var(--line); border-radius: .5rem; margin: .5rem 0;
  padding: .5rem .75rem; }
summary { cursor: pointer; } details p { margin: .5rem 0; }
.bad { color: var(--bad); font-weight: 600; } .good { color: var(--good); }
.scroll { overflow-x: auto; } .note { opacity: .75; }
del { color: var(--bad); text-decoration: none; } ins { color: var(--good); text-decoration: none; }
"""


class HTMLReport:
    """One page that needs nothing else: sums, by rule, by node, by user agent, each refusal.

    Args:
        out: where to.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._collected = _Collected()

    def result(self, row: Row) -> None:
        """Take one result."""
        self._collected.add(row)

    def end(self, summary: Summary) -> None:
        """Write the page."""
        collected = self._collected
        sums = {
            "judged": summary.total,
            "allowed": summary.allowed,
            "denied": summary.denied,
        }
        troubles = {
            "not as expected": summary.unexpected,
            "not judged: no object": summary.undecided,
            "unreadable": summary.unreadable,
        }
        sums |= {name: count for name, count in troubles.items() if count}
        items = "".join(f"<li><b>{count:,}</b>{name}</li>" for name, count in sums.items())
        tables = "".join(
            _count_table(title, counts)
            for title, counts in (
                ("By rule", collected.rules),
                ("By node", collected.nodes),
                ("By user agent", collected.agents),
            )
            if counts
        )
        cases = "".join(map(_details, collected.rows)) or "<p>Nothing was refused.</p>"
        more = f"<p>{collected.left_out:,} more are counted above.</p>" * bool(collected.left_out)
        self._out.write(
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
            f"<title>noderestrict: {summary.denied} denied</title><style>{_STYLE}</style></head>"
            f'<body><h1>noderestrict replay</h1><ul class="sums">{items}</ul>'
            f'<div class="tables">{tables}</div><h2>Cases</h2>{cases}{more}</body></html>\n'
        )


def _text(value: str) -> str:
    return escape(printable(value))


def _count_table(title: str, counts: Counter[str]) -> str:
    rows = "".join(
        f'<tr><td>{_text(name)}</td><td class="n">{count:,}</td></tr>'
        for name, count in counts.most_common(50)
    )
    return f"<section><h2>{title}</h2><table>{rows}</table></section>"


def _details(row: Row) -> str:
    kind = "good" if row.allowed else "bad"
    rows = "".join(
        f"<tr><td><code>{_text(path)}</code></td><td>{_side('del', was)}</td>"
        f"<td>{_side('ins', becomes)}</td></tr>"
        for path, was, becomes in changes(row.old, row.new)
    )
    table = (
        '<div class="scroll"><table><tr><th>Field</th><th>Before</th><th>After</th></tr>'
        f"{rows}</table></div>"
    )
    notes = [f"case {row.id}", *row.notes]
    if row.user_agent:
        notes.append(f"user agent {row.user_agent}")
    return (
        f'<details><summary><span class="{kind}">{_text(_verdict(row))}</span> '
        f"<b>{_text(row.node or '-')}</b> {_text(row.what)} <code>{_text(row.rule)}</code>"
        f"</summary><p>{_text(row.explanation)}</p>{table if rows else ''}"
        f'<p class="note">{" · ".join(map(_text, notes))}</p></details>'
    )


def _side(tag: str, value: str) -> str:
    if value == _ABSENT_TEXT:
        return f'<span class="note">{value}</span>'
    return f"<{tag}>{escape(value)}</{tag}>"


class MarkdownReport:
    """Tables for a pull request or an issue.

    Args:
        out: where to.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._collected = _Collected()

    def result(self, row: Row) -> None:
        """Take one result."""
        self._collected.add(row)

    def end(self, summary: Summary) -> None:
        """Write the document."""
        out = self._out
        out.write(f"# noderestrict replay\n\n{summary}\n")
        for title, counts in (("rule", self._collected.rules), ("node", self._collected.nodes)):
            if counts:
                out.write(f"\n| {title} | denied |\n|---|---:|\n")
                out.writelines(f"| {_cell(name)} | {n} |\n" for name, n in counts.most_common(50))
        if self._collected.rows:
            out.write(
                "\n| case | node | request | verdict | rule | why |\n|---|---|---|---|---|---|\n"
            )
        for row in self._collected.rows:
            cells = (row.id, row.node or "-", row.what, _verdict(row), row.rule, row.explanation)
            out.write(f"| {' | '.join(map(_cell, cells))} |\n")
        if self._collected.left_out:
            out.write(f"\n{self._collected.left_out} more are counted above.\n")


def _cell(text: str) -> str:
    """Return a text that Markdown shows as it is."""
    escaped = escape(printable(text), quote=False)
    return "".join(f"\\{char}" if char in "\\`*_|[]#~" else char for char in escaped)


class JUnitReport:
    """Test cases for CI: what is not as expected has failed.

    Args:
        out: where to.
        fail_on_denied: what is denied has failed too.
    """

    def __init__(self, out: TextIO, *, fail_on_denied: bool) -> None:
        self._out = out
        self._fail_on_denied = fail_on_denied
        self._suite = ET.Element("testsuite", name="noderestrict replay")
        self._failures = 0

    def result(self, row: Row) -> None:
        """Take one result."""
        case = ET.SubElement(
            self._suite, "testcase", name=printable(row.id), classname=printable(row.what)
        )
        if row.ok is False or (self._fail_on_denied and not row.allowed):
            self._failures += 1
            failure = ET.SubElement(case, "failure", message=_verdict(row), type=row.rule)
            failure.text = printable(row.explanation)

    def end(self, summary: Summary) -> None:
        """Write the document."""
        self._suite.set("tests", str(summary.total))
        self._suite.set("failures", str(self._failures))
        self._suite.set("errors", str(summary.unreadable))
        text = ET.tostring(self._suite, encoding="unicode")
        self._out.write(f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n')
