"""Evaluate one request."""

from collections.abc import Set
from functools import cache
from typing import Any

import msgspec

from noderestrict.admission.decode import Request, resource_path
from noderestrict.agents import evaluate as agents
from noderestrict.api import admissionv1, metav1
from noderestrict.policy.attributes import Attributes
from noderestrict.policy.decision import Allowed, Decision, Denied, forbidden
from noderestrict.policy.listers import Listers
from noderestrict.policy.rules import review
from noderestrict.policy.semantic import Value
from noderestrict.policy.settings import Settings
from noderestrict.policy.table import row_for

ALLOWED = Allowed()
_NULL = b"null"


def evaluate(
    request: Request, settings: Settings, listers: Listers, skipped: Set[str] = frozenset()
) -> Decision:
    """Evaluate a node's request as the in-tree plugin would, and an agent's by its policy.

    The result depends only on the arguments.

    Args:
        request: decoded.
        settings: feature gates and audiences.
        listers: answer lookups.
        skipped: ids of rules to ignore.

    Raises:
        LookupUnavailableError: a lookup failed.
    """
    if request.node is None:
        if request.agent is None:
            return ALLOWED
        return agents.evaluate(request.agent, request, listers, skipped)
    if not request.node and request.operation != "CONNECT":
        return forbidden(
            f"user {request.user.username!r} in group 'system:nodes' has no node name; use a "
            f"credential for system:node:NAME",
            rule=review.NODE_NAME.id,
        )
    row = None
    if request.operation != "CONNECT":
        row = row_for(
            request.group,
            request.resource,
            request.sub_resource,
            request.operation,
            settings.extra.rules,
            settings.release,
        )
    new_type = row.target.new if row else None
    old_type = row.target.old if row else None
    kind = row.target.kind if row else ""
    may_lack = row is not None and row.target.old_may_lack
    new = _object(request, "object", request.object, new_type, kind)
    if isinstance(new, Denied):
        return new
    old = _object(request, "oldObject", request.old_object, old_type, kind, may_lack=may_lack)
    if isinstance(old, Denied):
        return old
    if row is None:
        return ALLOWED
    attributes = Attributes(
        node=request.node,
        resource=request.resource,
        sub_resource=request.sub_resource,
        operation=request.operation,
        namespace=request.namespace,
        name=request.name,
        settings=settings,
        listers=listers,
        # No rule may use an object that it did not ask for.
        new=new if new_type else None,
        old=old if old_type else None,
        new_raw=_raw(request.object) if row.target.whole else admissionv1.NULL,
        old_raw=_raw(request.old_object) if row.target.whole else admissionv1.NULL,
    )
    try:
        return row.evaluate(attributes, skipped)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        # Rules decode differing parts of whole objects, including fields that no Struct has.
        return _refused(f"{_where(request)}: the objects cannot be compared: {error}")
    except RecursionError:
        return _refused(f"{_where(request)}: an object is nested too deeply")


def _refused(message: str) -> Denied:
    return forbidden(message, rule=review.OBJECT.id)


@cache
def _decoder(kind: type[msgspec.Struct]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def _object(
    request: Request,
    field: str,
    given: msgspec.Raw | msgspec.Struct | dict[str, Value],
    wanted: type[msgspec.Struct] | None,
    kind: str,
    *,
    may_lack: bool = False,
) -> Any:
    """Return the decoded object, None if there is none, or a denial.

    Every object in a node's request is decoded, even if no rule reads it. An undecodable object is
    denied, whatever its purpose.
    """
    decoded: Any = given
    if isinstance(given, msgspec.Raw):
        # Raw JSON has no surrounding space.
        if len(given) == len(_NULL) and bytes(given) == _NULL:
            if wanted is None or may_lack:
                return None
            return _refused(f"{_where(request)}: request.{field} is null; the rules need it")
        try:
            decoded = _decoder(wanted or metav1.PartialObject).decode(given)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return _refused(f"{_where(request)}: request.{field}: {error}")
        except RecursionError:
            return _refused(f"{_where(request)}: request.{field} is nested too deeply")
    if request.kind is not None and (decoded.apiVersion, decoded.kind) != request.kind:
        return _refused(
            f"{_where(request)}: request.{field} is apiVersion {decoded.apiVersion!r}, kind "
            f"{decoded.kind!r}, but request.kind says {request.kind[0]!r}, {request.kind[1]!r}",
        )
    if wanted is not None and decoded.kind != kind:
        return _refused(
            f"{_where(request)}: request.{field} is of kind {decoded.kind!r}; the rules need "
            f"{kind!r}",
        )
    return decoded


def _raw(given: msgspec.Raw | msgspec.Struct | dict[str, Value]) -> msgspec.Raw:
    if not isinstance(given, msgspec.Raw):
        raise TypeError("an object that is compared whole was not kept as JSON")
    return given


def _where(request: Request) -> str:
    return f"{resource_path(request)} {request.namespace}/{request.name}"
