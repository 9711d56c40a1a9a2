"""Judge the writes of nodes in an audit log, as a stream of JSON lines."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import msgspec

from noderestrict.admission import Request
from noderestrict.api.admissionv1 import NULL
from noderestrict.policy.listers import MemoryListers
from noderestrict.policy.records import RECORDS
from noderestrict.policy.settings import Settings
from noderestrict.policy.table import RULES, Row, row_for
from noderestrict.replay.audit.events import (
    AuditEvent,
    decode_event,
    logged_object,
    value_of,
)
from noderestrict.replay.audit.objects import Key, LoggedObjects
from noderestrict.replay.audit.patches import Fields, before, hides_a_change
from noderestrict.replay.results import Certainty, Result, Undecided
from noderestrict.replay.reviews import judge_request
from noderestrict.replay.sources import MIB, Document, Unreadable
from noderestrict.replay.state import StateError, decode_object

_MOST_LEARNED = 200_000
_MOST_LEARNED_BYTES = 1024 * MIB
#: These refuse by names alone, whatever the object holds.
_BY_NAME = frozenset(rule.id for rule in RULES if rule.by_name)
_OLD_IS_NEW = "the existing object is not in the log: nothing guarded changed"
_OLD_FROM_PATCH = "the existing object is not in the log: exactly what the patch names changed"


@dataclass(slots=True)
class Counts:
    """How much of a log was read, and how many writes of nodes were judged."""

    bytes: int = 0
    events: int = 0
    judged: int = 0


@dataclass(frozen=True, slots=True)
class _Objects:
    """The objects of a request, as far as they are known, and what had to be assumed."""

    new: msgspec.Raw | None = None
    old: msgspec.Raw | None = None
    assumed: str = ""


class AuditLog:
    """Judges the writes of nodes in audit logs.

    Args:
        settings: of the rules.
        listers: cluster objects; those that the log shows are added.
    """

    def __init__(self, settings: Settings, listers: MemoryListers) -> None:
        self._settings = settings
        self._listers = listers
        self._logged = LoggedObjects()
        self._learned = 0
        self._learned_bytes = 0
        self.counts = Counts()

    def results(
        self, *inputs: Iterable[Document | Unreadable]
    ) -> Iterator[Result | Undecided | Unreadable]:
        """Yield a result for each write of a node.

        Args:
            inputs: the events of each file, as ``read.events`` yields them.
        """
        for document in itertools.chain.from_iterable(inputs):
            if isinstance(document, Unreadable):
                yield document
                continue
            self.counts.bytes += len(document.raw)
            self.counts.events += 1
            yield from self._line(document.file, document.line, document.raw)

    def _line(
        self, file: str, number: int, line: bytes
    ) -> Iterator[Result | Undecided | Unreadable]:
        # Most events neither come from nodes nor show an object.
        if b"system:node:" not in line and b'"responseObject"' not in line:
            return
        try:
            event = decode_event(line)
        except ValueError as error:
            yield Unreadable(file, number, str(error))
            return
        request = event.request()
        if event.kind != "Event" or not event.complete or request is None:
            return
        if request.node is not None:
            if request.resource:
                yield self._judged(event, request, event.auditID or str(number))
            else:
                yield Unreadable(file, number, "objectRef.resource is empty")
        self._learn(event, request)

    def _judged(self, event: AuditEvent, request: Request, id_: str) -> Result | Undecided:
        row = None
        if request.operation != "CONNECT":
            row = row_for(
                request.group,
                request.resource,
                request.sub_resource,
                request.operation,
                self._settings.extra.rules,
            )
        objects = self._objects(event, request, _guarded(row))
        completed = _completed(request, row, objects)
        result = judge_request(id_, completed, self._settings, self._listers)
        problem = _doubt(event, request, row, objects, result)
        if problem:
            return Undecided(id=event.auditID, node=request.node, what=event.what, missing=problem)
        self.counts.judged += 1
        return replace(
            result,
            user_agent=event.userAgent,
            level=event.level,
            certainty=Certainty.INFERRED if objects.assumed else Certainty.KNOWN,
            rests_on=objects.assumed,
        )

    def _objects(self, event: AuditEvent, request: Request, guarded: Fields) -> _Objects:
        if request.operation == "CONNECT":
            return _Objects()
        sent, answered = logged_object(event.requestObject), logged_object(event.responseObject)
        if request.operation == "CREATE":
            return _Objects(new=sent)
        known = self._logged.get(_key(request))
        if request.operation == "DELETE":
            return _Objects(old=answered or known)
        new = sent if event.verb == "update" else answered
        if known is not None or new is None:
            return _Objects(new, known)
        if event.verb == "update":
            return _Objects(new, new, _OLD_IS_NEW)
        value = value_of(new)
        if not isinstance(value, dict):
            return _Objects()
        old = before(value, value_of(event.requestObject), guarded)
        return _Objects(new, msgspec.Raw(msgspec.json.encode(old)), _OLD_FROM_PATCH)

    def _learn(self, event: AuditEvent, request: Request) -> None:
        """Keep what the answer to a write shows of the cluster."""
        if not event.succeeded:
            return
        key = _key(request)
        if event.verb == "delete":
            # The answer may be a Status.
            self._logged.forget(key)
            return
        shown = logged_object(event.responseObject)
        if shown is None or request.sub_resource not in ("", "status"):
            return
        self._logged.remember(key, shown)
        self._learned_bytes += len(shown)
        room = self._learned < _MOST_LEARNED and self._learned_bytes < _MOST_LEARNED_BYTES
        if request.resource in RECORDS and room:
            try:
                decoded = decode_object(request.resource, shown, "audit log")
            except StateError:
                return
            self._learned += 1
            self._listers.add(RECORDS[request.resource](decoded))


def _key(request: Request) -> Key:
    return f"{request.group}/{request.resource}", request.namespace, request.name


def _guarded(row: Row | None) -> Fields:
    """Return the fields that the rules of a request compare with the existing object."""
    paths = (path.partition(".") for path in (row.fields if row else ()))
    return tuple((part, field) for part, _, field in paths)


def _completed(request: Request, row: Row | None, objects: _Objects) -> Request:
    """Return a request with its objects; placeholders let the rules that read names alone speak."""
    metadata = {"name": request.name, "namespace": request.namespace}
    kind = row.target.kind if row else ""
    placeholder = msgspec.Raw(msgspec.json.encode({"kind": kind, "metadata": metadata}))
    new = objects.new or placeholder if request.operation in ("CREATE", "UPDATE") else NULL
    old = objects.old or placeholder if request.operation in ("UPDATE", "DELETE") else NULL
    return msgspec.structs.replace(request, object=new, old_object=old)


def _doubt(
    event: AuditEvent, request: Request, row: Row | None, objects: _Objects, result: Result
) -> str:
    """Return what is missing to stand by a result, "" if nothing is."""
    operation = request.operation
    no_object = f"level {event.level} holds no object"
    lacks_object = objects.new is None and operation in ("CREATE", "UPDATE")
    if result.allowed:
        from_patch = objects.assumed and event.verb == "patch"
        if from_patch and hides_a_change(value_of(event.requestObject), _guarded(row)):
            return "what the patch removes or sets is not in the log"
        reads = row is not None and (row.target.new is not None or row.target.old is not None)
        return no_object if lacks_object and reads else ""
    if result.code != 403:
        return result.explanation
    if lacks_object and result.rule not in _BY_NAME:
        return no_object
    if result.rule == "resourceslices/own-node-name" and operation == "DELETE" and not objects.old:
        return "the deleted object is not in the log"
    return ""
