"""An agent's node is what the API server says of its credential, or it is not known."""

import pytest

from noderestrict import admission
from noderestrict.agents.agents import Agents
from noderestrict.agents.file import Agent, User
from noderestrict.policy.listers import MemoryListers
from tests.agents.builders import (
    EXTRA,
    OF_N1,
    Object,
    agents,
    assert_allowed,
    assert_denied,
    bound,
    judge,
    node,
    obj,
    policy,
    review,
)

NODES = "{resources: [nodes], operations: [UPDATE], relation: own-node}"
POD_ONLY = {key: value for key, value in OF_N1.items() if "node" not in key}
CREDENTIAL = {f"{EXTRA}credential-id": ["JTI=1"]}


def update(name: str, extra: Object | None = OF_N1, **fields: str) -> bytes:
    before, after = node(name), node(name, labels={"a": "b"})
    return review("nodes", "UPDATE", name=name, new=after, old=before, extra=extra, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("sources", ["[token]", "[token, pod]", "[pod]", "[]"])
def test_a_token_bound_to_a_pod_names_the_node(sources: str) -> None:
    held = policy(NODES, node=sources)
    assert_allowed(judge(held, update("n1")))
    assert_denied(judge(held, update("n2")), "own-node", "nodes n2", "its own Node")
    assert_allowed(judge(held, update("n2", bound("n2", 2))))
    assert_denied(judge(held, update("n1", bound("n2", 2))), "own-node")


def test_an_old_token_leads_to_its_pod() -> None:
    assert_allowed(judge(policy(NODES), update("n1", POD_ONLY)))
    assert_denied(judge(policy(NODES), update("n2", POD_ONLY)), "own-node")


def test_an_old_token_without_a_lookup_names_no_node() -> None:
    decision = judge(policy(NODES, node="[token]"), update("n1", POD_ONLY))
    assert_denied(decision, "node", "1.30", "node: [token, pod]")


def test_the_token_needs_no_lookup() -> None:
    assert_allowed(judge(policy(NODES), update("n1"), MemoryListers()))


@pytest.mark.parametrize(
    ("extra", "uid", "parts"),
    [
        (None, "driver-uid", ("from a Secret", "delete the Secret")),
        (None, "", ("impersonates", "mounted into the agent's pod")),
        (CREDENTIAL, "driver-uid", ("bound to no pod", "kubectl create token")),
        (
            {**CREDENTIAL, f"{EXTRA}node-name": ["n1"], f"{EXTRA}node-uid": ["n1-uid"]},
            "driver-uid",
            ("bound to a Node", "serviceaccounts/token"),
        ),
        ({**OF_N1, f"{EXTRA}node-name": ["n1", "n2"]}, "driver-uid", ("names 2 nodes",)),
        ({**OF_N1, f"{EXTRA}pod-uid": ["a", "b"]}, "driver-uid", ("names 2 pods",)),
        ({**OF_N1, f"{EXTRA}node-name": [], f"{EXTRA}pod-uid": []}, "u", ("bound to no pod",)),
        ({**POD_ONLY, f"{EXTRA}pod-uid": ["other"]}, "u", ("replaced", "'driver-1-uid'")),
        ({**POD_ONLY, f"{EXTRA}pod-name": ["gone"]}, "u", ("storage/gone", "not found")),
        (
            {**POD_ONLY, f"{EXTRA}pod-name": ["pending"], f"{EXTRA}pod-uid": ["pending-uid"]},
            "u",
            ("on no node yet",),
        ),
        ({f"{EXTRA}node-name": "n1"}, "u", ("userInfo.extra",)),
        ({"a": ["x" * 70_000]}, "u", ("userInfo.extra has",)),
    ],
)  # fmt: skip
def test_a_credential_without_a_node_is_told_apart(
    extra: Object | None, uid: str, parts: tuple[str, ...]
) -> None:
    held = policy(NODES)
    for name in ("n1", "n2"):
        assert_denied(judge(held, update(name, extra, uid=uid)), "node", "is not known", *parts)


def test_what_is_looked_up_is_not_told_to_the_requester() -> None:
    decision = judge(policy(NODES), update("n1", {**POD_ONLY, f"{EXTRA}pod-uid": ["other"]}))
    assert "driver-1-uid" not in decision.message  # type: ignore[union-attr]


def test_whoever_has_no_node_may_still_do_what_is_held_to_none() -> None:
    held = policy("{resources: [events], operations: [CREATE], relation: any}")
    assert_allowed(judge(held, review("events", "CREATE", new=node("e"), extra=None)))


def test_the_pod_is_looked_up_in_the_namespace_of_the_account() -> None:
    extra = {f"{EXTRA}pod-name": ["p1"], f"{EXTRA}pod-uid": ["p1-uid"]}
    assert_denied(judge(policy(NODES), update("n1", extra)), "node", "storage/p1", "not found")


def test_a_certificate_names_its_node() -> None:
    held = agents(
        "agents: [{name: driver, users: [{prefix: 'ovn:', group: ovns}], write: [" + NODES + "]}]"
    )
    of_n1 = {"user": "ovn:n1", "groups": ("ovns",), "extra": None}
    assert_allowed(judge(held, update("n1", **of_n1)))  # type: ignore[arg-type]
    assert_denied(judge(held, update("n2", **of_n1)), "own-node")  # type: ignore[arg-type]
    nobody = {**of_n1, "user": "ovn:"}
    assert_denied(judge(held, update("n1", **nobody)), "node", "names no node")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("user", "groups"),
    [
        ("ovn:n1", ("others",)),
        ("ovn", ("ovns",)),
        ("system:serviceaccount:other:driver", ("system:serviceaccounts",)),
        ("system:serviceaccount:storage:driver2", ("system:serviceaccounts",)),
        ("kubernetes-admin", ("system:masters",)),
    ],
)
def test_everybody_else_is_no_agent(user: str, groups: tuple[str, ...]) -> None:
    held = agents(
        "agents:\n- {name: driver, users: [{prefix: 'ovn:', group: ovns}]}\n"
        "- {name: other, users: [{serviceAccount: storage/driver}]}"
    )
    assert_allowed(judge(held, update("n2", user=user, groups=groups)))  # type: ignore[arg-type]


def test_an_agent_that_impersonates_its_node_is_held_as_a_node() -> None:
    held = policy(NODES, unnamedWrites="allow")
    groups = ("system:nodes", "system:authenticated")
    body = update("n2", user="system:node:n1", groups=groups, extra=None)  # type: ignore[arg-type]
    decision = judge(held, body)
    assert decision.rule == "nodes/own-name"  # type: ignore[union-attr]


def test_a_node_that_was_looked_up_is_not_told_to_the_requester() -> None:
    things = "{resources: [things], operations: [DELETE], relation: {field: spec.nodeName}}"
    for entry, rule in ((NODES, "own-node"), (things, "field")):
        held = policy(entry, node="[pod]")
        body = (
            update("n2", POD_ONLY)
            if rule == "own-node"
            else review("things", "DELETE", name="a", old=obj("a"), extra=POD_ONLY)
        )
        decision = judge(held, body)
        assert_denied(decision, rule, "agent 'driver' on its node may")
        assert "n1" not in decision.message  # type: ignore[union-attr]


def test_a_node_is_a_node_even_if_a_policy_could_name_it() -> None:
    # No file may, so the policy is made by hand.
    users = (User(prefix="system:node:", group="system:nodes"),)
    held = Agents([Agent("driver", users)])
    groups = ("system:nodes", "system:authenticated")
    body = update("n1", user="system:node:n1", groups=groups, extra=None)  # type: ignore[arg-type]
    assert admission.decode(body, held).agent is None
    assert_allowed(judge(held, body))
