"""Refuse the literals that Kubernetes refuses, and the C++ library does not.

The elements of a list, and the keys and the values of a map, have one type: ``[object.a, "b"]``
does not compile. A pattern, duration or timestamp that is written down must be one.

Sources: HomogeneousAggregateLiterals in cel-go's checker, and its ValidateRegexLiterals,
ValidateDurationLiterals and ValidateTimestampLiterals, all of which Kubernetes turns on in
apiserver/pkg/cel/environment/base.go.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from noderestrict.errors import NoderestrictError
from noderestrict.replay.policies.syntax import CALL, CONST, LIST, STRUCT, Node, parse

#: Field numbers of ``cel.expr.CheckedExpr``, and of SourceInfo in it.
_TYPE_MAP, _EXPR, _SOURCE_INFO = 3, 4, 5
_POSITIONS = 4
_KEY, _VALUE = 1, 2
#: Field numbers of ``cel.expr.Type``.
_DYN, _NULL, _PRIMITIVE, _WELL_KNOWN, _LIST_TYPE, _MAP_TYPE = 1, 2, 3, 5, 6, 7
_MESSAGE, _TYPE, _ABSTRACT = 9, 11, 14
_PRIMITIVES = ("", "bool", "int", "uint", "double", "string", "bytes")
_WELL_KNOWN_TYPES = ("", "any", "timestamp", "duration")
_PARAMETERS = 2
#: Takes a list of anything.
_MIXES = "format"
_CHECKED_CALLS = frozenset({"matches", "duration", "timestamp"})


class LiteralError(NoderestrictError, ValueError):
    """A literal would be refused; the message says where and why."""


def check(checked: bytes, text: str, is_valid: Callable[[str, str], bool]) -> None:
    """Refuse what Kubernetes' checker refuses.

    Args:
        checked: a ``cel.expr.CheckedExpr``.
        text: that it was made of.
        is_valid: whether a text is a valid argument of a function: matches, duration, timestamp.

    Raises:
        LiteralError: it would be refused.
    """
    fields = parse(checked)
    types = dict(_entries(fields, _TYPE_MAP))
    info = next((v for n, _, v in fields if n == _SOURCE_INFO and isinstance(v, bytes)), b"")
    positions = dict(_numbers(parse(info), _POSITIONS))
    open_ = [(v, False) for n, _, v in fields if n == _EXPR and isinstance(v, bytes)]
    while open_:
        data, may_mix = open_.pop()
        node = Node(data)
        may_mix |= node.kind == CALL and node.function == _MIXES
        problem = _problem(node, types, is_valid)
        if problem is not None and not (may_mix and node.kind in (LIST, STRUCT)):
            at, why = problem
            raise LiteralError(f"{_place(text, positions.get(at, 0))}: {why}")
        open_ += [(child, may_mix) for child in node.children()]


def _problem(
    node: Node, types: dict[int, bytes], is_valid: Callable[[str, str], bool]
) -> tuple[int, str] | None:
    if node.kind == LIST:
        return _mixed(node.elements(), types)
    if node.kind == STRUCT:
        entries = list(node.entries())
        keys = [(key, False) for key, _, _ in entries]
        values = [(value, optional) for _, value, optional in entries]
        return _mixed(keys, types) or _mixed(values, types)
    if node.kind == CALL and node.function in _CHECKED_CALLS and node.args:
        argument = Node(node.args[-1])
        if argument.kind == CONST and not is_valid(node.function, argument.text):
            return argument.id, f"invalid {node.function} argument"
    return None


def _mixed(
    elements: Iterable[tuple[bytes, bool]], types: dict[int, bytes]
) -> tuple[int, str] | None:
    """Return the first element whose type differs from the one before it."""
    known: bytes | None = None
    for data, optional in elements:
        node = Node(data)
        found = types.get(node.id, b"")
        if optional:
            found = _parameters(found)[0]
        if _is_open(node):
            continue
        if known is not None and found != known:
            return node.id, f"expected type '{named(known)}' but found '{named(found)}'"
        known = found
    return None


def _is_open(node: Node) -> bool:
    """Return whether an element fits any list, map or optional, as it is an empty one."""
    is_empty = node.kind in (LIST, STRUCT) and not node.children()
    return is_empty or (node.kind == CALL and node.function == "optional.none")


def named(type_: bytes) -> str:
    """Return how messages call a type.

    Args:
        type_: a ``cel.expr.Type``.
    """
    for number, _, value in parse(type_):
        if number == _PRIMITIVE and isinstance(value, int):
            return _PRIMITIVES[value] if value < len(_PRIMITIVES) else "dyn"
        if number == _WELL_KNOWN and isinstance(value, int):
            return _WELL_KNOWN_TYPES[value] if value < len(_WELL_KNOWN_TYPES) else "dyn"
        if number == _NULL:
            return "null"
        if not isinstance(value, bytes):
            continue
        if number in (_LIST_TYPE, _MAP_TYPE):
            inner = ", ".join(named(v) for _, _, v in parse(value) if isinstance(v, bytes))
            return f"{'list' if number == _LIST_TYPE else 'map'}({inner})"
        if number == _ABSTRACT:
            return f"optional_type({', '.join(map(named, _parameters(type_)))})"
        if number == _TYPE:
            return f"type({named(value)})"
        if number == _MESSAGE:
            return value.decode()
    return "dyn"


def _parameters(type_: bytes) -> Sequence[bytes]:
    """Return the parameters of an abstract type, such as an optional one."""
    for number, _, value in parse(type_):
        if number == _ABSTRACT and isinstance(value, bytes):
            return [v for n, _, v in parse(value) if n == _PARAMETERS and isinstance(v, bytes)]
    return [b""]


def _entries(
    fields: Iterable[tuple[int, int, bytes | int]], number: int
) -> Iterator[tuple[int, bytes]]:
    """Yield the entries of a map from numbers to messages."""
    for found, _, entry in fields:
        if found == number and isinstance(entry, bytes):
            members = {n: v for n, _, v in parse(entry)}
            key, value = members.get(_KEY, 0), members.get(_VALUE, b"")
            if isinstance(key, int) and isinstance(value, bytes):
                yield key, value


def _numbers(
    fields: Iterable[tuple[int, int, bytes | int]], number: int
) -> Iterator[tuple[int, int]]:
    """Yield the entries of a map from numbers to numbers."""
    for found, _, entry in fields:
        if found == number and isinstance(entry, bytes):
            members = {n: v for n, _, v in parse(entry)}
            key, value = members.get(_KEY, 0), members.get(_VALUE, 0)
            if isinstance(key, int) and isinstance(value, int):
                yield key, value


def _place(text: str, offset: int) -> str:
    before = text[:offset]
    line = before.count("\n") + 1
    column = offset - (before.rfind("\n") + 1) + 1
    return f"line {line}, column {column}"
