"""No expression costs an API server more than a tenth of its CEL budget, whatever a node sends.

Nor more than a fiftieth, whatever an agent sends.

Measured with the API server's own library: what counts is the cost that it would count. The budget
is that of all validations of a policy; an API server gives up on one expression at a tenth of it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from noderestrict.render import agent_policies
from noderestrict.render.agent_policies import Modes
from noderestrict.render.policies import Options, policies
from noderestrict.render.registration import webhook_configuration
from tests import largest
from tests.agents import builders as agents
from tests.builders import create_mirror, mirror_pod, node, obj, pod_status, review, update_node
from tests.e2e.cel import RUNTIME_BUDGET, Judged, build, judge

pytestmark = pytest.mark.long

Object = dict[str, Any]
SHARE = 10
#: Numbers of entries: around every bound of an expression, and up to what can be stored.
COUNTS = (100, 250, 1000, 5000)
LONG = "a" * 63
POLICIES = {
    "default": policies(),
    "strict": policies(Options(settings=largest._STRICT)),
}


def requests() -> Iterator[tuple[str, Object]]:
    """Yield what a node sends to make an API server work."""
    for name, body, _ in largest.reviews():
        yield name, json.loads(body).get("request")
    for name, body in (*_mirror_pods(), *_others()):
        if len(body) < 2 * largest.STORED:
            yield name, json.loads(body)["request"]


def _mirror_pods() -> Iterator[tuple[str, bytes]]:
    entries: dict[str, Object] = {
        "env": {"name": "E", "value": ""},
        "valueFrom": {"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "a"}}},
        "references without a name": {"name": "E", "valueFrom": {"secretKeyRef": {"key": "k"}}},
    }
    for outer in COUNTS:
        for inner in COUNTS:
            if outer * inner > 70_000:
                continue
            for what, entry in entries.items():
                containers = [{"name": "c", "env": [entry] * inner}] * outer
                yield (
                    f"{outer} containers, {inner} {what}",
                    create_mirror(mirror_pod(containers=containers)),
                )
            containers = [{"name": "c", "envFrom": [{"configMapRef": {}}] * inner}] * outer
            spec = dict.fromkeys(("initContainers", "containers"), containers)
            yield f"{outer} containers, {inner} envFrom", create_mirror(mirror_pod(**spec))
            sources: Object = {"sources": [{"downwardAPI": {"items": []}}] * inner}
            volumes = [{"name": "v", "projected": sources}] * outer
            yield f"{outer} volumes, {inner} sources", create_mirror(mirror_pod(volumes=volumes))
    for count in COUNTS:
        for source in ("emptyDir", "iscsi", "vsphereVolume", "csi"):
            volumes = [{"name": "v", source: {"secretRef": {}}}] * count
            yield f"{count} {source}", create_mirror(mirror_pod(volumes=volumes))
        yield f"{count} pull secrets", create_mirror(mirror_pod(imagePullSecrets=[{}] * count))


def _others() -> Iterator[tuple[str, bytes]]:
    for count in COUNTS:
        for domain in (
            "", f"{LONG}.{LONG}.{LONG}.com/", f"{LONG}.{LONG}.kubelet.kubernetes.io/",
            f"{LONG}.{LONG}.{LONG}.kubernetes.io/", "example.kubernetes.io/", "example.com/",
        ):  # fmt: skip
            labels = {f"{domain}{LONG[9:]}{number}": LONG for number in range(count)}
            more = {**labels, "a": "b"}
            for name, old, new in (
                ("more", {}, labels), ("fewer", labels, {}), ("another", labels, more),
            ):  # fmt: skip
                yield (
                    f"{name} {count} labels {domain}",
                    update_node(node(labels=old), node(labels=new)),
                )
                yield (
                    f"{name} {count} annotations {domain}",
                    update_node(
                        node(metadata={"annotations": old}), node(metadata={"annotations": new})
                    ),
                )
            before, after = (
                obj("pods", spec={"nodeName": "n1"}, metadata={"labels": one})
                for one in (labels, more)
            )
            yield f"pod status, {count} labels {domain}", pod_status(before, after)
        devices = obj("resourceslices", spec={"nodeName": "n1", "devices": [{"name": "d"}] * count})
        yield f"{count} devices", review("resourceslices", "CREATE", name="s", new=devices)
        groups = [f"g{number}" for number in range(count)]
        user = {"username": "system:node:n1", "groups": [*groups, "system:nodes"]}
        body = json.loads(update_node(node(), node()))
        body["request"]["userInfo"] = user
        yield f"{count} groups", json.dumps(body).encode()


@pytest.fixture(scope="module")
def program() -> Path:
    return build()


@pytest.mark.parametrize("given", POLICIES)
def test_no_expression_uses_more_than_a_tenth_of_the_budget(program: Path, given: str) -> None:
    cases = list(requests())
    verdicts = judge(program, POLICIES[given], (request for _, request in cases if request))
    names = [name for name, request in cases if request]
    worst: dict[str, tuple[int, str]] = {}
    over = []
    slowest = 0
    for name, found in zip(names, verdicts, strict=True):
        for one in found:
            for what, cost in _costs(one):
                worst[what] = max(worst.get(what, (0, "")), (cost, name))
                if cost * SHARE >= RUNTIME_BUDGET:
                    over.append((cost, what, name))
            if not 0 <= one.total * SHARE < RUNTIME_BUDGET:
                over.append((one.total, one.policy, name))
            slowest = max(slowest, sum(each.micros for each in one.validations))
    for what, (cost, name) in sorted(worst.items(), key=lambda entry: entry[1], reverse=True)[:10]:
        print(f"{cost / RUNTIME_BUDGET:>7.2%}  {what}: {name[:60]}")
    print(f"{slowest / 1000:.0f} ms the slowest request")
    assert over == []


STEADY = {
    "nodes": 70,
    "pods": 70,
    "leases": 40,
}


@pytest.mark.parametrize("optional", [True, False])
def test_what_everyone_does_all_the_time_costs_next_to_nothing(
    program: Path, optional: bool
) -> None:
    """Cost is what the API server counts: about one for each step of an expression."""
    registration = webhook_configuration({"url": "https://x"}, optional_fields=optional)
    conditions = [_as_policy(webhook) for webhook in registration["webhooks"]]
    labels = {"kubernetes.io/hostname": "n1", "example.com/a": "b"}
    status = update_node(node(labels), node(labels), "status")
    pod = obj("pods", metadata={"name": "p1", "labels": labels}, spec={"nodeName": "n1"})
    lease = obj("leases", metadata={"name": "n1"})
    bodies = {
        "nodes": status,
        "pods": pod_status(pod, pod),
        "leases": review(
            "leases", "UPDATE", name="n1", namespace="kube-node-lease", new=lease, old=lease
        ),
    }
    for resource, body in bodies.items():
        request = json.loads(body)["request"]
        others = {**request, "userInfo": {"username": "system:serviceaccount:a:b", "groups": ["a"]}}
        (of_node,), (of_others,) = judge(program, conditions, [request, others])
        (condition,), (skipped,) = of_node.conditions, of_others.conditions
        assert (condition.result, skipped.result) == ("false", "false")
        assert condition.cost <= STEADY[resource] + (not optional) * STEADY[resource] // 3
        assert skipped.cost <= 12


def _as_policy(webhook: Object) -> Object:
    return {
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": webhook["name"]},
        "spec": {
            "matchConstraints": {"resourceRules": webhook["rules"]},
            "matchConditions": webhook["matchConditions"],
        },
    }


def _costs(judged: Judged) -> Iterator[tuple[str, int]]:
    for group in ("conditions", "validations", "messages", "annotations"):
        for one in getattr(judged, group):
            yield f"{judged.policy} {group} {one.name}", one.cost


#: Each goes another way through an object.
FIELDS = (
    'metadata.annotations["x/*"]',
    'metadata.labels["*/x*y"]',
    "status.conditions[type=Ready]",
    "status.conditions[type=a*].b",
    "spec.pools[*].size",
    'spec["k*"].b',
    "spec.x.y",
)


def _of_agents() -> Iterator[tuple[str, Object]]:
    """Yield updates that take much to compare, and objects with many owners."""

    def update(name: str, old: Object, new: Object) -> tuple[str, Object]:
        before, after = ({**agents.obj("x"), **one} for one in (old, new))
        body = agents.review("things", "UPDATE", name="x", old=before, new=after)
        return name, json.loads(body)["request"]

    for count in (50, 51, *COUNTS, 20_000):
        keys = {f"x/{LONG[9:]}{number}": LONG for number in range(count)}
        for name, old, new in (
            ("more", {}, keys), ("fewer", keys, {}), ("one more", keys, {**keys, "a": "b"}),
            ("other", keys, dict.fromkeys(keys, "")),
        ):  # fmt: skip
            for field in ("annotations", "labels"):
                values = ({"metadata": {"name": "x", field: one}} for one in (old, new))
                yield update(f"{count} {name} {field}", *values)
        yield update(f"{count} empty members", {"spec": {key: {} for key in keys}}, {"spec": {}})
        for inner in (10, 50, 100):
            if count * inner > 200_000:
                continue
            names = [f"m{n}" for n in range(inner)]
            sides: list[Object] = [{name: {} for name in names}, {}]
            deep = [{f"k{n}": one for n in range(count)} for one in sides]
            yield update(f"{count} x {inner} members", {"spec": deep[0]}, {"spec": deep[1]})
            yield update(f"{count} x {inner} at the top", *deep)
            pools = [[{"size": 1, **one}] * count for one in sides]
            yield update(
                f"{count} x {inner} pools",
                {"spec": {"pools": pools[0]}},
                {"spec": {"pools": pools[1]}},
            )
            items = [[{"type": f"t{n}", **one} for n in range(count)] for one in sides]
            yield update(
                f"{count} x {inner} conditions",
                {"status": {"conditions": items[0]}},
                {"status": {"conditions": items[1][::-1]}},
            )
        owners = [{"kind": "Node", "apiVersion": "v1", "name": "n1"}] * count
        owned = agents.obj("x", metadata={"ownerReferences": owners})
        body = agents.review("things", "DELETE", name="x", old=owned)
        yield f"{count} owners", json.loads(body)["request"]


@pytest.mark.parametrize("fields", FIELDS)
def test_no_expression_of_an_agent_uses_more_than_a_fiftieth(program: Path, fields: str) -> None:
    held = agents.policy(
        f"{{resources: [things], operations: [UPDATE], relation: any, fields: ['{fields}']}}, "
        "{resources: [things], operations: [DELETE], relation: {owner: node}}"
    )
    rendered = agent_policies.policies(held.all, Modes())
    cases = [one for one in _of_agents() if len(json.dumps(one[1])) < 2 * largest.STORED]
    verdicts = judge(program, rendered, (request for _, request in cases))
    worst = (0, "")
    for (name, _), found in zip(cases, verdicts, strict=True):
        (one,) = found
        assert not any(each.error for each in (*one.conditions, *one.validations)), name
        cost = max(one.total, *(each.cost for each in (*one.validations, *one.messages)))
        assert one.total >= 0, name
        worst = max(worst, (cost, name))
    print(f"{worst[0] / RUNTIME_BUDGET:.2%}  {worst[1]}")
    assert worst[0] * 50 < RUNTIME_BUDGET
