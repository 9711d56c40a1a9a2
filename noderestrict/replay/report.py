"""What all reports share: their interface, their options and their words for a verdict."""

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from typing import TextIO

from noderestrict.replay.cases import Expectation
from noderestrict.replay.results import Result, Summary

#: Refusals that reports show one by one; all of them are counted.
_SHOWN = 2_000


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator asks of a report; each report reads what it can show.

    Attributes:
        out: where the report goes.
        notes: where a summary goes that must stay out of the report.
        colour: use terminal colours.
        explain: show the lookups of each case with their answers.
        fail_on_denied: a denial is a failure.
    """

    out: TextIO
    notes: TextIO
    colour: bool = False
    explain: bool = False
    fail_on_denied: bool = False


class Report(ABC):
    """A report. To add one, add a file to ``replay/reports`` that sets ``REPORT`` to its class."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._out = options.out

    @abstractmethod
    def write(self, result: Result) -> None:
        """Write one result, or keep it for the end."""

    @abstractmethod
    def end(self, summary: Summary) -> None:
        """Write what comes after the last result."""


@dataclass(slots=True)
class Refusals:
    """Counts of all denials, and the first of those results that are worth a look.

    Attributes:
        rules: denials by rule id.
        nodes: denials by node.
        agents: denials by user agent, where it is known.
        shown: denials, and what is not as expected.
        left_out: how many more of these there are.
    """

    rules: Counter[str] = field(default_factory=Counter)
    nodes: Counter[str] = field(default_factory=Counter)
    agents: Counter[str] = field(default_factory=Counter)
    shown: list[Result] = field(default_factory=list)
    left_out: int = 0

    def add(self, result: Result) -> None:
        """Count one result."""
        if result.allowed and result.ok is not False:
            return
        if not result.allowed:
            self.rules[result.rule] += 1
            self.nodes[result.node or "-"] += 1
            if result.user_agent:
                self.agents[result.user_agent] += 1
        if len(self.shown) < _SHOWN:
            self.shown.append(result)
        else:
            self.left_out += 1


class Document(Report):
    """A report that is written as a whole at the end, of the refusals alone."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._refusals = Refusals()

    def write(self, result: Result) -> None:
        """Keep one result."""
        self._refusals.add(result)


def expected(expect: Expectation) -> str:
    """Return an expectation in words."""
    return "allowed" if expect.allowed else f"denied {expect.code or ''}".rstrip()


def verdict(result: Result) -> str:
    """Return a verdict in words, and what was expected if it is something else."""
    text = "allowed" if result.allowed else f"denied {result.code}"
    if result.ok is False and result.expect is not None:
        return f"{text}, expected {expected(result.expect)}"
    return text
