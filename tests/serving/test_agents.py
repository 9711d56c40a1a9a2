"""Reviews of agents pass through the server as those of nodes do."""

import json
import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest

from noderestrict import admission
from noderestrict.agents.agents import Agents, InForce
from noderestrict.api.corev1 import Pod
from noderestrict.graph.graph import Graph
from noderestrict.policy.decision import Allowed, Denied
from noderestrict.policy.modes import AUDIT, ENFORCE, OFF, WARN
from noderestrict.policy.settings import Settings
from noderestrict.replay.run import Run
from noderestrict.serving.capture import Capture, CaptureOptions, case_line
from noderestrict.serving.limits import Limits
from noderestrict.serving.local import LocalAuthorizer, LocalJudge
from noderestrict.serving.modes import Modes
from noderestrict.telemetry.metrics import Metrics
from tests.agents.builders import (
    ACCOUNT,
    LISTERS,
    OF_N1,
    Object,
    agents,
    node,
    obj,
    pod,
    policy,
    reading,
    review,
)
from tests.serving.clients import http
from tests.serving.inprocess import Running, listening

SETTINGS = Settings.for_version()
NODES = "{resources: [nodes], operations: [UPDATE], relation: own-node, fields: [status]}"


def update(name: str, labels: Object | None = None, **fields: Any) -> bytes:
    after = node(name, labels=labels or {})
    return review("nodes", "UPDATE", name=name, new=after, old=node(name), **fields)


OWN, OTHER, LABELLED = update("n1"), update("n2"), update("n1", {"a": "b"})


async def answer(running: Running, body: bytes, path: str = "/validate") -> Object:
    client = await running.connect()
    status, data, _ = await client.answer(http(body, "", path))
    client.abort()
    assert status == 200, data
    whole = json.loads(data)
    found: Object = whole.get("response") or whole["status"]
    return found


def listed(
    held: Agents, mode: str = ENFORCE, by_rule: dict[str, str] | None = None, **fields: Any
) -> Any:
    judge = LocalJudge(SETTINGS, LISTERS)
    modes = Modes(mode, by_rule or {}, held.modes())
    return listening(Limits(), judge, agents=InForce(held), modes=modes, **fields)


_POLICY_INFO = "noderestrict_agent_policy_info"


async def test_an_agent_is_held_to_its_node() -> None:
    async with listed(policy(NODES)) as running:
        # Twice: a kind of review that was seen before is decoded in another way.
        for _ in range(2):
            assert (await answer(running, OWN))["allowed"]
            refused = await answer(running, OTHER)
            assert not refused["allowed"]
            assert refused["status"]["code"] == 403
            assert "agent 'driver' on node 'n1'" in refused["status"]["message"]
            assert refused["auditAnnotations"] == {
                "rule": "agents/driver/own-node",
                "agent": "driver",
                "decision": "denied",
            }
            changed = await answer(running, LABELLED)
            assert "this changes metadata.labels" in changed["status"]["message"]


async def test_a_kubelet_and_an_agent_send_the_same_kind_of_review() -> None:
    kubelet: Object = {"user": "system:node:n1", "groups": ("system:nodes",), "extra": None}
    async with listed(policy(NODES)) as running:
        for _ in range(3):
            assert (await answer(running, update("n1", {"a": "b"}, **kubelet)))["allowed"]
            assert not (await answer(running, update("n2", {"a": "b"}, **kubelet)))["allowed"]
            assert not (await answer(running, LABELLED))["allowed"]
            assert (await answer(running, OWN))["allowed"]


@pytest.mark.parametrize("mode", [WARN, AUDIT, OFF])
async def test_modes_of_agents(mode: str) -> None:
    for held, by_rule in (
        (policy(NODES, mode=mode), {}),
        (policy(NODES), {"agents/driver": mode}),
        (policy(NODES, mode="enforce"), {"agents/driver/own-node": mode}),
    ):
        async with listed(held, by_rule=by_rule) as running:
            found = await answer(running, OTHER)
            assert found["allowed"]
            assert bool(found.get("warnings")) == (mode == WARN)
            assert ("auditAnnotations" in found) == (mode != OFF)


async def test_a_mode_of_one_rule_leaves_the_others() -> None:
    async with listed(policy(NODES), by_rule={"agents/driver/own-node": AUDIT}) as running:
        refused = await answer(running, update("n2", {"a": "b"}))
        assert refused["auditAnnotations"]["rule"] == "agents/driver/own-node,agents/driver/fields"
        assert not refused["allowed"]


async def test_a_server_that_enforces_nothing_enforces_no_policy() -> None:
    async with listed(policy(NODES, mode="enforce"), AUDIT) as running:
        assert (await answer(running, OTHER))["allowed"]


async def test_decisions_are_counted_by_rule_and_resource() -> None:
    held = policy("{resources: [widgets], operations: [DELETE], relation: {name: '{node}'}}")
    async with listed(held) as running:
        running.metrics.follow_agents(running.app.state.in_force)
        await answer(running, review("widgets", "DELETE", name="n2", old=obj("n2")))
        await answer(running, review("gadgets", "DELETE", name="n2", old=obj("n2")))
        counted = running.metrics.decisions.counts
        rules = {(key[0], key[3]) for key in counted}
        assert rules == {("widgets", "agents/driver/name"), ("other", "agents/driver/unnamed")}
        running.metrics.policy.mode_of = lambda rule: running.app.state.modes.of(rule)
        assert running.metrics.policy.modes()["agents/driver/name"] == ENFORCE


async def test_metrics_tell_which_policy_of_an_agent_is_in_force() -> None:
    async with listed(policy(NODES)) as running:
        running.metrics.follow_agents(running.app.state.in_force)

        def told() -> set[str]:
            text = running.metrics.exposition().decode()
            return {line for line in text.splitlines() if line.startswith(_POLICY_INFO)}

        (before,) = told()
        assert before.startswith(f'{_POLICY_INFO}{{agent="driver",digest="')
        running.app.state.in_force.agents = policy(NODES.replace("own-node", "any"))
        (after,) = told()
        assert before != after
        # The same in other words.
        running.app.state.in_force.agents = policy(NODES, unnamedWrites="refuse")
        assert told() == {before}


async def test_refusals_are_logged_with_the_agent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "noderestrict")
    async with listed(policy(NODES)) as running:
        await answer(running, OTHER)
    (record,) = [record for record in caplog.records if record.message == "refused"]
    assert record.__dict__["agent"] == "driver"
    assert record.__dict__["rule"] == "agents/driver/own-node"


async def test_new_agents_hold_from_the_next_request_on() -> None:
    async with listed(Agents()) as running:
        assert (await answer(running, OTHER))["allowed"]
        running.app.state.in_force.agents = policy(NODES)
        assert not (await answer(running, OTHER))["allowed"]
        running.app.state.in_force.agents = Agents()
        assert (await answer(running, OTHER))["allowed"]


async def test_an_object_with_deep_managed_fields_is_judged() -> None:
    deep: Any = {}
    for _ in range(600):
        deep = {"f:a": deep}
    old = node("n1", managedFields=[{"fieldsV1": deep}])
    async with listed(policy(NODES)) as running:
        for name, allowed in (("n1", True), ("n2", False)):
            body = review("nodes", "UPDATE", name=name, new=old, old=old)
            assert (await answer(running, body))["allowed"] == allowed


async def test_large_objects_are_judged() -> None:
    before = node("n1", annotations={f"a{number}": "x" * 1000 for number in range(1000)})
    after = {**before, "status": {"a": "b"}}
    async with listed(policy(NODES)) as running:
        body = review("nodes", "UPDATE", name="n1", new=after, old=before)
        assert (await answer(running, body))["allowed"]
        body = review("nodes", "UPDATE", name="n1", new=node("n1"), old=before)
        refused = await answer(running, body)
        assert "this changes metadata.annotations" in refused["status"]["message"]


async def test_captured_reviews_are_replayed_with_the_same_verdicts(tmp_path: Path) -> None:
    capture = Capture(CaptureOptions(tmp_path), Metrics())
    held = policy(NODES)
    async with listed(held, capture=capture) as running:
        for body in (OWN, OTHER, LABELLED):
            await answer(running, body)
    capture.close()
    run = Run(SETTINGS, LISTERS, Graph(), _Report(), print, lambda: None, agents=held)  # type: ignore[arg-type]
    run.files(files_in(tmp_path))
    assert (run.summary.total, run.summary.denied, run.summary.unexpected) == (3, 2, 0)


def files_in(folder: Path) -> list[str]:
    return [str(file) for file in folder.iterdir()]


class _Report:
    def write(self, _result: object) -> None:
        pass


# Reads.

PODS = "{resources: [pods], verbs: [list, watch], relation: own-pods}"


def access(verb: str, resource: str, **fields: Any) -> bytes:
    attributes = {"verb": verb, "version": "v1", "resource": resource, **fields}
    spec = {
        "user": ACCOUNT,
        "uid": "driver-uid",
        "groups": ["system:serviceaccounts"],
        "extra": OF_N1,
        "resourceAttributes": attributes,
    }
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    return json.dumps(body).encode()


def selecting(key: str, *values: str, operator: str = "In") -> Object:
    return {"requirements": [{"key": key, "operator": operator, "values": list(values)}]}


def authorizing(held: Agents, by_rule: dict[str, str] | None = None) -> Any:
    graph = Graph(most_edges=None)
    volumes = [{"name": "a", "secret": {"secretName": "own"}}]
    app = {**pod("app", "n1"), "spec": {"nodeName": "n1", "volumes": volumes}}
    graph.upsert("pods", msgspec.convert(app, Pod))
    return listed(held, by_rule=by_rule, authorizer=LocalAuthorizer(graph, SETTINGS, LISTERS))


async def test_reads_are_denied_or_left_to_rbac() -> None:
    async with authorizing(reading(PODS)) as running:
        for selector, denied in (
            (None, True),
            (selecting("spec.nodeName", "n1"), False),
            (selecting("spec.nodeName", "n2"), True),
            (selecting("spec.nodeName", "n1", "n2"), True),
            (selecting("spec.nodeName", "n1", operator="NotIn"), True),
            ({"rawSelector": "spec.nodeName=n1"}, True),
        ):
            fields = {"fieldSelector": selector} if selector else {}
            found = await answer(running, access("list", "pods", **fields), "/authorize")
            assert found["allowed"] is False
            assert found.get("denied", False) == denied, selector
            assert bool(found["reason"]) == denied
        counted = running.metrics.registry.get_sample_value
        name = "noderestrict_authorization_decisions_total"
        assert counted(name, {"decision": "denied"}) == 5
        assert counted(name, {"decision": "no_opinion"}) == 1


async def test_label_selectors_hold_lists() -> None:
    entry = "{apiGroups: [a.b], resources: [things], verbs: [list], relation: {label: a.b/node}}"
    async with authorizing(reading(entry)) as running:
        for value, denied in (("n1", False), ("n2", True)):
            selector = selecting("a.b/node", value)
            body = access("list", "things", group="a.b", labelSelector=selector)
            assert (await answer(running, body, "/authorize")).get("denied", False) == denied


async def test_secrets_that_pods_on_the_node_refer_to_can_be_read() -> None:
    entry = "{resources: [secrets], relation: referenced}"
    async with authorizing(reading(entry)) as running:
        for name, denied in (("own", False), ("other", True)):
            body = access("get", "secrets", namespace="ns", name=name)
            assert (await answer(running, body, "/authorize")).get("denied", False) == denied


@pytest.mark.parametrize("mode", [WARN, AUDIT, OFF])
async def test_modes_of_reads(mode: str) -> None:
    async with authorizing(reading(PODS), {"agents/driver/read": mode}) as running:
        found = await answer(running, access("list", "pods"), "/authorize")
        assert found == {"allowed": False, "reason": ""}
        wanted = "no_opinion" if mode == OFF else "would_be_denied"
        counted = running.metrics.registry.get_sample_value(
            "noderestrict_authorization_decisions_total", {"decision": wanted}
        )
        assert counted == 1


async def test_others_get_no_opinion() -> None:
    held = agents("agents: [{name: a, users: [{serviceAccount: x/y}], read: []}]")
    async with authorizing(held) as running:
        found = await answer(running, access("list", "pods"), "/authorize")
        assert found == {"allowed": False, "reason": ""}


# Captures: agents send kinds that no node sends.


def test_no_token_of_a_token_review_is_captured() -> None:
    held = policy("{resources: [tokenreviews], operations: [CREATE], relation: any}")
    new = obj("", "TokenReview", spec={"token": "precious", "audiences": ["a"]})
    body = review("tokenreviews", "CREATE", group="authentication.k8s.io", new=new)
    line = case_line(admission.decode(body, held), body, Allowed())
    assert b"precious" not in line
    assert b'"audiences":["a"]' in line


def test_a_case_expects_nothing_if_what_an_agent_changed_was_removed() -> None:
    held = policy("{resources: [secrets], operations: [UPDATE], relation: any, fields: [metadata]}")
    old, new = (obj("a", "Secret", data={"key": value}) for value in ("b2xk", "bmV3"))
    body = review("secrets", "UPDATE", name="a", namespace="ns", new=new, old=old)
    request = admission.decode(body, held)
    decision = admission.evaluate(request, SETTINGS, LISTERS)
    assert isinstance(decision, Denied)
    line = case_line(request, body, decision)
    assert b"bmV3" not in line
    assert b"expect" not in line
