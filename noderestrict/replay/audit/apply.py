"""Server-side apply: what an applied configuration removes by leaving it out.

Source: sigs.k8s.io/structured-merge-diff, and the managedFields of the API server.
"""

from collections.abc import Iterator
from typing import Any

from noderestrict.replay.audit.patches import FIXED, MAPS, Object, Path, value_at


def is_applied(patch: Any, manager: str, after: Object | None) -> bool:
    """Return whether a patch is an applied configuration.

    Args:
        patch: as it was sent.
        manager: that the request names, "" for none.
        after: the object after the patch, None if the log does not show it.
    """
    if not manager or not isinstance(patch, dict) or not patch.get("kind"):
        return False
    if "apiVersion" not in patch:
        return False
    managed = value_at(after, ("metadata", "managedFields"))
    # An audit policy may leave out managedFields.
    return managed is None or any(_is_of(entry, manager) for entry in managed)


def dropped_fields(patch: Object, manager: str, before: Object) -> frozenset[Path]:
    """Return the fields that a manager had applied and now leaves out.

    Args:
        patch: the applied configuration.
        manager: who applies it.
        before: the object before, with managedFields.
    """
    owned: set[Path] = set()
    for entry in value_at(before, ("metadata", "managedFields")) or ():
        if _is_of(entry, manager):
            owned.update(_fields(entry.get("fieldsV1"), ()))
    return frozenset(
        path for path in owned if path[:2] not in FIXED and value_at(patch, path) is None
    )


def _is_of(entry: Any, manager: str) -> bool:
    return (
        isinstance(entry, dict)
        and entry.get("operation") == "Apply"
        and entry.get("manager") == manager
    )


def _fields(fields: Any, path: Path) -> Iterator[Path]:
    """Yield the paths of fieldsV1, down to lists and the keys of maps."""
    if not isinstance(fields, dict):
        return
    inner = [key.removeprefix("f:") for key in fields if key.startswith("f:")]
    if not inner or len(path) > len(next(iter(MAPS))):
        if path:
            yield path
        return
    for key in inner:
        yield from _fields(fields[f"f:{key}"], (*path, key))
