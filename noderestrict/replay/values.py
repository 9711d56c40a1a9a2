"""Take the JSON values out of a log as it arrives, whatever stands around them.

A value may follow a prefix on its line, others may follow it, and it may span lines. Lists in a
document are taken apart, so that a document of any size is read in little memory. What a value
holds is not checked here: a decoder must do that.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from noderestrict.replay.sources import BYTE_ORDER_MARK, MAX_LINE_BYTES, MIB

_PIECE = MIB
# Where a value starts; "[pod/name/container]" and "[12.3]" are prefixes.
_start = re.compile(rb'\{\s*(?:["}]|$)|\[\s*(?:[\[{"\]]|$)')
# A value in a string, as logfmt and CSV write it.
_quotes = re.compile(rb'\{(?:\\"|"")')
_space = re.compile(rb"[ \t\r\n]*+")
_scalar = re.compile(rb'[^ \t\r\n,:"\[\]{}]++')
_string = re.compile(rb'"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"', re.DOTALL)
# A group of its strings is not possessive, because up to Python 3.11.4 such a group does not give
# back what it took before it failed (gh-106052). The count bounds what it remembers instead.
_no_brackets = re.compile(
    rb'[^"{}\[\]]*+(?:"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"[^"{}\[\]]*+){0,1000}', re.DOTALL
)
# A container runtime writes long lines in parts: P for each but the last, which is F.
_part = re.compile(rb"\d{4}-\d\d-\d\dT\S+ (stdout|stderr) ([PF])(?::\S*)? ")
_QUOTE, _OPENING = ord('"'), b"{["


@dataclass(frozen=True, slots=True)
class Value:
    """A JSON value of a log, or a line without one.

    Attributes:
        line: where it starts, counted from 1.
        raw: its JSON, b"" if the line has none.
        prefix: what stands before it on its line.
        problem: why its JSON is incomplete, "" if it looks complete.
    """

    line: int
    raw: bytes
    prefix: bytes = b""
    problem: str = ""


CUT_OFF = "the JSON is cut off"
LIST_CUT_OFF = "the document with a list is cut off here, or broken"
TOO_LONG = f"it has over {MAX_LINE_BYTES // MIB} MiB, the limit"


@dataclass(frozen=True, slots=True)
class Keys:
    """The members of an object that may lead to what is looked for.

    Attributes:
        objects: whose value may be an object with more.
        lists: whose value may be a list of values.
    """

    objects: frozenset[bytes] = frozenset()
    lists: frozenset[bytes] = frozenset()


class _MoreError(Exception):
    """The data ends too early."""


class _BadError(Exception):
    """The data is not JSON."""


class ValueReader:
    """Reads the values of a stream.

    Args:
        stream: of UTF-8.
        keys: whose lists are taken apart.

    Attributes:
        bytes: read so far.
    """

    def __init__(self, stream: BinaryIO, keys: Keys) -> None:
        self._stream = stream
        self._keys = keys
        self._rest, self._at = b"", 0
        self._number = 0
        self._parts: dict[bytes, tuple[int, bytes]] = {}
        self.bytes = 0

    def __iter__(self) -> Iterator[Value]:
        """Yield each value in order."""
        while line := self._read_line():
            self._number += 1
            if len(line) < _PIECE or line.endswith(b"\n"):
                yield from self._line(line)
                continue
            start = _start.search(line.lstrip(b"\0 \t\r\n" + BYTE_ORDER_MARK), 0, 16)
            if start is not None and start.start() == 0:
                yield from self._document(line.lstrip(b"\0" + BYTE_ORDER_MARK))
            elif line.strip(b"\0"):
                yield from self._long_line(line)
            else:
                self._number -= 1
        for number, part in self._parts.values():
            yield Value(number, part, problem=CUT_OFF)

    def _read_line(self) -> bytes:
        """Return the rest of a line, or as much of it as fits into memory with ease."""
        if self._at < len(self._rest):
            end = self._rest.find(b"\n", self._at) + 1
            line = self._rest[self._at : end or len(self._rest)]
            self._at += len(line)
            if end:
                return line
        else:
            line = b""
        more = self._stream.readline(_PIECE)
        self.bytes += len(more)
        return line + more if line else more

    def _read_piece(self) -> bytes:
        if self._at < len(self._rest):
            piece, self._at = self._rest[self._at :], len(self._rest)
            return piece
        piece = self._stream.read(_PIECE)
        self.bytes += len(piece)
        return piece

    def _unread(self, rest: bytes) -> None:
        self._rest, self._at = rest + self._rest[self._at :], 0

    def _long_line(self, line: bytes) -> Iterator[Value]:
        """Yield the values of a line with a prefix, which is read as a whole."""
        pieces, size = [line], len(line)
        while not pieces[-1].endswith(b"\n") and (piece := self._read_line()):
            size += len(piece)
            if size <= MAX_LINE_BYTES:
                pieces.append(piece)
            else:
                pieces = [piece]
        if size > MAX_LINE_BYTES:
            yield Value(self._number, b"", problem=TOO_LONG)
        else:
            yield from self._line(b"".join(pieces))

    def _line(self, line: bytes) -> Iterator[Value]:
        number = self._number
        text = line.replace(b"\0", b"") if b"\0" in line else line
        text = text.removeprefix(BYTE_ORDER_MARK)
        if text[:1] != b"{" and (part := _part.match(text)):
            joined = self._joined(part, text[part.end() :].rstrip(b"\r\n"))
            if joined is None:
                return
            number, text = joined
        text = text.strip()
        while text:
            start = _start.search(text)
            if start is None or _quotes.search(text, 0, start.start() + 3):
                yield Value(number, b"", text)
                return
            at = start.start()
            if text[at] == _OPENING[0] and text[-1:] == b"}" and not _several(text):
                yield Value(number, text[at:], text[:at])
                return
            try:
                end = _end(text + b"\n", at)
            except (_MoreError, _BadError) as error:
                opens = text[-1:] in (b"{", b"[", b",", b":")
                alone = not text[:at].strip() or at == len(text) - 1
                if isinstance(error, _MoreError) and opens and alone:
                    yield from self._document(text[at:] + b"\n")
                else:
                    yield Value(number, text[at:], text[:at], CUT_OFF)
                return
            value, prefix, text = text[at:end], text[:at], text[end:].lstrip(b" \t,;")
            if value[:1] == b"[":
                splitter = _Splitter(self._keys, number)
                splitter.add(value)
                try:
                    yield from splitter.values()
                except _BadError:
                    yield Value(number, value, prefix, CUT_OFF)
            else:
                yield Value(number, value, prefix)
            if _start.search(text) is None:
                return

    def _joined(self, part: re.Match[bytes], text: bytes) -> tuple[int, bytes] | None:
        """Return a line in parts with its number once it is complete."""
        stream, tag = part[1], part[2]
        number, before = self._parts.pop(stream, (self._number, b""))
        if tag == b"P" and len(before) + len(text) <= MAX_LINE_BYTES:
            self._parts[stream] = number, before + text
            return None
        return number, before + text

    def _document(self, first: bytes) -> Iterator[Value]:
        """Yield the values of a document that starts on the line of now."""
        number = self._number
        splitter = _Splitter(self._keys, number)
        piece = first
        problem = ""
        while True:
            splitter.add(piece)
            try:
                for value in splitter.values():
                    long = len(value.raw) > MAX_LINE_BYTES
                    yield Value(value.line, b"", problem=TOO_LONG) if long else value
            except _BadError:
                problem = CUT_OFF
                break
            if splitter.done:
                break
            if splitter.held > MAX_LINE_BYTES:
                problem = TOO_LONG
                break
            piece = self._read_piece()
            if not piece:
                problem = CUT_OFF
                break
        line, rest = splitter.end()
        if problem:
            # Whatever follows the first line may be complete.
            end = rest.find(b"\n") + 1 if piece or b'\n{"' in rest else 0
            raw = b"" if problem == TOO_LONG else rest[: end or len(rest)]
            if splitter.taken_apart and problem == CUT_OFF:
                problem = LIST_CUT_OFF
            yield Value(line, raw, problem=CUT_OFF if end and problem == TOO_LONG else problem)
            rest = rest[end:] if end else b""
            line += 1
            if not end:
                self._skip_line()
        self._number = line - 1
        self._unread(rest)

    def _skip_line(self) -> None:
        while (piece := self._read_line()) and not piece.endswith(b"\n"):
            pass


def is_cut_off(line: bytes) -> bool:
    """Return whether the first value of a line ends too early; no value does not."""
    start = _start.search(line)
    if start is None:
        return False
    try:
        _end(line.rstrip() + b"\n", start.start())
    except (_MoreError, _BadError):
        return True
    return False


def _several(text: bytes) -> bool:
    """Return whether a line may hold more than one value."""
    return b"}{" in text or b"} {" in text


def _end(data: bytes, at: int) -> int:
    """Return the end of the value that starts at a position."""
    if data[at] not in _OPENING:
        end = _match(_string if data[at] == _QUOTE else _scalar, data, at)
        if end == len(data) and data[at] != _QUOTE:
            raise _MoreError
        return end
    depth = 0
    while True:
        at = _bracket(data, at)
        if at == len(data):
            raise _MoreError
        if data[at] == _QUOTE:
            # No string holds the end of a line.
            raise _BadError if data.find(b"\n", at) >= 0 else _MoreError
        depth += 1 if data[at] in _OPENING else -1
        at += 1
        if depth == 0:
            return at


def _bracket(data: bytes, at: int) -> int:
    """Return where the next bracket outside of strings is, or else a string without an end."""
    while (end := _match(_no_brackets, data, at)) > at:
        at = end
    return at


def _match(pattern: re.Pattern[bytes], data: bytes, at: int) -> int:
    found = pattern.match(data, at)
    if found is None:
        raise _MoreError if data.find(b"\n", at) < 0 else _BadError
    return found.end()


class _Splitter:
    """Splits a document into its values: the items of its known lists, else all of it.

    Args:
        keys: whose lists are taken apart.
        line: where the document starts.

    Attributes:
        done: it is complete.
        taken_apart: a list was found in it.
    """

    def __init__(self, keys: Keys, line: int) -> None:
        self._keys = keys
        self._data, self._at = b"", 0
        self._line, self._counted = line, 0
        self._open: list[int] = []
        # The value that is yielded as a whole if no list is found in it: start, line, depth.
        self._value: tuple[int, int, int] | None = None
        self._step = self._item
        self.done = self.taken_apart = False

    @property
    def held(self) -> int:
        """Bytes that are held until the value that they belong to is complete."""
        return len(self._data) - self._at if self._value is None else len(self._data)

    def add(self, piece: bytes) -> None:
        """Add the next bytes."""
        keep = self._at if self._value is None else self._value[0]
        self._line_at(max(keep, self._counted))
        self._data = self._data[keep:] + piece
        self._at -= keep
        self._counted -= keep
        if self._value is not None:
            self._value = (0, *self._value[1:])

    def values(self) -> Iterator[Value]:
        """Yield each value that is now complete.

        Raises:
            _BadError: this is not JSON.
        """
        try:
            while not self.done:
                self._at = _match(_space, self._data, self._at)
                if self._at == len(self._data):
                    return
                value = self._step()
                if value is not None:
                    yield value
        except _MoreError:
            if self._value is not None and self._data.find(b'\n{"', self._value[0] + 1) >= 0:
                # In an indented object, nothing but its end starts a line.
                raise _BadError from None

    def end(self) -> tuple[int, bytes]:
        """Return what is left with its line."""
        if self._value is not None and not self.done:
            return self._value[1], self._data[self._value[0] :]
        return self._line_at(self._at), self._data[self._at :]

    def _line_at(self, at: int) -> int:
        self._line += self._data.count(b"\n", self._counted, at)
        self._counted = at
        return self._line

    def _whole(self, start: int, line: int) -> Value:
        return Value(line, self._data[start : self._at])

    # The steps: each takes one token or value from a position that holds no space.

    def _item(self) -> Value | None:
        """Take the document, or an item of a list."""
        begin = self._data[self._at]
        if begin == ord("]") and self._open:
            return self._after()
        start, line = self._at, self._line_at(self._at)
        if begin == ord("{"):
            self._value = start, line, len(self._open)
            self._enter(begin)
            return None
        if begin == ord("[") and not self._open:
            self._enter(begin)
            return None
        self._at = _end(self._data, start)
        self._step = self._after
        return self._whole(start, line)

    def _enter(self, begin: int) -> None:
        self._open.append(begin)
        self._at += 1
        if begin == ord("["):
            self._value = None
            self.taken_apart = True
            self._step = self._item
        else:
            self._step = self._member

    def _member(self) -> Value | None:
        """Take a key with its value, or enter the value."""
        data = self._data
        if data[self._at] == ord("}"):
            return self._after()
        if data[self._at] != _QUOTE:
            raise _BadError
        end = _match(_string, data, self._at)
        key = data[self._at + 1 : end - 1]
        colon = _match(_space, data, end)
        begin = _match(_space, data, colon + 1)
        if begin >= len(data):
            raise _MoreError
        if data[colon] != ord(":"):
            raise _BadError
        into = self._keys.lists if data[begin] == ord("[") else self._keys.objects
        if data[begin] in _OPENING and key in into:
            self._at = begin
            self._enter(data[begin])
            return None
        self._at = _end(data, begin)
        self._step = self._after
        return None

    def _after(self) -> Value | None:
        """Take what follows a value."""
        sign = self._data[self._at]
        inside = self._open[-1]
        if sign == ord(","):
            self._at += 1
            self._step = self._item if inside == ord("[") else self._member
            return None
        if sign != (ord("]") if inside == ord("[") else ord("}")):
            raise _BadError
        self._at += 1
        self._open.pop()
        self._step = self._after
        self.done = not self._open
        value = self._value
        if value is None or value[2] != len(self._open):
            return None
        self._value = None
        return self._whole(value[0], value[1])
