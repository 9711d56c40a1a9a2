"""CEL match conditions: the requests that the API server sends to the webhook.

Each condition mirrors rules, and skips only what those rules allow. Fields that may be absent are
tested with ``has`` first: an error in a condition counts as a failure of the webhook, which the
failurePolicy decides.
"""

from noderestrict.policy.extra import Extra
from noderestrict.policy.rule import Target
from noderestrict.policy.rules import nodes_strict
from noderestrict.policy.rules.leases import NODE_LEASE_NAMESPACE
from noderestrict.policy.rules.nodes import KUBELET_LABELS, UPDATE_NODE
from noderestrict.policy.rules.nodes_strict import KUBELET_ANNOTATIONS
from noderestrict.policy.rules.pods import UPDATE_STATUS
from noderestrict.policy.table import table

Condition = dict[str, str]

_USER = "request.userInfo.username"

#: Node users only. The rules test this as well; here it saves calls.
NODE_USERS: Condition = {
    "name": "node-users",
    "expression": "has(request.userInfo.username) && has(request.userInfo.groups) && "
    f"'system:nodes' in request.userInfo.groups && {_USER}.startsWith('system:node:')",
}


def _operation(operation: str, sub_resource: str = "") -> str:
    if sub_resource:
        where = f"has(request.subResource) && request.subResource == '{sub_resource}'"
    else:
        where = "(!has(request.subResource) || request.subResource == '')"
    return f"request.operation == '{operation}' && {where}"


def _is_the_node(path: str) -> str:
    """Return a test that a field is present and names the requesting node."""
    present = f"has({path})" if path.startswith("request.") else _present(path)
    return f"{present} && {path} != '' && 'system:node:' + {path} == {_USER}"


def _present(path: str) -> str:
    """Return a test that every step of a path is present and not null."""
    root, *steps = path.split(".")
    tests = [f"{root} != null"]
    for step in steps:
        tests.append(f"has({root}.{step})")
        root = f"{root}.{step}"
    return " && ".join(tests)


def _unchanged(path: str) -> str:
    old, new = f"oldObject.{path}", f"object.{path}"
    both = f"{_present(old)} && {_present(new)} && {old} == {new}"
    neither = f"!({_present(old)}) && !({_present(new)})"
    return f"(({both}) || ({neither}))"


def _fields(target: Target, strict: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Return the paths that the rules for a target compare with the existing object."""
    return table(strict)[target.key].fields


def _all(*tests: str) -> str:
    return " && ".join(tests)


def _asked_unless(name: str, *harmless: str) -> Condition:
    either = " || ".join(f"({case})" for case in harmless)
    return {"name": name, "expression": f"!({either})"}


def _open_labels() -> str:
    """Return a test that a new Node has only labels that nodes may set."""
    keys = ", ".join(f"'{key}'" for key in sorted(KUBELET_LABELS))
    labels = "object.metadata.labels"
    return (
        f"(!({_present(labels)}) || {labels}.all(key, "
        r"!key.matches('^([^/]*[.])?(kubernetes[.]io|k8s[.]io)/') || "
        f"key in [{keys}] || "
        r"key.matches('^([^/]*[.])?(kubelet|node)[.]kubernetes[.]io/')))"
    )


#: Rules: pods/status-*, pods/delete-own.
OWN_POD = _asked_unless(
    "not-own-pod-as-before",
    _all(
        _operation("UPDATE", "status"),
        _is_the_node("oldObject.spec.nodeName"),
        *map(_unchanged, _fields(UPDATE_STATUS)),
    ),
    _all(
        _operation("DELETE"),
        "has(request.name)",
        _present("oldObject.metadata.name"),
        "request.name == oldObject.metadata.name",
        _is_the_node("oldObject.spec.nodeName"),
    ),
)


def _absent(path: str) -> str:
    return f"!({_present(path)})"


def _strict_create(extra: Extra) -> list[str]:
    """Return the tests of a new Node for the strict rules that apply to one."""
    tests = [
        _absent(f"object.{path}")
        for rule in (nodes_strict.pod_cidr, nodes_strict.finalizers)
        if rule.id in extra.rules
        for path in rule.fields
    ]
    if nodes_strict.annotations.id in extra.rules:
        keys = ", ".join(f"'{key}'" for key in sorted(KUBELET_ANNOTATIONS))
        path = "object.metadata.annotations"
        tests.append(f"({_absent(path)} || {path}.all(key, key in [{keys}]))")
    forbidden = [
        f"key.startsWith('{key[:-1]}')" if key.endswith("*") else f"key == '{key}'"
        for key in extra.forbidden_labels.keys()  # noqa: SIM118 (no mapping)
    ]
    if forbidden:
        path = "object.metadata.labels"
        tests.append(f"({_absent(path)} || !{path}.exists(key, {' || '.join(forbidden)}))")
    return tests


def own_node(extra: Extra) -> Condition:
    """Return the condition for Nodes.

    Rules: nodes/*. A new Node has no owner to change, and its node may set taints.
    """
    fields = _fields(UPDATE_NODE, extra.rules)
    unchanged = _all(_is_the_node("request.name"), *map(_unchanged, fields))
    return _asked_unless(
        "not-own-node-as-before",
        _all(_operation("UPDATE"), unchanged),
        _all(_operation("UPDATE", "status"), unchanged),
        _all(
            _operation("CREATE"),
            _is_the_node("request.name"),
            _absent("object.spec.configSource"),
            _open_labels(),
            *_strict_create(extra),
        ),
    )


def _own(name: str, *tests: str) -> Condition:
    """Return the condition for objects that a node has one of, with its own name."""
    return _asked_unless(
        name,
        *(
            _all(*tests, _operation(operation), _is_the_node(path))
            for operation, path in (
                ("CREATE", "object.metadata.name"),
                ("UPDATE", "request.name"),
                ("DELETE", "request.name"),
            )
        ),
    )


#: Rules: leases/*.
OWN_LEASE = _own(
    "not-own-lease", f"has(request.namespace) && request.namespace == '{NODE_LEASE_NAMESPACE}'"
)
#: Rules: csinodes/own-name.
OWN_CSI_NODE = _own("not-own-csi-node")

#: Rules: events/about-own, if enabled.
OWN_EVENT = _asked_unless(
    "not-about-own-node",
    *(
        _all(
            _operation("CREATE"),
            _present(f"object.{field}.kind"),
            f"object.{field}.kind == 'Node'",
            _is_the_node(f"object.{field}.name"),
            _absent(f"object.{other}"),
        )
        for field, other in (("involvedObject", "regarding"), ("regarding", "involvedObject"))
    ),
)
