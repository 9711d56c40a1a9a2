"""PersistentVolumeClaims: a node may report the outcome of an expansion, and nothing else.

Allowed to change: status.capacity, status.conditions and, with the gate
RecoverVolumeExpansionFailure, status.allocatedResources and status.allocatedResourceStatuses.
The source is admitPVCStatus in plugin/pkg/admission/noderestriction of Kubernetes.
"""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from noderestrict.policy import features
from noderestrict.policy.attributes import Attributes
from noderestrict.policy.compare import changed_keys, listed
from noderestrict.policy.decision import Denied, forbidden
from noderestrict.policy.quantity import parse_quantity

# Paths of Go pointer fields: there, a null differs from an empty value; elsewhere
# null, missing and empty are equal (apiequality.Semantic of apimachinery).
_POINTERS = frozenset(
    {
        ("metadata", "deletionGracePeriodSeconds"),
        ("metadata", "deletionTimestamp"),
        ("metadata", "ownerReferences", "*", "blockOwnerDeletion"),
        ("metadata", "ownerReferences", "*", "controller"),
        ("spec", "dataSource"),
        ("spec", "dataSource", "apiGroup"),
        ("spec", "dataSourceRef"),
        ("spec", "dataSourceRef", "apiGroup"),
        ("spec", "dataSourceRef", "namespace"),
        ("spec", "selector"),
        ("spec", "storageClassName"),
        ("spec", "volumeAttributesClassName"),
        ("spec", "volumeMode"),
        ("status", "currentVolumeAttributesClassName"),
        ("status", "modifyVolumeStatus"),
    }
)
# Maps of quantities, which compare by value.
_QUANTITIES = frozenset(
    {
        ("spec", "resources", "limits"),
        ("spec", "resources", "requests"),
        ("status", "allocatedResources"),
        ("status", "capacity"),
    }
)
# Where equal values still hold quantities to read: what is none is refused.
_ABOVE_QUANTITIES = frozenset(path[:steps] for path in _QUANTITIES for steps in range(len(path)))
# Maps whose keys exist even with empty values.
_MAPS = frozenset(
    {
        ("metadata", "annotations"),
        ("metadata", "labels"),
        ("spec", "selector", "matchLabels"),
        ("status", "allocatedResourceStatuses"),
    }
)
_IGNORED = frozenset(
    {
        ("metadata", "managedFields"),
        ("metadata", "resourceVersion"),
        ("status", "capacity"),
        ("status", "conditions"),
    }
)
_RECOVERY = frozenset({("status", "allocatedResources"), ("status", "allocatedResourceStatuses")})


def only_status(request: Attributes) -> Denied:
    """Refuse every request but an UPDATE of status: claims are a closed world. Since 1.8."""
    return forbidden(
        "persistentvolumeclaims/closed-world",
        f"{request.where}: {request.operation} is not open to nodes; node {request.node!r} may "
        f"only update persistentvolumeclaims/status",
    )


def status_fields(request: Attributes) -> Denied | None:
    """Refuse any other change than the outcome of an expansion.

    Since 1.8; the gate's fields since 1.23.
    """
    rule = "persistentvolumeclaims/status-fields"
    ignored = _IGNORED
    if request.settings.features[features.RECOVER_EXPANSION]:
        ignored |= _RECOVERY
    try:
        changed = listed(_differences(request.old_tree, request.new_tree, (), "", ignored))
    except ValueError as error:
        return forbidden(rule, f"{request.where}: {error}")
    if not changed:
        return None
    allowed = ", ".join(sorted(".".join(path) for path in ignored if path[0] == "status"))
    return forbidden(
        rule,
        f"{request.where}: changed {changed}; node {request.node!r} may change only {allowed}",
    )


_Path = tuple[str, ...]


def _differences(
    old: Any, new: Any, path: _Path, shown: str, ignored: frozenset[_Path]
) -> Iterator[str]:
    """Yield where two values are not semantically equal; None stands for what is not there.

    Raises:
        ValueError: a quantity is none.
    """
    if path in ignored:
        return
    if path in _QUANTITIES:
        yield from _other_quantities(old, new, shown)
    elif old == new and path not in _ABOVE_QUANTITIES:
        return
    elif path in _POINTERS and (old is None) != (new is None):
        yield shown
    elif isinstance(old, Mapping) or isinstance(new, Mapping):
        if not (_is_mapping(old) and _is_mapping(new)):
            yield shown or "the whole object"
            return
        old, new = old or {}, new or {}
        if path in _MAPS:
            yield from (f"{shown}{_step(key)}" for key in changed_keys(old, new))
            return
        for key in {**old, **new}:
            at = f"{shown}{_step(key)}".removeprefix(".")
            yield from _differences(old.get(key), new.get(key), (*path, key), at, ignored)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (was, becomes) in enumerate(zip(old, new, strict=True)):
            yield from _differences(was, becomes, (*path, "*"), f"{shown}[{index}]", ignored)
    elif not (_is_empty(old) and _is_empty(new)):
        yield shown


def _other_quantities(old: Any, new: Any, shown: str) -> Iterator[str]:
    before, after = _quantities(old, shown), _quantities(new, shown)
    for name in {**before, **after}:
        if before.get(name) != after.get(name):
            yield f"{shown}{_step(name)}"


def _quantities(value: Any, shown: str) -> dict[str, Fraction]:
    if not value:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{shown} is no object of quantities")  # noqa: TRY004 (bad input)
    found = {}
    for name, amount in value.items():
        try:
            found[name] = parse_quantity(amount)
        except ValueError:
            # Without the value, which may be one of the existing claim.
            raise ValueError(f"{shown}{_step(name)} is no quantity") from None
    return found


def _step(key: str) -> str:
    return f".{key}" if key.replace("_", "").replace("-", "").isalnum() else f"[{key!r}]"


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) or _is_empty(value)


def _is_empty(value: Any) -> bool:
    return value is None or value is False or value in ("", 0) or value in ([], {})
