"""Take JSON of any depth apart without recursion.

A recursive decoder fails on objects that the API server stores: ``metadata.managedFields`` is
free-form JSON, up to 10,000 levels deep, and may even contain half a surrogate pair. Here a value
is a run of bytes between brackets. The parts that are cut out are still checked to be JSON by Go's
grammar; a decoder must check the rest.

Any input takes time linear in its length. All functions raise ScanError for other input than they
expect.
"""

import re
from collections.abc import Callable, Iterable
from itertools import accumulate, islice

import msgspec

from noderestrict.errors import NoderestrictError

#: The API server reads and writes at most 10,000 levels per object; a list or a review adds a few.
DEEPEST = 10_100

# A depth far below what msgspec decodes on every version of Python.
_SHALLOW = 200
# How many bytes to read before splitting.
_BATCH = 2**22
# Bytes processed without letting other threads run, for about a millisecond.
_CHUNK = 2**15

_SPACE = rb"[ \t\n\r]*+"
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'

_string = re.compile(_STRING, re.DOTALL)
_scalar = re.compile(rb'[^ \t\n\r,:"\[\]{}]++')
_space = re.compile(_SPACE)
_start = re.compile(_SPACE + rb"\{")
_key = re.compile(_SPACE + rb"(" + _STRING + rb")" + _SPACE + rb":" + _SPACE, re.DOTALL)
_end = re.compile(_SPACE + rb"\}")
_next_member = re.compile(_SPACE + rb"([,}])")
_next_element = re.compile(_SPACE + rb"([,\]])")
_no_element = re.compile(_SPACE + rb"\]")
_run = re.compile(rb"(.)\1*+", re.DOTALL)
# Go accepts halves of surrogate pairs, msgspec does not.
_surrogate = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
# The change in depth at each byte outside of strings, as a signed byte.
_STEPS = bytes({0x5B: 1, 0x7B: 1, 0x5D: 255, 0x7D: 255}.get(byte, 0) for byte in range(256))
_NO_BRACKETS = bytes(byte for byte in range(256) if not _STEPS[byte])
_LAYERS = bytes(depth // _SHALLOW for depth in range(DEEPEST + 1))
_json = msgspec.json.Decoder(msgspec.Raw)


class ScanError(NoderestrictError, ValueError):
    """The input is not JSON of the expected shape."""


class _MoreError(Exception):
    """The input ends too early."""


def cut(data: bytes, paths: Iterable[tuple[bytes, ...]]) -> bytes:
    """Return an object with the values at some paths replaced by null.

    Args:
        data: JSON of an object.
        paths: keys from the outermost object inwards; paths that do not exist are ignored.
    """
    text = _Text(data)
    found: list[tuple[int, int]] = []
    try:
        end = _walk(text, 0, tuple(paths), found)
    except _MoreError:
        raise ScanError("the JSON is truncated, or malformed") from None
    if not _blank(data, end):
        raise ScanError("there is more than one JSON value")
    pieces: list[bytes] = []
    at = 0
    for first, last in found:
        text.check(first, last)
        pieces += (data[at:first], b"null")
        at = last
    return b"".join((*pieces, data[at:]))


def members(data: bytes, names: Iterable[bytes]) -> dict[bytes, bytes]:
    """Return the JSON of some members of an object; the last one wins if a name is repeated.

    Args:
        data: JSON of an object.
        names: of the members.
    """
    text = _Text(data)
    wanted = frozenset(names)
    found: dict[bytes, bytes] = {}

    def visit(key: bytes, start: int) -> int:
        end = text.skip(start)
        if key in wanted:
            found[key] = data[start:end]
        return end

    try:
        end = _object(text, 0, visit)
    except _MoreError:
        raise ScanError("the JSON is truncated, or malformed") from None
    if not _blank(data, end):
        raise ScanError("there is more than one JSON value")
    return found


def check(data: bytes) -> None:
    """Raise ScanError if the input is not a JSON value."""
    _Text(data).check(0, len(data))


class ListSplitter:
    """Splits a list into its items as it arrives; a decoder must check the items.

    Args:
        longest: the maximum length of an item in bytes.

    Attributes:
        metadata: JSON of the list's metadata, None until it has arrived.
    """

    def __init__(self, longest: int = 2**24) -> None:
        self.metadata: bytes | None = None
        self._longest = longest
        self._pieces: list[bytes] = []
        self._size = 0
        self._wanted = _BATCH
        self._state: Callable[[_Text, int, list[bytes]], int] = self._before
        self._first = True
        self._seen_items = False

    def add(self, piece: bytes) -> bool:
        """Add a piece of the list, and return whether there is enough to split."""
        self._pieces.append(piece)
        self._size += len(piece)
        return self._size >= self._wanted

    def split(self, *, last: bool = False) -> list[bytes]:
        """Return the items that are now complete.

        Args:
            last: the list is complete.
        """
        data = b"".join(self._pieces)
        text = _Text(data)
        items: list[bytes] = []
        at = 0
        try:
            while True:
                at = self._state(text, at, items)
        except _MoreError:
            pass
        if last and not (self._state == self._after and _blank(data, at)):
            raise ScanError("the list is truncated, or malformed")
        rest = data[at:]
        if len(rest) > self._longest:
            raise ScanError(f"an item is longer than {self._longest} bytes")
        self._pieces, self._size = [rest], len(rest)
        # Look at an incomplete item again only when twice as much of it has arrived.
        self._wanted = max(_BATCH, 2 * len(rest))
        return items

    # The states: each takes one step from a position, and returns the next position.

    def _before(self, text: "_Text", at: int, _items: list[bytes]) -> int:
        at = _match(_start, text.data, at).end()
        self._state = self._member
        return at

    def _member(self, text: "_Text", at: int, _items: list[bytes]) -> int:
        if self._first and (end := _end.match(text.data, at)):
            self._state = self._after
            return end.end()
        key = _match(_key, text.data, at)
        name, start = _name(key[1]), key.end()
        if name == b"items" and text.data[start : start + 1] == b"[":
            if self._seen_items:
                raise ScanError("the list has items twice")
            self._seen_items = True
            self._first, self._state = True, self._item
            return start + 1
        end_of_value = text.skip(start)
        if end_of_value == len(text.data):
            # More digits may follow.
            raise _MoreError
        text.check(start, end_of_value)
        value = text.data[start:end_of_value]
        if name == b"metadata":
            self.metadata = value
        elif name == b"items" and value != b"null":
            raise ScanError("the list's items are not an array")
        self._first, self._state = False, self._next
        return end_of_value

    def _next(self, text: "_Text", at: int, _items: list[bytes]) -> int:
        sign = _match(_next_member, text.data, at)
        self._state = self._member if sign[1] == b"," else self._after
        return sign.end()

    def _item(self, text: "_Text", at: int, items: list[bytes]) -> int:
        if self._first and (end := _no_element.match(text.data, at)):
            self._first, self._state = False, self._next
            return end.end()
        start = _match(_space, text.data, at).end()
        end_of_value = text.skip(start)
        sign = _match(_next_element, text.data, end_of_value)
        items.append(text.data[start:end_of_value])
        self._first = False
        if sign[1] == b"]":
            self._state = self._next
        return sign.end()

    def _after(self, _text: "_Text", _at: int, _items: list[bytes]) -> int:
        raise _MoreError


class _Text:
    """JSON with the change in depth at each byte."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._steps = _steps(data)

    def skip(self, at: int) -> int:
        """Return the end of the value that starts at a position."""
        begin = self.data[at : at + 1]
        if begin not in (b"[", b"{"):
            return _match(_string if begin == b'"' else _scalar, self.data, at).end()
        depth, size = 0, _CHUNK // 32
        while at < len(self.data):
            end = min(at + size, len(self.data))
            depths = self._depths(at, end, depth)
            if 0 in depths:
                return self._bracket(at, end, depths.index(0))
            if depths:
                depth = depths[-1]
            if depth > DEEPEST:
                raise ScanError(f"nested deeper than {DEEPEST} levels")
            at, size = end, min(2 * size, _CHUNK)
        raise _MoreError

    def _depths(self, at: int, end: int, depth: int) -> list[int]:
        """Return the depth after each bracket between two positions, given the depth before."""
        brackets = memoryview(self._steps[at:end].translate(None, b"\0")).cast("b")
        depths = list(accumulate(brackets, initial=depth))
        del depths[0]
        return depths

    def _bracket(self, at: int, end: int, number: int) -> int:
        """Return the position after the bracket of a number, counted from 0 at ``at``."""
        low, high = at, end
        while low < high:
            middle = (low + high) // 2
            if middle + 1 - at - self._steps.count(0, at, middle + 1) > number:
                high = middle
            else:
                low = middle + 1
        return low + 1

    def check(self, first: int, last: int) -> None:
        """Check a value by passing its layers to msgspec, the innermost first.

        A layer spans a fixed number of levels. Each of its values is checked on its own, and then
        replaced by a number in the layer around it.
        """
        layers = self._layers(first, last)
        if not layers:
            _decode(self.data[first:last])
            return
        parts: list[list[bytes]] = [[]]
        for run in _run.finditer(layers):
            layer, start, end = layers[run.start()], first + run.start(), first + run.end()
            if layer >= len(parts):
                parts.append([])
            elif layer < len(parts) - 1:
                # The bracket that closes the value is the first byte with the smaller depth.
                _decode(b"".join((*parts.pop(), self.data[start : start + 1])))
                parts[-1].append(b"0")
                start += 1
            parts[-1].append(self.data[start:end])
        if len(parts) > 1:
            raise ScanError("the JSON is truncated, or malformed")
        _decode(b"".join(parts[0]))

    def _layers(self, first: int, last: int) -> bytes:
        """Return the layer of the depth after each byte of a value; b"" for a single layer."""
        depth = deepest = 0
        for at in range(first, last, _CHUNK):
            depths = self._depths(at, min(at + _CHUNK, last), depth)
            if not depths:
                continue
            depth, deepest = depths[-1], max(deepest, max(depths))
            if min(depths) < 0 or deepest > DEEPEST:
                raise ScanError(f"brackets do not match, or are deeper than {DEEPEST} levels")
        if deepest < _SHALLOW:
            return b""
        depth = 0
        layers = []
        steps = memoryview(self._steps).cast("b")
        for at in range(first, last, _CHUNK):
            size = min(_CHUNK, last - at)
            if self._steps.count(0, at, at + size) == size:
                layers.append(_LAYERS[depth : depth + 1] * size)
                continue
            all_depths = list(accumulate(steps[at : at + size], initial=depth))
            depth = all_depths[-1]
            layers.append(bytes(map(_LAYERS.__getitem__, islice(all_depths, 1, None))))
        return b"".join(layers)


def _steps(data: bytes) -> bytes:
    """Return 1 for each byte that opens a bracket, 255 for each that closes one, 0 for others."""
    steps = []
    at = 0
    within = False
    while at < len(data):
        end = at + _CHUNK
        while data[end - 1 : end] == b"\\":
            # Do not split an escape sequence.
            end += 1
        # Replace escaped quotes in strings with other bytes.
        chunk = data[at:end].replace(rb"\\", b"__").replace(rb"\"", b"__")
        parts = chunk.split(b'"')
        strings = slice(0 if within else 1, None, 2)
        if b"".join(parts[strings]).translate(None, _NO_BRACKETS):
            # Replace strings, too, if any contains brackets.
            parts[strings] = [b"_" * len(string) for string in parts[strings]]
            chunk = b"_".join(parts)
        within ^= len(parts) % 2 == 0
        steps.append(chunk.translate(_STEPS))
        at = end
    return b"".join(steps)


def _decode(data: bytes) -> None:
    if b"\\u" in data:
        data = _surrogate.sub(b"", data.replace(rb"\\", b"__"))
    try:
        _json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ScanError(f"not JSON: {error}") from None


def _walk(
    text: _Text, at: int, paths: tuple[tuple[bytes, ...], ...], found: list[tuple[int, int]]
) -> int:
    """Record the positions of the values at some paths of an object, and return its end."""

    def visit(key: bytes, start: int) -> int:
        rests = tuple(path[1:] for path in paths if path[0] == key)
        if rests and all(rests) and text.data[start : start + 1] == b"{":
            return _walk(text, start, rests, found)
        end = text.skip(start)
        if rests and not all(rests):
            found.append((start, end))
        return end

    return _object(text, at, visit)


def _object(text: _Text, at: int, visit: Callable[[bytes, int], int]) -> int:
    """Visit each member of an object with its key and the start of its value; return its end.

    Args:
        text: holds the object.
        at: where it starts.
        visit: returns the end of the value.
    """
    begin = _start.match(text.data, at)
    if begin is None:
        raise ScanError("not a JSON object")
    at = begin.end()
    if empty := _end.match(text.data, at):
        return empty.end()
    while True:
        key = _match(_key, text.data, at)
        sign = _match(_next_member, text.data, visit(_name(key[1]), key.end()))
        at = sign.end()
        if sign[1] == b"}":
            return at


def _name(key: bytes) -> bytes:
    if b"\\" not in key:
        return key[1:-1]
    try:
        return msgspec.json.decode(key, type=str).encode()
    except (msgspec.DecodeError, UnicodeError):
        # No name in the API contains half a surrogate pair.
        return key


def _match(pattern: re.Pattern[bytes], data: bytes, at: int) -> re.Match[bytes]:
    found = pattern.match(data, at)
    if found is None:
        raise _MoreError
    return found


def _blank(data: bytes, at: int) -> bool:
    """Return whether only space follows a position."""
    return _match(_space, data, at).end() == len(data)
