"""A table for terminals: one line for each kind of case, the refused ones first."""

import itertools
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from noderestrict.policy.text import printable
from noderestrict.replay.report import (
    Document,
    Group,
    Options,
    expected,
    explanation,
    notes,
    place,
    verdict,
)
from noderestrict.replay.results import Result, Summary

_RED, _GREEN, _YELLOW, _PLAIN = "\033[31m", "\033[32m", "\033[33m", "\033[0m"
_HEADER = ("VERDICT", "NODE", "REQUEST", "OBJECT", "RULE", "TIMES", "")
_GAP = "  "
#: No column gets narrower than that, and none of names as long as rules can give way.
_NARROWEST, _NARROW = 8, 14
#: Names in each of the sums.
_MOST_COUNTS = 10


@dataclass(frozen=True, slots=True)
class _Row:
    cells: Sequence[str]
    colour: str
    heading: str
    below: Sequence[str]


class TableReport(Document):
    """Similar cases on one line; then the sums of the denials, and the summary on the last line."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._cut, self._times = ("...", "x") if options.plain else ("…", "×")

    def end(self, summary: Summary) -> None:
        """Write the table, the sums and the summary."""
        groups = self._groups
        rows = sorted(
            map(self._row, groups.sorted()), key=lambda row: (not row.heading, row.heading)
        )
        if rows:
            self._out.writelines(f"{line}\n" for line in self._lines(rows))
        if groups.left_out:
            self._out.write(f"{self._cut} and {groups.left_out} more, counted below\n")
        for title, counts in (
            ("DENIED BY RULE", groups.rules),
            ("DENIED BY NODE", groups.nodes),
            ("DENIED BY USER AGENT", groups.agents),
        ):
            self._out.writelines(f"{line}\n" for line in self._sums(title, counts))
        self._out.writelines(f"{line}\n" for line in _last_lines(str(summary), self._options.width))

    def _row(self, group: Group) -> _Row:
        one = group.first
        marks = []
        heading = ""
        if isinstance(one, Result):
            colour = _GREEN if one.allowed else _RED
            text = "allowed" if one.allowed else f"denied {one.code}"
            if one.ok is False and one.expect is not None:
                heading = f"NOT AS EXPECTED ({expected(one.expect)})"
        else:
            colour, text = _YELLOW, verdict(one)
        if one.dry_run:
            marks.append("dry run")
        if one.already_refused:
            marks.append("already refused")
        where = f"{one.namespace}/{one.name}" if one.namespace else one.name
        cells = (
            text,
            one.requester,
            f"{one.operation} {one.resource}".strip() or one.what,
            where or "-",
            one.rule if text != "allowed" else "",
            f"{group.count}{self._times}" if group.count > 1 else "",
            ", ".join(marks),
        )
        below: list[str] = []
        if self._options.explain:
            below = [
                *filter(None, (explanation(one), *notes(one))),
                _GAP.join(filter(None, (place(one), one.id, one.time, one.user_agent))),
            ]
            if isinstance(one, Result):
                below += one.lookups or ("no lookup was needed",)
        shown = [printable(cell) for cell in cells]
        return _Row(shown, colour, heading, [printable(text) for text in below])

    def _lines(self, rows: Sequence[_Row]) -> Iterator[str]:
        table = [_HEADER, *(row.cells for row in rows)]
        natural = [max(map(len, column)) for column in zip(*table, strict=True)]
        if not any(row.cells[5] for row in rows):
            natural[5] = 0
        widths = _fitted(natural, self._options.width)
        yield self._line(_HEADER, widths)
        heading = ""
        for row in rows:
            if row.heading != heading:
                heading = row.heading
                yield self._painted(_YELLOW, heading or "AS EXPECTED, OR NOTHING EXPECTED")
            yield self._line(row.cells, widths, row.colour)
            yield from (f"    {text}" for text in row.below)

    def _line(self, cells: Sequence[str], widths: Sequence[int], colour: str = "") -> str:
        fields = [
            f"{_middle_cut(cell, width, self._cut):{'>' if at == 5 else '<'}{width}}"
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
            if width
        ]
        if colour:
            fields[0] = self._painted(colour, fields[0])
        return _GAP.join(fields).rstrip()

    def _painted(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._options.colour else text

    def _sums(self, title: str, counts: Counter[str]) -> Iterator[str]:
        if not counts:
            return
        yield ""
        yield title
        width = len(str(counts.most_common(1)[0][1]))
        for name, count in counts.most_common(_MOST_COUNTS):
            room = max(_NARROWEST, self._options.width - width - 4)
            yield f"  {count:>{width}}  {_middle_cut(printable(name), room, self._cut)}"
        if len(counts) > _MOST_COUNTS:
            yield f"  {self._cut} and {len(counts) - _MOST_COUNTS} more"


def _fitted(natural: Sequence[int], room: int) -> list[int]:
    """Return the widths of columns, of which the widest give way until all fit."""
    widths = list(natural)
    # Verdicts, counts and marks are never cut, rules only where names cannot give way any more.
    for columns, narrowest in (((1, 2, 3), _NARROW), ((1, 2, 3, 4), _NARROWEST)):
        while sum(widths) + len(_GAP) * (sum(map(bool, widths)) - 1) > room:
            widest = max(columns, key=lambda column: widths[column])
            if widths[widest] <= narrowest:
                break
            widths[widest] -= 1
    return widths


def _last_lines(summary: str, width: int) -> list[str]:
    """Return a summary on lines that fit, with the verdicts on the last one."""
    verdicts, expectations, *more = summary.split("; ")
    lines = (
        textwrap.wrap(part, width, subsequent_indent="  ", break_on_hyphens=False) for part in more
    )
    return [*itertools.chain.from_iterable(lines), f"{verdicts}; {expectations}"]


def _middle_cut(text: str, width: int, mark: str) -> str:
    """Return a text without its middle if it is too long: names differ at their ends."""
    if len(text) <= width:
        return text
    kept = max(0, width - len(mark))
    tail = kept // 2
    return f"{text[: kept - tail]}{mark}{text[len(text) - tail :]}"


REPORT = TableReport
