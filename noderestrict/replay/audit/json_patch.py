"""JSON patches: RFC 6902."""

import copy
from collections.abc import Iterator
from typing import Any

import jsonpatch

from noderestrict.replay.audit.patches import (
    FIXED,
    MAPS,
    Object,
    Patch,
    Path,
    unknown,
    unknown_item,
)


class JSONPatch(Patch):
    """A patch that is a list of operations.

    Args:
        value: the operations.

    Raises:
        ValueError: it is not a JSON patch.
    """

    def __init__(self, value: list[Any]) -> None:
        try:
            # It checks operations and pointers.
            self._patch = jsonpatch.JsonPatch(value)
            self._operations = [_Operation(one) for one in value]
        except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
            raise ValueError(str(error)) from None
        except (TypeError, AttributeError, KeyError) as error:
            raise ValueError(f"not a JSON patch: {error}") from None

    def paths(self) -> Iterator[Path]:
        """Yield the path of each value that the operations name."""
        for one in self._operations:
            if one.op == "test":
                continue
            yield one.field
            if one.op == "move":
                yield one.source_field

    def settles(self) -> Iterator[Path]:
        """Yield the path of each value that is added, replaced or removed as a whole."""
        for one in self._operations:
            if one.op in ("add", "replace", "remove") and one.path == one.field:
                yield one.path

    def before(self, after: Object) -> Object:
        """Return the object with all operations undone, the last one first."""
        before = copy.deepcopy(after)
        for one in reversed(self._operations):
            _undo(before, one)
        return before

    def applied(self, before: Object) -> Object:
        """Return the object after the patch.

        Raises:
            ValueError: the patch does not fit.
        """
        try:
            patched = self._patch.apply(before)
        except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
            raise ValueError(str(error)) from None
        except (TypeError, AttributeError, KeyError, IndexError) as error:
            raise ValueError(f"the patch does not fit: {error}") from None
        return patched if isinstance(patched, dict) else {}

    def applied_to_part(self, before: Object) -> Object:
        """Return what the operations make of a part, which need not have what they need."""
        after = copy.deepcopy(before)
        for one in self._operations:
            if one.op in ("add", "replace"):
                _put(after, one.path, one.value)
            elif one.op == "remove":
                _put_back(after, one.path, None)
        return after

    def precondition(self) -> str:
        """Return the resourceVersion that a test demands."""
        for one in self._operations:
            if one.op == "test" and one.path == ("metadata", "resourceVersion"):
                return str(one.value)
        return ""


class _Operation:
    """An operation with its pointers taken apart."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.op = str(given["op"])
        self.value = given.get("value")
        self.path: Path = _steps(given["path"])
        self.source: Path = _steps(given["from"]) if "from" in given else ()

    @property
    def field(self) -> Path:
        """The path that the operation names, without the index of a list and what is in it."""
        return _field(self.path)

    @property
    def source_field(self) -> Path:
        """The path that a move takes a value from, likewise."""
        return _field(self.source)


def _steps(pointer: str) -> Path:
    return tuple(str(part) for part in jsonpatch.JsonPointer(pointer).parts)


def _field(path: Path) -> Path:
    # A key of a map is the last step that can be told apart: keys may look like an index.
    depth = 3 if path[:2] in MAPS else next(
        (at for at, step in enumerate(path) if at > 1 and (step == "-" or step.isdigit())),
        len(path),
    )  # fmt: skip
    return path[:depth]


def _undo(value: Object, one: _Operation) -> None:
    if len(one.path) < 2 or one.path[:2] in FIXED:
        return
    if one.op == "move":
        moved = _at(value, one.path)
        _put_back(value, one.path, None)
        _put_back(value, one.source, moved, inserts=True)
    elif one.op in ("add", "copy"):
        _put_back(value, one.path, None)
    elif one.path in MAPS:
        # Which keys it held cannot be told.
        return
    elif one.op == "remove":
        _put_back(value, one.path, _unknown(one.path), inserts=True)
    elif one.op == "replace":
        _put_back(value, one.path, _unknown(one.path, one.value))
    elif one.op == "test":
        _put_back(value, one.path, one.value)


def _unknown(path: Path, becomes: Any = None) -> Any:
    if isinstance(becomes, bool):
        return not becomes
    field = _field(path)
    if len(field) < len(path):
        return unknown_item(field) if len(path) == len(field) + 1 else unknown(path)
    return unknown(path)


def _at(value: Any, path: Path) -> Any:
    for step in path:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _put_back(value: Any, path: Path, given: Any, *, inserts: bool = False) -> None:
    """Put a value at a path, or take away what is there if it is None."""
    if not path:
        return
    *parents, last = path
    for at, step in enumerate(parents):
        inner = _at(value, (step,))
        if inner is None and isinstance(value, dict) and given is not None:
            inner = value[step] = _empty(path[at + 1])
        value = inner
    if isinstance(value, dict):
        if given is None:
            value.pop(last, None)
        else:
            value[last] = given
    elif isinstance(value, list):
        index = len(value) - 1 if last == "-" else int(last) if last.isdigit() else -1
        if given is None and 0 <= index < len(value):
            del value[index]
        elif inserts and 0 <= index <= len(value):
            value.insert(index, given)
        elif 0 <= index < len(value):
            value[index] = given


def _put(value: Any, path: Path, given: Any) -> None:
    """Put a value at a path, and make the objects and the list on the way."""
    if not path:
        return
    *parents, last = path
    for at, step in enumerate(parents):
        inner = _at(value, (step,))
        if inner is None and isinstance(value, dict):
            inner = value[step] = _empty(path[at + 1])
        value = inner
    if isinstance(value, dict):
        value[last] = given
    elif isinstance(value, list):
        value.insert(int(last) if last.isdigit() else len(value), given)


def _empty(step: str) -> Any:
    """Return what a step leads into."""
    return [] if step == "-" or step.isdigit() else {}
