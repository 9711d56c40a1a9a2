"""An HTML page for people, which loads nothing else."""

from collections import Counter
from html import escape

from noderestrict.policy.text import printable
from noderestrict.replay.changes import ABSENT, changes
from noderestrict.replay.report import Document, verdict
from noderestrict.replay.results import Result, Summary

_MOST_COUNTS = 50
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


class HTMLReport(Document):
    """The counts, denials by rule, node and user agent, and each refusal with what it changes."""

    def end(self, summary: Summary) -> None:
        """Write the page."""
        refusals = self._refusals
        tables = (
            _count_table("By rule", refusals.rules)
            + _count_table("By node", refusals.nodes)
            + _count_table("By user agent", refusals.agents)
        )
        details = "".join(map(_details, refusals.shown)) or "<p>Nothing was denied.</p>"
        left_out = refusals.left_out
        more = f"<p>… and {left_out:,} more, counted above.</p>" if left_out else ""
        self._out.write(
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
            f"<title>noderestrict: {summary.denied} denied</title><style>{_STYLE}</style></head>"
            f'<body><h1>noderestrict replay</h1><ul class="sums">{_sums(summary)}</ul>'
            f'<div class="tables">{tables}</div><h2>Cases</h2>{details}{more}</body></html>\n'
        )


def _text(value: str) -> str:
    return escape(printable(value))


def _sums(summary: Summary) -> str:
    sums = {"judged": summary.total, "allowed": summary.allowed, "denied": summary.denied}
    problems = {
        "not as expected": summary.unexpected,
        "not judged: not enough in the log": summary.undecided,
        "unreadable": summary.unreadable,
    }
    sums |= {name: count for name, count in problems.items() if count}
    return "".join(f"<li><b>{count:,}</b>{name}</li>" for name, count in sums.items())


def _count_table(title: str, counts: Counter[str]) -> str:
    if not counts:
        return ""
    rows = "".join(
        f'<tr><td>{_text(name)}</td><td class="n">{count:,}</td></tr>'
        for name, count in counts.most_common(_MOST_COUNTS)
    )
    return f"<section><h2>{title}</h2><table>{rows}</table></section>"


def _details(result: Result) -> str:
    kind = "good" if result.allowed else "bad"
    notes = [f"case {result.id}", *result.notes]
    if result.user_agent:
        notes.append(f"user agent {result.user_agent}")
    return (
        f'<details><summary><span class="{kind}">{_text(verdict(result))}</span> '
        f"<b>{_text(result.node or '-')}</b> {_text(result.what)} "
        f"<code>{_text(result.rule)}</code></summary>"
        f"<p>{_text(result.explanation)}</p>{_change_table(result)}"
        f'<p class="note">{" · ".join(map(_text, notes))}</p></details>'
    )


def _change_table(result: Result) -> str:
    rows = "".join(
        f"<tr><td><code>{_text(path)}</code></td><td>{_value('del', was)}</td>"
        f"<td>{_value('ins', becomes)}</td></tr>"
        for path, was, becomes in changes(result.old, result.new)
    )
    if not rows:
        return ""
    return (
        '<div class="scroll"><table><tr><th>Field</th><th>Before</th><th>After</th></tr>'
        f"{rows}</table></div>"
    )


def _value(tag: str, value: str) -> str:
    if value == ABSENT:
        return f'<span class="note">{value}</span>'
    return f"<{tag}>{_text(value)}</{tag}>"


REPORT = HTMLReport
