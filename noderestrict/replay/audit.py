"""Reconstruct AdmissionReviews from the API server's audit log (audit.k8s.io/v1, JSON lines).

An audit event does not hold what a webhook sees: how much can be known depends on its level. What
is assumed is told with each case. The existing object is taken from earlier events of the log; what
a patch names counts as changed, as the kubelet's patches are differences.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from noderestrict.admission.review import API_VERSION
from noderestrict.policy.decision import Allowed
from noderestrict.policy.identity import node_name
from noderestrict.policy.listers import MemoryListers
from noderestrict.policy.records import RECORDS
from noderestrict.policy.settings import Settings
from noderestrict.policy.table import RULES, row_for
from noderestrict.policy.table import Row as RuleRow
from noderestrict.replay.cases import Case
from noderestrict.replay.run import Row, judge_case
from noderestrict.replay.sources import MIB, Unreadable, lines, opened, shallow, too_long
from noderestrict.replay.state import StateError, convert_object

_OPERATIONS = {
    "create": "CREATE",
    "update": "UPDATE",
    "patch": "UPDATE",
    "delete": "DELETE",
    "deletecollection": "DELETE",
}
_CONNECT = frozenset({"exec", "attach", "portforward", "proxy"})
#: What is remembered of the log: enough for a large cluster, and bounded.
_REMEMBERED = 20_000
_REMEMBERED_BYTES = 256 * MIB
_LEARNED = 200_000
_LEARNED_BYTES = 1024 * MIB
#: These refuse by names alone, whatever the object holds.
_BY_NAME = frozenset(rule.id for rule in RULES if rule.by_name)
#: Part and field, such as ``metadata`` and ``labels``.
_Fields = tuple[tuple[str, str], ...]
_OBJECT_NEEDED = frozenset({"CREATE", "UPDATE"})


class _User(msgspec.Struct):
    username: str = ""
    uid: str | None = None
    groups: list[str] | None = None
    extra: dict[str, list[str]] | None = None


class _ObjectRef(msgspec.Struct):
    resource: str = ""
    namespace: str = ""
    name: str = ""
    apiGroup: str = ""  # noqa: N815 (the API's name)
    apiVersion: str = ""  # noqa: N815 (the API's name)
    subresource: str = ""


class _Status(msgspec.Struct):
    code: int = 0


_NONE = msgspec.Raw(b"null")


class Event(msgspec.Struct):
    """The fields of an audit event that matter here."""

    kind: str = ""
    level: str = ""
    auditID: str = ""  # noqa: N815 (the API's name)
    stage: str = ""
    verb: str = ""
    user: _User = msgspec.field(default_factory=_User)
    impersonatedUser: _User | None = None  # noqa: N815 (the API's name)
    userAgent: str = ""  # noqa: N815 (the API's name)
    objectRef: _ObjectRef | None = None  # noqa: N815 (the API's name)
    responseStatus: _Status | None = None  # noqa: N815 (the API's name)
    requestObject: msgspec.Raw = _NONE  # noqa: N815 (the API's name)
    responseObject: msgspec.Raw = _NONE  # noqa: N815 (the API's name)

    @property
    def who(self) -> _User:
        """The user that admission sees."""
        return self.impersonatedUser or self.user


@dataclass(slots=True)
class Counts:
    """What became of the events of a log."""

    bytes: int = 0
    events: int = 0
    judged: int = 0
    undecided: int = 0


@dataclass(frozen=True, slots=True)
class Undecided:
    """A write of a node of which too little is known; ``problem`` says what is missing."""

    event: Event
    problem: str


_Key = tuple[str, str, str]


class _Objects:
    """The newest objects of a log, as JSON: who writes the log chooses how many and how large."""

    def __init__(self) -> None:
        self._objects: OrderedDict[_Key, bytes] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._objects)

    def get(self, key: _Key) -> Any:
        """Return an object, None if it is not known."""
        known = self._objects.get(key)
        return None if known is None else msgspec.json.decode(known)

    def remember(self, key: _Key, raw: bytes) -> None:
        """Keep an object, and let the oldest go where there are too many."""
        self.forget(key)
        self._objects[key] = raw
        self._bytes += len(raw)
        while len(self._objects) > _REMEMBERED or self._bytes > _REMEMBERED_BYTES:
            self._bytes -= len(self._objects.popitem(last=False)[1])

    def forget(self, key: _Key) -> None:
        """Let an object go."""
        self._bytes -= len(self._objects.pop(key, b""))


class AuditLog:
    """Judges the writes of nodes in an audit log, as a stream.

    Args:
        settings: of the rules.
        listers: cluster objects; what the log shows is added.
    """

    def __init__(self, settings: Settings, listers: MemoryListers) -> None:
        self._settings = settings
        self._listers = listers
        self._decoder = msgspec.json.Decoder(Event)
        self._objects = _Objects()
        self._learned = 0
        self._learned_bytes = 0
        self.counts = Counts()

    def rows(self, file: str) -> Iterator[Row | Undecided | Unreadable]:
        """Yield each write of a node in a file, in its order; ``-`` is stdin, also gzip."""
        is_audit_log = False
        number = 0
        try:
            with opened(file) as stream:
                for number, line in lines(stream):
                    if line is None:
                        yield too_long(file, number)
                        continue
                    is_audit_log = is_audit_log or b'"Event"' in line
                    self.counts.bytes += len(line)
                    if line.strip():
                        self.counts.events += 1
                        yield from self._line(file, number, line)
        except OSError as error:
            yield Unreadable(file, 0, error.strerror or str(error))
        else:
            if number and not is_audit_log:
                yield Unreadable(file, 0, "it holds no audit event: one JSON object a line is read")

    def _line(self, file: str, number: int, line: bytes) -> Iterator[Row | Undecided | Unreadable]:
        # Most events are neither of nodes nor show an object.
        if b"system:node:" not in line and b'"responseObject"' not in line:
            return
        try:
            event = self._decoder.decode(shallow(line))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            yield Unreadable(file, number, f"no audit event: {error}")
            return
        if event.kind == "EventList":
            yield Unreadable(file, number, "an EventList: one Event a line is read")
            return
        if event.kind != "Event" or event.stage not in ("", "ResponseComplete"):
            return
        node = node_name(event.who.username, event.who.groups or ())
        if node is not None and event.verb in _OPERATIONS and event.objectRef is not None:
            yield self._judged(file, number, event)
        self._learn(event)

    def _judged(self, file: str, number: int, event: Event) -> Row | Undecided | Unreadable:
        reference = event.objectRef or _ObjectRef()
        operation = _OPERATIONS[event.verb]
        if reference.subresource in _CONNECT:
            operation = "CONNECT"
        row = row_for(
            reference.apiGroup,
            reference.resource,
            reference.subresource,
            operation,
            self._settings.extra.rules,
        )
        guarded = _guarded(row)
        new, old, assumed = self._both(event, operation, guarded)
        has_object = new is not None or operation not in _OBJECT_NEEDED
        # A placeholder lets the rules that read names alone speak.
        placeholder = {
            "kind": row.target.kind if row else "",
            "metadata": {"name": reference.name, "namespace": reference.namespace},
        }
        review = {
            "apiVersion": API_VERSION,
            "kind": "AdmissionReview",
            "request": {
                "uid": event.auditID or "unknown",
                "resource": {
                    "group": reference.apiGroup,
                    "version": reference.apiVersion,
                    "resource": reference.resource,
                },
                "subResource": reference.subresource,
                "name": reference.name,
                "namespace": reference.namespace,
                "operation": operation,
                "userInfo": event.who,
                "object": (new or placeholder) if operation in _OBJECT_NEEDED else None,
                "oldObject": (old or placeholder) if operation in ("UPDATE", "DELETE") else None,
            },
        }
        case = Case(file, number, event.auditID or str(number), msgspec.json.encode(review))
        result = judge_case(case, self._settings, self._listers)
        if isinstance(result, Unreadable):
            return result
        decision = result.decision
        reads = row is not None and (row.target.new is not None or row.target.old is not None)
        if assumed and isinstance(decision, Allowed) and _hides_a_change(event, guarded):
            return self._undecided(event, "what the patch removes or sets is not in the log")
        if isinstance(decision, Allowed):
            if not has_object and reads:
                return self._undecided(event, f"level {event.level} holds no object")
        elif decision.code != 403:
            return self._undecided(event, decision.explanation)
        elif not has_object and decision.rule not in _BY_NAME:
            return self._undecided(event, f"level {event.level} holds no object")
        elif decision.rule == "resourceslices/own-node-name" and operation == "DELETE" and not old:
            return self._undecided(event, "the deleted object is not in the log")
        self.counts.judged += 1
        return replace(
            result.row,
            user_agent=event.userAgent,
            notes=(f"level {event.level}", *(f"assumed: {text}" for text in assumed)),
        )

    def _undecided(self, event: Event, problem: str) -> Undecided:
        self.counts.undecided += 1
        return Undecided(event, problem)

    def _both(
        self, event: Event, operation: str, guarded: _Fields
    ) -> tuple[Any, Any, tuple[str, ...]]:
        """Return the object, the existing one, and what was assumed."""
        if operation == "CONNECT":
            return None, None, ()
        known = self._objects.get(_key(event))
        request, response = _object(event.requestObject), _object(event.responseObject)
        if operation == "DELETE":
            deleted = response or known
            return None, deleted, ()
        if operation == "CREATE":
            return request, None, ()
        if event.verb == "update":
            new = request
            if known is not None or new is None:
                return new, known, ()
            return new, new, ("the existing object is not in the log: nothing guarded changed",)
        if response is None:
            return None, known, ()
        if known is not None:
            return response, known, ()
        return response, _before(response, request or {}, guarded), (
            "the existing object is not in the log: exactly what the patch names changed",
        )  # fmt: skip

    def _learn(self, event: Event) -> None:
        value = _object(event.responseObject)
        reference = event.objectRef
        if value is None or reference is None or not _succeeded(event):
            return
        key = _key(event)
        if event.verb == "delete":
            self._objects.forget(key)
            return
        if reference.subresource not in ("", "status") or event.verb not in _OPERATIONS:
            return
        self._objects.remember(key, bytes(event.responseObject))
        self._learned_bytes += len(event.responseObject)
        room = self._learned < _LEARNED and self._learned_bytes < _LEARNED_BYTES
        if reference.resource in RECORDS and room:
            try:
                decoded = convert_object(reference.resource, value, "audit log")
            except StateError:
                return
            self._learned += 1
            self._listers.add(RECORDS[reference.resource](decoded))


def _guarded(row: RuleRow | None) -> _Fields:
    """Return the fields that the rules of a request compare with the existing object."""
    paths = (path.partition(".") for path in (row.fields if row else ()))
    return tuple((part, field) for part, _, field in paths)


def _succeeded(event: Event) -> bool:
    return event.responseStatus is None or event.responseStatus.code < 300


def _key(event: Event) -> _Key:
    reference = event.objectRef or _ObjectRef()
    return f"{reference.apiGroup}/{reference.resource}", reference.namespace, reference.name


def _object(raw: msgspec.Raw) -> Any:
    """Return a logged object; None for none, for a Status, and for one that was left out."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(value, dict) or value.get("kind") in ("Status", "DeleteOptions"):
        return None
    return value


def _hides_a_change(event: Event, guarded: _Fields) -> bool:
    """Tell whether a patch may change what it does not show: by operations, or by removing."""
    if event.verb != "patch":
        return False
    try:
        patch = msgspec.json.decode(event.requestObject)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return True
    if not isinstance(patch, dict):
        return True
    for part, field in guarded:
        holder = patch.get(part)
        if holder is None and part in patch:
            return True
        if isinstance(holder, dict) and (
            _directs(holder, field) or _removes(holder.get(field, ""))
        ):
            return True
    return _directs(patch, "")


def _directs(holder: Mapping[str, Any], field: str) -> bool:
    """Tell whether directives of a strategic merge patch are about an object or one of its fields.

    Kubelets order the conditions of each status report by one, which changes nothing guarded.
    """
    return any(
        key in ("$patch", "$retainKeys") or (key[:1] == "$" and key.endswith(f"/{field}"))
        for key in holder
    )


def _removes(value: Any) -> bool:
    """Tell whether a part of a patch holds a null or a directive of a strategic merge patch."""
    if isinstance(value, dict):
        return any(key.startswith("$") or _removes(inner) for key, inner in value.items())
    if isinstance(value, list):
        return any(map(_removes, value))
    return value is None


def _before(new: Mapping[str, Any], patch: Mapping[str, Any], guarded: _Fields) -> dict[str, Any]:
    """Return what an object was, if exactly what a patch names was changed in it."""
    old = {key: dict(part) if isinstance(part, dict) else part for key, part in new.items()}
    for part, field in guarded:
        named = patch.get(part)
        named = named.get(field) if isinstance(named, dict) else None
        holder = old.get(part)
        if named is None or not isinstance(holder, dict) or field not in holder:
            continue
        if isinstance(named, dict) and isinstance(holder[field], dict):
            holder[field] = {k: v for k, v in holder[field].items() if k not in named}
        else:
            del holder[field]
    return old
