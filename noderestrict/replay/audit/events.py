"""Audit events: decode them, and turn them into admission requests."""

from typing import Any

import msgspec

from noderestrict.admission import Request
from noderestrict.api.admissionv1 import NULL, UserInfo
from noderestrict.policy.identity import node_name
from noderestrict.replay.sources import shallow

_OPERATIONS = {
    "create": "CREATE",
    "update": "UPDATE",
    "patch": "UPDATE",
    "delete": "DELETE",
    "deletecollection": "DELETE",
}
_CONNECT = frozenset({"exec", "attach", "portforward", "proxy"})
#: Kinds of bodies that do not show an object.
_OTHER_BODIES = ("", "Status")


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


class AuditEvent(msgspec.Struct):
    """The fields of an Event of audit.k8s.io/v1 that matter here."""

    kind: str = ""
    level: str = ""
    auditID: str = ""  # noqa: N815 (the API's name)
    stage: str = ""
    verb: str = ""
    user: UserInfo = msgspec.field(default_factory=UserInfo)
    impersonatedUser: UserInfo | None = None  # noqa: N815 (the API's name)
    userAgent: str = ""  # noqa: N815 (the API's name)
    objectRef: ObjectReference | None = None  # noqa: N815 (the API's name)
    responseStatus: _ResponseStatus | None = None  # noqa: N815 (the API's name)
    requestObject: msgspec.Raw = NULL  # noqa: N815 (the API's name)
    responseObject: msgspec.Raw = NULL  # noqa: N815 (the API's name)

    @property
    def complete(self) -> bool:
        """Whether it is the last event of its request."""
        return self.stage in ("", "ResponseComplete")

    @property
    def succeeded(self) -> bool:
        """Whether the API server carried the request out."""
        return self.responseStatus is None or self.responseStatus.code < 300

    @property
    def what(self) -> str:
        """Verb, resource and name."""
        reference = self.objectRef
        return f"{self.verb} {reference.resource} {reference.name}" if reference else ""

    def request(self) -> Request | None:
        """Return the admission request without its objects; None if it is not a write."""
        reference = self.objectRef
        if reference is None or self.verb not in _OPERATIONS:
            return None
        # Admission sees the impersonated user.
        user = self.impersonatedUser or self.user
        connects = reference.subresource in _CONNECT
        return Request(
            uid=self.auditID or "unknown",
            group=reference.apiGroup,
            version=reference.apiVersion,
            resource=reference.resource,
            sub_resource=reference.subresource,
            kind=None,
            name=reference.name,
            namespace=reference.namespace,
            operation="CONNECT" if connects else _OPERATIONS[self.verb],
            user=user,
            node=node_name(user.username or "", user.groups or ()),
            dry_run=False,
            object=NULL,
            old_object=NULL,
        )


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
        event = _event.decode(shallow(line))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not an audit event: {error}") from None
    if event.kind == "EventList":
        raise ValueError("an EventList: replay reads one Event per line")
    return event


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
