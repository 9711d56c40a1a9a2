"""What differs between two versions of an object."""

from collections.abc import Iterator
from typing import Any

import msgspec

from noderestrict.policy.text import json_line

#: How a report shows a field that an object does not have; JSON never looks like this.
ABSENT = "(absent)"
_MOST_CHANGES = 40
_LONGEST_VALUE = 200
_MISSING = object()
#: The API server changes these with every write.
_BOOKKEEPING = ("managedFields", "resourceVersion")


def changes(old: bytes, new: bytes) -> list[tuple[str, str, str]]:
    """Return path, value before and value after of each field that differs.

    Args:
        old: the existing object, JSON.
        new: the new object, JSON.
    """
    try:
        before, after = msgspec.json.decode(old), msgspec.json.decode(new)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []
    if before is None or after is None:
        return []
    found: list[tuple[str, str, str]] = []
    for path, was, becomes in _differences(before, after, ""):
        if len(found) == _MOST_CHANGES:
            found.append(("…", "", "further fields differ"))
            break
        found.append((path, _shown(was), _shown(becomes)))
    return found


def _differences(old: Any, new: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            if path == "metadata" and key in _BOOKKEEPING:
                continue
            step = f"[{key!r}]" if not key.isidentifier() else f".{key}" if path else key
            yield from _differences(old.get(key, _MISSING), new.get(key, _MISSING), path + step)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (was, becomes) in enumerate(zip(old, new, strict=True)):
            yield from _differences(was, becomes, f"{path}[{index}]")
    elif old is not new and old != new:
        yield path, old, new


def _shown(value: Any) -> str:
    if value is _MISSING:
        return ABSENT
    text = json_line(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
