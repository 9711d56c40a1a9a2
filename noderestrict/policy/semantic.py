"""Compare whole objects by meaning, as apiequality.Semantic of apimachinery does.

Null, missing and empty are equal, but for fields that are pointers in Go; quantities are compared
by value.
"""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from noderestrict.errors import NoderestrictError
from noderestrict.policy.quantity import parse_quantity

#: Keys from the top of an object, with ``*`` for any index, and KEY=VALUE for an item by its key.
Path = tuple[str, ...]


class IncomparableError(NoderestrictError):
    """Two objects cannot be compared."""


@dataclass(frozen=True)
class Fields:
    """Which fields of a kind are compared in a way of their own.

    Attributes:
        pointers: where null differs from an empty value.
        quantities: maps of quantities.
        maps: in which a key with an empty value differs from a missing key.
        lists: lists that are compared item by item, whatever their order, and the key of an item.
        scalars: whether "", 0 and false differ from a missing value everywhere.
    """

    pointers: frozenset[Path] = frozenset()
    quantities: frozenset[Path] = frozenset()
    maps: frozenset[Path] = frozenset()
    lists: Mapping[Path, str] = field(default_factory=dict)
    scalars: bool = False


_NULL = msgspec.Raw(b"null")
#: A value of which one level is decoded; everything below it stays raw.
Value = dict[str, msgspec.Raw] | list[msgspec.Raw] | str | int | float | bool | None
_decoder = msgspec.json.Decoder(Value)
_string_decoder = msgspec.json.Decoder(str)
_item_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
# An API server writes equal values identically, so in an honest update only a few outer objects
# differ in text: those that contain what a node may change. A node can send tens of thousands.
_MOST_VALUES = 500
_MOST_BYTES = 16 * 1024 * 1024
_LONGEST_KEY = 256


class Comparison:
    """Compares two objects: first by text, then by meaning.

    Args:
        fields: that equal texts and values do not tell apart.
        ignored: paths of values that may differ.
    """

    def __init__(self, fields: Fields, ignored: Container[Path]) -> None:
        self._fields = fields
        self._ignored = ignored
        self._values = self._bytes = 0

    def differences(
        self, old: msgspec.Raw, new: msgspec.Raw, path: Path = (), shown: str = ""
    ) -> Iterator[str]:
        """Yield the paths at which two values are not semantically equal.

        Args:
            old: JSON; null if the value is missing.
            new: likewise.
            path: of both, with ``*`` for any index.
            shown: the same path, as people write it.

        Raises:
            IncomparableError: a quantity is not valid, or there is too much to compare.
            msgspec.MsgspecError, UnicodeDecodeError: a value is undecodable.
        """
        if path not in self._ignored and old != new:
            yield from self._of_raw(old, new, path, shown)

    def _of_raw(self, old: msgspec.Raw, new: msgspec.Raw, path: Path, shown: str) -> Iterator[str]:
        """Yield the differences of two values that are not written alike."""
        self._count(old, new)
        if path[:-1] in self._fields.quantities:
            if _quantity(old, shown) != _quantity(new, shown):
                yield shown
            return
        yield from self._of_values(_decoder.decode(old), _decoder.decode(new), path, shown)

    def of_fields(self, old: Mapping[str, Value], new: Mapping[str, Value]) -> Iterator[str]:
        """Yield the paths at which two objects differ, likewise, given their fields."""
        for key in {**old, **new}:
            was, becomes = old.get(key), new.get(key)
            if not _is_same(was, becomes) and (path := (key,)) not in self._ignored:
                yield from self._of_values(was, becomes, path, _at("", key))

    def _of_values(self, was: Any, becomes: Any, path: Path, shown: str) -> Iterator[str]:
        if path in self._fields.pointers and (was is None) != (becomes is None):
            yield shown
        elif isinstance(was, dict) or isinstance(becomes, dict):
            if not (self._is_mapping(was) and self._is_mapping(becomes)):
                yield shown or "the whole object"
                return
            yield from self._of_mappings(was or {}, becomes or {}, path, shown)
        elif path in self._fields.lists and (_is_sequence(was) and _is_sequence(becomes)):
            yield from self._of_items(was or [], becomes or [], path, shown)
        elif isinstance(was, list) and isinstance(becomes, list) and len(was) == len(becomes):
            for index, (one, other) in enumerate(zip(was, becomes, strict=True)):
                yield from self.differences(one, other, (*path, "*"), f"{shown}[{index}]")
        elif not (_is_same(was, becomes) or (self._is_empty(was) and self._is_empty(becomes))):
            yield shown

    def _is_empty(self, value: Any) -> bool:
        if self._fields.scalars and isinstance(value, str | bool | int | float):
            return False
        return _is_empty(value)

    def _is_mapping(self, value: Any) -> bool:
        return isinstance(value, dict) or self._is_empty(value)

    def _of_items(
        self, old: list[msgspec.Raw], new: list[msgspec.Raw], path: Path, shown: str
    ) -> Iterator[str]:
        """Yield the differences of lists whose items have a key; the whole list if one lacks it."""
        key = self._fields.lists[path]
        try:
            were, become = _by_key(old, key), _by_key(new, key)
        except msgspec.ValidationError:
            yield shown
            return
        for value in {**were, **become}:
            was, becomes = were.get(value, _NULL), become.get(value, _NULL)
            step = f"{key}={value[:_LONGEST_KEY]}"
            at = f"{shown}[{step}]"
            if was == _NULL or becomes == _NULL:
                if (*path, step) not in self._ignored:
                    yield at
            else:
                yield from self.differences(was, becomes, (*path, step), at)

    def _of_mappings(
        self,
        old: Mapping[str, msgspec.Raw],
        new: Mapping[str, msgspec.Raw],
        path: Path,
        shown: str,
    ) -> Iterator[str]:
        keys_count = path in self._fields.maps or path in self._fields.quantities
        added = 0
        for key, becomes in new.items():
            was = old.get(key)
            if was == becomes:
                continue
            added += was is None
            below = (*path, key)
            if was is None and keys_count:
                yield _at(shown, key)
            elif below not in self._ignored and (was or _NULL) != becomes:
                yield from self._of_raw(was or _NULL, becomes, below, _at(shown, key))
        if len(new) - added == len(old):
            return
        for key, was in old.items():
            if key in new:
                continue
            if keys_count:
                yield _at(shown, key)
            else:
                yield from self.differences(was, _NULL, (*path, key), _at(shown, key))

    def _count(self, old: msgspec.Raw, new: msgspec.Raw) -> None:
        self._values += 1
        self._bytes += len(old) + len(new)
        if self._values > _MOST_VALUES or self._bytes > _MOST_BYTES:
            raise IncomparableError(
                f"too many values to compare: over {_MOST_VALUES} are written differently than "
                f"before, or the objects that contain them are too large"
            )


def _by_key(items: list[msgspec.Raw], key: str) -> dict[str, msgspec.Raw]:
    """Return the items of a list by the value of their key.

    Raises:
        IncomparableError: there are too many.
        msgspec.ValidationError: an item has no such key, or two have the same value of it.
    """
    if len(items) > _MOST_VALUES:
        raise IncomparableError(f"too many values to compare: a list has over {_MOST_VALUES}")
    found: dict[str, msgspec.Raw] = {}
    for item in items:
        value = _string_decoder.decode(_item_decoder.decode(item).get(key, _NULL))
        if value in found:
            raise msgspec.ValidationError
        found[value] = item
    return found


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
        raise IncomparableError(f"{shown} is not a quantity") from None


def _at(shown: str, key: str) -> str:
    """Return the path of a member as people write it."""
    return f"{shown}{_step(key)}".removeprefix(".")


def _step(key: str) -> str:
    key = key[:_LONGEST_KEY]
    return f".{key}" if key.replace("_", "").replace("-", "").isalnum() else f"[{key!r}]"


def _is_same(was: Any, becomes: Any) -> bool:
    # In Python, true equals 1.
    return type(was) is type(becomes) and bool(was == becomes)


def _is_sequence(value: Any) -> bool:
    return value is None or isinstance(value, list)


def _is_empty(value: Any) -> bool:
    return value is None or value is False or value in ("", 0) or value in ([], {})
