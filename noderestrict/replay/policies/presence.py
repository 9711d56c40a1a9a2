"""Give expressions the meaning that they have in an API server, where a library has another one.

Kubernetes evaluates CEL with cel-go. There a test for presence never fails: ``has(a.b)``, ``a.?b``
and ``a[?b]`` find nothing if ``a`` is null, a number or a text, as ``oldObject`` is null for a
CREATE. The C++ library refuses them. So each such test is rewritten to ask for the type first.

Sources: refQualify in cel-go's interpreter/attributes.go; variableAccessor in Kubernetes'
apiserver/pkg/admission/plugin/cel/composition.go.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from noderestrict.errors import NoderestrictError
from noderestrict.replay.policies.syntax import (
    CALL,
    COMPREHENSION,
    CONST,
    IDENT,
    LIST,
    SELECT,
    Node,
    bind,
    boolean,
    call,
    empty_map,
    ident,
    select,
    text,
)

#: What a request is, and what follows from it. Nothing in them is an optional value.
VARIABLES = "variables"
ROOTS = frozenset({"object", "oldObject", "request"})
_OPTIONAL_SELECT, _OPTIONAL_INDEX, _INDEX = "_?._", "_[?_]", "_[_]"
_MAKE_OPTIONAL = frozenset(
    {"optional.of", "optional.ofNonZeroValue", "optional.none", "or", "optMap", "optFlatMap"}
)
#: Not a name that an expression can have.
_VALUE, _INNER = "@value", "@inner"
_EMPTY = empty_map()


class UnsupportedError(NoderestrictError, ValueError):
    """An expression cannot be given its meaning; the message says what is in the way."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """An expression in which every test for presence has the meaning of cel-go.

    Attributes:
        tree: of the expression.
        variables: to which it refers by name.
    """

    tree: bytes
    variables: frozenset[str]


def rewritten(
    data: bytes, inlined: Mapping[str, Rewritten], optional: AbstractSet[str]
) -> Rewritten:
    """Return an expression with the meaning of cel-go.

    Args:
        data: the expression, parsed.
        inlined: expressions to put in the place of variables.
        optional: names of those whose values are optional.

    Raises:
        UnsupportedError: the expression uses a name for two things.
    """
    rewriting = _Rewriting(inlined, optional)
    tree = rewriting.rewrite(data)
    return Rewritten(tree, frozenset(rewriting.variables))


def _is_empty_list(data: bytes) -> bool:
    node = Node(data)
    return node.kind == LIST and not node.children()


def is_optional(data: bytes, optional: AbstractSet[str]) -> bool:
    """Return whether the value of an expression is optional, as far as one can see.

    Args:
        data: the expression, parsed.
        optional: names of the variables whose values are.
    """
    node = Node(data)
    if node.kind == SELECT and _is(node.operand, VARIABLES):
        return node.field in optional
    return _is_chain(data) or (node.kind == CALL and node.function in _MAKE_OPTIONAL)


class _Rewriting:
    def __init__(self, inlined: Mapping[str, Rewritten], optional: AbstractSet[str]) -> None:
        self._inlined = inlined
        self._optional = optional
        self.variables: set[str] = set()

    def rewrite(self, data: bytes) -> bytes:
        node = Node(data)
        if node.kind == SELECT:
            return self._select(node)
        if node.kind == CALL and node.function in (_OPTIONAL_SELECT, _OPTIONAL_INDEX):
            operand, key = node.args
            if node.function == _OPTIONAL_SELECT and _is(operand, VARIABLES):
                variable = self.rewrite(select(operand, Node(key).text))
                return call("optional.of", variable)
            if self._is_sealed(operand):
                return self._sealed(operand, call("optional.none"))
            return _looked_up(self.rewrite(operand), self.rewrite(key), node.function, operand)
        if node.kind == CALL and node.function == "@in" and _is_empty_list(node.args[1]):
            # cel-go does not look at what is sought in nothing.
            return boolean(value=False)
        if node.kind == CALL and node.function == _INDEX:
            operand, key = node.args
            if self._is_sealed(operand):
                return self._sealed(operand, call(_INDEX, _EMPTY, self.rewrite(key)))
            if not _is_chain(operand):
                return node.mapped(self.rewrite)
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
            if (inlined := self._inlined.get(node.field)) is not None:
                self.variables |= inlined.variables
                return inlined.tree
            self.variables.add(node.field)
            return node.data
        if self._is_sealed(node.operand):
            found = boolean(value=False) if node.test_only else select(_EMPTY, node.field)
            return self._sealed(node.operand, found)
        operand = self.rewrite(node.operand)
        if not node.test_only:
            if not _is_chain(node.operand):
                return select(operand, node.field)
            return _looked_up(operand, text(node.field), _OPTIONAL_SELECT, node.operand)
        if _is_plain(node.operand):
            found = select(ident(_VALUE), node.field, test_only=True)
            return bind(
                _VALUE, operand, call("_?_:_", _holds(ident(_VALUE)), found, boolean(value=False))
            )
        found = _looked_up(operand, text(node.field), _OPTIONAL_SELECT, node.operand)
        return call("hasValue", target=found)

    def _is_sealed(self, data: bytes) -> bool:
        """Return whether an expression is a variable with an optional value.

        A path leads through an optional value only if the same path makes it.
        """
        node = Node(data)
        return (
            node.kind == SELECT
            and not node.test_only
            and node.field in self._optional
            and _is(node.operand, VARIABLES)
        )

    def _sealed(self, variable: bytes, found: bytes) -> bytes:
        """Return what is found in a variable with an optional value, if it has a value at all."""
        return call("_?_:_", _is_type(self.rewrite(variable), "optional_type"), found, found)


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
    either = call("_?_:_", _is_type(value, "optional_type"), optional, plain)
    return bind(_VALUE, operand, either)


def _holds(value: bytes) -> bytes:
    """Return whether a value has fields or elements."""
    return call("_||_", _is_type(value, "map"), _is_type(value, "list"))


def _is_type(value: bytes, name: str) -> bytes:
    return call("_==_", call("type", value), ident(name))


def _is(data: bytes, name: str) -> bool:
    node = Node(data)
    return node.kind == IDENT and node.name == name


def _is_chain(data: bytes) -> bool:
    """Return whether an expression is a path of which a part is optional."""
    node = Node(data)
    if node.kind == SELECT:
        return not node.test_only and _is_chain(node.operand)
    if node.kind != CALL:
        return False
    if node.function == _INDEX:
        return _is_chain(node.args[0])
    return node.function in (_OPTIONAL_SELECT, _OPTIONAL_INDEX)


def _is_plain(data: bytes) -> bool:
    """Return whether an expression leads straight into an object, so that it is no optional."""
    node = Node(data)
    while node.kind == SELECT:
        node = Node(node.operand)
    return node.kind == CONST or (node.kind == IDENT and node.name in ROOTS)
