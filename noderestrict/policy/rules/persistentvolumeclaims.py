"""PersistentVolumeClaims: a node may report the outcome of an expansion, and nothing else.

Allowed to change: status.capacity, status.conditions and, with the gate
RecoverVolumeExpansionFailure, status.allocatedResources and status.allocatedResourceStatuses.
The source is admitPVCStatus in plugin/pkg/admission/noderestriction of Kubernetes.
"""

from collections.abc import Mapping
from typing import Any

import jsonpatch

from noderestrict.policy import features
from noderestrict.policy.attributes import Attributes
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
# Maps of quantities, which compare by value; and maps whose keys exist even with empty values.
_QUANTITIES = frozenset(
    {
        ("spec", "resources", "limits"),
        ("spec", "resources", "requests"),
        ("status", "allocatedResources"),
        ("status", "capacity"),
    }
)
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
        before = _normalize(request.old_tree, (), ignored)
        after = _normalize(request.new_tree, (), ignored)
    except ValueError as error:
        return forbidden(rule, f"{request.where}: {error}")
    if before == after:
        return None
    allowed = ", ".join(sorted(".".join(path) for path in ignored if path[0] == "status"))
    return forbidden(
        rule,
        f"{request.where}: changed {', '.join(changed_paths(before, after))}; "
        f"node {request.node!r} may change only {allowed}",
    )


def changed_paths(before: object, after: object) -> list[str]:
    """Return the JSON paths at which two documents differ, sorted, each once."""
    operations = jsonpatch.make_patch({"": before}, {"": after}).patch
    paths: set[str] = set()
    for operation in operations:
        for pointer in filter(None, (operation["path"], operation.get("from"))):
            path = _json_path(pointer)
            value = operation.get("value") if pointer == operation["path"] else None
            paths.update(f"{path}{leaf}" for leaf in _leaves(value))
    return sorted(paths)


def _leaves(value: object) -> list[str]:
    if not isinstance(value, Mapping) or not value:
        return [""]
    return [f".{key}{leaf}" for key, item in value.items() for leaf in _leaves(item)]


def _json_path(pointer: str) -> str:
    path = ""
    for step in pointer.split("/")[2:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if name.isdigit():
            path += f"[{name}]"
        elif name.replace("_", "").replace("-", "").isalnum():
            path += f".{name}" if path else name
        else:
            path += f"[{name!r}]"
    return path or "the whole object"


_Path = tuple[str, ...]


def _normalize(value: Any, path: _Path, ignored: frozenset[_Path]) -> Any:
    """Return a value in which all that is semantically equal is equal."""
    if path in _QUANTITIES and value:
        if not isinstance(value, Mapping):
            raise ValueError(f"{'.'.join(path)} is not an object of quantities")
        return {name: _quantity(amount, path, name) for name, amount in value.items()}
    if isinstance(value, Mapping):
        keep_empty = path in _MAPS
        result = {}
        for key, item in value.items():
            at = (*path, key)
            if at in ignored:
                continue
            normal = _normalize(item, at, ignored)
            if at in _POINTERS:
                if item is not None:
                    result[key] = normal
            elif keep_empty:
                result[key] = "" if item is None else normal
            elif not _is_empty(normal):
                result[key] = normal
        return result
    if isinstance(value, list):
        return [_normalize(item, (*path, "*"), ignored) for item in value]
    return value


def _is_empty(value: Any) -> bool:
    return value is None or value is False or value in ("", 0) or value in ([], {})


def _quantity(amount: Any, path: _Path, name: str) -> str:
    try:
        value = parse_quantity(amount)
    except ValueError as error:
        raise ValueError(f"{'.'.join(path)}[{name!r}]: {error}") from None
    # As text, because a difference is shown as JSON.
    return str(value)
