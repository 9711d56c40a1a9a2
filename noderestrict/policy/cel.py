"""The CEL form of a rule, and the words that such forms are written in.

A form says in CEL what a rule allows, so that an API server can apply the rule itself. It reads
``object``, ``oldObject`` and ``request`` as the API server provides them, and the variables below.
Only what Kubernetes 1.29 has may be used: an API server of 1.30 takes nothing newer.

A field that may be absent is read with ``value``, for which null and missing are the same. An error
in an expression counts as a denial.
"""

import enum
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from noderestrict.policy.identity import NODE_USER_PREFIX, NODES_GROUP
from noderestrict.policy.keys import NodeKeys
from noderestrict.policy.releases import Part
from noderestrict.policy.semantic import Path
from noderestrict.policy.settings import Settings

USER = "request.userInfo.username"
#: Whether the requester is a node user, with or without a name of its node. The name comes first:
#: it is what tells all other users apart.
IS_NODE_USER = (
    f"has({USER}) && {USER}.startsWith('{NODE_USER_PREFIX}') && "
    f"has(request.userInfo.groups) && '{NODES_GROUP}' in request.userInfo.groups"
)
EMPTY_MAP, EMPTY_LIST, EMPTY_TEXT = "{}", "[]", "''"
NEVER = ("false",)

#: How many entries of a list, and keys of a map, an expression visits; more of them are denied. An
#: API server keeps account of what an expression costs in a way that takes time with the square of
#: the entries: a pod with 18,500 volumes would take it a minute.
MOST_ENTRIES = 250
#: How many containers, and sources of a volume: lists in lists.
MOST_INNER = 100
MOST_KEYS = 1000

#: What CEL keeps for itself.
_RESERVED = (
    "as|break|const|continue|else|false|for|function|if|import|in|let|loop|null|package|namespace|"
    "return|true|var|void|while"
)
_IDENTIFIER = re.compile(rf"(?!(?:{_RESERVED})$)[A-Za-z_][A-Za-z0-9_]*")
_VARIABLE = re.compile(r"\bvariables\.([A-Za-z0-9_]+)")
_NAMED = re.compile(r"\{([A-Za-z]+)\}")


class Uncovered(enum.Enum):
    """Why a rule has no CEL form."""

    LOOKUP = "needs to look up other objects"
    PEM = "needs to read a PEM block"
    NEVER_SENT = "denies only what no API server sends"


@dataclass(frozen=True, slots=True)
class Context:
    """What a form depends on.

    Attributes:
        operation: of the requests: CREATE, UPDATE or DELETE.
        settings: of the rules.
    """

    operation: str
    settings: Settings

    def demands(self, part: Part) -> bool:
        """Return whether a part of a rule applies."""
        return part.since.includes(self.settings.release)


#: Expressions that all have to hold.
Tests = Sequence[str]


@dataclass(frozen=True, slots=True)
class Form:
    """A rule in CEL.

    Attributes:
        allows: the tests that hold for what the rule allows.
        message: why the rule denies a request; ``{name}`` stands for the quoted value of a
            variable.
    """

    allows: Tests | Callable[[Context], Tests]
    message: str

    def tests(self, context: Context) -> tuple[str, ...]:
        """Return the tests for one kind of request."""
        return tuple(self.allows(context) if callable(self.allows) else self.allows)


def message_expression(rule: str, message: str) -> str:
    """Return the expression of a message with its rule; "" if it names no variable.

    Args:
        rule: id.
        message: of a form.
    """
    literals = _NAMED.split(f"{rule}: {message}")
    if len(literals) == 1:
        return ""
    parts = []
    for index, part in enumerate(literals):
        if index % 2:
            parts.append(f"variables.{part}")
            continue
        before = "'" if index else ""
        after = "'" if index < len(literals) - 1 else ""
        parts.append(quoted(f"{before}{part}{after}"))
    return " + ".join(parts)


def is_identifier(name: str) -> bool:
    """Return whether a field or variable of this name can be written after a dot."""
    return _IDENTIFIER.fullmatch(name) is not None


def quoted(text: str) -> str:
    """Return a text as a CEL literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def list_of(texts: Iterable[str]) -> str:
    """Return texts as a CEL list."""
    return f"[{', '.join(map(quoted, texts))}]"


def present(path: str, known: str = "") -> str:
    """Return a test that every step of a path is present and not null.

    Args:
        path: starts at a variable.
        known: its beginning that is known to be present, besides the variable.
    """
    if path.startswith("variables."):
        # Those that are read so are never null.
        known = known or ".".join(path.split(".")[:2])
    root, *steps = path.split(".")
    tests = [f"{root} != null"] if root in ("object", "oldObject") and not known else []
    for step in steps:
        root = f"{root}.{step}"
        if not known.startswith(root):
            # Null has no fields, so that only the last step needs another test.
            tests.append(f"has({root})")
    return " && ".join(tests if path.startswith("request.") else [*tests, f"{path} != null"])


def absent(path: str) -> str:
    """Return a test that a path is missing, or that one of its steps is null."""
    return f"!({present(path)})"


def value(path: str, default: str = EMPTY_TEXT, known: str = "") -> str:
    """Return what is at a path; the default if it is missing or null.

    Args:
        path: starts at a variable.
        default: an expression.
        known: the beginning of the path that is known to be present.
    """
    return f"({present(path, known)} ? {path} : {default})"


def if_present(path: str, test: str, known: str = "") -> str:
    """Return a test that holds if a path is missing or null, and else if another test holds."""
    return f"(!({present(path, known)}) || ({test}))"


def each(list_: str, item: str, test: str, most: int = MOST_ENTRIES) -> str:
    """Return a test of every entry of a list or map, which must not have more than so many."""
    return f"size({list_}) <= {most} && {list_}.all({item}, {test})"


def kept(path: str, default: str) -> str:
    """Return a test that a field of the object is as it was; null, missing and empty are the same.

    Args:
        path: in the object, such as ``spec.taints``.
        default: the empty value of the field.
    """
    section, field = path.split(".")
    before, after = f"variables.{_old(section)}", f"variables.{section}"
    return f"{value(f'{before}.{field}', default)} == {value(f'{after}.{field}', default)}"


def _old(name: str) -> str:
    """Return the name of the variable with the existing value."""
    return f"old{name[0].upper()}{name[1:]}"


def only_changes(what: str, default_open: Callable[[str], Sequence[str]]) -> str:
    """Return a test that only some keys of a map were added, changed or removed.

    Args:
        what: ``labels`` or ``annotations``.
        default_open: returns tests of a key, given as a variable; one holds for a key that may
            change. Cheap ones come first: an object may have tens of thousands of keys.
    """
    before, after = f"variables.{_old(what)}", f"variables.{what}"
    open_ = default_open("key")
    unchanged = f"(key in {before} && {before}[key] == {after}[key])"
    first, *others = open_
    added_or_changed = each(after, "key", any_of(first, unchanged, *others), MOST_KEYS)
    removed = each(before, "key", any_of(first, f"key in {after}", *others), MOST_KEYS)
    return f"{before} == {after} || ({added_or_changed} && {removed})"


def sections_kept(
    pointers: Collection[Path], ignored: Collection[Path], sections: Mapping[str, Path]
) -> tuple[str, ...]:
    """Return tests that sections of an object are as they were, key by key.

    Null, missing and empty are the same, but for fields that are pointers in Go.

    Args:
        pointers: paths of these fields.
        ignored: paths of values that may differ.
        sections: names of variables that hold them, such as ``spec``, with their paths.
    """
    return tuple(
        _section_kept(
            name,
            sorted(
                {one[-1] for one in ignored if one[:-1] == path}
                | {one[-1] for one in sections.values() if one[:-1] == path != ()}
            ),
            sorted(one[-1] for one in pointers if one[:-1] == path),
        )
        for name, path in sections.items()
    )


def _section_kept(name: str, ignored: list[str], pointers: list[str]) -> str:
    before, after = f"variables.{_old(name)}", f"variables.{name}"

    def nothing(held: str) -> str:
        empty = f"{held} in variables.empty"
        if not pointers:
            return empty
        return f"({held} == null || (!(key in {list_of(pointers)}) && {empty}))"

    skipped = [f"key in {list_of(ignored)}"] if ignored else []
    same = f"(key in {before} && {before}[key] == {after}[key])"
    both_empty = (
        f"({nothing(f'{after}[key]')} && (!(key in {before}) || {nothing(f'{before}[key]')}))"
    )
    added_or_changed = f"{after}.all(key, {any_of(*skipped, same, both_empty)})"
    gone = any_of(*skipped, f"key in {after}", nothing(f"{before}[key]"))
    return f"{before} == {after} || ({added_or_changed} && {before}.all(key, {gone}))"


def any_of(*tests: str) -> str:
    """Return a test that holds if one of several does."""
    return " || ".join(tests)


def all_of(*tests: str) -> str:
    """Return a test that holds if all of several do; those with alternatives need parentheses."""
    return " && ".join(tests)


def node_matches(pattern: str) -> str:
    """Return a test that the node's name matches a pattern in which ``*`` matches anything."""
    if "*" not in pattern:
        return f"variables.node == {quoted(pattern)}"
    if set(pattern) == {"*"}:
        return "true"
    regex = ".*".join(part.replace(".", "[.]") for part in pattern.split("*"))
    return f"variables.node.matches({quoted(f'^{regex}$')})"


def among(key: str, keys: NodeKeys) -> list[str]:
    """Return tests of which one holds for a key that is among those for the node.

    Args:
        key: name of a variable.
        keys: by patterns of nodes' names.
    """
    tests = []
    for pattern, wanted in keys.by_pattern.items():
        exact = [one for one in wanted if not one.endswith("*")]
        prefixes = [one[:-1] for one in wanted if one.endswith("*")]
        either = any_of(
            *([f"{key} in {list_of(exact)}"] if exact else []),
            *(f"{key}.startsWith({quoted(prefix)})" for prefix in prefixes),
        )
        node = node_matches(pattern)
        tests.append(f"({either})" if node == "true" else f"({node} && ({either}))")
    return tests


def _section(root: str, field: str) -> str:
    return value(f"{root}.{field}", EMPTY_MAP)


#: What expressions may read as ``variables.NAME``; a definition uses only those before it.
VARIABLES: Mapping[str, str] = {
    "node": f"{USER}.substring({len(NODE_USER_PREFIX)})",
    "name": value("request.name"),
    "requestNamespace": value("request.namespace"),
    "subresource": value("request.subResource"),
    "metadata": _section("object", "metadata"),
    "oldMetadata": _section("oldObject", "metadata"),
    "spec": _section("object", "spec"),
    "oldSpec": _section("oldObject", "spec"),
    "status": _section("object", "status"),
    "oldStatus": _section("oldObject", "status"),
    "objectName": value("variables.metadata.name"),
    "labels": value("variables.metadata.labels", EMPTY_MAP),
    "oldLabels": value("variables.oldMetadata.labels", EMPTY_MAP),
    "annotations": value("variables.metadata.annotations", EMPTY_MAP),
    "oldAnnotations": value("variables.oldMetadata.annotations", EMPTY_MAP),
    "owners": value("variables.metadata.ownerReferences", EMPTY_LIST),
    "containers": " + ".join(
        value(f"variables.spec.{field}", EMPTY_LIST)
        for field in ("initContainers", "containers", "ephemeralContainers")
    ),
    "podCIDR": value("variables.spec.podCIDR"),
    "podCIDRs": value("variables.spec.podCIDRs", EMPTY_LIST),
    "oldPodCIDR": value("variables.oldSpec.podCIDR"),
    "oldPodCIDRs": value("variables.oldSpec.podCIDRs", EMPTY_LIST),
    "volumes": value("variables.spec.volumes", EMPTY_LIST),
    "resources": value("variables.spec.resources", EMPTY_MAP),
    "oldResources": value("variables.oldSpec.resources", EMPTY_MAP),
    "nodeName": value("variables.spec.nodeName"),
    # Only v1alpha2 of ResourceSlices has no spec.
    "sliceNodeName": f"request.kind.version == 'v1alpha2' ? {value('object.nodeName')} : "
    "variables.nodeName",
    "empty": "[dyn(null), dyn(''), dyn(0), dyn(false), dyn([]), dyn({})]",
    "oldNodeName": value("variables.oldSpec.nodeName"),
    "oldSliceNodeName": f"request.kind.version == 'v1alpha2' ? {value('oldObject.nodeName')} : "
    "variables.oldNodeName",
}


def used_variables(
    expressions: Iterable[str], defined: Mapping[str, str] = VARIABLES
) -> dict[str, str]:
    """Return the definitions of the variables that expressions use, in order of definition.

    Args:
        expressions: that may use them.
        defined: all definitions; what they lack is left out.
    """
    wanted: set[str] = set()
    waiting = list(expressions)
    while waiting:
        for name in _VARIABLE.findall(waiting.pop()):
            if name in defined and name not in wanted:
                wanted.add(name)
                waiting.append(defined[name])
    return {name: defined[name] for name in defined if name in wanted}
