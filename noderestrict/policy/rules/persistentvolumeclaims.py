"""PersistentVolumeClaims: a node may only report the outcome of an expansion.

It may change status.capacity, status.conditions and, with the feature gate
RecoverVolumeExpansionFailure, status.allocatedResources and status.allocatedResourceStatuses.
The source is admitPVCStatus in plugin/pkg/admission/noderestriction of Kubernetes.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from noderestrict.api import metav1
from noderestrict.policy import features
from noderestrict.policy.attributes import Attributes
from noderestrict.policy.compare import listed
from noderestrict.policy.decision import Denied, forbidden
from noderestrict.policy.quantity import parse_quantity
from noderestrict.policy.rule import ANY, UPDATE, Target, rule

UPDATE_STATUS = Target(
    "",
    "persistentvolumeclaims",
    "status",
    UPDATE,
    "PersistentVolumeClaim",
    new=metav1.PartialObject,
    old=metav1.PartialObject,
    whole=True,
)
ANYTHING_ELSE = Target("", "persistentvolumeclaims", ANY, ANY)

# Paths of Go pointer fields, where null differs from an empty value. Elsewhere null, missing and
# empty are equal (apiequality.Semantic of apimachinery).
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
# Maps of quantities, which are compared by value.
_QUANTITIES = frozenset(
    {
        ("spec", "resources", "limits"),
        ("spec", "resources", "requests"),
        ("status", "allocatedResources"),
        ("status", "capacity"),
    }
)
# Maps in which a key with an empty value differs from a missing key.
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


@rule(
    "persistentvolumeclaims/closed-world",
    ANYTHING_ELSE,
    demands="denied",
    by_name=True,
)
def only_status(request: Attributes) -> Denied:
    """Deny every request but an UPDATE of status: claims are default deny."""
    return forbidden(
        f"{request.where}: {request.operation} is not allowed for nodes; node {request.node!r} "
        f"may only update persistentvolumeclaims/status",
    )


@rule(
    "persistentvolumeclaims/status-fields",
    UPDATE_STATUS,
    demands="only capacity, conditions and resize state change",
)
def status_fields(request: Attributes) -> Denied | None:
    """Deny any change except the outcome of an expansion.

    Raises:
        msgspec.MsgspecError: a value that differs is undecodable.
        UnicodeDecodeError: likewise.
    """
    ignored = _IGNORED
    if request.settings.features[features.RECOVER_EXPANSION]:
        ignored |= _RECOVERY
    try:
        changed = listed(_Comparison(ignored).differences(request.old_raw, request.new_raw))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise
    except ValueError as error:
        return forbidden(f"{request.where}: {error}")
    if not changed:
        return None
    allowed = ", ".join(sorted(".".join(path) for path in ignored if path[0] == "status"))
    return forbidden(
        f"{request.where}: changed {changed}; node {request.node!r} may change only {allowed}",
    )


_Path = tuple[str, ...]

_NULL = msgspec.Raw(b"null")
# Decodes one level; everything below it stays raw.
_decoder = msgspec.json.Decoder(
    dict[str, msgspec.Raw] | list[msgspec.Raw] | str | int | float | bool | None
)
_string_decoder = msgspec.json.Decoder(str)
# An API server writes equal values identically, so in an honest update only a few outer objects
# differ in text: those that contain what a node may change. A node can send tens of thousands.
_MOST_VALUES = 500
_MOST_BYTES = 16 * 1024 * 1024
_LONGEST_KEY = 256


class _Comparison:
    """Compares two objects: first by text, then by meaning.

    Args:
        ignored: paths of values that may differ.
    """

    def __init__(self, ignored: frozenset[_Path]) -> None:
        self._ignored = ignored
        self._values = self._bytes = 0

    def differences(
        self, old: msgspec.Raw, new: msgspec.Raw, path: _Path = (), shown: str = ""
    ) -> Iterator[str]:
        """Yield the paths at which two values are not semantically equal.

        Args:
            old: JSON; null if the value is missing.
            new: likewise.
            path: of both, with ``*`` for any index.
            shown: the same path, as people write it.

        Raises:
            ValueError: a quantity is not valid, or there is too much to compare.
            msgspec.MsgspecError, UnicodeDecodeError: a value is undecodable.
        """
        if path in self._ignored or old == new:
            return
        self._count(old, new)
        if path[:-1] in _QUANTITIES:
            if _quantity(old, shown) != _quantity(new, shown):
                yield shown
            return
        was, becomes = _decoder.decode(old), _decoder.decode(new)
        if path in _POINTERS and (was is None) != (becomes is None):
            yield shown
        elif isinstance(was, dict) or isinstance(becomes, dict):
            if not (_is_mapping(was) and _is_mapping(becomes)):
                yield shown or "the whole object"
                return
            yield from self._of_mappings(was or {}, becomes or {}, path, shown)
        elif isinstance(was, list) and isinstance(becomes, list) and len(was) == len(becomes):
            for index, (one, other) in enumerate(zip(was, becomes, strict=True)):
                yield from self.differences(one, other, (*path, "*"), f"{shown}[{index}]")
        elif not (_is_same(was, becomes) or (_is_empty(was) and _is_empty(becomes))):
            yield shown

    def _of_mappings(
        self, old: dict[str, msgspec.Raw], new: dict[str, msgspec.Raw], path: _Path, shown: str
    ) -> Iterator[str]:
        keys_count = path in _MAPS or path in _QUANTITIES
        added = 0
        for key, becomes in new.items():
            was = old.get(key)
            if was == becomes:
                continue
            added += was is None
            at = f"{shown}{_step(key)}".removeprefix(".")
            if was is None and keys_count:
                yield at
            else:
                yield from self.differences(was or _NULL, becomes, (*path, key), at)
        if len(new) - added == len(old):
            return
        for key, was in old.items():
            if key in new:
                continue
            at = f"{shown}{_step(key)}".removeprefix(".")
            if keys_count:
                yield at
            else:
                yield from self.differences(was, _NULL, (*path, key), at)

    def _count(self, old: msgspec.Raw, new: msgspec.Raw) -> None:
        self._values += 1
        self._bytes += len(old) + len(new)
        if self._values > _MOST_VALUES or self._bytes > _MOST_BYTES:
            raise ValueError(
                f"too many values to compare: over {_MOST_VALUES} are written differently than "
                f"before, or the objects that contain them are too large"
            )


def _quantity(raw: msgspec.Raw, shown: str) -> int:
    if raw == _NULL:
        return 0
    text = bytes(raw)
    # A number is a quantity too, taken as it is written.
    literal = _string_decoder.decode(text) if text[:1] == b'"' else text.decode()
    try:
        return parse_quantity(literal)
    except ValueError:
        # Leave out the value, which may come from the existing claim.
        raise ValueError(f"{shown} is not a quantity") from None


def _step(key: str) -> str:
    key = key[:_LONGEST_KEY]
    return f".{key}" if key.replace("_", "").replace("-", "").isalnum() else f"[{key!r}]"


def _is_same(was: Any, becomes: Any) -> bool:
    # In Python, true equals 1.
    return type(was) is type(becomes) and bool(was == becomes)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict) or _is_empty(value)


def _is_empty(value: Any) -> bool:
    return value is None or value is False or value in ("", 0) or value in ([], {})
