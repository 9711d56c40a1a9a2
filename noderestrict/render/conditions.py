"""CEL match conditions: the requests that the API server sends to the webhook.

Each condition mirrors rules, and skips only what those rules allow. An API server evaluates all
conditions of a webhook for every request, even if the first one is false. So each webhook has a
single one, which begins with what is cheap and decides most requests: the user, then the request,
then the objects.

A field that may be absent is never read without a guard: an error in a condition counts as a
failure of the webhook, which the failurePolicy decides.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from noderestrict.policy.cel import IS_NODE_USER, MOST_KEYS, USER, quoted
from noderestrict.policy.extra import Extra
from noderestrict.policy.identity import NODE_USER_PREFIX
from noderestrict.policy.rule import UPDATE, Rule, Target
from noderestrict.policy.rules import csinodes, leases, nodes, nodes_strict, pods
from noderestrict.policy.table import table

Condition = dict[str, str]

_NOT_STRICT: frozenset[str] = frozenset()

#: Node users only. The rules test this as well; here it saves calls.
NODE_USERS: Condition = {"name": "node-users", "expression": IS_NODE_USER}


@dataclass(frozen=True, slots=True)
class Syntax:
    """How conditions read fields that may be absent; a path starts at a variable that is not null.

    Attributes:
        optional: by optional field selection, which takes an API server half the time, and which
            API servers have since Kubernetes 1.29.
    """

    optional: bool = True

    def present(self, path: str) -> str:
        """Return a test that every step of a path is there."""
        if self.optional:
            return f"{_selected(path)}.hasValue()"
        root, *steps = path.split(".")
        tests = []
        for step in steps:
            root = f"{root}.{step}"
            tests.append(f"has({root})")
        return " && ".join(tests)

    def absent(self, path: str) -> str:
        """Return a test that a step of a path is not there."""
        return f"!{self.present(path)}" if self.optional else f"!({self.present(path)})"

    def text(self, path: str) -> str:
        """Return the text at a path, empty if there is none."""
        if self.optional:
            return f"{_selected(path)}.orValue('')"
        return f"({self.present(path)} ? {path} : '')"

    def unchanged(self, path: str) -> str:
        """Return a test that a path of the object leads to what it leads to in the existing one."""
        old, new = f"oldObject.{path}", f"object.{path}"
        if self.optional:
            return f"{_selected(old)} == {_selected(new)}"
        return f"({self.present(old)} ? {self.present(new)} && {old} == {new} : {self.absent(new)})"

    def names_the_node(self, path: str) -> str:
        """Return a test that a path leads to the requesting node's name, if that has one."""
        return f"{USER} == {quoted(NODE_USER_PREFIX)} + {self.text(path)}"

    def in_subresource(self, *names: str) -> str:
        """Return a test that a request is for one of some subresources, of which "" is none."""
        found = self.text("request.subResource")
        if len(names) == 1:
            return f"{found} == {quoted(names[0])}"
        return f"{found} in [{', '.join(map(quoted, names))}]"


OPTIONAL, LONG = SYNTAXES = (Syntax(), Syntax(optional=False))


def syntax_of(expressions: Iterable[str]) -> Syntax:
    """Return how rendered conditions read fields; as usual if they do not tell."""
    telling = [one for one in expressions if one.startswith(f"{IS_NODE_USER} && ")]
    return LONG if telling and not any(".?" in one for one in telling) else OPTIONAL


def _selected(path: str) -> str:
    return path.replace(".", ".?")


#: The node of a user without a name has none either, and owns nothing.
_HAS_NAME = f"{USER} != {quoted(NODE_USER_PREFIX)}"


#: An API server sends the objects of an operation always; should it not, it is to ask.
_NEW, _OLD = "object != null", "oldObject != null"


def _operation(operation: str) -> str:
    return f"request.operation == {quoted(operation)}"


def _fields(target: Target, strict: frozenset[str] = _NOT_STRICT) -> tuple[str, ...]:
    """Return the paths that the rules for a target compare with the existing object."""
    return table(strict)[target.key].fields


def _all(*tests: str) -> str:
    return " && ".join(tests)


def among_node_users(name: str, test: str) -> Condition:
    """Return a condition that holds for node users if a test does.

    Args:
        name: of the condition.
        test: as an operand of ``&&``; it may read the name of the user.
    """
    return {"name": name, "expression": f"{IS_NODE_USER} && {test}"}


def _asked_unless(name: str, always: Sequence[str], *harmless: Sequence[str]) -> Condition:
    """Return the condition of node users' requests, without those that are harmless.

    Args:
        name: of the condition.
        always: tests that hold for every harmless request.
        harmless: cases, in each of which further tests hold; an empty one is none.
    """
    cases = [_all(*tests) for tests in harmless if tests]
    if not cases:
        return {"name": name, "expression": IS_NODE_USER}
    either = cases[0] if len(cases) == 1 else f"({' || '.join(f'({case})' for case in cases)})"
    return among_node_users(name, f"!({_all(_HAS_NAME, *always, either)})")


def _skipped(
    target: Target, mirrored: Collection[Rule], strict: frozenset[str], *tests: str
) -> Sequence[str]:
    """Return the tests of the requests for a target that are skipped; none if a rule stands out.

    Args:
        target: of the requests.
        mirrored: the rules that the tests mirror, besides those that only compare fields.
        strict: ids of the strict rules that are on.
        tests: hold for requests that all these rules allow.
    """
    compares = target.operation == UPDATE
    for rule in table(strict)[target.key].rules:
        if rule not in mirrored and not (compares and rule.fields):
            # Nobody has said in CEL what it allows: ask about every request.
            return ()
    return tests


def _few(path: str) -> str:
    """Return a test of a map: an API server takes time with the square of the keys to test."""
    return f"size({path}) <= {MOST_KEYS}"


def _each_key(syntax: Syntax, path: str, test: str) -> str:
    """Return a test of each key of a map, which must not have too many."""
    return f"({syntax.absent(path)} || {_few(path)} && {path}.all(key, {test}))"


def _open_labels(syntax: Syntax) -> str:
    """Return a test that a new Node has only labels that nodes may set, and not too many."""
    keys = ", ".join(f"'{key}'" for key in sorted(nodes.KUBELET_LABELS))
    return _each_key(
        syntax,
        "object.metadata.labels",
        r"!key.matches('^([^/]*[.])?(kubernetes[.]io|k8s[.]io)/') || "
        f"key in [{keys}] || "
        r"key.matches('^([^/]*[.])?(kubelet|node)[.]kubernetes[.]io/')",
    )


def own_pod(syntax: Syntax = OPTIONAL) -> Condition:
    """Return the condition for pods.

    Rules: pods/status-*, pods/delete-own.
    """
    return _asked_unless(
        "not-own-pod-as-before",
        (),
        _skipped(
            pods.UPDATE_STATUS,
            [pods.status_own],
            _NOT_STRICT,
            _operation("UPDATE"),
            syntax.in_subresource("status"),
            _OLD,
            _NEW,
            syntax.names_the_node("oldObject.spec.nodeName"),
            *map(syntax.unchanged, _fields(pods.UPDATE_STATUS)),
        ),
        _skipped(
            pods.DELETE_POD,
            [pods.delete_own],
            _NOT_STRICT,
            _operation("DELETE"),
            syntax.in_subresource(""),
            _OLD,
            syntax.names_the_node("oldObject.spec.nodeName"),
            syntax.present("oldObject.metadata.name"),
            f"{syntax.text('request.name')} == oldObject.metadata.name",
        ),
    )


#: The strict rules that ``_strict_create`` mirrors.
_STRICT_CREATE = (
    nodes_strict.pod_cidr,
    nodes_strict.finalizers,
    nodes_strict.annotations,
    nodes_strict.forbidden_labels,
)


def _strict_create(syntax: Syntax, extra: Extra) -> list[str]:
    """Return the tests of a new Node for the strict rules that apply to one."""
    tests = [
        syntax.absent(f"object.{path}")
        for rule in (nodes_strict.pod_cidr, nodes_strict.finalizers)
        if rule.id in extra.rules
        for path in rule.fields
    ]
    if nodes_strict.annotations.id in extra.rules:
        keys = ", ".join(f"'{key}'" for key in sorted(nodes_strict.KUBELET_ANNOTATIONS))
        tests.append(_each_key(syntax, "object.metadata.annotations", f"key in [{keys}]"))
    forbidden = [
        f"key.startsWith('{key[:-1]}')" if key.endswith("*") else f"key == '{key}'"
        for key in extra.forbidden_labels.keys()  # noqa: SIM118 (no mapping)
    ]
    if forbidden:
        path = "object.metadata.labels"
        some = f"{path}.exists(key, {' || '.join(forbidden)})"
        tests.append(f"({syntax.absent(path)} || {_few(path)} && !{some})")
    return tests


def own_node(extra: Extra, syntax: Syntax = OPTIONAL) -> Condition:
    """Return the condition for Nodes.

    Rules: nodes/*. A new Node has no owner to change, and its node may set taints.
    """
    return _asked_unless(
        "not-own-node-as-before",
        [syntax.names_the_node("request.name")],
        _skipped(
            nodes.UPDATE_NODE,
            [nodes.own_name],
            extra.rules,
            _operation("UPDATE"),
            syntax.in_subresource("", "status"),
            _OLD,
            _NEW,
            *map(syntax.unchanged, _fields(nodes.UPDATE_NODE, extra.rules)),
        ),
        _skipped(
            nodes.CREATE_NODE,
            [nodes.own_name, nodes.config_source, nodes.labels, *_STRICT_CREATE],
            extra.rules,
            _operation("CREATE"),
            syntax.in_subresource(""),
            _NEW,
            syntax.absent("object.spec.configSource"),
            _open_labels(syntax),
            *_strict_create(syntax, extra),
        ),
    )


def _own(
    name: str,
    create: Target,
    others: Target,
    mirrored: Collection[Rule],
    syntax: Syntax,
    *tests: str,
) -> Condition:
    """Return the condition for objects that a node has one of, with its own name."""
    return _asked_unless(
        name,
        [syntax.names_the_node("request.name"), *tests, syntax.in_subresource("")],
        _skipped(others, mirrored, _NOT_STRICT, "request.operation in ['UPDATE', 'DELETE']"),
        _skipped(
            create,
            mirrored,
            _NOT_STRICT,
            _operation("CREATE"),
            _NEW,
            syntax.names_the_node("object.metadata.name"),
        ),
    )


def own_lease(syntax: Syntax = OPTIONAL) -> Condition:
    """Return the condition for leases.

    Rules: leases/*.
    """
    return _own(
        "not-own-lease",
        leases.CREATE_LEASE,
        leases.ANY_LEASE,
        [leases.lease_namespace, leases.own_lease],
        syntax,
        f"{syntax.text('request.namespace')} == {quoted(leases.NODE_LEASE_NAMESPACE)}",
    )


def own_csi_node(syntax: Syntax = OPTIONAL) -> Condition:
    """Return the condition for CSINodes.

    Rules: csinodes/own-name.
    """
    return _own(
        "not-own-csi-node",
        csinodes.CREATE_CSI_NODE,
        csinodes.ANY_CSI_NODE,
        [csinodes.own_csi_node],
        syntax,
    )


def own_event(syntax: Syntax = OPTIONAL) -> Condition:
    """Return the condition for events.

    Rules: events/about-own, if enabled.
    """
    return _asked_unless(
        "not-about-own-node",
        [_operation("CREATE"), syntax.in_subresource(""), _NEW],
        *(
            [
                f"{syntax.text(f'object.{field}.kind')} == 'Node'",
                syntax.names_the_node(f"object.{field}.name"),
                syntax.absent(f"object.{other}"),
            ]
            for field, other in (("involvedObject", "regarding"), ("regarding", "involvedObject"))
        ),
    )
