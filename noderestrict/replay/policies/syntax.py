"""Take the syntax tree of a CEL expression apart, and put another one together.

The tree is a ``cel.expr.Expr`` protocol buffer. So little of it is needed that its wire format is
read here, where a tree of messages would need generated code.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence

#: Field numbers of ``cel.expr.Expr`` and of the messages in it.
ID, CONST, IDENT, SELECT, CALL, LIST, STRUCT, COMPREHENSION = 2, 3, 4, 5, 6, 7, 8, 9
_NAME = 1
_OPERAND, _FIELD, _TEST_ONLY = 1, 2, 3
_TARGET, _FUNCTION, _ARGS = 1, 2, 3
_ELEMENTS, _OPTIONAL_INDICES = 1, 2
_ENTRIES, _MAP_KEY, _VALUE, _OPTIONAL_ENTRY = 2, 3, 4, 5
_ITER_VAR, _ITER_RANGE, _ACCU_VAR, _ACCU_INIT, _CONDITION, _STEP, _RESULT, _ITER_VAR2 = range(1, 9)
#: Where expressions are, by what is around them; those of a STRUCT are in its entries.
_BELOW = {
    SELECT: (_OPERAND,),
    CALL: (_TARGET, _ARGS),
    LIST: (_ELEMENTS,),
    STRUCT: (_ENTRIES,),
    COMPREHENSION: (_ITER_RANGE, _ACCU_INIT, _CONDITION, _STEP, _RESULT),
}
_IN_ENTRY = (_MAP_KEY, _VALUE)
_BOOL_VALUE, _STRING_VALUE = 2, 6
_VARINT, _BYTES = 0, 2

#: (field number, value): numbers for varints and fixed values, bytes for what has a length.
Fields = list[tuple[int, int, bytes | int]]

#: The varints of one byte, which nearly all are.
_SMALL = [bytes([value]) for value in range(0x80)]
# Far above what a parser counts to.
_ids = itertools.count(1 << 24)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    if (first := data[at]) < 0x80:
        return first, at + 1
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _varint(value: int) -> bytes:
    if value < 0x80:
        return _SMALL[value]
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _packed(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _read_varint(data, at)
        yield value


def parse(data: bytes) -> Fields:
    """Return the fields of a message in their order: number, wire type, value."""
    fields: Fields = []
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _read_varint(data, at)
            fields.append((number, wire, value))
            continue
        if wire == _BYTES:
            length, at = _read_varint(data, at)
        else:
            length = 8 if wire == 1 else 4
        fields.append((number, wire, data[at : at + length]))
        at += length
    return fields


def build(fields: Fields) -> bytes:
    """Return a message of fields."""
    out = bytearray()
    for number, wire, value in fields:
        out += _varint(number << 3 | wire)
        if isinstance(value, int):
            out += _varint(value)
        else:
            if wire == _BYTES:
                out += _varint(len(value))
            out += value
    return bytes(out)


def _expr(kind: int, fields: Fields) -> bytes:
    return build([(ID, _VARINT, next(_ids)), (kind, _BYTES, build(fields))])


def ident(name: str) -> bytes:
    """Return a name."""
    return _expr(IDENT, [(_NAME, _BYTES, name.encode())])


def boolean(value: bool) -> bytes:  # noqa: FBT001 (it is all there is to say)
    """Return ``true`` or ``false``."""
    return _expr(CONST, [(_BOOL_VALUE, _VARINT, int(value))])


def text(value: str) -> bytes:
    """Return a string."""
    return _expr(CONST, [(_STRING_VALUE, _BYTES, value.encode())])


def empty_map() -> bytes:
    """Return ``{}``."""
    return _expr(STRUCT, [])


def select(operand: bytes, field: str, *, test_only: bool = False) -> bytes:
    """Return ``operand.field``, or ``has(operand.field)``."""
    fields: Fields = [(_OPERAND, _BYTES, operand), (_FIELD, _BYTES, field.encode())]
    if test_only:
        fields.append((_TEST_ONLY, _VARINT, 1))
    return _expr(SELECT, fields)


def call(function: str, *args: bytes, target: bytes | None = None) -> bytes:
    """Return ``function(args…)``, or ``target.function(args…)``."""
    fields: Fields = [] if target is None else [(_TARGET, _BYTES, target)]
    fields.append((_FUNCTION, _BYTES, function.encode()))
    fields += [(_ARGS, _BYTES, arg) for arg in args]
    return _expr(CALL, fields)


def bind(name: str, value: bytes, result: bytes) -> bytes:
    """Return ``result``, in which ``name`` is ``value``: a loop over nothing."""
    return _expr(
        COMPREHENSION,
        [
            (_ITER_VAR, _BYTES, b"#unused"),
            (_ITER_RANGE, _BYTES, _expr(LIST, [])),
            (_ACCU_VAR, _BYTES, name.encode()),
            (_ACCU_INIT, _BYTES, value),
            (_CONDITION, _BYTES, boolean(value=False)),
            (_STEP, _BYTES, ident(name)),
            (_RESULT, _BYTES, result),
        ],
    )


class Node:
    """An expression, one level of which is taken apart.

    Attributes:
        kind: field number of what it is: CONST, IDENT, SELECT, …
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.kind = 0
        self._around: Fields = []
        self._inner: Fields = []
        for number, wire, value in parse(data):
            if number != ID and isinstance(value, bytes):
                self.kind, self._inner = number, parse(value)
            else:
                self._around.append((number, wire, value))

    def _first(self, number: int) -> bytes | None:
        return next((v for n, _, v in self._inner if n == number and isinstance(v, bytes)), None)

    def _text(self, number: int) -> str:
        return (self._first(number) or b"").decode()

    @property
    def id(self) -> int:
        """What types and positions are told by."""
        return next((v for n, _, v in self._around if n == ID and isinstance(v, int)), 0)

    @property
    def name(self) -> str:
        """Of an IDENT."""
        return self._text(_NAME).removeprefix(".")

    @property
    def operand(self) -> bytes:
        """Of a SELECT."""
        return self._first(_OPERAND) or b""

    @property
    def field(self) -> str:
        """Of a SELECT."""
        return self._text(_FIELD)

    @property
    def test_only(self) -> bool:
        """Whether a SELECT is ``has()``."""
        return any(n == _TEST_ONLY and v for n, _, v in self._inner)

    @property
    def function(self) -> str:
        """Of a CALL."""
        return self._text(_FUNCTION)

    @property
    def args(self) -> list[bytes]:
        """Of a CALL."""
        return [v for n, _, v in self._inner if n == _ARGS and isinstance(v, bytes)]

    @property
    def text(self) -> str:
        """Of a CONST that is a string, else ""."""
        return self._text(_STRING_VALUE)

    @property
    def names(self) -> Sequence[str]:
        """The names that a COMPREHENSION declares."""
        return [self._text(n) for n in (_ITER_VAR, _ITER_VAR2, _ACCU_VAR)]

    def elements(self) -> Iterator[tuple[bytes, bool]]:
        """Yield each element of a LIST, and whether it is optional."""
        optional: set[int] = set()
        for number, _, value in self._inner:
            if number == _OPTIONAL_INDICES:
                optional.update([value] if isinstance(value, int) else _packed(value))
        elements = [v for n, _, v in self._inner if n == _ELEMENTS and isinstance(v, bytes)]
        for at, element in enumerate(elements):
            yield element, at in optional

    def entries(self) -> Iterator[tuple[bytes, bytes, bool]]:
        """Yield each key of a STRUCT with its value, and whether it is optional."""
        for number, _, entry in self._inner:
            if number == _ENTRIES and isinstance(entry, bytes):
                members = {n: v for n, _, v in parse(entry)}
                key, value = members.get(_MAP_KEY), members.get(_VALUE)
                if isinstance(key, bytes) and isinstance(value, bytes):
                    yield key, value, bool(members.get(_OPTIONAL_ENTRY))

    def children(self) -> list[bytes]:
        """Return each expression right below."""
        where = _BELOW.get(self.kind, ())
        found = [v for n, _, v in self._inner if n in where and isinstance(v, bytes)]
        if self.kind != STRUCT:
            return found
        return [
            v
            for entry in found
            for n, _, v in parse(entry)
            if n in _IN_ENTRY and isinstance(v, bytes)
        ]

    def mapped(self, change: Callable[[bytes], bytes]) -> bytes:
        """Return the expression with each expression right below changed."""
        where = _BELOW.get(self.kind)
        if where is None:
            return self.data
        inner: Fields = []
        for number, wire, value in self._inner:
            if number in where and isinstance(value, bytes):
                changed = _entry(value, change) if self.kind == STRUCT else change(value)
                inner.append((number, wire, changed))
            else:
                inner.append((number, wire, value))
        return build([*self._around, (self.kind, _BYTES, build(inner))])


def _entry(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    return build(
        [
            (n, w, change(v) if n in _IN_ENTRY and isinstance(v, bytes) else v)
            for n, w, v in parse(data)
        ]
    )
