"""Give expressions the meaning that they have in an API server, where a library has another one.

Kubernetes evaluates CEL with cel-go. There a test for presence never fails: ``has(a.b)``, ``a.?b``
and ``a[?b]`` find nothing if ``a`` is null, a number or a text, as ``oldObject`` is null for a
CREATE. The C++ library refuses them. So each such test is rewritten to ask for the type first.

Sources: refQualify in cel-go's interpreter/attributes.go; variableAccessor in Kubernetes'
apiserver/pkg/admission/plugin/cel/composition.go.
"""

from collections.abc import Mapping

from noderestrict.errors import NoderestrictError
from noderestrict.replay.policies.syntax import (
    CALL,
    COMPREHENSION,
    CONST,
    IDENT,
    SELECT,
    Node,
    bind,
    boolean,
    call,
    ident,
    select,
    text,
)

#: What a request is, and what follows from it. Nothing in them is an optional value.
VARIABLES = "variables"
ROOTS = frozenset({"object", "oldObject", "request"})
_OPTIONAL_SELECT, _OPTIONAL_INDEX, _INDEX = "_?._", "_[?_]", "_[_]"
#: Not a name that an expression can have.
_VALUE, _INNER = "@value", "@inner"


class UnsupportedError(NoderestrictError, ValueError):
    """An expression cannot be given its meaning; the message says what is in the way."""


def rewritten(data: bytes, inlined: Mapping[str, bytes]) -> bytes:
    """Return an expression in which every test for presence has the meaning of cel-go.

    Args:
        data: the expression, parsed.
        inlined: rewritten expressions to put in the place of variables.

    Raises:
        UnsupportedError: the expression uses a name for two things.
    """
    return _Rewriting(inlined).rewrite(data)


class _Rewriting:
    def __init__(self, inlined: Mapping[str, bytes]) -> None:
        self._inlined = inlined

    def rewrite(self, data: bytes) -> bytes:
        node = Node(data)
        if node.kind == SELECT:
            return self._select(node)
        if node.kind == CALL and node.function in (_OPTIONAL_SELECT, _OPTIONAL_INDEX):
            operand, key = node.args
            if node.function == _OPTIONAL_SELECT and _is(operand, VARIABLES):
                variable = self.rewrite(select(operand, Node(key).text))
                return call("optional.of", variable)
            return _looked_up(self.rewrite(operand), self.rewrite(key), node.function, operand)
        if node.kind == CALL and node.function == _INDEX and _is_optional(node.args[0]):
            operand, key = node.args
            return _looked_up(self.rewrite(operand), self.rewrite(key), _OPTIONAL_INDEX, operand)
        if node.kind == COMPREHENSION and (
            reused := ROOTS.union((VARIABLES,)).intersection(node.names)
        ):
            raise UnsupportedError(f"{min(reused)} is the name of an element, too")
        return node.mapped(self.rewrite)

    def _select(self, node: Node) -> bytes:
        if _is(node.operand, VARIABLES):
            if node.test_only:
                return boolean(value=True)
            return self._inlined.get(node.field, node.data)
        operand = self.rewrite(node.operand)
        if not node.test_only:
            if not _is_optional(node.operand):
                return select(operand, node.field)
            return _looked_up(operand, text(node.field), _OPTIONAL_SELECT, node.operand)
        if _is_plain(node.operand):
            found = select(ident(_VALUE), node.field, test_only=True)
            return bind(
                _VALUE, operand, call("_?_:_", _holds(ident(_VALUE)), found, boolean(value=False))
            )
        found = _looked_up(operand, text(node.field), _OPTIONAL_SELECT, node.operand)
        return call("hasValue", target=found)


def _looked_up(operand: bytes, key: bytes, function: str, original: bytes) -> bytes:
    """Return what an optional select or index finds; nothing where there are no fields."""
    value, none = ident(_VALUE), call("optional.none")
    found = call(function, value, key)
    plain = call("_?_:_", _holds(value), found, none)
    if _is_plain(original):
        return bind(_VALUE, operand, plain)
    # What the value of an optional is, only one that has a value can tell.
    inner = bind(_INNER, call("value", target=value), _holds(ident(_INNER)))
    holds = call("_&&_", call("hasValue", target=value), inner)
    optional = call("_?_:_", holds, found, none)
    is_optional = call("_==_", call("type", value), ident("optional_type"))
    return bind(_VALUE, operand, call("_?_:_", is_optional, optional, plain))


def _holds(value: bytes) -> bytes:
    """Return whether a value has fields or elements."""
    kind = call("type", value)
    is_map, is_list = (call("_==_", kind, ident(name)) for name in ("map", "list"))
    return call("_||_", is_map, is_list)


def _is(data: bytes, name: str) -> bool:
    node = Node(data)
    return node.kind == IDENT and node.name == name


def _is_optional(data: bytes) -> bool:
    """Return whether an expression is part of an optional chain, as far as one can see."""
    node = Node(data)
    if node.kind == SELECT:
        return not node.test_only and _is_optional(node.operand)
    if node.kind != CALL:
        return False
    if node.function == _INDEX:
        return _is_optional(node.args[0])
    return node.function in (_OPTIONAL_SELECT, _OPTIONAL_INDEX)


def _is_plain(data: bytes) -> bool:
    """Return whether an expression leads straight into an object, so that it is no optional."""
    node = Node(data)
    while node.kind == SELECT:
        node = Node(node.operand)
    return node.kind == CONST or (node.kind == IDENT and node.name in ROOTS)
