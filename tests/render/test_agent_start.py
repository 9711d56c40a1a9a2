"""Which writes of an agent wait for a server, although its policy allows them."""

from pathlib import Path

import pytest

from noderestrict.agents.load import parse
from noderestrict.render.agent_start import waiting
from tests.agents.builders import agents, policy

READY = sorted((Path(__file__).parents[2] / "manifests" / "agents").glob("*.yaml"))
STATUS = "{resources: [nodes/status], operations: [UPDATE], relation: own-node"


def found(entry: str, *, node_in_tokens: bool = True, **fields: str) -> list[str]:
    (agent,) = policy(entry, **fields).all
    return waiting(agent, node_in_tokens=node_in_tokens)


@pytest.mark.parametrize(
    ("entry", "waits"),
    [
        (f"{STATUS}}}", []),
        ("{resources: [events], operations: [CREATE, UPDATE], relation: any}", []),
        ("{resources: [pods], operations: [CREATE, UPDATE, DELETE], relation: own-pods}", []),
        ("{resources: [x], apiGroups: [a.b], operations: [CREATE], relation: {name: 'p-{node}'}}",
         []),
        ("{resources: [x], apiGroups: [a.b], operations: [CREATE], relation: {label: a/b}}", []),
        ("{resources: [x, y/status], apiGroups: [a.b], operations: [UPDATE, DELETE], "
         "relation: {owner: node}}",
         ["UPDATE x.a.b", "DELETE x.a.b", "UPDATE y.a.b/status", "DELETE y.a.b/status"]),
        # No start runs commands, or evicts; nothing creates a status.
        ("{resources: [pods/exec], operations: [CONNECT], relation: own-pods}", []),
        ("{resources: [pods/eviction], operations: [CREATE], relation: own-pods}", []),
        ("{resources: [nodes/status], operations: [CREATE], relation: own-node}", []),
        ("{resources: [pods/binding], operations: [CREATE], relation: own-pods}",
         ["CREATE pods/binding"]),
        (f"{STATUS}, fields: [status.conditions, 'metadata.annotations[\"a/*\"]']}}", []),
        (f"{STATUS}, fields: ['status.conditions[type=Ready]']}}", []),
        (f"{STATUS}, fields: [status.capacity, 'status.conditions[type=Ready].message']}}",
         ["UPDATE nodes/status of status.conditions[type=Ready].message"]),
    ],
)  # fmt: skip
def test_what_no_condition_tells_waits(entry: str, waits: list[str]) -> None:
    assert found(entry) == waits


def test_without_the_node_in_tokens_all_that_is_held_to_it_waits() -> None:
    anything = "{resources: [events], operations: [CREATE], relation: any}"
    entries = f"{STATUS}}}, {anything}"
    assert found(entries, node_in_tokens=False) == ["UPDATE nodes/status"]
    assert found(entries, node="[pod]") == ["UPDATE nodes/status"]
    assert found(entries, node="[token, pod]") == []
    by_name = "[{prefix: 'ovn:', group: ovn}]"
    assert found(entries, node_in_tokens=False, users=by_name) == []


def test_what_an_agent_may_write_unnamed_changes_nothing() -> None:
    assert found(f"{STATUS}}}", unnamedWrites="allow") == []


def test_a_policy_too_long_for_a_condition_waits_for_all() -> None:
    names = ", ".join(f"n{'x' * 240}{number}" for number in range(400))
    entry = f"{{resources: [nodes], operations: [UPDATE], relation: any, names: [{names}]}}"
    assert found(entry) == ["UPDATE nodes"]
    assert found(f"{STATUS}}}, {entry}") == ["UPDATE nodes/status", "UPDATE nodes"]


def test_an_agent_that_may_write_nothing_waits_for_nothing() -> None:
    (agent,) = agents("agents: [{name: a, users: [{serviceAccount: a/b}]}]").all
    assert waiting(agent) == []


@pytest.mark.parametrize("file", READY, ids=lambda path: path.stem)
def test_no_ready_policy_lets_a_start_wait(file: Path) -> None:
    for agent in parse(file.read_bytes(), file.name).agents:
        assert waiting(agent) == []
