"""Compile and evaluate CEL expressions as an API server does.

A C++ library parses, checks and evaluates; it has the types, operators, macros, optional values,
strings and RE2 of cel-go. What Kubernetes adds is here: the types of ``request`` and ``variables``,
which expressions are checked against, its functions on lists, sets and patterns, and, in
``presence``, tests for presence. Not here, and refused when a policy is read: quantities, URLs, IP
addresses, CIDRs, versions, formats and the authorizer. What an expression costs is not counted.

What it gets wrong otherwise is rare: it refuses to compare an int with a double where it knows both
types (cel-go compares them), refuses to look for what is no key in a map (cel-go does not find it),
writes objects in ``format`` without quotes, and ends texts at a NUL character.

Sources: apiserver/pkg/admission/plugin/cel/compile.go and pkg/cel/environment/base.go.
"""

import ctypes
import functools
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from noderestrict.errors import NoderestrictError
from noderestrict.policy.hostile import brief, is_failure
from noderestrict.policy.text import printable
from noderestrict.replay.policies import literals, syntax
from noderestrict.replay.policies.presence import (
    ROOTS,
    VARIABLES,
    Rewritten,
    UnsupportedError,
    is_optional,
    rewritten,
)
from noderestrict.replay.policies.syntax import IDENT, SELECT, Node

#: As ``Program.returns`` names types.
BOOL, STRING, NULL, DYN = "BOOL", "STRING", "NULL", "DYN"
#: What an API server knows and replay does not.
_NOT_KNOWN = {
    "params": "parameters are not evaluated",
    "authorizer": "the authorizer is not asked",
    "namespaceObject": "the namespace is not known",
}
#: Types of which a value can be handed to another expression.
_PLAIN = frozenset({BOOL, STRING, NULL, DYN, "INT", "DOUBLE"})
_LONGEST = 300
_MISSING = re.compile(r'Key not found in map : "([^"]*)"')
_pools = itertools.count()
_count_reference = ctypes.pythonapi.Py_IncRef
_count_reference.argtypes = [ctypes.py_object]
_count_reference.restype = None


class MissingLibraryError(NoderestrictError):
    """The library is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "policies need a CEL library: pip install 'noderestrict[policies]' "
            "(wheels for Linux, macOS and Windows)"
        )


class CompileError(NoderestrictError, ValueError):
    """An API server would refuse an expression; the message says where and why, in one line."""


class EvaluationError(NoderestrictError):
    """An expression has no value for a request; the message says why."""


class UnknownError(NoderestrictError):
    """An API server has a value for an expression, and replay does not; the message says why."""


class Program:
    """A compiled expression.

    Attributes:
        text: of the expression.
        returns: its type.
        unknown: why it is never evaluated; "" if it is.
        variables: that it refers to by value.
    """

    def __init__(
        self, text: str, returns: str, unknown: str, variables: frozenset[str], expression: Any
    ) -> None:
        self.text = text
        self.returns = returns
        self.unknown = unknown
        self.variables = variables
        self._expression = expression

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """Return the value: bool, str, int, float, None, list or dict.

        Args:
            values: of ``request``, ``object``, ``oldObject`` and ``variables``.

        Raises:
            EvaluationError: there is none.
            UnknownError: only an API server knows it.
        """
        if self.unknown:
            raise UnknownError(self.unknown)
        try:
            found = self._expression.eval(data=values)
            if found.type() != _library().Type.ERROR:
                return _owned(found.plain_value())
            # An optional value is no error, and cannot be handed to Python.
            problem = str(found.value())
        except BaseException as error:
            if not is_failure(error):
                raise
            raise UnknownError(f"the CEL library hands out no such value: {brief(error)}") from None
        raise EvaluationError(_one_line(problem))


class Compiler:
    """Compiles the expressions of one policy.

    Raises:
        MissingLibraryError: there is no library for it.
    """

    def __init__(self) -> None:
        _library()
        self._types: dict[str, str] = {}
        self._inlined: dict[str, Rewritten] = {}
        self._optional: set[str] = set()
        self._unknown: dict[str, str] = {}
        self._checker: Any = None

    def variable(self, name: str, text: str) -> Program:
        """Compile a variable, to which later expressions may refer.

        Raises:
            CompileError: it cannot be compiled.
        """
        program, parsed = self._compiled(text)
        if program.unknown:
            self._unknown[name] = program.unknown
        elif (optional := is_optional(parsed, self._optional)) or not _is_plain(program.returns):
            self._inlined[name] = self._rewritten(parsed)
            if optional or program.returns.startswith("optional_type"):
                self._optional.add(name)
        self._types[name] = program.returns
        self._checker = None
        return program

    def compile(self, text: str, returns: Sequence[str] = ()) -> Program:
        """Compile an expression.

        Args:
            text: of the expression.
            returns: the types that its value may have; none for any.

        Raises:
            CompileError: it cannot be compiled, or has a value of another type.
        """
        program, _ = self._compiled(text)
        if returns and not program.unknown and program.returns not in returns:
            wanted = " or ".join(one.lower() for one in returns)
            raise CompileError(
                f"must evaluate to {wanted} but got {program.returns.lower()}: {_one_line(text)}"
            )
        return program

    def _compiled(self, text: str) -> tuple[Program, bytes]:
        try:
            parsed = _runtime().compile(text, disable_check=True).serialize()
            tree = _tree(parsed)
            names, variables = _names(tree)
            unknown = next((why for name, why in _NOT_KNOWN.items() if name in names), "")
            unknown = unknown or next(
                (self._unknown[name] for name in sorted(variables) if name in self._unknown), ""
            )
            if unknown:
                return Program(text, DYN, unknown, frozenset(), None), b""
            if self._checker is None:
                self._checker = _checker(self._types)
            checked = self._checker.compile(text)
            returns = checked.return_type().name()
            literals.check(_member(checked.serialize(), _ANY_VALUE), text, _is_valid)
            found = self._rewritten(tree)
            expression = _runtime().deserialize(_with_tree(parsed, found.tree))
        except literals.LiteralError as error:
            raise CompileError(str(error)) from None
        except UnsupportedError as error:
            raise CompileError(f"{error}: {_one_line(text)}") from None
        except BaseException as error:
            if not is_failure(error):
                raise
            raise CompileError(_compile_problem(str(error))) from None
        return Program(text, returns, "", found.variables, expression), tree

    def _rewritten(self, tree: bytes) -> Rewritten:
        return rewritten(tree, self._inlined, self._optional)


def _owned(value: Any) -> Any:
    """Return what the library hands out, with the references to None that it fails to count.

    Before Python 3.12, None counts its references, and Python aborts once none is left.
    """
    if value is None:
        _count_reference(None)
    elif isinstance(value, dict):
        for inner in value.values():
            _owned(inner)
    elif isinstance(value, list):
        for inner in value:
            _owned(inner)
    return value


#: Characters of variables that an expression may join: an API server ends one that joins more, and
#: the library would fill the memory. An item of a list takes as much as many characters.
_MOST_COPIED = 10**7
_ITEM = 100


class Values:
    """The values of expressions for one request; a variable is evaluated when it is first needed.

    Args:
        given: ``request``, ``object`` and ``oldObject``.
        variables: by name; each refers to earlier ones at most.
    """

    def __init__(self, given: Mapping[str, Any], variables: Mapping[str, Program]) -> None:
        self._programs = variables
        self._variables: dict[str, Any] = {}
        self._failed: dict[str, str] = {}
        self._unknown: dict[str, str] = {}
        self._given = given

    def value(self, program: Program) -> Any:
        """Return the value of an expression.

        Raises:
            EvaluationError: it has none.
            UnknownError: only an API server knows it.
        """
        copied = 0
        for name in program.variables:
            self._need(name)
            if name in self._unknown:
                raise UnknownError(self._unknown[name])
            value = self._variables.get(name)
            if isinstance(value, str | bytes | list):
                size = len(value) * (_ITEM if isinstance(value, list) else 1)
                copied += size * program.text.count(name)
        if copied > _MOST_COPIED:
            raise UnknownError(f"it may cost more than an API server allows: {program.text}")
        try:
            return program.evaluate({**self._given, VARIABLES: self._of(program)})
        except EvaluationError as error:
            raise EvaluationError(self._explained(str(error))) from None

    def _of(self, program: Program) -> dict[str, Any]:
        """Return the variables that an expression refers to: the library copies what it gets."""
        return {name: self._variables[name] for name in program.variables & self._variables.keys()}

    def _need(self, name: str) -> None:
        if name in self._variables or name in self._failed or name in self._unknown:
            return
        try:
            self._variables[name] = self.value(self._programs[name])
        except EvaluationError as error:
            self._failed[name] = str(error)
        except UnknownError as error:
            self._unknown[name] = str(error)

    def _explained(self, problem: str) -> str:
        """Return why an expression has no value: a variable without one is missing."""
        missing = _MISSING.search(problem)
        if missing is None or missing[1] not in self._failed:
            return problem
        why = self._failed[missing[1]]
        return f'composited variable "{missing[1]}" fails to evaluate: {why}'


@functools.cache
def _library() -> Any:
    # Imported here: 17 MB that nothing else needs, and that not every platform has.
    try:
        from cel_expr_python import cel
        from google.protobuf import descriptor_pool  # noqa: F401 (both are needed)
    except ImportError:
        raise MissingLibraryError from None
    return cel


@functools.cache
def _runtime() -> Any:
    cel = _library()
    variables = dict.fromkeys((*ROOTS, VARIABLES, *_NOT_KNOWN), cel.Type.DYN)
    return cel.NewEnv(variables=variables, extensions=_extensions(), functions=_functions())


@functools.cache
def _is_valid(function: str, argument: str) -> bool:
    """Return whether a text is a pattern, a duration or a timestamp."""
    text = "''.matches(object)" if function == "matches" else f"{function}(object)"
    found = _runtime().compile(text).eval(data={"object": argument})
    return bool(found.type() != _library().Type.ERROR)


def _checker(types: Mapping[str, str]) -> Any:
    """Return an environment in which ``request`` and ``variables`` have their types."""
    cel = _library()
    pool, package = _pool(types)
    variables = {
        "object": cel.Type.DYN,
        "oldObject": cel.Type.DYN,
        "request": cel.Type(f"{package}.AdmissionRequest"),
        VARIABLES: cel.Type(f"{package}.variables"),
    }
    return cel.NewEnv(
        descriptor_pool=pool,
        variables=variables,
        extensions=_extensions(),
        functions=_functions(),
    )


def _extensions() -> list[Any]:
    from cel_expr_python.ext import ext_optional, ext_strings

    # The version of strings that Kubernetes has had since 1.29.
    return [ext_optional.ExtOptional(), ext_strings.ExtStrings(2)]


_GROUP_KIND = {"group": STRING, "version": STRING, "kind": STRING}
_GROUP_RESOURCE = {"group": STRING, "version": STRING, "resource": STRING}
_USER = {
    "username": STRING,
    "uid": STRING,
    "groups": "LIST<STRING>",
    "extra": "MAP<STRING, LIST<STRING>>",
}
_REQUEST = {
    "kind": ".GroupVersionKind",
    "resource": ".GroupVersionResource",
    "subResource": STRING,
    "requestKind": ".GroupVersionKind",
    "requestResource": ".GroupVersionResource",
    "requestSubResource": STRING,
    "name": STRING,
    "namespace": STRING,
    "operation": STRING,
    "userInfo": ".UserInfo",
    "dryRun": BOOL,
    "options": DYN,
}


def _pool(types: Mapping[str, str]) -> tuple[Any, str]:
    """Return the descriptors of the types that expressions know, and their package."""
    from google.protobuf import descriptor_pb2, descriptor_pool, struct_pb2

    package = f"kubernetes{next(_pools)}"
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package}.proto", package=package, syntax="proto2"
    )
    file.dependency.append(struct_pb2.DESCRIPTOR.name)
    messages = {
        "GroupVersionKind": _GROUP_KIND,
        "GroupVersionResource": _GROUP_RESOURCE,
        "UserInfo": _USER,
        "AdmissionRequest": _REQUEST,
        "variables": types,
    }
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for number, (field, type_) in enumerate(fields.items(), start=1):
            _add_field(message, f".{package}.{name}", number, field, type_)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return pool, package


_SCALARS = {BOOL: "TYPE_BOOL", STRING: "TYPE_STRING", "INT": "TYPE_INT64", "DOUBLE": "TYPE_DOUBLE",
            "UINT": "TYPE_UINT64", "BYTES": "TYPE_BYTES"}  # fmt: skip
_KEYS = frozenset({STRING, "INT", BOOL})
_VALUE, _LIST_VALUE = ".google.protobuf.Value", ".google.protobuf.ListValue"
_STRUCT = ".google.protobuf.Struct"


def _add_field(message: Any, path: str, number: int, name: str, type_: str) -> None:
    """Add a field; as in Kubernetes, what is no scalar, list or map has no type."""
    field = message.field.add(name=name, number=number, label="LABEL_OPTIONAL")
    outer, inner = _parts(type_)
    if outer == "LIST":
        field.label = field.LABEL_REPEATED
        type_ = inner[0]
    elif outer == "MAP" and inner[0] in _KEYS and _entry(name) not in _nested(message):
        entry = message.nested_type.add(name=_entry(name))
        entry.options.map_entry = True
        _add_field(entry, f"{path}.{entry.name}", 1, "key", inner[0])
        _set_type(entry.field.add(name="value", number=2, label="LABEL_OPTIONAL"), inner[1])
        field.label = field.LABEL_REPEATED
        field.type, field.type_name = field.TYPE_MESSAGE, f"{path}.{entry.name}"
        return
    if type_.startswith("."):
        package = path.rpartition(".")[0]
        field.type, field.type_name = field.TYPE_MESSAGE, package + type_
        return
    _set_type(field, type_)


def _entry(field: str) -> str:
    """Return how the type of a map's entries must be called."""
    return "".join(part[:1].upper() + part[1:] for part in field.split("_")) + "Entry"


def _nested(message: Any) -> set[str]:
    return {one.name for one in message.nested_type}


def _set_type(field: Any, type_: str) -> None:
    if type_ in _SCALARS:
        field.type = getattr(field, _SCALARS[type_])
        return
    field.type = field.TYPE_MESSAGE
    outer, inner = _parts(type_)
    if outer == "MAP" and inner[0] == STRING:
        field.type_name = _STRUCT
    else:
        field.type_name = _LIST_VALUE if outer == "LIST" else _VALUE


def _parts(type_: str) -> tuple[str, list[str]]:
    """Split ``MAP<STRING, LIST<INT>>`` into its name and its parameters."""
    outer, opened, rest = type_.partition("<")
    if not opened:
        return outer, []
    parts, depth, start = [], 0, 0
    for at, char in enumerate(rest):
        if (char == "," and not depth) or (char == ">" and not depth):
            parts.append(rest[start:at].strip())
            start = at + 1
        depth += (char == "<") - (char == ">")
    return outer, parts


def _is_plain(type_: str) -> bool:
    outer, parts = _parts(type_)
    if outer in ("LIST", "MAP"):
        return all(_is_plain(part) for part in parts)
    return outer in _PLAIN


_ANY_URL, _ANY_VALUE, _PARSED_EXPR = 1, 2, 2
_BYTES_WIRE = 2


def _tree(serialized: bytes) -> bytes:
    return _member(_member(serialized, _ANY_VALUE), _PARSED_EXPR)


def _member(data: bytes, number: int) -> bytes:
    for found, _, value in syntax.parse(data):
        if found == number and isinstance(value, bytes):
            return value
    raise ValueError("the CEL library writes an unknown form")


def _with_tree(serialized: bytes, tree: bytes) -> bytes:
    url = _member(serialized, _ANY_URL)
    parsed = syntax.build([(_PARSED_EXPR, _BYTES_WIRE, tree)])
    return syntax.build([(_ANY_URL, _BYTES_WIRE, url), (_ANY_VALUE, _BYTES_WIRE, parsed)])


def _names(tree: bytes) -> tuple[set[str], set[str]]:
    """Return the names in an expression, and the variables that it refers to."""
    names, variables = set(), set()
    open_ = [tree]
    while open_:
        node = Node(open_.pop())
        if node.kind == IDENT:
            names.add(node.name)
        if node.kind == SELECT:
            inner = Node(node.operand)
            if inner.kind == IDENT and inner.name == VARIABLES:
                variables.add(node.field)
        open_ += node.children()
    return names, variables


_POSITION = re.compile(r"<input>:(\d+):(\d+): ([^\n]*)")


def _compile_problem(message: str) -> str:
    """Return what a library says of an expression, with the first place that it complains about."""
    found = _POSITION.search(message)
    if found is None:
        return _one_line(message)
    line, column, problem = found.groups()
    problem = re.sub(r"kubernetes\d+\.", "kubernetes.", problem)
    return _one_line(f"line {line}, column {column}: {problem}")


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    line = re.sub(r"^(INVALID_ARGUMENT|NOT_FOUND|UNKNOWN|INTERNAL): ", "", line)
    return printable(line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…")


# --- Kubernetes' own functions: apiserver/pkg/cel/library lists.go, regex.go; cel-go's ext/sets.go


def _same(one: Any, other: Any) -> bool:
    """Return whether values are equal in CEL, where true is not 1."""
    if isinstance(one, bool) is not isinstance(other, bool):
        return False
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)


def _contains(container: list[Any], elements: list[Any]) -> bool:
    return all(any(_same(one, other) for other in container) for one in elements)


def _is_sorted(values: list[Any]) -> bool:
    return all(one <= other for one, other in itertools.pairwise(values))


def _functions() -> list[Any]:
    cel = _library()
    type_ = cel.Type
    list_, bool_, dyn = type_.List(type_.DYN), type_.BOOL, type_.DYN

    def function(
        name: str, returns: Any, *parameters: Any, impl: Callable[..., Any], member: bool = True
    ) -> Any:
        overload = cel.Overload(
            f"kubernetes_{name}", returns, list(parameters), is_member=member, impl=impl
        )
        return cel.FunctionDecl(name, [overload])

    return [
        function("isSorted", bool_, list_, impl=_is_sorted),
        function("sum", dyn, list_, impl=sum),
        function("min", dyn, list_, impl=min),
        function("max", dyn, list_, impl=max),
        function("sets.contains", bool_, list_, list_, impl=_contains, member=False),
        function(
            "sets.equivalent",
            bool_,
            list_,
            list_,
            impl=lambda one, other: _contains(one, other) and _contains(other, one),
            member=False,
        ),
        function(
            "sets.intersects",
            bool_,
            list_,
            list_,
            impl=lambda one, other: any(_same(a, b) for a in one for b in other),
            member=False,
        ),
    ]
