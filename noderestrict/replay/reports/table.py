"""A table for terminals: one line per case."""

from noderestrict.policy.text import printable
from noderestrict.replay.report import Report, expected
from noderestrict.replay.results import Result, Summary

_RED, _GREEN, _YELLOW, _PLAIN = "\033[31m", "\033[32m", "\033[33m", "\033[0m"


class TableReport(Report):
    """One line per case: id, node, request, verdict, rule, message; the summary comes last."""

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._options.colour else text

    def write(self, result: Result) -> None:
        """Write one line, with a line for each note and lookup below it."""
        node = "-" if result.node is None else result.node or '""'
        if result.allowed:
            verdict, tail = self._paint(_GREEN, "allowed"), ""
        else:
            verdict = self._paint(_RED, f"{'denied ' + str(result.code):<10}")
            tail = f"  {result.rule}: {printable(result.explanation)}"
        mark = ""
        if result.ok is False and result.expect is not None:
            mark = self._paint(_YELLOW, f"  NOT AS EXPECTED ({expected(result.expect)})")
        who = f"{printable(result.id):<24}  {printable(node):<8}"
        line = f"{who}  {printable(result.what):<44}  {verdict}{mark}{tail}"
        self._out.write(f"{line.rstrip()}\n")
        below = () if result.allowed else result.notes
        if self._options.explain:
            below += result.lookups or ("no lookup was needed",)
        self._out.writelines(f"    {printable(text)}\n" for text in below)

    def end(self, summary: Summary) -> None:
        """Write the summary as the last line."""
        self._out.write(f"{summary}\n")


REPORT = TableReport
