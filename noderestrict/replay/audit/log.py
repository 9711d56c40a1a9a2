"""Judge the writes of nodes in audit logs."""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Protocol

import msgspec

from noderestrict.admission import Request, resource_path
from noderestrict.api.admissionv1 import NULL
from noderestrict.api.resources import ObjectKey
from noderestrict.policy.listers import MemoryListers
from noderestrict.policy.rules import review
from noderestrict.policy.rules.serviceaccounts import AUDIENCE_RULE
from noderestrict.policy.settings import Settings
from noderestrict.policy.table import RULES, Row, row_for
from noderestrict.replay.audit.events import (
    OF_OBJECTS,
    AuditEvent,
    decode_event,
    logged_object,
    value_of,
)
from noderestrict.replay.audit.lookups import LoggedListers
from noderestrict.replay.audit.objects import (
    LoggedObjects,
    Place,
    Version,
    compared,
    version_of,
)
from noderestrict.replay.audit.patches import object_with, value_at
from noderestrict.replay.audit.reconstruct import (
    PUT_BACK,
    Pair,
    Reconstruction,
    key_of,
    patch_of,
    reconstruct,
)
from noderestrict.replay.policies.compare import PolicyJudge
from noderestrict.replay.results import Asked, Certainty, NotJudged, Result, Undecided
from noderestrict.replay.reviews import judge_request
from noderestrict.replay.sources import MIB, Document, Unreadable

#: These refuse by names alone, whatever the object holds.
_BY_NAME = frozenset(rule.id for rule in RULES if rule.by_name)
#: Writes that wait for what a later part of the log may show.
_MOST_WAITING = 5_000
_MOST_WAITING_BYTES = 32 * MIB
_MIRROR_UID, _ABOUT_OWN = "pods/mirror-owner-uid", "events/about-own"
#: Where a request names the uid of an object that the rules look up, by resource and operation.
_UIDS: dict[tuple[str, str], tuple[tuple[str, tuple[str, ...]], ...]] = {
    ("serviceaccounts/token", "CREATE"): (("pods", ("spec", "boundObjectRef", "uid")),),
    ("pods/eviction", "CREATE"): (("pods", ("deleteOptions", "preconditions", "uid")),),
    ("pods", "DELETE"): (("pods", ("preconditions", "uid")),),
    ("pods/status", "UPDATE"): (("pods", ("metadata", "uid")),),
    ("podcertificaterequests", "CREATE"): (
        ("pods", ("spec", "podUID")),
        ("nodes", ("spec", "nodeUID")),
        ("serviceaccounts", ("spec", "serviceAccountUID")),
    ),
}
#: A request to create one shows all that rules look up.
_COMPLETE_WHEN_SENT = frozenset({"csidrivers", "persistentvolumes"})
#: They leave labels, taints and whatever else rules compare alone.
_HARMLESS = frozenset({"exec", "attach", "portforward", "proxy", "log", "token", "eviction"})
_NO_TIME = float("-inf")

_Found = Result | Undecided | NotJudged | Unreadable


class AgentRequests(Protocol):
    """What to make of the requests of agents."""

    def concerns(self, event: AuditEvent) -> bool:
        """Return whether an event is an agent's."""

    def take(
        self,
        event: AuditEvent,
        request: Request,
        place: Place,
        listers: LoggedListers,
        asked: Asked,
        lacks: str,
    ) -> Iterator["_Found"]:
        """Yield what is found of an agent's request.

        Args:
            event: of the request.
            request: without its objects; a read has no operation.
            place: of the event.
            listers: look up what the log has shown so far.
            asked: what all results say of it.
            lacks: what the log's form leaves out, "" for nothing.
        """

    def see(self, event: AuditEvent, request: Request, place: Place) -> None:
        """Take note of any other event that is stored, and of this one after it was taken."""


@dataclass(slots=True)
class Counts:
    """How many writes of nodes were judged."""

    judged: int = 0


@dataclass(slots=True)
class _Waiting:
    """Writes that are judged once the whole log is read."""

    writes: list["_Write"] = field(default_factory=list)
    bytes: int = 0

    def take(self, write: "_Write") -> bool:
        """Keep a write, if there is room."""
        size = len(write.event.requestObject) + len(write.event.responseObject)
        if len(self.writes) >= _MOST_WAITING or self.bytes + size > _MOST_WAITING_BYTES:
            return False
        self.writes.append(write)
        self.bytes += size
        return True


@dataclass(frozen=True, slots=True)
class _Write:
    """A write in a log, and what the log's form leaves out of it."""

    event: AuditEvent
    request: Request
    place: Place
    lacks: str = ""


class AuditLog:
    """Judges the writes of nodes in audit logs.

    Args:
        settings: of the rules.
        listers: cluster objects beside those that the log shows.
        policies: judge the writes, and what the rules say is expected; None for the rules alone.
        agents: take the requests of agents, if given.
        judges_nodes: whether the writes of nodes are judged.
    """

    def __init__(
        self,
        settings: Settings,
        listers: MemoryListers,
        policies: PolicyJudge | None = None,
        agents: AgentRequests | None = None,
        *,
        judges_nodes: bool = True,
    ) -> None:
        self._agents = agents
        self._judges_nodes = judges_nodes
        self._settings = settings
        self._policies = policies
        # What policies would need to know of the last request, and what they may read of it.
        self._unknown = self._other = ""
        self._listers = LoggedListers(listers)
        self._logged = LoggedObjects()
        self._waiting = _Waiting()
        self.counts = Counts()

    def results(self, *inputs: Iterable[Document | Unreadable]) -> Iterator[_Found]:
        """Yield a result for each write of a node.

        Each API server logs for itself, so the events of several files are merged by time. What a
        later part of the log may decide comes last.

        Args:
            inputs: the events of each file, as ``read.events`` yields them.
        """
        for _, found in heapq.merge(*map(self._timed, inputs), key=lambda timed: timed[0]):
            if isinstance(found, Unreadable):
                yield found
                continue
            if found.request.node is not None and found.request.operation:
                if self._judges_nodes:
                    yield from self._judged(found, waits=True)
            elif self._agents is not None and self._agents.concerns(found.event):
                self._listers.about({}, node_suffices=True)
                asked = Asked(**_asked(found))
                yield from self._agents.take(
                    found.event, found.request, found.place, self._listers, asked, found.lacks
                )
            if found.event.verb in OF_OBJECTS:
                self._learn(found)
                if self._agents is not None:
                    self._agents.see(found.event, found.request, found.place)
        self._listers.hindsight = True
        for write in self._waiting.writes:
            yield from self._judged(write, waits=False)

    def _timed(
        self, documents: Iterable[Document | Unreadable]
    ) -> Iterator[tuple[float, _Write | Unreadable]]:
        """Yield the writes of a file with their times, which never go back."""
        newest = _NO_TIME
        incomplete = _Incomplete()
        for document in documents:
            if isinstance(document, Unreadable):
                yield newest, document
                continue
            try:
                event = decode_event(document.raw)
            except ValueError as error:
                yield newest, Unreadable(document.file, document.line, str(error))
                continue
            lists = self._agents is not None and self._agents.concerns(event)
            request = event.request(lists=lists)
            if event.kind != "Event" or request is None:
                continue
            incomplete.see(document.file, event, request)
            if not event.complete:
                continue
            if request.node is not None and not request.resource:
                problem = "objectRef.resource is empty"
                yield newest, Unreadable(document.file, document.line, problem)
                continue
            answered = event.answered
            received = event.received
            newest = max(newest, newest if answered is None else answered)
            place = Place(
                document.file,
                document.line,
                newest if received is None else received,
                newest if answered is None else answered,
            )
            yield newest, _Write(event, request, place, document.lacks)
        if only_received := incomplete.problem():
            yield newest, only_received

    def _judged(self, write: _Write, *, waits: bool) -> Iterator[_Found]:
        """Yield the result of a write; nothing if it waits for the rest of the log."""
        event, request, place = write.event, write.request, write.place
        asked = _asked(write)
        if why := event.why_not_judged():
            yield NotJudged(**asked, why=why)
            return
        row = None
        if request.operation != "CONNECT":
            row = row_for(
                request.group,
                request.resource,
                request.sub_resource,
                request.operation,
                self._settings.extra.rules,
            )
        self._about(write)
        found = Reconstruction(Pair())
        if request.operation != "CONNECT":
            found = reconstruct(event, request, row, place, self._logged, self._listers)
        if found.empty:
            yield NotJudged(**asked, why="nothing to delete")
            return
        result = self._verdict(request, row, found)
        missing, later = _doubt(event, row, found, result)
        if not missing and (lookup := self._missed(result)):
            missing, later = lookup, True
        missing, other = missing or self._unknown, self._other
        unseen = result.rule == _MIRROR_UID and not result.allowed
        if waits and (unseen or (missing and later)) and self._waiting.take(write):
            return
        if missing:
            yield Undecided(**asked, missing=missing, rule=result.rule)
            return
        self.counts.judged += not event.already_refused
        inferred = self._rests_on(write, row, found, result)
        rests_on = "; ".join(filter(None, (inferred, write.lacks, other)))
        yield replace(
            result,
            **{**asked, "what": result.what},
            certainty=Certainty.INFERRED if rests_on else Certainty.KNOWN,
            rests_on=rests_on,
        )

    def _verdict(self, request: Request, row: Row | None, found: Reconstruction) -> Result:
        """Judge the likely objects; of several that one request deletes, the first that matters."""
        self._unknown = self._other = ""
        for pair in found.parts:
            self._listers.missed.clear()
            result = self._judge(request, row, pair)
            if not result.allowed or result.ok is False:
                break
        return result

    def _judge(self, request: Request, row: Row | None, pair: Pair) -> Result:
        completed = _completed(request, row, pair)
        result = judge_request(request.uid, completed, self._settings, self._listers)
        if (
            self._policies is None
            or result.rule == review.OBJECT.id
            or result.code == HTTPStatus.INTERNAL_SERVER_ERROR
        ):
            return result
        # The rules that policies cover look nothing up.
        self._listers.missed.clear()
        found = self._policies.compared(completed, result)
        self._unknown = self._unknown or found.unknown
        if found.other:
            self._other = f"policy {found.other} may read what the log does not show"
            if _lacks_object(request, pair):
                self._unknown = self._unknown or f"policy {found.other} reads the object"
        return found.result

    def _missed(self, result: Result) -> str:
        """Return what a verdict would need to look up and cannot, "" if it needs nothing."""
        missed = self._listers.missed
        about_pods = _ABOUT_OWN in self._settings.extra.rules and "events" in result.resource
        if not missed or (result.allowed and not about_pods):
            return ""
        return f"{missed[0]} is not in the log; --state can hold it"

    def _rests_on(
        self, write: _Write, row: Row | None, found: Reconstruction, result: Result
    ) -> str:
        """Return what a verdict was inferred from, "" if it is known."""
        by_name = self._listers.by_name[:1]
        if found.rests_on and (
            not found.others
            or any(
                self._judge(write.request, row, pair).allowed != result.allowed
                for pair in found.others
            )
        ):
            return found.rests_on
        if result.rule == AUDIENCE_RULE and not result.allowed:
            return "no RBAC rule lets the node request tokens of this audience"
        if result.lookups and by_name:
            return f"{by_name[0]} was as the log or --state shows it"
        return ""

    def _about(self, write: _Write) -> None:
        """Tell the listers which objects a request means."""
        request = write.request
        path = resource_path(request)
        uids: dict[str, str] = {}
        for resource, at in _UIDS.get((path, request.operation), ()):
            uid = value_at(value_of(write.event.requestObject), at)
            if isinstance(uid, str) and uid:
                uids[resource] = uid
        if (path, request.operation) == ("pods", "CREATE"):
            owners = value_at(value_of(write.event.requestObject), ("metadata", "ownerReferences"))
            node = ObjectKey("nodes", "", request.node or "")
            for owner in owners if isinstance(owners, list) else ():
                uid = value_at(owner, ("uid",))
                if isinstance(uid, str) and self._listers.has(node, uid):
                    uids["nodes"] = uid
        self._listers.about(uids, node_suffices=request.resource in ("pods", "events"))

    def _learn(self, write: _Write) -> None:
        """Keep what a write shows of the cluster."""
        event, request = write.event, write.request
        if not event.stored:
            return
        key = key_of(request)
        sub = request.sub_resource
        sent, answer = logged_object(event.requestObject), logged_object(event.responseObject)
        if (request.resource, sub) == ("pods", "binding") and sent is not None:
            self._bind(request, sent, ("target", "name"))
        if event.verb == "get" and answer is None:
            return
        if sub not in ("", "status", "binding") or event.verb == "deletecollection":
            if sub not in _HARMLESS:
                self._logged.supersede(key)
            return
        if sub != "binding" and answer is not None:
            self._listers.learn(request.resource, answer)
            version = version_of(request.resource, answer)
            if version is not None and event.verb in ("patch", "get"):
                patch = patch_of(event, None, None) if event.verb == "patch" else None
                version.named = patch.names().paths if patch else frozenset()
            self._remember(write, version)
            if event.verb == "delete":
                self._logged.supersede(key)
            return
        if event.verb == "create" and sent is not None and not sub:
            if request.resource == "pods":
                self._bind(request, sent, ("spec", "nodeName"))
                self._listers.make(request.namespace, sent)
            elif request.resource in _COMPLETE_WHEN_SENT:
                self._listers.learn(request.resource, sent)
            self._remember(write, version_of(request.resource, sent))
            return
        self._follow(write)

    def _follow(self, write: _Write) -> None:
        """Note what a write without its answer makes of the object that the log showed before."""
        event, request = write.event, write.request
        key = key_of(request)
        known = self._logged.latest(key, write.place)
        patch = patch_of(event, known, None) if event.verb == "patch" else None
        if patch is None:
            self._logged.supersede(key)
            return
        if known is None or known.superseded:
            row = row_for(request.group, request.resource, request.sub_resource, "UPDATE")
            kind = row.target.kind if row else ""
            nothing = msgspec.json.encode({"kind": kind, "metadata": {}})
            known = Version("", "", nothing, shown=frozenset())
        before = known.value
        try:
            after = patch.applied(before)
        except ValueError:
            after = patch.applied_to_part(before)
        put_back = PUT_BACK.get((request.resource, request.sub_resource))
        if put_back:
            after = object_with(after, put_back, value_at(before, put_back))
        made = version_of(request.resource, msgspec.Raw(msgspec.json.encode(after)))
        if made is None:
            return
        shown = known.shown
        if shown is not None:
            settled = (path for path in patch.settles() if path[:1] != put_back)
            shown = shown.union(filter(compared, settled))
        if made.raw == known.raw and shown == known.shown:
            return
        made.uid, made.shown, made.resource_version = known.uid, shown, ""
        self._remember(write, made)

    def _remember(self, write: _Write, version: Version | None) -> None:
        if version is not None:
            version.place = write.place
            self._logged.remember(key_of(write.request), version)

    def _bind(self, request: Request, sent: msgspec.Raw, path: tuple[str, ...]) -> None:
        value = value_of(sent)
        node, uid = value_at(value, path), value_at(value, ("metadata", "uid"))
        if isinstance(node, str) and node:
            given = uid if isinstance(uid, str) else ""
            self._listers.bind(request.namespace, request.name, given, node)


class _Incomplete:
    """Tells whether a log holds the writes of nodes only as they were received."""

    def __init__(self) -> None:
        self._file = ""
        self._stages: set[str] = set()
        self._complete = False

    def see(self, file: str, event: AuditEvent, request: Request) -> None:
        """Take note of a write."""
        if request.node is None or not request.operation:
            return
        if event.complete:
            self._complete = True
        else:
            self._file = file
            self._stages.add(event.stage)

    def problem(self) -> Unreadable | None:
        """Return what is wrong with the log, None if nothing is."""
        if self._complete or not self._stages:
            return None
        stages = ", ".join(sorted(self._stages))
        return Unreadable(
            self._file,
            0,
            f"it holds the writes of nodes only at stage {stages}: replay needs ResponseComplete, "
            f"which the audit policy must not omit",
        )


def _asked(write: _Write) -> dict[str, Any]:
    """Return what all kinds of results say of a write."""
    event, request = write.event, write.request
    where = f"{request.namespace}/{request.name}" if request.namespace else request.name
    path = resource_path(request)
    operation = request.operation or event.verb
    return {
        "id": event.auditID or str(write.place.line),
        "uid": event.auditID,
        "node": request.node,
        "user": request.user.username or "",
        "impersonator": event.impersonator,
        "what": f"{operation} {path} {where}".rstrip(),
        "operation": operation,
        "resource": path,
        "namespace": request.namespace,
        "name": request.name,
        "file": write.place.file,
        "line": write.place.line,
        "time": event.stageTimestamp or event.requestReceivedTimestamp,
        "user_agent": event.userAgent,
        "level": event.level,
        "dry_run": event.dry_run,
        "already_refused": event.already_refused,
    }


def _completed(request: Request, row: Row | None, objects: Pair) -> Request:
    """Return a request with its objects; placeholders let the rules that read names alone speak."""
    metadata = {"name": request.name, "namespace": request.namespace}
    kind = row.target.kind if row else ""
    placeholder = msgspec.Raw(msgspec.json.encode({"kind": kind, "metadata": metadata}))
    new = objects.new or placeholder if request.operation in ("CREATE", "UPDATE") else NULL
    old = objects.old or placeholder if request.operation in ("UPDATE", "DELETE") else NULL
    return msgspec.structs.replace(request, object=new, old_object=old)


def _lacks_object(request: Request, objects: Pair) -> bool:
    """Return whether a request has an object that the log does not show at all."""
    lacks_new = request.operation != "DELETE" and objects.new is None
    return lacks_new or (request.operation in ("UPDATE", "DELETE") and objects.old is None)


def _doubt(
    event: AuditEvent, row: Row | None, found: Reconstruction, result: Result
) -> tuple[str, bool]:
    """Return what is missing to stand by a verdict, and whether the log may still show it.

    Args:
        event: of the request.
        row: of its rules.
        found: its objects.
        result: of the likely ones.
    """
    if result.rule == review.OBJECT.id:
        return f"the log holds no such object: {result.explanation}", False
    if row is None:
        return "", False
    if result.code == HTTPStatus.INTERNAL_SERVER_ERROR:
        return result.explanation, True
    target, likely = row.target, found.parts[0]
    lacks = (target.new is not None and likely.new is None) or (
        target.old is not None and not target.old_may_lack and likely.old is None
    )
    if lacks and (result.allowed or result.rule not in _BY_NAME):
        return found.missing or _no_object(event), found.later
    if result.allowed and found.missing:
        return found.missing, found.later
    return "", False


def _no_object(event: AuditEvent) -> str:
    if event.truncated:
        return "the API server truncated the event: it holds no object"
    return f"level {event.level} holds no object"
