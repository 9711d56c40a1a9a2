"""Patches in an audit log: what they may have changed, and what they hide.

A kubelet's patch is a difference, so a field that it names counts as changed.
"""

from collections.abc import Mapping
from typing import Any

#: Part and field, such as ``metadata`` and ``labels``.
Fields = tuple[tuple[str, str], ...]


def hides_a_change(patch: Any, guarded: Fields) -> bool:
    """Return whether a patch may change a guarded field without showing how.

    Args:
        patch: decoded. A JSON patch is a list of operations; merge patches remove with null,
            strategic merge patches with directives too.
        guarded: fields that the rules compare with the existing object.
    """
    if not isinstance(patch, dict):
        return True
    for part, field in guarded:
        holder = patch.get(part)
        if holder is None and part in patch:
            return True
        if isinstance(holder, dict) and (
            _directs(holder, field) or _removes(holder.get(field, ""))
        ):
            return True
    return _directs(patch, "")


def before(new: Mapping[str, Any], patch: Any, guarded: Fields) -> dict[str, Any]:
    """Return what an object was if the patch changed exactly the guarded fields that it names.

    Args:
        new: the object after the patch.
        patch: decoded.
        guarded: fields that the rules compare with the existing object.
    """
    old = {key: dict(part) if isinstance(part, dict) else part for key, part in new.items()}
    for part, field in guarded:
        named = patch.get(part) if isinstance(patch, dict) else None
        named = named.get(field) if isinstance(named, dict) else None
        holder = old.get(part)
        if named is None or not isinstance(holder, dict) or field not in holder:
            continue
        if isinstance(named, dict) and isinstance(holder[field], dict):
            holder[field] = {k: v for k, v in holder[field].items() if k not in named}
        else:
            del holder[field]
    return old


def _directs(holder: Mapping[str, Any], field: str) -> bool:
    """Return whether strategic merge directives are about an object or one of its fields.

    Kubelets set the order of the conditions in each status report, which changes nothing guarded.
    """
    return any(
        key in ("$patch", "$retainKeys") or (key[:1] == "$" and key.endswith(f"/{field}"))
        for key in holder
    )


def _removes(value: Any) -> bool:
    """Return whether a part of a patch holds a null or a strategic merge directive."""
    if isinstance(value, dict):
        return any(key.startswith("$") or _removes(inner) for key, inner in value.items())
    if isinstance(value, list):
        return any(map(_removes, value))
    return value is None
