"""Patches in an audit log: which fields they name, and what those were before.

The log has the patch and, at level RequestResponse, the object after it. Only what the patch names
can have changed, so everything else was as it is. A value that the patch replaced is in neither of
both: ``UNKNOWN`` stands for it. Where not even the keys can be told, as in ``labels: null``, the
patch hides what changed.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any

#: Stands for a value that the log does not hold.
UNKNOWN = "(not in the log)"
#: A path into an object; ``()`` is the whole object.
Path = tuple[str, ...]
Object = dict[str, Any]

#: Maps of which a patch may name single keys.
MAPS = frozenset({("metadata", "labels"), ("metadata", "annotations")})
#: No client changes these: a patch that names one makes a precondition, or is refused.
FIXED = frozenset(
    ("metadata", field)
    for field in (
        "creationTimestamp", "generation", "managedFields", "name", "namespace", "resourceVersion",
        "selfLink", "uid",
    )
) | {("apiVersion",), ("kind",)}  # fmt: skip
#: What a list held that the log does not show, where its items are no strings.
_UNKNOWN_ITEMS: dict[str, Any] = {
    "taints": {"key": UNKNOWN},
    "ownerReferences": {"name": UNKNOWN, "uid": UNKNOWN},
    "resourceClaimStatuses": {"name": UNKNOWN},
    "requestMappings": {"containerName": UNKNOWN},
    "nodeAllocatableResourceClaimStatuses": {"resourceClaimName": UNKNOWN},
    "mapping": {"name": UNKNOWN},
    "overhead": {"name": UNKNOWN},
}
_LISTS = frozenset({*_UNKNOWN_ITEMS, "finalizers", "podCIDRs", "containers"})
_UNKNOWN_VALUES: dict[str, Any] = {
    "configSource": {"configMap": {"name": UNKNOWN}},
    "extendedResourceClaimStatus": {"resourceClaimName": UNKNOWN},
    # Removing it changes something only if it was set.
    "unschedulable": True,
}


class Patch(ABC):
    """A patch as it was sent."""

    @abstractmethod
    def paths(self) -> Iterator[Path]:
        """Yield the path of each value that the patch names; its parents are not changed."""

    @abstractmethod
    def settles(self) -> Iterator[Path]:
        """Yield the path of each value that is the same after the patch, whatever it was before."""

    @abstractmethod
    def before(self, after: Object) -> Object:
        """Return an object that the patch turns into another one, by changing all that it names.

        Args:
            after: the object after the patch, which is not changed.
        """

    @abstractmethod
    def applied(self, before: Object) -> Object:
        """Return the object after the patch.

        Args:
            before: the object, which is not changed.

        Raises:
            ValueError: the patch does not fit the object.
        """

    @abstractmethod
    def applied_to_part(self, before: Object) -> Object:
        """Return what a patch makes of an object of which only a part is known.

        Args:
            before: the part, which is not changed.
        """

    def precondition(self) -> str:
        """Return the resourceVersion that the patch demands of the object, "" for any."""
        return ""

    def names(self) -> "Names":
        """Return what the patch may change."""
        return Names(self.paths())


class Names:
    """The values that a patch may change.

    Args:
        paths: of each value.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self.paths = frozenset(path for path in paths if path[:2] not in FIXED)

    def where(self, holds: Callable[[Path], bool]) -> "Names":
        """Return those of the values whose paths fulfil a condition."""
        return Names(filter(holds, self.paths))

    def touch(self, field: Path) -> bool:
        """Return whether the patch may change a field, or a part of it."""
        return any(_is_under(path, field) or _is_under(field, path) for path in self.paths)

    def hide(self, field: Path) -> bool:
        """Return whether the patch does not show which keys of a map, or whether a field, changed.

        It shows the keys that it names, and that a list or a single value changed.
        """
        return any(
            _is_under(field, path) and (len(path) < len(field) or field in MAPS)
            for path in self.paths
        )

    def restore(self, field: Path, after: Object, earlier: Object) -> Object:
        """Return an object with what the patch names of a field as it was earlier.

        Args:
            field: a path of at most two steps.
            after: the object, which is not changed.
            earlier: holds the earlier value.
        """
        keys = {path[2] for path in self.paths if len(path) > 2 and path[:2] == field}
        was, becomes = value_at(earlier, field), value_at(after, field)
        is_map = all(value is None or isinstance(value, dict) for value in (was, becomes))
        if field not in MAPS or self.hide(field) or not is_map:
            return object_with(after, field, was)
        was, becomes = was or {}, becomes or {}
        kept = {key: value for key, value in becomes.items() if key not in keys}
        return object_with(after, field, kept | {key: was[key] for key in keys & was.keys()})


def _is_under(path: Path, ancestor: Path) -> bool:
    return path[: len(ancestor)] == ancestor


def unknown(path: Path, *, becomes: Any = None) -> Any:
    """Return what stands for the unknown earlier value of a field; None if it may be missing.

    Args:
        path: of the field.
        becomes: its value after the patch, from which the earlier one differs.
    """
    name = path[-1] if path else ""
    if isinstance(becomes, bool):
        return not becomes
    if path[:-1] in MAPS:
        # A label that is set was missing, or had another value: both are a change.
        return None if becomes is not None else UNKNOWN
    if name in _LISTS:
        return [unknown_item(path)]
    return _UNKNOWN_VALUES.get(name, UNKNOWN)


def unknown_item(path: Path) -> Any:
    """Return what stands for an unknown item of a list."""
    return _UNKNOWN_ITEMS.get(path[-1] if path else "", UNKNOWN)


def value_at(value: Any, path: Path) -> Any:
    """Return the value at a path, None if there is none."""
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def object_with(value: Object, path: Path, given: Any) -> Object:
    """Return a copy of an object with a value at a path; None removes it.

    Only the objects on the path are copied.
    """
    found = dict(value)
    step, *rest = path
    if rest:
        inner = found.get(step)
        given = object_with(inner if isinstance(inner, dict) else {}, tuple(rest), given)
    if given is None:
        found.pop(step, None)
    else:
        found[step] = given
    return found
