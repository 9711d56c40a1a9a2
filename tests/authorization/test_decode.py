"""What is read of a SubjectAccessReview: each field, for nodes and for agents."""

import json
from typing import Any

import msgspec
import pytest

from noderestrict import authorization
from noderestrict.agents.agents import Agents
from noderestrict.agents.reads import Asked
from noderestrict.graph.rules import Access
from tests.agents.builders import ACCOUNT, OF_N1, reading

AGENTS = reading("{resources: [nodes], verbs: [get], relation: own-node}")
ATTRIBUTES = {
    "verb": "list",
    "group": "example.com",
    "resource": "things",
    "subresource": "status",
    "namespace": "ns",
    "name": "a",
}


def selector(key: str, *values: str, operator: str = "In") -> dict[str, Any]:
    return {"requirements": [{"key": key, "operator": operator, "values": values}]}


def decoded(
    spec: dict[str, Any], version: str = "v1", agents: Agents = AGENTS
) -> authorization.Review:
    value = {"apiVersion": f"authorization.k8s.io/{version}", "kind": "SubjectAccessReview"}
    return authorization.decode(json.dumps({**value, "spec": spec}).encode(), agents)


@pytest.mark.parametrize(("version", "groups"), [("v1", "groups"), ("v1beta1", "group")])
def test_every_field_that_a_node_sends_is_read(version: str, groups: str) -> None:
    asked = {**ATTRIBUTES, "fieldSelector": selector("spec.nodeName", "n1")}
    spec = {"user": "system:node:n1", groups: ["system:nodes"], "resourceAttributes": asked}
    found = decoded(spec, version)
    assert found.api_version == f"authorization.k8s.io/{version}"
    assert (found.node, found.asked) == ("n1", None)
    assert found.access == Access(
        "n1", "list", "example.com", "things", "status", "ns", "a", frozenset({"n1"})
    )


def test_every_field_that_an_agent_sends_is_read() -> None:
    asked = {
        **ATTRIBUTES,
        "fieldSelector": selector("spec.nodeName", "n1"),
        "labelSelector": selector("zone", "z"),
    }
    spec = {"user": ACCOUNT, "uid": "u", "extra": OF_N1, "resourceAttributes": asked}
    found = decoded(spec)
    assert (found.node, found.access) == (None, None)
    assert found.asked is not None
    user = found.asked.user
    assert (user.name, user.uid, msgspec.json.decode(user.extra)) == (ACCOUNT, "u", OF_N1)
    agent = AGENTS.find(ACCOUNT, ())
    assert agent is not None
    assert found.asked == Asked(
        agent, user, "list", "example.com", "things", "status", "ns", "a",
        frozenset({("spec.nodeName", "n1")}), frozenset({("zone", "z")}),
    )  # fmt: skip


@pytest.mark.parametrize(
    "demanded",
    [
        selector("spec.nodeName", "n1", "n2"),
        selector("spec.nodeName"),
        selector("spec.nodeName", "n1", operator="NotIn"),
        {},
    ],
)
def test_a_selector_that_demands_no_one_value_is_none(demanded: dict[str, Any]) -> None:
    spec = {
        "user": "system:node:n1",
        "groups": ["system:nodes"],
        "resourceAttributes": {**ATTRIBUTES, "fieldSelector": demanded},
    }
    access = decoded(spec).access
    assert access is not None
    assert access.node_selectors == frozenset()


def test_what_nodes_and_agents_leave_out_is_empty() -> None:
    node = {"user": "system:node:n1", "groups": ["system:nodes"], "resourceAttributes": {}}
    assert decoded(node).access == Access("n1", "", "", "")
    found = decoded({"user": ACCOUNT, "resourceAttributes": {}}).asked
    assert found is not None
    assert found == Asked(found.agent, found.user, "", "", "")
    assert (found.user.name, found.user.uid) == (ACCOUNT, "")
    assert decoded({"resourceAttributes": {}}) == authorization.Review(
        "authorization.k8s.io/v1", None, None
    )


def test_others_ask_nothing_that_is_judged_here() -> None:
    spec = {"user": "jane", "groups": ["system:nodes"], "resourceAttributes": ATTRIBUTES}
    assert decoded(spec) == authorization.Review("authorization.k8s.io/v1", None, None)
