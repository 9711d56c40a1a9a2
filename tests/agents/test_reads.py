"""A read of an agent is refused, or left to RBAC; nothing is allowed here."""

import json
from typing import Any

import msgspec
import pytest

from noderestrict.agents.agents import Agents
from noderestrict.agents.identity import User
from noderestrict.agents.reads import Asked, Reach, evaluate, needs_selectors
from noderestrict.policy.decision import Denied
from noderestrict.policy.features import AUTHORIZE_WITH_SELECTORS, defaults
from tests.agents.builders import ACCOUNT, LISTERS, OF_N1, Object, policy, reading


def asked(
    held: Agents, verb: str, resource: str, extra: Object | None = OF_N1, **fields: Any
) -> Denied | Reach | None:
    agent = held.find(ACCOUNT, ())
    assert agent is not None
    user = User(ACCOUNT, "driver-uid", msgspec.Raw(json.dumps(extra).encode()))
    plural, _, sub_resource = resource.partition("/")
    skipped = fields.pop("skipped", frozenset())
    for selector in {"fields", "labels"} & fields.keys():
        fields[selector] = frozenset(fields[selector].items())
    given = {"group": "", "sub_resource": sub_resource, **fields}
    return evaluate(Asked(agent, user, verb, resource=plural, **given), LISTERS, skipped)


def assert_refused(found: Denied | Reach | None, rule: str, *parts: str) -> None:
    assert isinstance(found, Denied), found
    assert found.rule == f"agents/driver/{rule}"
    for part in parts:
        assert part in found.explanation, found


def entry(resources: str, relation: str, verbs: str = "get, list, watch") -> str:
    return f"{{resources: [{resources}], verbs: [{verbs}], relation: {relation}}}"


def test_reads_are_not_held_without_entries_for_them() -> None:
    held = policy("{resources: [nodes], operations: [UPDATE], relation: own-node}")
    assert asked(held, "get", "secrets", namespace="ns", name="a") is None


def test_what_no_entry_names_is_refused_or_left_to_rbac() -> None:
    nodes = entry("nodes", "own-node")
    found = asked(reading(nodes), "get", "secrets", namespace="ns", name="a")
    assert_refused(found, "unnamed-read", "get secrets ns/a", "add it to read")
    assert asked(reading(nodes, unnamedReads="allow"), "get", "secrets", name="a") is None


@pytest.mark.parametrize("verb", ["create", "update", "patch", "delete", "impersonate", "*"])
def test_only_reads_are_judged(verb: str) -> None:
    assert asked(reading(entry("nodes", "own-node")), verb, "nodes", name="n2") is None


@pytest.mark.parametrize("sub_resource", ["exec", "attach", "portforward", "proxy"])
def test_what_is_opened_is_left_to_admission(sub_resource: str) -> None:
    held = reading(entry("nodes", "own-node"))
    assert asked(held, "get", f"pods/{sub_resource}", namespace="ns", name="p2") is None


OPENED = "{resources: [nodes/proxy], operations: [CONNECT], relation: own-node}"


def opening(write: str, **more: str) -> Agents:
    """Return an agent that may read any subresource of any Node."""
    nodes = entry("'nodes/*'", "any")
    return policy(write, read=f"[{nodes}]", **more)


@pytest.mark.parametrize("verb", ["get", "create", "update", "patch", "delete"])
def test_what_kubelets_do_without_admission_is_held_whatever_the_verb(verb: str) -> None:
    assert asked(opening(OPENED), verb, "nodes/proxy", name="n1") is None
    found = asked(opening(OPENED), verb, "nodes/proxy", name="n2")
    assert_refused(found, "read", f"{verb} nodes/proxy n2", f"may {verb} only its own Node")
    found = asked(opening(""), verb, "nodes/proxy", name="n1")
    assert_refused(found, "unnamed-read", "add it to write, with operation CONNECT")
    assert asked(opening("", unnamedWrites="allow"), verb, "nodes/proxy", name="n2") is None


def test_what_kubelets_only_show_is_held_as_other_reads() -> None:
    assert asked(opening(OPENED), "get", "nodes/metrics", name="n2") is None
    assert_refused(asked(opening(OPENED), "create", "nodes/checkpoint", name="n1"), "unnamed-read")
    held = reading(entry("nodes/stats", "own-node"))
    assert asked(held, "get", "nodes/stats", name="n1") is None
    assert_refused(asked(held, "get", "nodes/stats", name="n2"), "read")
    assert asked(held, "create", "nodes/proxy", name="n2", group="example.com") is None


NAMED = {"metadata.name": "n1"}
ON_NODE = {"spec.nodeName": "n1"}


@pytest.mark.parametrize(
    ("relation", "resource", "good", "bad"),
    [
        (
            "own-node",
            "nodes",
            [("get", {"name": "n1"}), ("list", {"name": "n1"}), ("watch", {"fields": NAMED})],
            [
                ("get", {"name": "n2"}),
                ("list", {}),
                ("list", {"name": "n2"}),
                ("watch", {"fields": {"metadata.name": "n2"}}),
                ("watch", {"labels": NAMED}),
            ],
        ),
        (
            "own-pods",
            "pods",
            [
                ("get", {"namespace": "ns", "name": "p1"}),
                ("list", {"fields": ON_NODE}),
                ("watch", {"fields": ON_NODE}),
            ],
            [
                ("get", {"namespace": "ns", "name": "p2"}),
                ("get", {"namespace": "ns", "name": "gone"}),
                ("list", {}),
                ("list", {"fields": {"spec.nodeName": "n2"}}),
                ("list", {"labels": ON_NODE}),
                ("watch", {"namespace": "ns"}),
            ],
        ),
        (
            "{name: 'x-{node}'}",
            "leases",
            [("get", {"name": "x-n1"}), ("list", {"name": "x-n1"})],
            [("get", {"name": "n1"}), ("get", {"name": "x-n2"}), ("list", {})],
        ),
        (
            "{field: spec.nodeName}",
            "things",
            [("list", {"fields": ON_NODE}), ("watch", {"fields": {**ON_NODE, "a": "b"}})],
            [("list", {}), ("watch", {"fields": {"spec.nodeName": "n2"}})],
        ),
        (
            "{label: example.com/node}",
            "things",
            [("list", {"labels": {"example.com/node": "n1"}})],
            [("list", {}), ("list", {"fields": {"example.com/node": "n1"}})],
        ),
        ("any", "things", [("get", {"name": "a"}), ("list", {}), ("watch", {})], []),
    ],
)
def test_a_read_is_held_to_the_node(
    relation: str, resource: str, good: list[Any], bad: list[Any]
) -> None:
    verbs = "list, watch" if relation.startswith(("{field", "{label")) else "get, list, watch"
    held = reading(entry(resource, relation, verbs))
    for verb, fields in good:
        assert asked(held, verb, resource, **fields) is None, fields
    for verb, fields in bad:
        assert_refused(asked(held, verb, resource, **fields), "read", "node 'n1' may")


def test_a_refused_list_says_which_selector_is_needed() -> None:
    found = asked(reading(entry("pods", "own-pods")), "list", "pods")
    assert_refused(found, "read", "list pods", "with field selector spec.nodeName=n1")


def test_what_pods_refer_to_is_asked_of_the_graph() -> None:
    held = reading(entry("secrets, configmaps", "referenced"))
    found = asked(held, "get", "secrets", namespace="ns", name="a")
    assert isinstance(found, Reach)
    assert found.node == "n1"
    assert_refused(found.otherwise, "read", "what a pod on its own node refers to")
    assert_refused(asked(held, "list", "secrets", namespace="ns"), "read")


def test_entries_are_alternatives() -> None:
    named = entry("pods", "{name: 'x-{node}'}", "get")
    held = reading(f"{entry('pods', 'own-pods')}, {named}")
    assert asked(held, "get", "pods", namespace="ns", name="x-n1") is None
    assert_refused(asked(held, "get", "pods", namespace="ns", name="p2"), "read")


def test_a_node_that_is_not_known_reads_only_what_is_held_to_none() -> None:
    held = reading(f"{entry('nodes', 'own-node')}, {entry('services', 'any')}")
    found = asked(held, "get", "nodes", extra=None, name="n1")
    assert_refused(found, "node", "get nodes n1", "is not known", "from a Secret")
    assert asked(held, "list", "services", extra=None) is None


@pytest.mark.parametrize(
    ("fields", "rule"),
    [({"name": "n2"}, "read"), ({"name": "n1", "extra": None}, "node")],
)
def test_a_skipped_rule_refuses_nothing(fields: Object, rule: str) -> None:
    held = reading(entry("nodes", "own-node"))
    assert_refused(asked(held, "get", "nodes", **fields), rule)
    skipped = frozenset({f"agents/driver/{rule}"})
    assert asked(held, "get", "nodes", skipped=skipped, **fields) is None
    skipped = frozenset({"agents/driver/unnamed-read"})
    assert asked(held, "get", "secrets", skipped=skipped) is None


@pytest.mark.parametrize("relation", ["own-pods", "{field: spec.nodeName}", "{label: a/b}"])
def test_lists_by_selector_need_an_api_server_that_tells_them(relation: str) -> None:
    held = reading(entry("pods", relation, "list"))
    assert needs_selectors(held, defaults(32)) == ""
    assert needs_selectors(held, {**defaults(31), AUTHORIZE_WITH_SELECTORS: True}) == ""
    problem = needs_selectors(held, defaults(31))
    for part in ("agent 'driver'", "read[0].verbs", "pods", "1.32", AUTHORIZE_WITH_SELECTORS):
        assert part in problem


@pytest.mark.parametrize("relation", ["own-node", "{name: 'x-{node}'}", "any"])
def test_lists_by_name_need_none(relation: str) -> None:
    assert needs_selectors(reading(entry("nodes", relation)), defaults(29)) == ""


def test_gets_of_own_pods_need_none() -> None:
    assert needs_selectors(reading(entry("pods", "own-pods", "get")), defaults(29)) == ""
