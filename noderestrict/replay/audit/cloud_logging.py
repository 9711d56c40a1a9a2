"""Entries of Google Cloud Logging, as audit events.

GKE exports the audit log of its API servers in the form of Cloud Audit Logs only, which leave out
some of what an audit event holds.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from noderestrict.replay.audit.nulls import decode

_SERVICE = "k8s.io"
#: google.rpc.Code, as HTTP status; 6 and 10 are two kinds of conflict.
_HTTP = {0: 200, 3: 422, 5: 404, 6: 409, 7: 403, 8: 429, 10: 409, 13: 500, 14: 503, 16: 401}
_NODE = "system:node:"
LACKS = (
    "Cloud Logging leaves out the user's groups (taken: system:nodes), the request URI (dry runs "
    "are not told apart) and the exact status code"
)


class _Authentication(msgspec.Struct):
    principalEmail: str = ""  # noqa: N815 (the API's name)


class _Metadata(msgspec.Struct):
    callerSuppliedUserAgent: str = ""  # noqa: N815 (the API's name)
    callerIp: str = ""  # noqa: N815 (the API's name)


class _Status(msgspec.Struct):
    code: int = 0


class _AuditLog(msgspec.Struct):
    serviceName: str = ""  # noqa: N815 (the API's name)
    methodName: str = ""  # noqa: N815 (the API's name)
    resourceName: str = ""  # noqa: N815 (the API's name)
    authenticationInfo: _Authentication = msgspec.field(  # noqa: N815 (the API's name)
        default_factory=_Authentication
    )
    requestMetadata: _Metadata = msgspec.field(  # noqa: N815 (the API's name)
        default_factory=_Metadata
    )
    status: _Status | None = None
    request: Any = None
    response: Any = None


class _Operation(msgspec.Struct):
    id: str = ""


class _Entry(msgspec.Struct):
    protoPayload: _AuditLog  # noqa: N815 (the API's name)
    operation: _Operation | None = None
    insertId: str = ""  # noqa: N815 (the API's name)
    timestamp: str = ""
    labels: dict[str, str] | None = None


_entry = msgspec.json.Decoder(_Entry)


def audit_event(raw: bytes) -> bytes | None:
    """Return an entry as JSON of an audit event, None if it is not of a Kubernetes API server.

    Raises:
        msgspec.MsgspecError: it is no entry.
    """
    entry = decode(raw, _entry)
    payload = entry.protoPayload
    if payload.serviceName != _SERVICE:
        return None
    verb = payload.methodName.rpartition(".")[2]
    user = payload.authenticationInfo.principalEmail
    groups = ["system:authenticated"]
    if user.startswith(_NODE):
        groups.insert(0, "system:nodes")
    request, response = _object(payload.request), _object(payload.response)
    code = 200
    if isinstance(response, dict) and response.get("kind") == "Status":
        code = response.get("code") or code
    if payload.status is not None and payload.status.code:
        code = _HTTP.get(payload.status.code, 500)
    event = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "RequestResponse" if response else "Request" if request else "Metadata",
        "auditID": (entry.operation.id if entry.operation else "") or entry.insertId,
        "stage": "ResponseComplete",
        "verb": verb,
        "user": {"username": user, "groups": groups},
        "userAgent": payload.requestMetadata.callerSuppliedUserAgent,
        "sourceIPs": [payload.requestMetadata.callerIp],
        "objectRef": _reference(payload.resourceName, payload.methodName),
        "responseStatus": {"code": code},
        "requestReceivedTimestamp": entry.timestamp,
        "stageTimestamp": entry.timestamp,
        "annotations": entry.labels or {},
    }
    if request is not None:
        event["requestObject"] = request
    if response is not None:
        event["responseObject"] = response
    return msgspec.json.encode(event)


def _reference(name: str, method: str) -> Mapping[str, str]:
    """Return the object of ``core/v1/namespaces/NS/pods/NAME/SUBRESOURCE``."""
    group, _, rest = name.partition("/")
    version, _, rest = rest.partition("/")
    parts = rest.split("/")
    namespace = ""
    # The verbs of namespaces themselves name "namespaces" as their resource.
    of_namespaces = ".namespaces." in method
    if parts[0] == "namespaces" and len(parts) > 2 and not of_namespaces:
        namespace, parts = parts[1], parts[2:]
    resource, name, subresource = (*parts, "", "", "")[:3]
    return {
        "apiGroup": "" if group == "core" else group,
        "apiVersion": version,
        "namespace": namespace,
        "resource": resource,
        "name": name,
        "subresource": subresource,
    }


def _object(value: Any) -> Any:
    """Return a logged body with its own kind, which Cloud Logging writes as ``@type``."""
    if not isinstance(value, dict):
        return value
    body = {key: field for key, field in value.items() if key != "@type"}
    if value.get("@type") == "k8s.io/Patch" and list(body) == ["value"]:
        return body["value"]
    version, dot, kind = str(value.get("@type", "")).rpartition("/")[2].partition(".")
    if dot and "kind" not in body and kind != "Patch":
        group = str(value["@type"]).partition("/")[0].removesuffix(".k8s.io")
        body = {
            "kind": kind,
            "apiVersion": version if group in ("core", "") else f"{group}/{version}",
            **body,
        }
    return body
