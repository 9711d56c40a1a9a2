"""Judge cases, and compare with what is expected."""

from dataclasses import dataclass, replace
from typing import Any

import msgspec

from noderestrict import admission
from noderestrict.api.resources import ObjectKey
from noderestrict.policy.decision import Allowed, Decision, Denied, Question
from noderestrict.policy.features import check_gates
from noderestrict.policy.listers import Listers, MemoryListers
from noderestrict.policy.settings import Settings
from noderestrict.replay.cases import Case, Expectation
from noderestrict.replay.sources import Unreadable
from noderestrict.replay.state import StateError, add_objects

_OK = 200
_RETRIABLE = 500


@dataclass(frozen=True, slots=True)
class Row:
    """What a report shows of a result."""

    id: str
    uid: str
    node: str | None
    what: str
    allowed: bool
    code: int
    reason: str
    rule: str
    #: What the requester is told.
    message: str
    expect: Expectation | None
    ok: bool | None
    lookups: tuple[str, ...]
    #: What is known of where the case comes from, and what was assumed.
    notes: tuple[str, ...] = ()
    user_agent: str = ""
    #: The existing and the new object, JSON.
    old: bytes = b"null"
    new: bytes = b"null"
    #: What the requester is not told: what was found where something else was wanted.
    detail: str = ""

    @property
    def explanation(self) -> str:
        """The message with the detail."""
        return f"{self.message} ({self.detail})" if self.detail else self.message


@dataclass(frozen=True, slots=True)
class Result:
    """A judged case; ``ok`` is None when nothing is expected of it."""

    case: Case
    request: admission.Request
    decision: Allowed | Denied
    ok: bool | None
    lookups: tuple[str, ...]

    @property
    def row(self) -> Row:
        """What a report shows."""
        request, decision = self.request, self.decision
        at = f"{request.namespace}/{request.name}" if request.namespace else request.name
        denied = decision if isinstance(decision, Denied) else None
        return Row(
            id=self.case.id,
            uid=request.uid,
            node=request.node,
            what=f"{request.operation} {admission.resource_path(request)} {at}".rstrip(),
            allowed=denied is None,
            code=denied.code if denied else _OK,
            reason=denied.reason if denied else "",
            rule=decision.rule,
            message=denied.message if denied else "",
            expect=self.case.expect,
            ok=self.ok,
            lookups=self.lookups,
            old=_json(request.old_object),
            new=_json(request.object),
            detail=denied.detail if denied else "",
        )


@dataclass(slots=True)
class Summary:
    """Counts over all cases."""

    total: int = 0
    allowed: int = 0
    denied: int = 0
    expected: int = 0
    unexpected: int = 0
    unreadable: int = 0
    #: Writes in an audit log of which too little is known.
    undecided: int = 0

    def count(self, result: Row | Unreadable) -> None:
        """Count one result."""
        if isinstance(result, Unreadable):
            self.unreadable += 1
            return
        self.total += 1
        self.allowed += result.allowed
        self.denied += not result.allowed
        self.expected += result.ok is True
        self.unexpected += result.ok is False

    def __str__(self) -> str:
        """Return the last line of a report."""
        text = (
            f"{self.total} cases: {self.allowed} allowed, {self.denied} denied; "
            f"{self.expected} of {self.expected + self.unexpected} as expected, "
            f"{self.unexpected} not as expected"
        )
        if self.undecided:
            text += f"; {self.undecided} not judged, for want of an object"
        return f"{text}; {self.unreadable} unreadable" if self.unreadable else text

    def exit_code(self, *, fail_on_denied: bool) -> int:
        """Return 0 for all as expected, 1 for some not, 2 for unreadable input."""
        if self.unreadable:
            return 2
        return int(self.unexpected > 0 or (fail_on_denied and self.denied > 0))


def _json(given: msgspec.Raw | msgspec.Struct) -> bytes:
    return bytes(given) if isinstance(given, msgspec.Raw) else msgspec.json.encode(given)


def judge_case(case: Case, settings: Settings, listers: MemoryListers) -> Result | Unreadable:
    """Judge one case with its own state, feature gates and audiences over the given ones."""
    try:
        request = admission.decode(case.review)
        settings, listers = circumstances(case, settings, listers)
    except (admission.ReviewError, StateError, ValueError) as error:
        return Unreadable(case.file, case.line, f"case {case.id!r}: {error}")
    traced = Trace(listers)
    decision = _answer(case, admission.judge(request, settings, traced))
    return Result(case, request, decision, _as_expected(case, decision), tuple(traced.lines))


def circumstances(
    case: Case, settings: Settings, listers: MemoryListers
) -> tuple[Settings, MemoryListers]:
    """Return the settings and objects that a case is judged with: its own over the given ones.

    Raises:
        StateError: the case's own objects cannot be read.
        ValueError: there is no such feature gate.
    """
    if case.features:
        check_gates(case.features)
        settings = replace(settings, features={**settings.features, **case.features})
    if case.api_audiences is not None:
        settings = replace(settings, api_audiences=case.api_audiences)
    if case.state is not None:
        listers = MemoryListers()
        add_objects(listers, case.state, "state")
    return settings, listers


def _answer(case: Case, decision: Decision) -> Allowed | Denied:
    if not isinstance(decision, Question):
        return decision
    for grant in case.audience_grants:
        if (
            (grant.audience == "*" or grant.audience in decision.audiences)
            and grant.namespace in ("", decision.namespace)
            and grant.service_account in ("", decision.service_account)
        ):
            return Allowed("serviceaccounts-token/audience")
    return decision.otherwise


def _as_expected(case: Case, decision: Allowed | Denied) -> bool | None:
    expect = case.expect
    if expect is None:
        return None
    if isinstance(decision, Allowed) or expect.allowed:
        return expect.allowed == isinstance(decision, Allowed)
    if expect.code is not None and expect.code != decision.code:
        return False
    # The in-tree plugin gives no reason with 500, so that any is as good.
    return expect.reason in (None, "", decision.reason) or decision.code == _RETRIABLE


class Trace(Listers):
    """Listers that note each lookup and its answer, for ``--explain``."""

    def __init__(self, listers: Listers) -> None:
        self._listers = listers
        self.lines: list[str] = []

    def get(self, key: ObjectKey) -> Any:
        """Look an object up, and note it."""
        found = self._listers.get(key)
        self.lines.append(f"{key} -> {'not found' if found is None else found}")
        return found
