"""Markdown tables for a pull request or an issue."""

from html import escape

from noderestrict.policy.text import printable
from noderestrict.replay.report import Document, explanation, notes, verdict
from noderestrict.replay.results import Summary

_MOST_COUNTS = 50


class MarkdownReport(Document):
    """The summary, denials by rule, node and user agent, and each kind of case once."""

    on_unencodable = "xmlcharrefreplace"

    def end(self, summary: Summary) -> None:
        """Write the document."""
        out, found = self._out, self._groups
        out.write(f"# noderestrict replay\n\n{summary}\n")
        for title, counts in (
            ("rule", found.rules),
            ("node", found.nodes),
            ("user agent", found.agents),
        ):
            if counts:
                out.write(f"\n| {title} | denied |\n|---|---:|\n")
                most = counts.most_common(_MOST_COUNTS)
                out.writelines(f"| {_cell(name)} | {count} |\n" for name, count in most)
        groups = found.sorted()
        if groups:
            header = "| case | times | node | request | verdict | rule | why |"
            out.write(f"\n{header}\n|---|---:|---|---|---|---|---|\n")
        for group in groups:
            one = group.first
            why = " · ".join((explanation(one), *notes(one)))
            cells = (
                one.id, str(group.count), one.requester, one.what, verdict(one), one.rule, why,
            )  # fmt: skip
            out.write(f"| {' | '.join(map(_cell, cells))} |\n")
        if found.left_out:
            out.write(f"\n… and {found.left_out} more, counted above.\n")


def _cell(text: str) -> str:
    """Return text that Markdown shows as it is."""
    escaped = escape(printable(text), quote=False)
    return "".join(f"\\{char}" if char in "\\`*_|[]#~" else char for char in escaped)


REPORT = MarkdownReport
