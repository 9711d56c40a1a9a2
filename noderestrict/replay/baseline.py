"""Compare two runs over the same input: the verdicts of the first are what the second expects."""

from dataclasses import replace

from noderestrict.replay.cases import Expectation
from noderestrict.replay.report import Options, Report
from noderestrict.replay.results import Result, Summary

#: The file and line of a case, and its id.
_Key = tuple[str, int, str]


class Baseline(Report):
    """A report that keeps the verdicts of a run as expectations of another one."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._verdicts: dict[_Key, Expectation] = {}

    def write(self, result: Result) -> None:
        """Keep a verdict."""
        self._verdicts[_key(result)] = Expectation(result.allowed, result.code, result.reason)

    def end(self, summary: Summary) -> None:
        """Do nothing."""

    def expected_of(self, result: Result) -> Result:
        """Return a result of the other run, with what the first one makes us expect."""
        expect = self._verdicts.get(_key(result))
        if expect is None:
            return replace(result, expect=None, ok=None)
        return replace(result, expect=expect, ok=expect.allowed == result.allowed)


def _key(result: Result) -> _Key:
    return result.file, result.line, result.id
