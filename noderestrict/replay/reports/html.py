"""An HTML page for people, which loads nothing else."""

from collections import Counter
from collections.abc import Iterable, Sequence

from noderestrict.replay.changes import ABSENT, changes
from noderestrict.replay.page import counted, page, shown
from noderestrict.replay.report import (
    Document,
    Group,
    decision,
    explanation,
    notes,
    place,
    verdict,
)
from noderestrict.replay.results import Result, Summary, Undecided

_MOST_COUNTS = 50
_MOST_CHOICES = 100
_COLOURS = {"allowed": "good", "denied": "bad", "undecided": "open"}


class HTMLReport(Document):
    """What was read, the sums, and each kind of case with what it changes; with a filter."""

    on_unencodable = "xmlcharrefreplace"

    def end(self, summary: Summary) -> None:
        """Write the page."""
        found = self._groups
        tables = (
            _count_table("By rule", found.rules)
            + _count_table("By node", found.nodes)
            + _count_table("By user agent", found.agents)
        )
        groups = found.sorted()
        filters = [
            _Filter("verdict", (verdict(group.first) for group in groups)),
            _Filter("rule", (group.first.rule for group in groups)),
            _Filter("node", (group.first.requester for group in groups)),
        ]
        details = "".join(_details(group, filters) for group in groups)
        if not summary.denied:
            details = f"<p>Nothing was denied.</p>{details}"
        left_out = found.left_out
        more = f"<p>… and {left_out:,} more, counted above.</p>" if left_out else ""
        self._out.write(
            page(
                f"noderestrict: {summary.denied} denied",
                "noderestrict replay",
                f"{self._about()}{counted(_sums(summary))}"
                f'<div class="tables">{tables}</div><h2>Cases</h2>'
                f'<div class="filters">{"".join(one.choice for one in filters)}</div>'
                f"{details}{more}",
                "".join(one.style for one in filters),
            )
        )

    def _about(self) -> str:
        """Return what was read, and by what."""
        options, found = self._options, self._groups
        span = f"{found.first_time} to {found.last_time}" if found.first_time else ""
        rows = {
            "Time": span,
            "Sources": ", ".join(options.sources),
            "Rules": f"Kubernetes {options.kubernetes}" if options.kubernetes else "",
            "Version": f"noderestrict {options.version}" if options.version else "",
        }
        items = "".join(f"<dt>{key}</dt><dd>{shown(rows[key])}</dd>" for key in rows if rows[key])
        return f"<dl>{items}</dl>"


class _Filter:
    """A choice that hides all other cases, by style alone: the page holds what nodes wrote.

    Args:
        name: of what there is to choose from.
        values: of each case.
    """

    def __init__(self, name: str, values: Iterable[str]) -> None:
        self._name = name
        counts = Counter(values)
        self._classes = {
            value: f"{name}-{number}"
            for number, (value, _) in enumerate(counts.most_common(_MOST_CHOICES))
        }

    def class_of(self, value: str) -> str:
        """Return the class of a case with a value."""
        return self._classes.get(value, f"{self._name}-other")

    @property
    def style(self) -> str:
        """What each choice hides."""
        return "".join(
            f'body:has(option[value="{one}"]:checked) details:not(.{one}) {{ display: none; }}\n'
            for one in self._classes.values()
        )

    @property
    def choice(self) -> str:
        """What there is to choose from."""
        options = "".join(
            f'<option value="{one}">{shown(value or "-")}</option>'
            for value, one in self._classes.items()
        )
        return (
            f"<label>{self._name.capitalize()} "
            f"<select><option>all</option>{options}</select></label>"
        )


def _sums(summary: Summary) -> dict[str, int]:
    sums = {"judged": summary.total, "allowed": summary.allowed, "denied": summary.denied}
    more = {
        "not as expected": summary.unexpected,
        "already refused": summary.already_refused,
        "undecided": summary.undecided,
        "inferred": summary.inferred,
        "dry runs": summary.dry_runs,
        **{f"not judged: {why}": count for why, count in summary.not_judged.most_common(10)},
        "unreadable": summary.unreadable,
    }
    return sums | {name: count for name, count in more.items() if count}


def _count_table(title: str, counts: Counter[str]) -> str:
    if not counts:
        return ""
    rows = "".join(
        f'<tr><td>{shown(name)}</td><td class="n">{count:,}</td></tr>'
        for name, count in counts.most_common(_MOST_COUNTS)
    )
    return f"<section><h2>{title}</h2><table>{rows}</table></section>"


def _details(group: Group, filters: Sequence[_Filter]) -> str:
    one = group.first
    values = (verdict(one), one.rule, one.requester)
    classes = (by.class_of(value) for by, value in zip(filters, values, strict=True))
    marks = [f"case {one.id}", place(one), *notes(one)]
    if one.user_agent:
        marks.append(f"user agent {one.user_agent}")
    if one.time:
        marks.append(one.time if group.count == 1 else f"{one.time} to {group.last_time}")
    times = f'<span class="times">{group.count:,} times</span>' if group.count > 1 else ""
    return (
        f'<details class="{" ".join(classes)}"><summary>{times}'
        f'<span class="{_COLOURS[decision(one)]}">{shown(verdict(one))}</span> '
        f"<b>{shown(one.requester)}</b> {shown(one.what)} "
        f"<code>{shown(one.rule)}</code></summary>"
        f"<p>{shown(_why(one))}</p>{_change_table(one)}"
        f'<p class="note">{" · ".join(map(shown, filter(None, marks)))}</p></details>'
    )


def _why(one: Result | Undecided) -> str:
    if isinstance(one, Undecided):
        return f"To decide it, this is missing: {one.missing}"
    return explanation(one)


def _change_table(one: Result | Undecided) -> str:
    if isinstance(one, Undecided):
        return ""
    rows = "".join(
        f"<tr><td><code>{shown(path)}</code></td><td>{_value('del', was)}</td>"
        f"<td>{_value('ins', becomes)}</td></tr>"
        for path, was, becomes in changes(one.old, one.new)
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
    return f"<{tag}>{shown(value)}</{tag}>"


REPORT = HTMLReport
