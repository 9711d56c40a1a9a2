"""Judge AdmissionReviews, and compare the verdicts with what is expected."""

from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import msgspec

from noderestrict import admission
from noderestrict.agents.agents import Agents
from noderestrict.api.resources import ObjectKey
from noderestrict.policy.decision import Allowed, Decision, Denied, Question
from noderestrict.policy.features import check_gates
from noderestrict.policy.listers import Listers, MemoryListers
from noderestrict.policy.rules.serviceaccounts import AUDIENCE_VERB
from noderestrict.policy.semantic import Value
from noderestrict.policy.settings import Settings
from noderestrict.replay.cases import AudienceGrant, Case, Expectation
from noderestrict.replay.policies.compare import PolicyJudge
from noderestrict.replay.results import Result, Undecided, asked_of
from noderestrict.replay.sources import Unreadable
from noderestrict.replay.state import StateError, add_objects

_NO_AGENTS = Agents()


def judge_case(
    case: Case, settings: Settings, listers: MemoryListers, agents: Agents = _NO_AGENTS
) -> Result | Unreadable:
    """Judge a case; its own state, feature gates and audiences override the given ones."""
    judged = _judged(case, settings, listers, agents)
    if isinstance(judged, Unreadable):
        return judged
    _, result = judged
    return replace(result, expect=case.expect, ok=_as_expected(case.expect, result))


def compare_case(
    case: Case,
    settings: Settings,
    listers: MemoryListers,
    policies: PolicyJudge,
    agents: Agents = _NO_AGENTS,
) -> Result | Undecided | Unreadable:
    """Judge a case by policies; what the rules say is expected, whatever the case expects."""
    judged = _judged(case, settings, listers, agents)
    if isinstance(judged, Unreadable):
        return judged
    found = policies.compared(*judged, case.review)
    if found.unknown:
        return Undecided(**asked_of(found.result), missing=found.unknown)
    return found.result


def _judged(
    case: Case, settings: Settings, listers: MemoryListers, agents: Agents = _NO_AGENTS
) -> tuple[admission.Request, Result] | Unreadable:
    try:
        request = admission.decode(case.review, agents)
        settings, listers = circumstances(case, settings, listers)
    except (admission.ReviewError, StateError, ValueError) as error:
        return Unreadable(case.file, case.line, f"case {case.id!r}: {error}")
    result = judge_request(case.id, request, settings, listers, case.audience_grants)
    return request, replace(result, file=case.file, line=case.line)


def circumstances(
    case: Case, settings: Settings, listers: MemoryListers
) -> tuple[Settings, MemoryListers]:
    """Return the settings and objects that a case is judged with.

    Args:
        case: overrides what follows.
        settings: for cases without feature gates or audiences.
        listers: for cases without state.

    Raises:
        StateError: the case's objects cannot be read.
        ValueError: a feature gate is unknown.
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


def judge_request(
    id_: str,
    request: admission.Request,
    settings: Settings,
    listers: Listers,
    grants: Sequence[AudienceGrant] = (),
) -> Result:
    """Judge a request of which nothing is expected.

    Args:
        id_: of the result.
        request: decoded.
        settings: of the rules.
        listers: answer lookups.
        grants: what the cluster's authorizer would allow.
    """
    trace = Trace(listers)
    decision = _settled(admission.evaluate(request, settings, trace), grants)
    denied = decision if isinstance(decision, Denied) else None
    where = f"{request.namespace}/{request.name}" if request.namespace else request.name
    return Result(
        id=id_,
        uid=request.uid,
        node=request.node,
        agent=request.agent.name if request.agent is not None else "",
        user=request.user.username or "",
        operation=request.operation,
        resource=admission.resource_path(request),
        namespace=request.namespace,
        name=request.name,
        dry_run=request.dry_run,
        what=f"{request.operation} {admission.resource_path(request)} {where}".rstrip(),
        allowed=denied is None,
        code=denied.code if denied else HTTPStatus.OK,
        reason=denied.reason if denied else "",
        rule=decision.rule,
        message=denied.message if denied else "",
        detail=denied.detail if denied else "",
        lookups=tuple(trace.lines),
        old=_json(request.old_object),
        new=_json(request.object),
    )


def _settled(decision: Decision, grants: Sequence[AudienceGrant]) -> Allowed | Denied:
    """Return a decision; what only the cluster's authorizer knows follows from its grants."""
    if not isinstance(decision, Question):
        return decision
    for grant in grants if decision.verb == AUDIENCE_VERB else ():
        if (
            (grant.audience == "*" or grant.audience in decision.resources)
            and grant.namespace in ("", decision.namespace)
            and grant.service_account in ("", decision.name)
        ):
            return Allowed(decision.otherwise.rule)
    return decision.otherwise


def _as_expected(expect: Expectation | None, result: Result) -> bool | None:
    if expect is None:
        return None
    if result.allowed or expect.allowed:
        return expect.allowed == result.allowed
    if expect.code is not None and expect.code != result.code:
        return False
    # The in-tree plugin gives no reason with 500, so any reason will do.
    return (
        expect.reason in (None, "", result.reason)
        or result.code == HTTPStatus.INTERNAL_SERVER_ERROR
    )


def _json(given: msgspec.Raw | msgspec.Struct | dict[str, Value]) -> bytes:
    return bytes(given) if isinstance(given, msgspec.Raw) else msgspec.json.encode(given)


class Trace(Listers):
    """Listers that record each lookup with its answer, for ``--explain``."""

    def __init__(self, listers: Listers) -> None:
        self._listers = listers
        self.lines: list[str] = []

    def get(self, key: ObjectKey) -> Any:
        """Look an object up, and record it."""
        found = self._listers.get(key)
        self.lines.append(f"{key} -> {'not found' if found is None else found}")
        return found
