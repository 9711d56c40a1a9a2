"""What replay finds: a result per case, and the counts of a whole run."""

from dataclasses import dataclass

from noderestrict.policy.text import printable
from noderestrict.replay.cases import Expectation
from noderestrict.replay.sources import Unreadable


@dataclass(frozen=True, slots=True)
class Result:
    """A judged case, as reports show it.

    Attributes:
        id: of the case.
        uid: of the review, "" if it has none.
        node: the requesting node's name, "" for a node user without one, None for other users.
        what: operation, resource and object of the request.
        allowed: the verdict.
        code: HTTP status of the answer.
        reason: machine-readable reason of a denial, "" otherwise.
        rule: id of the rule that decided, "" if none did.
        message: what the requester sees.
        lookups: each lookup with its answer, for ``--explain``.
        detail: for the operator alone: what was found where something else was wanted.
        expect: what the case expects, None if it expects nothing.
        ok: whether the verdict is the expected one, None if nothing is expected.
        notes: where the case comes from, and what was assumed.
        user_agent: of an audit event, "" otherwise.
        old: the existing object, JSON.
        new: the new object, JSON.
    """

    id: str
    uid: str
    node: str | None
    what: str
    allowed: bool
    code: int
    reason: str
    rule: str
    message: str
    lookups: tuple[str, ...]
    detail: str = ""
    expect: Expectation | None = None
    ok: bool | None = None
    notes: tuple[str, ...] = ()
    user_agent: str = ""
    old: bytes = b"null"
    new: bytes = b"null"

    @property
    def explanation(self) -> str:
        """The message with the detail."""
        return f"{self.message} ({self.detail})" if self.detail else self.message


@dataclass(frozen=True, slots=True)
class Undecided:
    """A node's write in an audit log that does not hold enough to judge it.

    Attributes:
        id: the audit ID.
        what: verb, resource and name.
        problem: what is missing.
    """

    id: str
    what: str
    problem: str

    def __str__(self) -> str:
        """Return all of it on one line."""
        return printable(f"not judged: {self.id} {self.what}: {self.problem}")


@dataclass(slots=True)
class Summary:
    """Counts over all results."""

    total: int = 0
    allowed: int = 0
    denied: int = 0
    expected: int = 0
    unexpected: int = 0
    unreadable: int = 0
    undecided: int = 0

    def count(self, result: Result | Undecided | Unreadable) -> None:
        """Count one result."""
        if isinstance(result, Unreadable):
            self.unreadable += 1
        elif isinstance(result, Undecided):
            self.undecided += 1
        else:
            self.total += 1
            self.allowed += result.allowed
            self.denied += not result.allowed
            self.expected += result.ok is True
            self.unexpected += result.ok is False

    def __str__(self) -> str:
        """Return the last line of a report."""
        text = (
            f"{cases(self.total)}: {self.allowed} allowed, {self.denied} denied; "
            f"{self.expected} of {self.expected + self.unexpected} as expected, "
            f"{self.unexpected} not as expected"
        )
        if self.undecided:
            text += f"; {self.undecided} not judged (not enough in the log)"
        return f"{text}; {self.unreadable} unreadable" if self.unreadable else text

    def exit_code(self, *, fail_on_denied: bool) -> int:
        """Return 0 if all is as expected, 1 if something is not, 2 for unreadable input."""
        if self.unreadable:
            return 2
        return int(self.unexpected > 0 or (fail_on_denied and self.denied > 0))


def cases(count: int) -> str:
    """Return a number of cases as people write it."""
    return "1 case" if count == 1 else f"{count} cases"
