"""CEL match conditions: the requests that the API server sends to the webhook.

Each condition mirrors rules, and skips only what those rules allow. Fields that may be absent are
tested with ``has`` first: an error in a condition counts as a failure of the webhook, which the
failurePolicy decides.
"""

from collections.abc import Collection

from noderestrict.policy.cel import IS_NODE_USER, MOST_KEYS, USER
from noderestrict.policy.extra import Extra
from noderestrict.policy.rule import UPDATE, Rule, Target
from noderestrict.policy.rules import csinodes, leases, nodes, nodes_strict, pods
from noderestrict.policy.table import table

Condition = dict[str, str]

_NOT_STRICT: frozenset[str] = frozenset()

#: Node users only. The rules test this as well; here it saves calls.
NODE_USERS: Condition = {"name": "node-users", "expression": IS_NODE_USER}


def _operation(operation: str, sub_resource: str = "") -> str:
    if sub_resource:
        where = f"has(request.subResource) && request.subResource == '{sub_resource}'"
    else:
        where = "(!has(request.subResource) || request.subResource == '')"
    return f"request.operation == '{operation}' && {where}"


def _is_the_node(path: str) -> str:
    """Return a test that a field is present and names the requesting node."""
    present = f"has({path})" if path.startswith("request.") else is_present(path)
    return f"{present} && {path} != '' && 'system:node:' + {path} == {USER}"


def is_present(path: str) -> str:
    """Return a test that every step of a path is present and not null.

    Args:
        path: starts at ``object`` or ``oldObject``.
    """
    root, *steps = path.split(".")
    tests = [f"{root} != null"]
    for step in steps:
        tests.append(f"has({root}.{step})")
        root = f"{root}.{step}"
    return " && ".join(tests)


def _unchanged(path: str) -> str:
    old, new = f"oldObject.{path}", f"object.{path}"
    both = f"{is_present(old)} && {is_present(new)} && {old} == {new}"
    neither = f"!({is_present(old)}) && !({is_present(new)})"
    return f"(({both}) || ({neither}))"


def _fields(target: Target, strict: frozenset[str] = _NOT_STRICT) -> tuple[str, ...]:
    """Return the paths that the rules for a target compare with the existing object."""
    return table(strict)[target.key].fields


def _all(*tests: str) -> str:
    return " && ".join(tests)


def _asked_unless(name: str, *harmless: list[str]) -> Condition:
    cases = [case for group in harmless for case in group]
    either = " || ".join(f"({case})" for case in cases)
    return {"name": name, "expression": f"!({either})" if cases else "true"}


def _skipped(
    target: Target, mirrored: Collection[Rule], strict: frozenset[str], *tests: str
) -> list[str]:
    """Return the one case in which a request for a target is skipped; none if a rule stands out.

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
            return []
    return [_all(*tests)]


def _few(path: str) -> str:
    """Return a test of a map: an API server takes time with the square of the keys to test."""
    return f"size({path}) <= {MOST_KEYS}"


def _open_labels() -> str:
    """Return a test that a new Node has only labels that nodes may set, and not too many."""
    keys = ", ".join(f"'{key}'" for key in sorted(nodes.KUBELET_LABELS))
    labels = "object.metadata.labels"
    return (
        f"(!({is_present(labels)}) || {_few(labels)} && {labels}.all(key, "
        r"!key.matches('^([^/]*[.])?(kubernetes[.]io|k8s[.]io)/') || "
        f"key in [{keys}] || "
        r"key.matches('^([^/]*[.])?(kubelet|node)[.]kubernetes[.]io/')))"
    )


#: Rules: pods/status-*, pods/delete-own.
OWN_POD = _asked_unless(
    "not-own-pod-as-before",
    _skipped(
        pods.UPDATE_STATUS,
        [pods.status_own],
        _NOT_STRICT,
        _operation("UPDATE", "status"),
        _is_the_node("oldObject.spec.nodeName"),
        *map(_unchanged, _fields(pods.UPDATE_STATUS)),
    ),
    _skipped(
        pods.DELETE_POD,
        [pods.delete_own],
        _NOT_STRICT,
        _operation("DELETE"),
        "has(request.name)",
        is_present("oldObject.metadata.name"),
        "request.name == oldObject.metadata.name",
        _is_the_node("oldObject.spec.nodeName"),
    ),
)


def _absent(path: str) -> str:
    return f"!({is_present(path)})"


#: The strict rules that ``_strict_create`` mirrors.
_STRICT_CREATE = (
    nodes_strict.pod_cidr,
    nodes_strict.finalizers,
    nodes_strict.annotations,
    nodes_strict.forbidden_labels,
)


def _strict_create(extra: Extra) -> list[str]:
    """Return the tests of a new Node for the strict rules that apply to one."""
    tests = [
        _absent(f"object.{path}")
        for rule in (nodes_strict.pod_cidr, nodes_strict.finalizers)
        if rule.id in extra.rules
        for path in rule.fields
    ]
    if nodes_strict.annotations.id in extra.rules:
        keys = ", ".join(f"'{key}'" for key in sorted(nodes_strict.KUBELET_ANNOTATIONS))
        path = "object.metadata.annotations"
        tests.append(f"({_absent(path)} || {_few(path)} && {path}.all(key, key in [{keys}]))")
    forbidden = [
        f"key.startsWith('{key[:-1]}')" if key.endswith("*") else f"key == '{key}'"
        for key in extra.forbidden_labels.keys()  # noqa: SIM118 (no mapping)
    ]
    if forbidden:
        path = "object.metadata.labels"
        some = f"{path}.exists(key, {' || '.join(forbidden)})"
        tests.append(f"({_absent(path)} || {_few(path)} && !{some})")
    return tests


def own_node(extra: Extra) -> Condition:
    """Return the condition for Nodes.

    Rules: nodes/*. A new Node has no owner to change, and its node may set taints.
    """
    fields = _fields(nodes.UPDATE_NODE, extra.rules)
    unchanged = _all(_is_the_node("request.name"), *map(_unchanged, fields))
    updates = [
        _skipped(nodes.UPDATE_NODE, [nodes.own_name], extra.rules, operation, unchanged)
        for operation in (_operation("UPDATE"), _operation("UPDATE", "status"))
    ]
    return _asked_unless(
        "not-own-node-as-before",
        *updates,
        _skipped(
            nodes.CREATE_NODE,
            [nodes.own_name, nodes.config_source, nodes.labels, *_STRICT_CREATE],
            extra.rules,
            _operation("CREATE"),
            _is_the_node("request.name"),
            _absent("object.spec.configSource"),
            _open_labels(),
            *_strict_create(extra),
        ),
    )


def _own(
    name: str, create: Target, others: Target, mirrored: Collection[Rule], *tests: str
) -> Condition:
    """Return the condition for objects that a node has one of, with its own name."""
    return _asked_unless(
        name,
        *(
            _skipped(
                target, mirrored, _NOT_STRICT, *tests, _operation(operation), _is_the_node(path)
            )
            for target, operation, path in (
                (create, "CREATE", "object.metadata.name"),
                (others, "UPDATE", "request.name"),
                (others, "DELETE", "request.name"),
            )
        ),
    )


#: Rules: leases/*.
OWN_LEASE = _own(
    "not-own-lease",
    leases.CREATE_LEASE,
    leases.ANY_LEASE,
    [leases.lease_namespace, leases.own_lease],
    f"has(request.namespace) && request.namespace == '{leases.NODE_LEASE_NAMESPACE}'",
)
#: Rules: csinodes/own-name.
OWN_CSI_NODE = _own(
    "not-own-csi-node",
    csinodes.CREATE_CSI_NODE,
    csinodes.ANY_CSI_NODE,
    [csinodes.own_csi_node],
)

#: Rules: events/about-own, if enabled.
OWN_EVENT = _asked_unless(
    "not-about-own-node",
    *(
        [
            _all(
                _operation("CREATE"),
                is_present(f"object.{field}.kind"),
                f"object.{field}.kind == 'Node'",
                _is_the_node(f"object.{field}.name"),
                _absent(f"object.{other}"),
            )
        ]
        for field, other in (("involvedObject", "regarding"), ("regarding", "involvedObject"))
    ),
)
