"""Judge the requests of agents in audit logs by their policies."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from http import HTTPStatus
from typing import Any

import msgspec

from noderestrict.admission import Request
from noderestrict.agents import reads
from noderestrict.agents.agents import NODE, OBJECT, Agents, Entry, Held
from noderestrict.agents.file import RelationKind
from noderestrict.agents.identity import Unknown, node_of, user_of
from noderestrict.agents.relations import Objects, broken
from noderestrict.api.admissionv1 import NULL
from noderestrict.graph.graph import Graph
from noderestrict.policy.decision import Denied
from noderestrict.policy.settings import Settings
from noderestrict.rbac.subjects import account_user
from noderestrict.replay.audit.events import AuditEvent
from noderestrict.replay.audit.lookups import LoggedListers
from noderestrict.replay.audit.objects import Place
from noderestrict.replay.audit.whole import Whole, WholeObjects
from noderestrict.replay.policies.compare import NOT_FOR_POLICIES, PolicyJudge
from noderestrict.replay.results import Asked, Certainty, NotJudged, Result, Undecided
from noderestrict.replay.reviews import judge_request

#: Where the log's form leaves out what it does not have a place for.
NO_CLAIMS = "the form of the log leaves out what the token says of its pod and node"
#: Relations that names and lookups tell, without the objects of a request.
_BY_NAME = (RelationKind.OWN_NODE, RelationKind.NAME, RelationKind.ANY)


def users_of(agents: Agents) -> list[str]:
    """Return what the user names of agents begin with."""
    return [
        account_user(*user.account) if user.account is not None else user.prefix or ""
        for agent in agents.all
        for user in agent.users
    ]


@dataclass(frozen=True, slots=True)
class _Case:
    """A request of an agent."""

    held: Held
    event: AuditEvent
    request: Request
    listers: LoggedListers
    asked: Asked
    lacks: str


class AgentJudge:
    """Judges the requests of agents: writes as admission does, reads as the authorizer does.

    Args:
        agents: with their policies.
        settings: of the rules.
        graph: of what pods refer to; what the log shows is added.
        policies: judge the writes, and what the agents' policy files say is expected; None for
            these files alone.

    Attributes:
        judged: number of requests.
    """

    def __init__(
        self,
        agents: Agents,
        settings: Settings,
        graph: Graph,
        policies: PolicyJudge | None = None,
    ) -> None:
        self._agents = agents
        self._settings = settings
        self._graph = graph
        self._policies = policies
        self._objects = WholeObjects(graph)
        self.judged = 0

    def concerns(self, event: AuditEvent) -> bool:
        """Return whether an event is an agent's, or of somebody who acts as one."""
        user = event.made_by
        return self._agents.find(user.username or "", user.groups or ()) is not None

    def see(self, event: AuditEvent, request: Request, place: Place) -> None:
        """Keep what an event shows of objects."""
        self._objects.see(event, request, place)

    def take(
        self,
        event: AuditEvent,
        request: Request,
        place: Place,
        listers: LoggedListers,
        asked: Asked,
        lacks: str,
    ) -> Iterator[Result | Undecided | NotJudged]:
        """Yield the verdict on a request of an agent."""
        user = event.made_by
        held = self._agents.find(user.username or "", user.groups or ())
        if held is None:
            return
        asked = replace(asked, agent=held.name)
        case = _Case(held, event, request, listers, asked, lacks)
        found: Result | Undecided | NotJudged | None
        if request.operation:
            found = self._write(case, place)
        elif (
            held.reads is None
            or event.verb not in reads.VERBS
            or event.code == HTTPStatus.UNAUTHORIZED
        ):
            return
        elif self._policies is not None:
            found = NotJudged(**_parts(asked), why=NOT_FOR_POLICIES)
        else:
            found = self._read(case)
        if isinstance(found, Result):
            if lacks and found.rule == held.rule(NODE):
                yield _undecided(asked, found.rule, NO_CLAIMS)
                return
            self.judged += not event.already_refused
        yield found

    def _write(self, case: _Case, place: Place) -> Result | Undecided | NotJudged:
        if why := case.event.why_not_judged():
            return NotJudged(**_parts(case.asked), why=why)
        wholes = self._objects.of(case.event, case.request, place)
        if not wholes:
            return NotJudged(**_parts(case.asked), why="nothing to delete")
        # Of several objects that one request deletes, one denial is enough.
        found = [self._of_whole(case, whole) for whole in wholes]
        return next(
            (one for one in found if isinstance(one, Undecided) or not one.allowed), found[0]
        )

    def _of_whole(self, case: _Case, whole: Whole) -> Result | Undecided:
        request = msgspec.structs.replace(
            case.request, agent=case.held, object=_raw(whole.new), old_object=_raw(whole.old)
        )
        lacks = whole.missing or _lacks(request, whole)
        if not lacks:
            return self._verdict(case, request, whole.rests_on)
        if self._policies is not None:
            return _undecided(case.asked, "", lacks)
        return self._without_objects(case, lacks)

    def _verdict(self, case: _Case, request: Request, rests_on: str) -> Result | Undecided:
        case.listers.missed.clear()
        result = judge_request(request.uid, request, self._settings, case.listers)
        if not result.allowed and case.listers.missed:
            return _undecided(case.asked, result.rule, _not_logged(case.listers))
        if self._policies is not None and result.rule != case.held.rule(OBJECT):
            compared = self._policies.compared(request, result)
            if compared.unknown:
                return _undecided(case.asked, result.rule, compared.unknown)
            result = compared.result
        return replace(
            result,
            **{**_parts(case.asked), "what": result.what},
            certainty=Certainty.INFERRED if rests_on and not result.allowed else Certainty.KNOWN,
            rests_on=rests_on if not result.allowed else "",
        )

    def _without_objects(self, case: _Case, lacks: str) -> Result | Undecided:
        """Judge a write of which the log lacks an object, as far as names and lookups tell."""
        held, request = case.held, case.request
        entries = [
            entry
            for entry in held.write_entries(
                request.group, request.resource, request.sub_resource, request.operation
            )
            if (not entry.namespaces or request.namespace in entry.namespaces)
            and (not entry.names or request.name in ("", *entry.names))
        ]
        known: dict[str, Any] = {
            "kind": "Pod" if (request.group, request.resource) == ("", "pods") else "",
            "metadata": {"name": request.name, "namespace": request.namespace},
        }
        pod = case.listers.pod(request.namespace, request.name) if known["kind"] else None
        if pod is not None:
            known["spec"] = {"nodeName": pod.node_name}
        new = _raw(known) if request.operation in ("CREATE", "UPDATE") else NULL
        old = NULL if request.operation == "CREATE" else _raw(known)
        request = msgspec.structs.replace(request, agent=held, object=new, old_object=old)
        answers = [
            self._allows(entry, request, (new, old), case, knows_pod=pod is not None)
            for entry in entries
        ]
        if None in answers and True not in answers:
            return _undecided(case.asked, "", lacks)
        return self._verdict(case, request, "")

    def _allows(
        self,
        entry: Entry,
        request: Request,
        objects: tuple[msgspec.Raw, msgspec.Raw],
        case: _Case,
        *,
        knows_pod: bool,
    ) -> bool | None:
        """Return whether an entry allows a write, None if that takes its objects."""
        by_name = entry.kind in _BY_NAME and bool(request.name)
        if not by_name and not (entry.kind is RelationKind.OWN_PODS and knows_pod):
            return None
        if entry.kind is not RelationKind.ANY:
            node = node_of(case.held, user_of(request.user), case.listers)
            given = Objects(*objects)
            if isinstance(node, Unknown) or broken(entry, request, given, node, case.listers):
                return False
        needs_objects = entry.changeable is not None and request.operation == "UPDATE"
        return None if needs_objects else True

    def _read(self, case: _Case) -> Result | Undecided:
        request, event = case.request, case.event
        selectors = event.selectors
        asked = reads.Asked(
            case.held,
            user_of(request.user),
            event.verb,
            request.group,
            request.resource,
            request.sub_resource,
            request.namespace,
            request.name,
            *selectors,
        )
        case.listers.missed.clear()
        found = reads.evaluate(asked, case.listers)
        rests_on = ""
        if isinstance(found, reads.Reach):
            vertex = (request.resource, request.namespace, request.name)
            if self._graph.reaches(found.node, vertex):
                found = None
            elif not self._graph.reachable(found.node):
                missing = f"no pod on node {found.node} is in the log; --state can hold them"
                return _undecided(case.asked, found.otherwise.rule, missing)
            else:
                rests_on = "no pod that the log or --state shows on the node refers to it"
                found = found.otherwise
        if found is not None and case.listers.missed:
            return _undecided(case.asked, found.rule, _not_logged(case.listers))
        return _result(case.asked, found, rests_on)


def _lacks(request: Request, whole: Whole) -> str:
    """Return what an update lacks of its objects, "" for nothing."""
    if request.operation != "UPDATE" or (whole.new is not None and whole.old is not None):
        return ""
    return "the object before is not in the log"


def _raw(value: object) -> msgspec.Raw:
    return NULL if value is None else msgspec.Raw(msgspec.json.encode(value))


def _parts(asked: Asked) -> dict[str, Any]:
    return {one.name: getattr(asked, one.name) for one in fields(asked)}


def _undecided(asked: Asked, rule: str, missing: str) -> Undecided:
    return Undecided(**_parts(asked), rule=rule, missing=missing)


def _not_logged(listers: LoggedListers) -> str:
    return f"{listers.missed[0]} is not in the log; --state can hold it"


def _result(asked: Asked, denied: Denied | None, rests_on: str) -> Result:
    return Result(
        **_parts(asked),
        allowed=denied is None,
        code=HTTPStatus.OK if denied is None else HTTPStatus.FORBIDDEN,
        reason="" if denied is None else "Forbidden",
        rule="" if denied is None else denied.rule,
        message="" if denied is None else denied.message,
        detail="" if denied is None else denied.detail,
        lookups=(),
        certainty=Certainty.INFERRED if rests_on else Certainty.KNOWN,
        rests_on=rests_on,
    )
