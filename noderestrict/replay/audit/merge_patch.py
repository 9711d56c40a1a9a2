"""Merge patches, strategic merge patches and applied configurations.

The log does not say which of them a patch is, but only strategic merge patches have directives, and
they alone merge lists. Sources: RFC 7386, and k8s.io/apimachinery/pkg/util/strategicpatch.
"""

from collections.abc import Iterator
from typing import Any

from noderestrict.replay.audit.patches import (
    FIXED,
    MAPS,
    Object,
    Patch,
    Path,
    unknown,
    unknown_item,
    value_at,
)

#: The key by which a strategic merge patch merges the items of a list, "" for the items themselves.
#: All other lists that rules read are replaced as a whole.
_MERGE_KEYS: dict[Path, str] = {
    ("metadata", "ownerReferences"): "uid",
    ("metadata", "finalizers"): "",
    ("spec", "podCIDRs"): "",
    ("status", "resourceClaimStatuses"): "name",
    ("status", "nodeAllocatableResourceClaimStatuses"): "resourceClaimName",
}
_ORDER, _DELETE_ITEMS = "$setElementOrder/", "$deleteFromPrimitiveList/"
_PATCH, _RETAIN = "$patch", "$retainKeys"


class MergePatch(Patch):
    """A patch that is an object, in which null removes a value.

    Args:
        value: the patch.
        dropped: paths of what an applied configuration removes by leaving it out.
    """

    def __init__(self, value: Object, dropped: frozenset[Path] = frozenset()) -> None:
        self._value = value
        self._dropped = dropped

    def paths(self) -> Iterator[Path]:
        """Yield the path of each value that the patch sets, removes or directs."""
        yield from _paths(self._value, ())
        yield from self._dropped

    def settles(self) -> Iterator[Path]:
        """Yield the path of each value that the patch sets or removes."""
        yield from _settled(self._value, ())

    def before(self, after: Object) -> Object:
        """Return the object before the patch, if it changed all that it names."""
        return _before(after, self._value, ())

    def applied(self, before: Object) -> Object:
        """Return the object after the patch."""
        merged: Object = _applied(before, self._value, ())
        return merged

    def applied_to_part(self, before: Object) -> Object:
        """Return what the patch makes of a part: a merge patch fits every object."""
        return self.applied(before)

    def precondition(self) -> str:
        """Return the resourceVersion that the patch names."""
        version = value_at(self._value, ("metadata", "resourceVersion"))
        return version if isinstance(version, str) else ""


def _paths(patch: Object, path: Path) -> Iterator[Path]:
    if _PATCH in patch or _RETAIN in patch:
        yield path
        return
    for key, value in patch.items():
        field = (*path, key.partition("/")[2] if _directs(key) else key)
        if isinstance(value, dict) and value:
            yield from _paths(value, field)
        elif isinstance(value, dict):
            # It makes sure that the object is there.
            continue
        else:
            yield field


def _settled(patch: Object, path: Path) -> Iterator[Path]:
    if _PATCH in patch or _RETAIN in patch:
        return
    for key, value in patch.items():
        field = (*path, key)
        if isinstance(value, dict):
            yield from _settled(value, field)
        elif not _directs(key) and not (isinstance(value, list) and field in _MERGE_KEYS):
            yield field


def _directs(key: str) -> bool:
    return key.startswith((_ORDER, _DELETE_ITEMS))


def _before(after: Object, patch: Object, path: Path) -> Object:
    before = dict(after)
    for key, value in patch.items():
        if key in (_PATCH, _RETAIN):
            continue
        if _directs(key):
            _undo_directive(before, key, value, patch)
            continue
        field, now = (*path, key), after.get(key)
        if field in FIXED:
            continue
        if isinstance(value, dict):
            inner = _before(now if isinstance(now, dict) else {}, value, field)
            if inner or now is not None:
                before[key] = inner
            continue
        if isinstance(value, list):
            was: Any = _list_before(now, value, field)
        elif value is None and now is not None:
            # The API server has put it back.
            continue
        elif len(field) < 2 or field in MAPS:
            # What it held cannot be told.
            continue
        else:
            was = unknown(field, becomes=value)
        if was is None:
            before.pop(key, None)
        else:
            before[key] = was
    return before


def _undo_directive(before: Object, key: str, value: Any, patch: Object) -> None:
    field = key.partition("/")[2]
    items = before.get(field)
    items = items if isinstance(items, list) else []
    given = value if isinstance(value, list) else []
    if key.startswith(_DELETE_ITEMS):
        before[field] = [*items, *(item for item in given if item not in items)]
    elif field not in patch and len(items) > 1:
        before[field] = items[::-1]


def _list_before(now: Any, given: list[Any], path: Path) -> Any:
    items: list[Any] = now if isinstance(now, list) else []
    key = _MERGE_KEYS.get(path)
    if key is None or not given:
        # With a merge key, an empty list leaves the items alone: there is nothing to merge.
        return items if key is not None and items else unknown(path)
    if not key:
        return [item for item in items if item not in given]
    named = [item for item in given if isinstance(item, dict)]
    keys = {str(item.get(key)) for item in named}
    others = [
        item for item in items if not isinstance(item, dict) or str(item.get(key)) not in keys
    ]
    deleted = [
        {**unknown_item(path), key: item.get(key)} for item in named if item.get(_PATCH) == "delete"
    ]
    replaces = any(item.get(_PATCH) == "replace" for item in named)
    return [*others, *deleted, *([unknown_item(path)] if replaces else [])]


def _applied(value: Any, patch: Object, path: Path) -> Any:
    if patch.get(_PATCH) == "delete":
        return {}
    merged: Object = dict(value) if isinstance(value, dict) else {}
    if patch.get(_PATCH) == "replace":
        merged = {}
    if isinstance(kept := patch.get(_RETAIN), list):
        merged = {key: inner for key, inner in merged.items() if key in kept}
    for key, given in patch.items():
        field = (*path, key)
        if key in (_PATCH, _RETAIN) or key.startswith(_ORDER):
            continue
        if key.startswith(_DELETE_ITEMS):
            name = key.partition("/")[2]
            items = merged.get(name) or []
            merged[name] = [item for item in items if item not in (given or ())]
        elif given is None:
            merged.pop(key, None)
        elif isinstance(given, dict):
            merged[key] = _applied(merged.get(key), given, field)
        elif isinstance(given, list):
            merged[key] = _merged_list(merged.get(key) or [], given, field)
        else:
            merged[key] = given
    return merged


def _merged_list(items: list[Any], given: list[Any], path: Path) -> list[Any]:
    key = _MERGE_KEYS.get(path)
    if key is None:
        return [item for item in given if not (isinstance(item, dict) and _PATCH in item)]
    if not key:
        return [*items, *(item for item in given if item not in items)]
    merged = {str(item.get(key)): item for item in items if isinstance(item, dict)}
    for item in given:
        if not isinstance(item, dict):
            continue
        name = str(item.get(key))
        if item.get(_PATCH) == "delete":
            merged.pop(name, None)
        elif _PATCH not in item:
            merged[name] = {**merged.get(name, {}), **item}
    return list(merged.values())
