"""A write of an agent is allowed if an entry of its policy allows it."""

import json
from typing import Any

import pytest

from noderestrict import admission
from noderestrict.agents.agents import InForce
from noderestrict.policy.settings import Settings
from tests.agents.builders import (
    ACCOUNT,
    LISTERS,
    Object,
    agents,
    assert_allowed,
    assert_denied,
    judge,
    node,
    obj,
    pod,
    policy,
    review,
)


def entry(resources: str, relation: str, operations: str = "CREATE, UPDATE, DELETE") -> str:
    return f"{{resources: [{resources}], operations: [{operations}], relation: {relation}}}"


def test_what_no_entry_names_is_refused() -> None:
    held = policy(entry("nodes", "own-node", "UPDATE"))
    for body in (
        review("pods", "DELETE", name="p1", namespace="ns", old=pod("p1", "n1")),
        review("nodes", "DELETE", name="n1", old=node("n1")),
        review("nodes/status", "UPDATE", name="n1", new=node("n1"), old=node("n1")),
        review("nodes", "UPDATE", group="example.com", name="n1", new=obj("n1"), old=obj("n1")),
        review("nodes/proxy", "CONNECT", name="n1", new=obj("", "NodeProxyOptions")),
    ):
        assert_denied(judge(held, body), "unnamed", "does not name", "add it to write")


def test_what_no_entry_names_is_allowed_on_demand() -> None:
    held = policy(entry("nodes", "own-node", "UPDATE"), unnamedWrites="allow")
    assert_allowed(judge(held, review("secrets", "DELETE", name="a", old=obj("a"))))
    other = review("nodes", "UPDATE", name="n2", new=node("n2"), old=node("n2"))
    assert_denied(judge(held, other), "own-node")


def test_a_star_is_every_subresource_but_not_the_resource() -> None:
    held = policy(entry("'nodes/*'", "own-node", "UPDATE"))
    body = {"name": "n1", "new": node("n1"), "old": node("n1")}
    assert_allowed(judge(held, review("nodes/status", "UPDATE", **body)))  # type: ignore[arg-type]
    assert_denied(judge(held, review("nodes", "UPDATE", **body)), "unnamed")  # type: ignore[arg-type]


def test_entries_are_alternatives() -> None:
    held = policy(f"{entry('nodes', 'own-node')}, {entry('nodes', 'any', 'DELETE')}")
    assert_allowed(judge(held, review("nodes", "DELETE", name="n2", old=node("n2"))))
    other = review("nodes", "UPDATE", name="n2", new=node("n2"), old=node("n2"))
    assert_denied(judge(held, other), "own-node")


def test_an_object_that_one_entry_cannot_judge_may_be_allowed_by_another() -> None:
    body = create(spec={"nodeName": 1})
    related = entry("things", "{field: spec.nodeName}")
    assert_denied(judge(policy(related), body), "object")
    assert_allowed(judge(policy(f"{related}, {entry('things', 'any')}"), body))


@pytest.mark.parametrize("kept", ["namespaces: [storage]", "names: [lock]"])
def test_an_entry_can_be_about_some_objects_only(kept: str) -> None:
    held = policy(f"{{resources: [leases], operations: [UPDATE], relation: any, {kept}}}")
    for namespace, name, allowed in (
        ("storage", "lock", True),
        ("other", "lock", kept.startswith("names:")),
        ("storage", "other", kept.startswith("namespaces:")),
    ):
        body = review(
            "leases", "UPDATE", namespace=namespace, name=name, new=obj(name), old=obj(name)
        )
        if allowed:
            assert_allowed(judge(held, body))
        else:
            assert_denied(judge(held, body), "unnamed", "this object")


# Each relation: bodies that it holds for, and bodies that it does not hold for.


def create(name: str = "a", **fields: Any) -> bytes:
    return review("things", "CREATE", name=name, new=obj(name, **fields))


def update(old: Object, new: Object) -> bytes:
    name = old["metadata"].get("name", "a")
    return review("things", "UPDATE", name=name, new={**obj(name), **new}, old={**obj(name), **old})


def delete(name: str = "a", **fields: Any) -> bytes:
    return review("things", "DELETE", name=name, old=obj(name, **fields))


def deletecollection(name: str = "a", **fields: Any) -> bytes:
    return review("things", "DELETE", old=obj(name, **fields))


def meta(**fields: Any) -> Object:
    return obj("a", metadata=fields)


def owned(*names: str, kind: str = "Node", version: str = "v1") -> Object:
    owners = [
        {"apiVersion": version, "kind": kind, "name": name, "uid": f"{name}-uid"} for name in names
    ]
    return {"ownerReferences": owners}


ON_N1: Object = {"spec": {"nodeName": "n1"}}
ON_N2: Object = {"spec": {"nodeName": "n2"}}
ON_NONE: Object = {"spec": {"nodeName": ""}}
OWNED_BY_N1 = owned("n1")["ownerReferences"]
OWNED_BY_POD = owned("n2", kind="Pod")["ownerReferences"]
LABEL = "example.com/node"
L1, L2 = ({"labels": {LABEL: name}} for name in ("n1", "n2"))
HELD = {
    "{name: '{node}'}": (
        [create("n1"), update(obj("n1"), obj("n1")), delete("n1"), deletecollection("n1")],
        [
            create("n2"),
            create("n1x"),
            create(""),
            review("things", "CREATE", name="n1", new=obj("n2")),
            review("things", "CREATE", name="n2", new=obj("n1")),
            review("things", "CREATE", name="n1", new=obj("")),
            update(obj("n2"), obj("n2")),
            delete("n2"),
            deletecollection("n2"),
            review("things", "DELETE"),
        ],
    ),
    "{name: 'pool-{node}.x'}": (
        [create("pool-n1.x")],
        [create("n1"), create("pool-n1"), create("pool-n2.x")],
    ),
    "{field: spec.nodeName}": (
        [
            create(**ON_N1),
            update({**obj("a"), **ON_N1}, {**obj("a"), **ON_N1}),
            delete(**ON_N1),
            deletecollection(**ON_N1),
        ],
        [
            create(**ON_N2),
            create(**ON_NONE),
            create(),
            create(spec=None),
            create(spec={"nodeName": None}),
            create(spec={"nodeName": ["n1"]}),
            create(spec={"nodeName": 1}),
            create(spec="n1"),
            update({**obj("a"), **ON_N2}, {**obj("a"), **ON_N1}),
            update({**obj("a"), **ON_N1}, {**obj("a"), **ON_N2}),
            update({**obj("a"), **ON_N1}, obj("a")),
            update(obj("a"), {**obj("a"), **ON_N1}),
            delete(**ON_N2),
            delete(),
            deletecollection(**ON_N2),
            review("things", "UPDATE", name="a", new=obj("a", **ON_N1)),
            review("things", "DELETE", name="a"),
            review("things", "CREATE", name="a"),
        ],
    ),
    f"{{label: {LABEL}}}": (
        [create(metadata=L1), update(meta(**L1), meta(**L1)), delete(metadata=L1)],
        [
            create(),
            create(metadata=L2),
            create(metadata={"labels": None}),
            create(metadata={"labels": {"node": "n1"}}),
            update(meta(**L2), meta(**L1)),
            update(meta(**L1), meta(**L2)),
            update(meta(**L1), meta()),
            delete(metadata=L2),
        ],
    ),
    "{owner: node}": (
        [
            create(metadata=owned("n1")),
            update(meta(**owned("n1")), meta(**owned("n1"))),
            delete(metadata=owned("n1")),
            create(metadata={"ownerReferences": [*OWNED_BY_N1, *OWNED_BY_POD]}),
        ],
        [
            create(),
            create(metadata=owned("n2")),
            create(metadata=owned("n1", "n2")),
            create(metadata=owned("n1", kind="Pod")),
            create(metadata=owned("n1", version="example.com/v1")),
            update(meta(**owned("n2")), meta(**owned("n1"))),
            update(meta(**owned("n1")), meta(**owned("n1", "n2"))),
            update(meta(**owned("n1")), meta()),
            delete(metadata=owned("n2")),
        ],
    ),
    "any": ([create(), delete(), update(obj("n2"), obj("n2"))], []),
}


@pytest.mark.parametrize("relation", HELD)
def test_a_relation_holds_before_and_after(relation: str) -> None:
    held = policy(entry("things", relation))
    kind = relation.strip("{").split(":")[0]
    good, bad = HELD[relation]
    for body in good:
        assert_allowed(judge(held, body))
    for body in bad:
        decision = judge(held, body)
        assert decision.rule in (f"agents/driver/{kind}", "agents/driver/object"), (body, decision)  # type: ignore[union-attr]


def test_a_message_names_object_agent_node_and_what_would_be_allowed() -> None:
    held = policy(entry("things", "{field: spec.nodeName}"))
    assert_denied(
        judge(held, create(**ON_N2)),
        "field",
        "things a: agent 'driver' on node 'n1' may create only objects with spec.nodeName 'n1'",
        "this one has spec.nodeName 'n2'",
    )


def test_the_existing_object_is_not_told_to_the_requester() -> None:
    held = policy(entry("things", "{field: spec.nodeName}"))
    decision = judge(held, delete(**ON_N2))
    assert_denied(decision, "field", "the existing object has spec.nodeName 'n2'")
    assert "n2" not in decision.message  # type: ignore[union-attr]


def of_pod(resource: str, before: str, after: str) -> bytes:
    new, old = pod("p", after), pod("p", before)
    return review(resource, "UPDATE", name="p", namespace="ns", new=new, old=old)


PODS = "pods, pods/status, pods/exec, pods/attach, pods/portforward, pods/eviction, pods/binding"


def test_own_pods_are_those_bound_to_the_node() -> None:
    held = policy(entry(f"{PODS}, pods/ephemeralcontainers", "own-pods", "CREATE, UPDATE, DELETE"))
    for body in (
        review("pods", "DELETE", name="p1", namespace="ns", old=pod("p1", "n1")),
        review("pods", "DELETE", namespace="ns", old=pod("p1", "n1")),
        review("pods", "CREATE", name="x", namespace="ns", new=pod("x", "n1")),
        of_pod("pods/status", "n1", "n1"),
        of_pod("pods/ephemeralcontainers", "n1", "n1"),
        review("pods/eviction", "CREATE", name="p1", namespace="ns", new=obj("p1", "Eviction")),
    ):
        assert_allowed(judge(held, body))
    for body in (
        review("pods", "DELETE", name="p2", namespace="ns", old=pod("p2", "n2")),
        review("pods", "DELETE", name="p2", namespace="ns", old=pod("p2", "")),
        review("pods", "DELETE", namespace="ns", old=pod("p2", "n2")),
        review("pods", "CREATE", name="x", namespace="ns", new=pod("x", "n2")),
        review("pods", "CREATE", name="x", namespace="ns", new=pod("x", "")),
        of_pod("pods", "n2", "n1"),
        of_pod("pods/status", "n2", "n2"),
        of_pod("pods/ephemeralcontainers", "n2", "n2"),
        review("pods/eviction", "CREATE", name="p2", namespace="ns", new=obj("p2", "Eviction")),
        review("pods/eviction", "CREATE", name="p2", namespace="ns", new=obj("p1", "Eviction")),
        review("pods/binding", "CREATE", name="p2", namespace="ns", new=obj("p2", "Binding")),
    ):
        assert_denied(judge(held, body), "own-pods", "pods on its own node")


@pytest.mark.parametrize("sub_resource", ["exec", "attach", "portforward", "proxy"])
def test_pods_are_opened_by_lookup(sub_resource: str) -> None:
    held = policy(entry(f"pods/{sub_resource}", "own-pods", "CONNECT"))

    def body(name: str) -> bytes:
        options = obj("p1", "PodExecOptions", spec={"nodeName": "n1"})
        return review(f"pods/{sub_resource}", "CONNECT", name=name, namespace="ns", new=options)

    assert_allowed(judge(held, body("p1")))
    assert_denied(judge(held, body("p2")), "own-pods", "spec.nodeName 'n2'")
    assert_denied(judge(held, body("gone")), "own-pods", "pods ns/gone not found", code=404)
    assert_denied(judge(held, body("")), "own-pods", "names no pod")


def test_the_own_node_can_be_opened() -> None:
    held = policy(entry("nodes/proxy", "own-node", "CONNECT"))
    options = obj("", "NodeProxyOptions")
    assert_allowed(judge(held, review("nodes/proxy", "CONNECT", name="n1", new=options)))
    assert_denied(judge(held, review("nodes/proxy", "CONNECT", name="n2", new=options)), "own-node")


@pytest.mark.parametrize(
    "value",
    ['{"metadata":' * 2000, "[]", '"text"', '{"metadata":[]}', '{"metadata":{"name":1}}', "{"],
)
def test_objects_that_are_none_are_refused(value: str) -> None:
    held = policy(
        f"{entry('things', '{field: spec.nodeName}')}, {entry('things', '{owner: node}')}"
    )
    before, _, after = create(**ON_N1).partition(b'"object":')
    _, comma, after = after.partition(b',"oldObject"')
    closed = value + "1" + "}" * 2000 if len(value) > 2000 else value
    whole = before + b'"object":' + closed.encode() + comma + after
    try:
        decision = judge(held, whole)
    except ValueError:
        return  # not even a review: answered 400
    assert decision.rule.startswith("agents/driver/"), decision  # type: ignore[union-attr]


# Modes: a rule that is ignored refuses nothing.


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (create(**ON_N2), "field"),
        (create(spec=7), "object"),
        (review("other", "DELETE", name="a", old=obj("a")), "unnamed"),
        (review("things", "CREATE", name="a", new=obj("a", **ON_N1), extra=None), "node"),
    ],
)
def test_a_skipped_rule_objects_to_nothing(body: bytes, rule: str) -> None:
    held = policy(entry("things", "{field: spec.nodeName}"))
    assert_denied(judge(held, body), rule)
    assert_allowed(judge(held, body, skipped=frozenset({f"agents/driver/{rule}"})))


def test_two_agents_are_judged_by_their_own_policies() -> None:
    held = agents(
        "agents:\n"
        "- {name: driver, users: [{serviceAccount: storage/driver}], "
        f"write: [{entry('things', 'any')}]}}\n"
        "- {name: other, users: [{serviceAccount: storage/other}]}\n"
    )
    assert_allowed(judge(held, create()))
    body = create().replace(b"storage:driver", b"storage:other")
    assert judge(held, body).rule == "agents/other/unnamed"  # type: ignore[union-attr]


def user_info(body: bytes) -> bytes:
    return json.dumps(json.loads(body)["request"]["userInfo"]).encode()


def test_an_agent_whose_name_is_written_otherwise_is_judged_by_whole_objects() -> None:
    held = policy("{resources: [nodes], operations: [UPDATE], relation: any, fields: [status]}")
    decoder = admission.TypedDecoder(InForce(held))
    changed = {**node("n2"), "spec": {"podCIDR": "10.0.0.0/8"}}
    plain = review("nodes", "UPDATE", name="n2", new=changed, old=node("n2"))
    # The same text in JSON, but not for who looks for the name alone.
    body = plain.replace(b'"system:serviceaccount:', b'"system\\u003aserviceaccount:')
    assert body != plain
    kubelet = plain.replace(ACCOUNT.encode(), b"system:node:n1")
    # Looks like a kubelet's; but the last one of two users counts.
    twice = kubelet.replace(b'"object":', b'"userInfo":' + user_info(plain) + b',"object":', 1)
    for sent in (kubelet, kubelet, body, body, twice, plain):
        request = decoder.decode(sent)
        decision = admission.evaluate(request, Settings.for_version(), LISTERS)
        if sent != kubelet:
            assert_denied(decision, "fields", "this changes spec.podCIDR")
