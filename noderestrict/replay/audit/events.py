"""Audit events: decode them, and turn them into admission requests."""

import datetime as dt
import re
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

import msgspec

from noderestrict.admission import Request
from noderestrict.api.admissionv1 import NULL, UserInfo
from noderestrict.policy.hostile import in_words
from noderestrict.policy.identity import node_name
from noderestrict.replay.audit.nulls import decode
from noderestrict.replay.sources import shallow

#: By verb; what is read is not judged, but shows an object.
_OPERATIONS = {
    "get": "",
    "create": "CREATE",
    "update": "UPDATE",
    "patch": "UPDATE",
    "delete": "DELETE",
    "deletecollection": "DELETE",
}
#: Verbs that are about one object, or delete some.
OF_OBJECTS = frozenset(_OPERATIONS)
_LISTS = ("list", "watch")
_CONNECT = frozenset({"exec", "attach", "portforward", "proxy"})
#: Kinds of bodies that do not show an object.
_OTHER_BODIES = ("", "Status")
#: Keys with the value that a selector demands of them.
Selectors = frozenset[tuple[str, str]]
_REQUIREMENT = re.compile(
    r"\s*(?P<key>[^\s,=!()]+)\s*(?:={1,2}\s*(?P<value>[^\s,=!()]*)|in\s*\((?P<only>[^,)]*)\))\s*"
)
_BETWEEN_REQUIREMENTS = re.compile(r",(?![^(]*\))")
_TRUNCATED = "audit.k8s.io/truncated"
_CREATED, _FIRST_ERROR = 201, 400


class ObjectReference(msgspec.Struct):
    """The object that a request names."""

    resource: str = ""
    namespace: str = ""
    name: str = ""
    apiGroup: str = ""  # noqa: N815 (the API's name)
    apiVersion: str = ""  # noqa: N815 (the API's name)
    subresource: str = ""


class _ResponseStatus(msgspec.Struct):
    code: int = 0
    reason: str | None = None


class AuditEvent(msgspec.Struct):
    """The fields of an Event of audit.k8s.io/v1 that matter here."""

    kind: str = ""
    level: str = ""
    auditID: str = ""  # noqa: N815 (the API's name)
    stage: str = ""
    requestURI: str = ""  # noqa: N815 (the API's name)
    verb: str = ""
    user: UserInfo = msgspec.field(default_factory=UserInfo)
    impersonatedUser: UserInfo | None = None  # noqa: N815 (the API's name)
    userAgent: str = ""  # noqa: N815 (the API's name)
    objectRef: ObjectReference | None = None  # noqa: N815 (the API's name)
    responseStatus: _ResponseStatus | None = None  # noqa: N815 (the API's name)
    requestObject: msgspec.Raw = NULL  # noqa: N815 (the API's name)
    responseObject: msgspec.Raw = NULL  # noqa: N815 (the API's name)
    requestReceivedTimestamp: str = ""  # noqa: N815 (the API's name)
    stageTimestamp: str = ""  # noqa: N815 (the API's name)
    annotations: dict[str, str] | None = None

    @property
    def complete(self) -> bool:
        """Whether it is the last event of its request."""
        return self.stage in ("", "ResponseComplete", "Panic")

    @property
    def code(self) -> int:
        """HTTP status of the answer, 0 if the event does not say."""
        return self.responseStatus.code if self.responseStatus else 0

    @property
    def stored(self) -> bool:
        """Whether the API server carried the request out."""
        return self.code < _FIRST_ERROR and self.stage != "Panic" and not self.dry_run

    @property
    def created(self) -> bool:
        """Whether the request made an object: a PUT or an apply of one that was not there does."""
        return self.code == _CREATED

    @property
    def dry_run(self) -> bool:
        """Whether nothing was to be stored."""
        return "All" in self._parameter("dryRun")

    @property
    def field_manager(self) -> str:
        """The manager that the request names, "" if it names none."""
        return "".join(self._parameter("fieldManager")[:1])

    def selects_node(self, node: str) -> bool:
        """Return whether the request is about objects whose spec.nodeName is this node alone."""
        return bool(node) and ("spec.nodeName", node) in self.selectors[0]

    @property
    def truncated(self) -> bool:
        """Whether the API server left out the objects because the event was too large."""
        return (self.annotations or {}).get(_TRUNCATED) == "true"

    @property
    def already_refused(self) -> bool:
        """Whether the request was forbidden."""
        return self.code == HTTPStatus.FORBIDDEN

    @property
    def received(self) -> float | None:
        """When the request came, in seconds; None if the event does not say."""
        return _seconds(self.requestReceivedTimestamp)

    @property
    def answered(self) -> float | None:
        """When the request was answered, in seconds; None if the event does not say."""
        return _seconds(self.stageTimestamp)

    def _parameter(self, name: str) -> list[str]:
        query = self.requestURI.partition("?")[2]
        return parse_qs(query).get(name, []) if name in query else []

    @property
    def selectors(self) -> tuple[Selectors, Selectors]:
        """Keys of which the field selector, and those of which the label selector demand a value.

        Each comes with that value.
        """
        fields, labels = map(self._parameter, ("fieldSelector", "labelSelector"))
        return _demanded(fields), _demanded(labels)

    @property
    def made_by(self) -> UserInfo:
        """The user that admission and authorization see: the impersonated one, if there is one."""
        return self.impersonatedUser or self.user

    @property
    def impersonator(self) -> str:
        """The name of the user that impersonated another one, "" if none did."""
        return (self.user.username or "") if self.impersonatedUser else ""

    def request(self, *, lists: bool = False) -> Request | None:
        """Return the admission request without its objects; None for what is about no object.

        It has no operation if an object was read.

        Args:
            lists: return one for lists and watches, too.
        """
        reference = self.objectRef
        wanted = self.verb in _OPERATIONS or (lists and self.verb in _LISTS)
        if reference is None or not wanted:
            return None
        user = self.made_by
        operation = _OPERATIONS.get(self.verb, "")
        if reference.subresource in _CONNECT:
            operation = "CONNECT"
        elif operation == "UPDATE" and self.created:
            operation = "CREATE"
        return Request(
            uid=self.auditID or "unknown",
            group=reference.apiGroup,
            version=reference.apiVersion,
            resource=reference.resource,
            sub_resource=reference.subresource,
            kind=None,
            name=reference.name,
            namespace=reference.namespace,
            operation=operation,
            user=user,
            node=node_name(user.username or "", user.groups or ()),
            dry_run=self.dry_run,
            object=NULL,
            old_object=NULL,
        )

    def why_not_judged(self) -> str:
        """Return why admission had no say, or need not have had one; "" if it had.

        Admission comes after authorization and decoding. On an update or a patch it comes after
        the object was found and its version compared, on a create before anything is looked up.
        """
        code = self.code
        if self.stage == "Panic":
            return "Panic"
        if code < _FIRST_ERROR or code == HTTPStatus.FORBIDDEN:
            return ""
        reason = (self.responseStatus.reason if self.responseStatus else None) or ""
        if (
            code == HTTPStatus.CONFLICT
            and self.verb == "create"
            and reason in ("", "AlreadyExists")
        ):
            return ""
        evicts = self.objectRef is not None and self.objectRef.subresource == "eviction"
        if code == HTTPStatus.TOO_MANY_REQUESTS and evicts:
            # The pod's disruption budget answers so.
            return ""
        return f"{code} {reason or _phrase(code)}".rstrip()


def _demanded(given: list[str]) -> Selectors:
    """Return what selectors demand to be equal; what they leave open says nothing."""
    parts = (part for text in given for part in _BETWEEN_REQUIREMENTS.split(text))
    found = filter(None, map(_REQUIREMENT.fullmatch, parts))
    return frozenset(
        (one["key"], (one["only"] if one["value"] is None else one["value"]).strip())
        for one in found
    )


def _phrase(code: int) -> str:
    try:
        return HTTPStatus(code).phrase
    except ValueError:
        return ""


def _seconds(timestamp: str) -> float | None:
    try:
        return dt.datetime.fromisoformat(timestamp).timestamp() if timestamp else None
    except ValueError:
        return None


class _Kind(msgspec.Struct):
    kind: str = ""


_event = msgspec.json.Decoder(AuditEvent)
_kind = msgspec.json.Decoder(_Kind)


def decode_event(line: bytes) -> AuditEvent:
    """Decode one line of a log; objects in it stay raw.

    Raises:
        ValueError: the line is not an audit event.
    """
    try:
        return decode(shallow(line), _event)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not an audit event: {in_words(error)}") from None


def logged_object(raw: msgspec.Raw) -> msgspec.Raw | None:
    """Return a logged body if it is an object, None for anything else and for what is left out."""
    try:
        return None if _kind.decode(raw).kind in _OTHER_BODIES else raw
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def value_of(raw: msgspec.Raw) -> Any:
    """Return the value of a logged body, None for a null and for what cannot be decoded."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
