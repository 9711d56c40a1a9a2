"""What all reports share: their interface, their options and their words for a verdict."""

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from typing import TextIO

from noderestrict.replay.cases import Expectation
from noderestrict.replay.results import Asked, Certainty, NotJudged, Result, Summary, Undecided

#: Different cases that reports show; all are counted.
_SHOWN = 2_000
#: Names that each sum keeps; whoever writes a log chooses how many there are.
_NAMES = 10_000


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator asks of a report; each report reads what it can show.

    Attributes:
        out: where the report goes.
        notes: where a summary goes that must stay out of the report.
        colour: use terminal colours.
        explain: show messages, places and lookups of each case.
        show_all: show allowed cases too.
        fail_on_denied: a denial is a failure even where it is expected.
        width: of the terminal, in columns.
        plain: the terminal shows ASCII only.
        sources: the files that are read.
        version: of this program.
        kubernetes: the release whose rules apply.
    """

    out: TextIO
    notes: TextIO
    colour: bool = False
    explain: bool = False
    show_all: bool = False
    fail_on_denied: bool = False
    width: int = 80
    plain: bool = False
    sources: tuple[str, ...] = ()
    version: str = ""
    kubernetes: str = ""


class Report(ABC):
    """A report. To add one, add a file to ``replay/reports`` that sets ``REPORT`` to its class.

    Attributes:
        on_unencodable: how characters are written that the output cannot express, as ``open`` takes
            it in ``errors``.
    """

    on_unencodable = "backslashreplace"

    def __init__(self, options: Options) -> None:
        self._options = options
        self._out = options.out

    @abstractmethod
    def write(self, result: Result) -> None:
        """Write one result, or keep it for the end."""

    def leave(self, left: Undecided | NotJudged) -> None:  # noqa: B027 (most reports need it not)
        """Take note of a write that is not judged."""

    @abstractmethod
    def end(self, summary: Summary) -> None:
        """Write what comes after the last result."""


@dataclass(slots=True)
class Group:
    """Cases that differ in nothing that a reader must know.

    Attributes:
        first: of them.
        count: how many there are.
        last_time: of the last one, "" if none says.
    """

    first: Result | Undecided
    count: int = 0
    last_time: str = ""


@dataclass(slots=True)
class Groups:
    """What reports for people show: similar cases once, and the sums of all denials.

    Attributes:
        rules: denials by rule id.
        nodes: denials by node.
        agents: denials by user agent, where it is known.
        first_time: of the first case, "" if none says.
        last_time: of the last case.
        left_out: cases that no group shows.
    """

    rules: Counter[str] = field(default_factory=Counter)
    nodes: Counter[str] = field(default_factory=Counter)
    agents: Counter[str] = field(default_factory=Counter)
    first_time: str = ""
    last_time: str = ""
    left_out: int = 0
    _groups: dict[tuple[object, ...], Group] = field(default_factory=dict)

    def add(self, found: Result | Undecided, *, show_all: bool = False) -> None:
        """Count a case; an allowed one is shown only if all are, or if it is not as expected."""
        self._see(found.time)
        if isinstance(found, Result):
            if not found.allowed and not found.already_refused:
                _count(self.rules, found.rule)
                _count(self.nodes, found.requester)
                if found.user_agent:
                    _count(self.agents, found.user_agent)
            if found.allowed and found.ok is not False and not show_all:
                return
        key = _key(found)
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) >= _SHOWN:
                self.left_out += 1
                return
            group = self._groups[key] = Group(found)
        group.count += 1
        group.last_time = found.time

    def sorted(self) -> list[Group]:
        """Return what is shown: first what is not as expected, then what is refused."""
        return sorted(self._groups.values(), key=lambda group: (_rank(group.first), -group.count))

    def _see(self, time: str) -> None:
        if time:
            self.first_time = min(self.first_time or time, time)
            self.last_time = max(self.last_time, time)


def _count(counts: Counter[str], name: str) -> None:
    if name in counts or len(counts) < _NAMES:
        counts[name] += 1
    else:
        counts["(others)"] += 1


def _key(found: Result | Undecided) -> tuple[object, ...]:
    asked = (found.requester, found.what, found.rule, found.dry_run, found.already_refused)
    if isinstance(found, Undecided):
        return (*asked, found.missing)
    expect = None if found.expect is None else found.expect.allowed
    return (*asked, found.allowed, found.code, found.message, found.certainty, found.ok, expect)


def _rank(found: Result | Undecided) -> int:
    if isinstance(found, Undecided):
        return 2
    if found.ok is False:
        return 0
    if found.allowed:
        return 4
    return 3 if found.already_refused else 1


class Document(Report):
    """A report that is written as a whole at the end."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._groups = Groups()

    def write(self, result: Result) -> None:
        """Keep one result."""
        self._groups.add(result, show_all=self._options.show_all)

    def leave(self, left: Undecided | NotJudged) -> None:
        """Keep what is undecided."""
        if isinstance(left, Undecided):
            self._groups.add(left)


def expected(expect: Expectation) -> str:
    """Return an expectation in words."""
    return "allowed" if expect.allowed else f"denied {expect.code or ''}".rstrip()


def verdict(found: Result | Undecided) -> str:
    """Return a verdict in words, and what was expected if it is something else."""
    if isinstance(found, Undecided):
        return "undecided"
    text = "allowed" if found.allowed else f"denied {found.code}"
    if found.ok is False and found.expect is not None:
        return f"{text}, expected {expected(found.expect)}"
    return text


def decision(found: Result | Undecided | NotJudged) -> str:
    """Return a decision in a word, for programs."""
    if isinstance(found, NotJudged):
        return "not judged"
    if isinstance(found, Undecided):
        return str(Certainty.UNDECIDED)
    return "allowed" if found.allowed else "denied"


def place(found: Asked) -> str:
    """Return file and line of a case, "" if they are not known."""
    return f"{found.file}:{found.line}" if found.line else found.file


def explanation(found: Result | Undecided) -> str:
    """Return why a case was decided as it was, or what is missing to decide it."""
    return f"undecided: {found.missing}" if isinstance(found, Undecided) else found.explanation


def notes(found: Result | Undecided) -> tuple[str, ...]:
    """Return what else a reader must know of a case, such as what its verdict rests on."""
    if isinstance(found, Result):
        return found.notes
    by = f"by {found.impersonator} as {found.user}" if found.impersonator else ""
    return tuple(filter(None, (f"level {found.level}" if found.level else "", by)))
