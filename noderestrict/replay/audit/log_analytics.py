"""Rows of the tables AKSAudit and AKSAuditAdmin of Azure Log Analytics, as audit events."""

from collections.abc import Mapping
from typing import Any

import msgspec

_COLUMNS = {
    "AuditId": "auditID",
    "Level": "level",
    "Stage": "stage",
    "Verb": "verb",
    "RequestUri": "requestURI",
    "UserAgent": "userAgent",
    "RequestReceivedTime": "requestReceivedTimestamp",
    "StageReceivedTime": "stageTimestamp",
    "User": "user",
    "ImpersonatedUser": "impersonatedUser",
    "ObjectRef": "objectRef",
    "ResponseStatus": "responseStatus",
    "RequestObject": "requestObject",
    "ResponseObject": "responseObject",
    "SourceIps": "sourceIPs",
    "Annotations": "annotations",
}
#: Columns that hold JSON, some exports of the table as text.
_DYNAMIC = frozenset(
    (
        "User", "ImpersonatedUser", "ObjectRef", "ResponseStatus", "RequestObject",
        "ResponseObject", "SourceIps", "Annotations",
    )
)  # fmt: skip


def audit_event(fields: Mapping[str, msgspec.Raw]) -> bytes:
    """Return a row, of which one column is AuditId, as JSON of an audit event.

    Raises:
        msgspec.MsgspecError: a column holds no JSON.
    """
    event: dict[str, Any] = {"kind": "Event", "apiVersion": "audit.k8s.io/v1"}
    for column, name in _COLUMNS.items():
        if column not in fields:
            continue
        value: Any = msgspec.json.decode(fields[column])
        if column in _DYNAMIC and isinstance(value, str):
            try:
                value = msgspec.json.decode(value)
            except msgspec.DecodeError:
                # As "skipped-too-big-size-object".
                value = None
        if value not in (None, ""):
            event[name] = value
    return msgspec.json.encode(event)
