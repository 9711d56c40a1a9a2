"""What replay finds: a result per case, and the counts of a whole run."""

from collections import Counter
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from noderestrict.policy.text import printable
from noderestrict.replay.cases import Expectation
from noderestrict.replay.sources import Unreadable


class Certainty(StrEnum):
    """How sure a decision is."""

    #: All that the rules read is there.
    KNOWN = "known"
    #: It rests on what the input does not show, but makes likely.
    INFERRED = "inferred"
    #: What is missing could turn it.
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Who asked for what, and where that is recorded.

    Attributes:
        id: of the case.
        uid: of the review, or the audit ID; "" if it has none.
        node: the requesting node's name, "" for a node user without one, None for other users.
        agent: that the requester is, by its policy; "" for others.
        user: the requester's name, "" if the case does not say.
        impersonator: the user who acts as the requester, "" if nobody does.
        what: operation, resource and object of the request, as people write it.
        operation: CREATE, UPDATE, DELETE or CONNECT; the verb of a SubjectAccessReview.
        resource: with its subresource, such as ``pods/status``.
        namespace: of the object, "" for none.
        name: of the object, "" for none.
        file: the case comes from, ``-`` for stdin.
        line: in the file, counted from 1; 0 if it is not known.
        time: at which the request was answered, as the audit event says; "" otherwise.
        user_agent: of an audit event, "" otherwise.
        level: of an audit event, such as ``RequestResponse``; "" otherwise.
        dry_run: whether nothing was to be stored.
        already_refused: whether the API server answered 403, so that enforcing changes nothing.
    """

    id: str
    uid: str = ""
    node: str | None
    agent: str = ""
    user: str = ""
    impersonator: str = ""
    what: str
    operation: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    file: str = ""
    line: int = 0
    time: str = ""
    user_agent: str = ""
    level: str = ""
    dry_run: bool = False
    already_refused: bool = False

    @property
    def requester(self) -> str:
        """The node or the agent, as reports name it; "-" for other users."""
        return self.agent or ("-" if self.node is None else self.node or '""')


@dataclass(frozen=True, slots=True, kw_only=True)
class Result(Asked):
    """A judged case, as reports show it.

    Attributes:
        allowed: the verdict.
        code: HTTP status of the answer.
        reason: machine-readable reason of a denial, "" otherwise.
        rule: id of the rule that decided, "" if none did.
        message: what the requester sees.
        lookups: each lookup with its answer, for ``--explain``.
        detail: for the operator alone: what was found where something else was wanted.
        expect: what the case expects, None if it expects nothing.
        ok: whether the verdict is the expected one, None if nothing is expected.
        uncovered: the rule that refuses it though policies allow it, none of which covers the rule;
            "" for none.
        certainty: known or inferred.
        rests_on: what an inferred verdict rests on, in words; may say more about a known one.
        old: the existing object, JSON.
        new: the new object, JSON.
    """

    allowed: bool
    code: int
    reason: str
    rule: str
    message: str
    lookups: tuple[str, ...]
    detail: str = ""
    expect: Expectation | None = None
    ok: bool | None = None
    uncovered: str = ""
    certainty: Certainty = Certainty.KNOWN
    rests_on: str = ""
    old: bytes = b"null"
    new: bytes = b"null"

    @property
    def explanation(self) -> str:
        """The message with the detail."""
        return f"{self.message} ({self.detail})" if self.detail else self.message

    @property
    def notes(self) -> tuple[str, ...]:
        """What else a reader must know: the level of an audit event, and what was inferred."""
        rests_on = f"{self.certainty}: {self.rests_on}" if self.rests_on else ""
        marks = (
            f"level {self.level}" if self.level else "",
            rests_on,
            "dry run" if self.dry_run else "",
            "already refused" if self.already_refused else "",
            f"{self.uncovered} refuses it, which no policy covers" if self.uncovered else "",
            f"by {self.impersonator} as {self.user}" if self.impersonator else "",
        )
        return tuple(filter(None, marks))


@dataclass(frozen=True, slots=True, kw_only=True)
class Undecided(Asked):
    """A node's write in an audit log that does not hold enough to judge it.

    Attributes:
        missing: what would decide it, in words.
        rule: id of the rule that needs it, "" if it is not one alone.
    """

    missing: str
    rule: str = ""

    @property
    def certainty(self) -> Certainty:
        """Undecided."""
        return Certainty.UNDECIDED

    def __str__(self) -> str:
        """Return all of it on one line."""
        return printable(f"not judged: {self.id} {self.what}: {self.missing}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NotJudged(Asked):
    """A node's write that the API server turned down before admission, or without it.

    Attributes:
        why: such as ``409 Conflict``; reports count by it.
    """

    why: str

    def __str__(self) -> str:
        """Return all of it on one line."""
        return printable(f"not judged: {self.id} {self.what}: {self.why}")


@dataclass(slots=True)
class Summary:
    """Counts over all results.

    Attributes:
        total: judged cases, without those that were refused already.
        allowed: of these.
        denied: of these.
        inferred: of these, where the input did not show all.
        dry_runs: of these, where nothing was to be stored.
        expected: whose verdict is the expected one.
        unexpected: whose verdict is another one.
        unreadable: places in the input that could not be read.
        undecided: cases that miss something.
        already_refused: cases that the API server refused itself, whatever the rules say.
        not_judged: cases that never came to a verdict of admission, by reason.
        uncovered: cases that policies allow and rules refuse that none of them covers, by rule.
    """

    total: int = 0
    allowed: int = 0
    denied: int = 0
    inferred: int = 0
    dry_runs: int = 0
    expected: int = 0
    unexpected: int = 0
    unreadable: int = 0
    undecided: int = 0
    already_refused: int = 0
    not_judged: Counter[str] = field(default_factory=Counter)
    uncovered: Counter[str] = field(default_factory=Counter)

    def count(self, result: Result | Undecided | NotJudged | Unreadable) -> None:
        """Count one result."""
        if isinstance(result, Unreadable):
            self.unreadable += result.count
        elif isinstance(result, NotJudged):
            self.not_judged[result.why] += 1
        elif result.already_refused:
            self.already_refused += 1
        elif isinstance(result, Undecided):
            self.undecided += 1
        else:
            self.total += 1
            self.allowed += result.allowed
            self.denied += not result.allowed
            self.inferred += result.certainty is Certainty.INFERRED
            self.dry_runs += result.dry_run
            self.expected += result.ok is True
            self.unexpected += result.ok is False
            if result.uncovered:
                self.uncovered[result.uncovered] += 1

    def __str__(self) -> str:
        """Return the last line of a report."""
        text = (
            f"{cases(self.total)}: {self.allowed} allowed, {self.denied} denied; "
            f"{self.expected} of {self.expected + self.unexpected} as expected, "
            f"{self.unexpected} not as expected"
        )
        if self.already_refused:
            text += f"; {self.already_refused} already refused by the API server"
        if self.undecided:
            text += f"; {self.undecided} undecided (not enough in the log)"
        if self.uncovered:
            rules = ", ".join(f"{count} {rule}" for rule, count in self.uncovered.most_common())
            text += f"; {self.uncovered.total()} refused by rules that no policy covers: {rules}"
        if self.not_judged:
            reasons = ", ".join(f"{count} {why}" for why, count in self.not_judged.most_common())
            text += f"; not judged: {reasons}"
        return f"{text}; {self.unreadable} unreadable" if self.unreadable else text

    def exit_code(self, *, fail_on_denied: bool) -> int:
        """Return 0 if all is as expected, 1 if something is not, 2 for unreadable input."""
        if self.unreadable:
            return 2
        return int(self.unexpected > 0 or (fail_on_denied and self.denied > 0))


def asked_of(found: Asked) -> dict[str, Any]:
    """Return who asked for what, as the arguments of another result."""
    return {one.name: getattr(found, one.name) for one in fields(Asked)}


def cases(count: int) -> str:
    """Return a number of cases as people write it."""
    return "1 case" if count == 1 else f"{count} cases"
