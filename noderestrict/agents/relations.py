"""What an object must have to do with the node, for writes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from noderestrict.agents.agents import Entry
from noderestrict.agents.file import RelationKind
from noderestrict.agents.identity import Known
from noderestrict.agents.paths import Steps
from noderestrict.agents.request import Write
from noderestrict.api import metav1
from noderestrict.api.resources import qualified
from noderestrict.policy.listers import Listers
from noderestrict.policy.semantic import Value

_NULL = b"null"
_fields = msgspec.json.Decoder(dict[str, Value] | None)
_value = msgspec.json.Decoder(Value)
_owners = msgspec.json.Decoder(list[metav1.OwnerReference] | None)
_NAME = ("metadata", "name")
_KIND = ("kind",)


@dataclass(frozen=True, slots=True)
class Broken:
    """A relation that does not hold.

    Attributes:
        found: of what the requester sent, what does not fit; "" if nothing of that.
        detail: for the operator: of the existing object, what does not fit.
        missing: the pod that was looked up, if there is none.
    """

    found: str = ""
    detail: str = ""
    missing: str = ""


class Objects:
    """The objects of a request, which are decoded as far as they are read.

    Args:
        new: JSON, ``null`` for none; or the fields of the object.
        old: the existing object, likewise.
    """

    __slots__ = ("_new", "_old")

    def __init__(
        self, new: msgspec.Raw | dict[str, Value], old: msgspec.Raw | dict[str, Value]
    ) -> None:
        self._new, self._old = new, old

    def has(self, *, old: bool) -> bool:
        """Return whether there is such an object."""
        given = self._old if old else self._new
        return isinstance(given, dict) or len(given) != len(_NULL) or bytes(given) != _NULL

    def fields(self, *, old: bool) -> dict[str, Value]:
        """Return the fields of an object, none if there is no object.

        Raises:
            msgspec.MsgspecError, UnicodeDecodeError, RecursionError: it is something else.
        """
        given = self._old if old else self._new
        if isinstance(given, dict):
            return given
        found = _fields.decode(given) or {}
        if old:
            self._old = found
        else:
            self._new = found
        return found

    def text(self, steps: Steps, *, old: bool) -> str:
        """Return the text at a path, "" if there is none; errors as above."""
        value = self.fields(old=old).get(steps[0])
        for step in steps[1:]:
            if value is None:
                return ""
            if not isinstance(value, dict):
                raise msgspec.ValidationError(f"the value at {'.'.join(steps)} is in no object")
            raw = value.get(step)
            if raw is None:
                return ""
            value = _value.decode(raw)
        if value is not None and not isinstance(value, str):
            raise msgspec.ValidationError(f"the value at {'.'.join(steps)} is no text")
        return value or ""

    def owners(self, *, old: bool) -> Sequence[metav1.OwnerReference]:
        """Return the owner references; errors as above."""
        metadata = self.fields(old=old).get("metadata")
        if metadata is not None and not isinstance(metadata, dict):
            raise msgspec.ValidationError("metadata is no object")
        raw = (metadata or {}).get("ownerReferences")
        return () if raw is None else _owners.decode(raw) or ()


def broken(
    entry: Entry, request: Write, objects: Objects, node: Known, listers: Listers
) -> Broken | None:
    """Return how the relation of an entry does not hold; None if it does.

    It holds for the object before and after.

    Args:
        entry: about such requests.
        request: to judge.
        objects: of the request.
        node: the agent's.
        listers: look up the pods of subresources that do not send them.

    Raises:
        msgspec.MsgspecError, UnicodeDecodeError, RecursionError: an object is undecodable.
        LookupUnavailableError: a pod could not be looked up.
    """
    check = _CHECKS.get(entry.kind)
    return None if check is None else check(entry, request, objects, node, listers)


def demand(entry: Entry, node: Known) -> str:
    """Return which objects the relation of an entry holds for, as messages call them."""
    match entry.kind:
        case RelationKind.OWN_NODE:
            return "its own Node"
        case RelationKind.NAME:
            return f"the object named {entry.named(node.shown)!r}"
        case RelationKind.OWN_PODS:
            return "pods on its own node"
        case RelationKind.OWNER:
            return "objects that its own Node owns, and no other Node"
        case RelationKind.FIELD | RelationKind.LABEL:
            return f"objects with {_shown(entry)} {node.shown!r}"
        case _:
            return "any object"


def _own_node(
    _entry: Entry, request: Write, objects: Objects, node: Known, _listers: Listers
) -> Broken | None:
    return _has_name(node.name, request, objects)


def _name(
    entry: Entry, request: Write, objects: Objects, node: Known, _listers: Listers
) -> Broken | None:
    return _has_name(entry.named(node.name), request, objects)


def object_name(request: Write, objects: Objects) -> str:
    """Return the name of the object; errors as above.

    A request to create an object with a generated name has none, nor has a deletecollection, which
    comes object by object.
    """
    if request.operation == "CREATE" and not request.sub_resource:
        return objects.text(_NAME, old=False)
    if not request.name and objects.has(old=True):
        return objects.text(_NAME, old=True)
    return request.name


def _has_name(wanted: str, request: Write, objects: Objects) -> Broken | None:
    name = object_name(request, objects)
    if name == wanted and request.name in ("", name):
        return None
    return Broken(f"this one is named {name!r}" if name else "this one has no name")


def _own_pods(
    entry: Entry, request: Write, objects: Objects, node: Known, listers: Listers
) -> Broken | None:
    if request.sub_resource and not (
        objects.has(old=True) and objects.text(_KIND, old=True) == "Pod"
    ):
        # What is sent says nothing about the pod: exec, attach, portforward, eviction, binding.
        if not request.name:
            return Broken("the request names no pod")
        pod = listers.pod(request.namespace, request.name)
        if pod is None:
            return Broken(missing=qualified(request.namespace, request.name))
        if pod.node_name != node.name:
            return Broken(detail=f"the pod has spec.nodeName {pod.node_name!r}")
        return None
    return _holds_node(entry, request, objects, node, listers)


#: Which objects each operation sends: the new one, the existing one.
_SENT = {"CREATE": (True, False), "UPDATE": (True, True), "DELETE": (False, True)}


def _holds_node(
    entry: Entry, request: Write, objects: Objects, node: Known, _listers: Listers
) -> Broken | None:
    """Return how an object does not hold the name of the node, for each that is sent."""
    new, old = _SENT.get(request.operation, (True, True))
    if old:
        if not objects.has(old=True):
            return Broken("request.oldObject is null")
        if (found := _held_by(entry, objects, old=True)) != node.name:
            return Broken(detail=f"the existing object has {_shown(entry)} {found!r}")
    if new:
        if not objects.has(old=False):
            return Broken("request.object is null")
        if (found := _held_by(entry, objects, old=False)) != node.name:
            return Broken(f"this one has {_shown(entry)} {found!r}")
    return None


def _held_by(entry: Entry, objects: Objects, *, old: bool) -> str:
    """Return what an object holds where the name of the node belongs."""
    if entry.steps:
        return objects.text(entry.steps, old=old)
    names = {owner.name or "" for owner in objects.owners(old=old) if _is_node(owner)}
    return ", ".join(sorted(names))


def _is_node(owner: metav1.OwnerReference) -> bool:
    return owner.kind == "Node" and owner.apiVersion == "v1"


def _shown(entry: Entry) -> str:
    """Return where the name of the node belongs, as people write it."""
    if entry.label:
        return f"metadata.labels[{entry.label!r}]"
    return ".".join(entry.steps) or "metadata.ownerReferences to Node"


#: How each relation is checked; the others hold for every object.
_CHECKS: dict[RelationKind, Callable[[Entry, Write, Objects, Known, Listers], Broken | None]] = {
    RelationKind.OWN_NODE: _own_node,
    RelationKind.OWN_PODS: _own_pods,
    RelationKind.NAME: _name,
    RelationKind.FIELD: _holds_node,
    RelationKind.LABEL: _holds_node,
    RelationKind.OWNER: _holds_node,
}
