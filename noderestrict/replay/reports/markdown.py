"""Markdown tables for a pull request or an issue."""

from html import escape

from noderestrict.policy.text import printable
from noderestrict.replay.report import Document, verdict
from noderestrict.replay.results import Summary

_MOST_COUNTS = 50


class MarkdownReport(Document):
    """The summary, denials by rule and by node, and each refusal."""

    def end(self, summary: Summary) -> None:
        """Write the document."""
        out, refusals = self._out, self._refusals
        out.write(f"# noderestrict replay\n\n{summary}\n")
        for title, counts in (("rule", refusals.rules), ("node", refusals.nodes)):
            if counts:
                out.write(f"\n| {title} | denied |\n|---|---:|\n")
                most = counts.most_common(_MOST_COUNTS)
                out.writelines(f"| {_cell(name)} | {count} |\n" for name, count in most)
        if refusals.shown:
            header = "| case | node | request | verdict | rule | why |"
            out.write(f"\n{header}\n|---|---|---|---|---|---|\n")
        for one in refusals.shown:
            cells = (one.id, one.node or "-", one.what, verdict(one), one.rule, one.explanation)
            out.write(f"| {' | '.join(map(_cell, cells))} |\n")
        if refusals.left_out:
            out.write(f"\n… and {refusals.left_out} more, counted above.\n")


def _cell(text: str) -> str:
    """Return text that Markdown shows as it is."""
    escaped = escape(printable(text), quote=False)
    return "".join(f"\\{char}" if char in "\\`*_|[]#~" else char for char in escaped)


REPORT = MarkdownReport
