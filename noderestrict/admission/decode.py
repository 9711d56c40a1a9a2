"""Decode an AdmissionReview."""

from typing import Any

import msgspec

from noderestrict.agents.agents import Agents, Held
from noderestrict.api import admissionv1, scanner
from noderestrict.errors import NoderestrictError
from noderestrict.policy.identity import node_name
from noderestrict.policy.semantic import Value

API_VERSION = "admission.k8s.io/v1"
_LONGEST_UID = 1024

# Free-form JSON that no rule reads and msgspec may be unable to decode.
_MANAGED_FIELDS = tuple(
    (b"request", field, b"metadata", b"managedFields") for field in (b"object", b"oldObject")
)
# On Python 3.11 the caller's stack counts towards msgspec's depth limit, and objects are decoded
# again during evaluation, with a deeper stack.
_CALLERS = 30

_decoder = msgspec.json.Decoder(admissionv1.AdmissionReview[msgspec.Raw, msgspec.Raw])
#: Of the reviews of agents, with their objects as fields; raises what msgspec raises.
fields_decoder = msgspec.json.Decoder(
    admissionv1.AdmissionReview[dict[str, Value] | None, dict[str, Value] | None]
)
_NO_AGENTS = Agents()


class ReviewError(NoderestrictError, ValueError):
    """The bytes are not an AdmissionReview that can be answered; the message says why."""


class UnscannedError(NoderestrictError):
    """msgspec cannot decode the bytes; ``decode`` may, but takes much longer."""


class Request(msgspec.Struct, frozen=True):
    """The request of an AdmissionReview.

    Attributes:
        uid: of the review, echoed in the answer.
        group: API group of the resource, "" for the core group.
        version: of the resource.
        resource: plural.
        sub_resource: "" for none.
        kind: apiVersion and kind that the objects must have; None if the review names none.
        name: of the object, "" for a deletecollection.
        namespace: "" for cluster-scoped resources.
        operation: CREATE, UPDATE, DELETE or CONNECT.
        user: the requester.
        node: the node's name, "" for a node user without one, None for any other user.
        dry_run: whether nothing will be stored.
        object: raw JSON, ``null`` for none; or the decoded Struct that its rules need. That of an
            agent is raw, or a mapping of its fields.
        old_object: likewise.
        agent: that the requester is, None for any other user, and for every node user.
    """

    uid: str
    group: str
    version: str
    resource: str
    sub_resource: str
    kind: tuple[str, str] | None
    name: str
    namespace: str
    operation: str
    user: admissionv1.UserInfo
    node: str | None
    dry_run: bool
    object: msgspec.Raw | msgspec.Struct | dict[str, Value]
    old_object: msgspec.Raw | msgspec.Struct | dict[str, Value]
    agent: Held | None = None

    @property
    def api_version(self) -> str:
        """The apiVersion of the review, and of its answer."""
        return API_VERSION


def decode(body: bytes | msgspec.Raw, agents: Agents = _NO_AGENTS) -> Request:
    """Decode an AdmissionReview of admission.k8s.io/v1; objects in it stay raw.

    If msgspec cannot decode the managedFields of objects, they are cut out, at about 100 ns per
    byte.

    Args:
        body: of the review.
        agents: that the requester may be one of.

    Raises:
        ReviewError: the bytes are not such a review.
    """
    try:
        return decode_quickly(body, agents)
    except UnscannedError as error:
        problem = error
    try:
        return checked(_decoder.decode(scanner.cut(bytes(body), _MANAGED_FIELDS)), agents)
    except scanner.ScanError:
        raise ReviewError(f"the body is not an AdmissionReview: {problem}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ReviewError(f"the body is not an AdmissionReview: {error}") from None
    except RecursionError:
        raise ReviewError("the body is not an AdmissionReview: it is nested too deeply") from None


def decode_quickly(body: bytes | msgspec.Raw, agents: Agents = _NO_AGENTS) -> Request:
    """Decode an AdmissionReview that msgspec can decode unchanged.

    Args:
        body: of the review.
        agents: that the requester may be one of.

    Raises:
        ReviewError: the bytes are not such a review.
        UnscannedError: only ``decode`` can decide.
    """
    try:
        return checked(_further_down(_decoder, body, _CALLERS), agents)
    except (msgspec.ValidationError, UnicodeDecodeError) as error:
        raise ReviewError(f"the body is not an AdmissionReview: {error}") from None
    except RecursionError:
        raise UnscannedError("it is nested too deeply") from None
    except msgspec.DecodeError as error:
        raise UnscannedError(str(error)) from None


def _further_down(
    decoder: msgspec.json.Decoder[Any], body: bytes | msgspec.Raw, callers: int
) -> Any:
    return _further_down(decoder, body, callers - 1) if callers else decoder.decode(body)


def checked(review: admissionv1.AdmissionReview[Any, Any], agents: Agents = _NO_AGENTS) -> Request:
    """Return the request of a review.

    Args:
        review: decoded.
        agents: that the requester may be one of.

    Raises:
        ReviewError: the review cannot be answered.
    """
    if review.apiVersion != API_VERSION or review.kind != "AdmissionReview":
        raise ReviewError(
            f"apiVersion {review.apiVersion!r}, kind {review.kind!r}: send "
            f"{API_VERSION!r}, 'AdmissionReview'"
        )
    request = review.request
    if request is None:
        raise ReviewError("request is missing: an AdmissionReview without it cannot be answered")
    if not request.uid:
        raise ReviewError("request.uid is empty: the answer must echo it")
    if len(request.uid) > _LONGEST_UID:
        raise ReviewError(
            f"request.uid has {len(request.uid)} characters: the answer must echo it, and echoes "
            f"at most {_LONGEST_UID}"
        )
    resource = request.resource
    if not resource.resource:
        raise ReviewError("request.resource.resource is empty")
    if request.operation not in ("CREATE", "UPDATE", "DELETE", "CONNECT"):
        raise ReviewError(
            f"request.operation is {request.operation!r}; use CREATE, UPDATE, DELETE or CONNECT"
        )
    user = request.userInfo or admissionv1.UserInfo()
    username, groups = user.username or "", user.groups or ()
    node = node_name(username, groups)
    return Request(
        uid=request.uid,
        group=resource.group or "",
        version=resource.version or "",
        resource=resource.resource,
        sub_resource=request.subResource or "",
        kind=_kind(request.kind),
        name=request.name or "",
        namespace=request.namespace or "",
        operation=request.operation,
        user=user,
        node=node,
        dry_run=bool(request.dryRun),
        object=admissionv1.NULL if request.object is None else request.object,
        old_object=admissionv1.NULL if request.oldObject is None else request.oldObject,
        # The rules for nodes hold an agent that is a node.
        agent=agents.find(username, groups) if node is None and agents.all else None,
    )


def _kind(kind: admissionv1.GroupVersionKind | None) -> tuple[str, str] | None:
    if kind is None or not kind.kind:
        return None
    version = kind.version or ""
    return (f"{kind.group}/{version}" if kind.group else version), kind.kind


def resource_path(request: Request) -> str:
    """Return the resource with its subresource, such as ``pods/status``."""
    if request.sub_resource:
        return f"{request.resource}/{request.sub_resource}"
    return request.resource
