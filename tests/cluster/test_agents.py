"""A denial of an agent rests on live answers; what cannot be asked is not known."""

import json
import time
from typing import Any

import pytest

from noderestrict import admission, authorization
from noderestrict.agents.agents import Agents
from noderestrict.cluster.agent_authorizer import AgentAuthorizer
from noderestrict.cluster.judge import ClusterJudge
from noderestrict.cluster.live import Budget
from noderestrict.cluster.node_authorizer import NodeAuthorizer
from noderestrict.graph.graph import Graph
from noderestrict.graph.rules import Opinion
from noderestrict.policy.decision import Allowed, Denied
from noderestrict.policy.settings import Settings
from noderestrict.telemetry.metrics import Metrics
from tests.agents.builders import ACCOUNT, EXTRA, OF_N1, Object, node, obj, policy, reading, review
from tests.cluster.scripted import connected
from tests.cluster.world import World, named, pod

SETTINGS = Settings.for_version(api_audiences=("api",))
PODS = "{resources: [pods/exec], operations: [CONNECT], relation: own-pods}"
NODES = "{resources: [nodes], operations: [UPDATE], relation: own-node}"
DRIVER = pod("driver-1", namespace="storage")
BY_POD = {f"{EXTRA}pod-name": ["driver-1"], f"{EXTRA}pod-uid": ["driver-1-uid"]}


def world(*more: tuple[str, Object]) -> World:
    nodes = [named(f"/api/v1/nodes/{name}", {}) for name in ("n1", "n2")]
    return World(*nodes, DRIVER, *more)


async def judged(world: World, held: Agents, body: bytes) -> Allowed | Denied:
    async with connected(world) as connection:
        judge = ClusterJudge(connection, SETTINGS, Metrics(), streaming=False)
        request = admission.decode(body, held)
        return judge.allowed(request) or await judge.judge(request, time.monotonic() + 60)


def update(name: str, extra: Object = BY_POD) -> bytes:
    return review("nodes", "UPDATE", name=name, new=node(name), old=node(name), extra=extra)


def execute(name: str) -> bytes:
    return review("pods/exec", "CONNECT", name=name, namespace="ns", new=obj("", "PodExecOptions"))


async def test_a_pod_that_no_store_has_yet_is_read_live() -> None:
    held = policy(NODES, node="[pod]")
    of_pod = world()
    assert isinstance(await judged(of_pod, held, update("n1")), Allowed)
    assert of_pod.asked == [DRIVER[0]]
    denied = await judged(world(), held, update("n2"))
    assert (denied.rule, denied.code) == ("agents/driver/own-node", 403)  # type: ignore[union-attr]


async def test_a_pod_of_the_same_name_is_another_pod() -> None:
    extra = {**BY_POD, f"{EXTRA}pod-uid": ["older"]}
    denied = await judged(world(), policy(NODES, node="[pod]"), update("n1", extra))
    assert denied.rule == "agents/driver/node"


@pytest.mark.parametrize(
    ("held", "body"),
    [(policy(NODES, node="[pod]"), update("n1")), (policy(PODS), execute("p"))],
)
async def test_what_cannot_be_looked_up_is_to_be_tried_again(held: Agents, body: bytes) -> None:
    down = world(pod("p"))
    down.down = True
    denied = await judged(down, held, body)
    assert isinstance(denied, Denied)
    assert denied.code == 500


async def test_pods_are_opened_by_live_lookup() -> None:
    both = (pod("p", "n1"), pod("q", "n2"))
    assert isinstance(await judged(world(*both), policy(PODS), execute("p")), Allowed)
    denied = await judged(world(*both), policy(PODS), execute("q"))
    assert denied.rule == "agents/driver/own-pods"


async def test_the_node_in_a_token_costs_no_lookup() -> None:
    of_token = world()
    assert isinstance(await judged(of_token, policy(NODES), update("n1", OF_N1)), Allowed)
    assert isinstance(await judged(of_token, policy(NODES), update("n2", OF_N1)), Denied)
    assert of_token.asked == []


async def test_each_pod_of_an_agent_has_its_own_share_of_lookups() -> None:
    async with connected(world(pod("q", "n2"))) as connection:
        judge = ClusterJudge(connection, SETTINGS, Metrics(), streaming=False)
        judge._live._budget = Budget(burst=1, per_second=0)
        codes = []
        for uid in ("a", "a", "b"):
            body = execute("q").replace(b"driver-1-uid", uid.encode())
            request = admission.decode(body, policy(PODS))
            decision = await judge.judge(request, time.monotonic() + 60, peer="1.2.3.4")
            codes.append(decision.code)  # type: ignore[union-attr]
        assert codes == [403, 500, 403]


# Reads.


async def opinion(world: World, held: Agents, **attributes: Any) -> Opinion | None:
    spec = {
        "user": ACCOUNT,
        "uid": "driver-uid",
        "groups": ["system:serviceaccounts"],
        "extra": attributes.pop("extra", OF_N1),
        "resourceAttributes": {"version": "v1", **attributes},
    }
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    async with connected(world) as connection:
        judge = ClusterJudge(connection, SETTINGS, Metrics(), streaming=False)
        nodes = NodeAuthorizer(connection, Graph(), SETTINGS.features, lambda: True)
        decoded = authorization.decode(json.dumps(body).encode(), held)
        authorizer = AgentAuthorizer(judge, nodes)
        return await authorizer.authorize(decoded, time.monotonic() + 60)


GET = "{resources: [pods], verbs: [get], relation: own-pods}"
SECRETS = "{resources: [secrets, serviceaccounts], relation: referenced}"
APP = pod("p", "n1", volumes=[{"name": "a", "secret": {"secretName": "own"}}])


@pytest.mark.parametrize(("name", "denied"), [("p", False), ("q", True), ("gone", True)])
async def test_a_pod_is_read_where_it_runs(name: str, denied: bool) -> None:
    both = world(pod("p", "n1"), pod("q", "n2"))
    found = await opinion(
        both, reading(GET), verb="get", resource="pods", namespace="ns", name=name
    )
    assert found is not None
    assert (found.allowed, found.denied) == (False, denied)


@pytest.mark.parametrize(
    ("resource", "name", "denied"),
    [
        ("secrets", "own", False),
        ("secrets", "other", True),
        ("serviceaccounts", "sa", False),
        ("serviceaccounts", "other", True),
    ],
)
async def test_a_denial_is_confirmed_by_the_pods_of_the_node(
    resource: str, name: str, denied: bool
) -> None:
    held, at = reading(SECRETS), {"namespace": "ns", "name": name}
    found = await opinion(world(APP), held, verb="get", resource=resource, **at)
    assert found is not None
    assert (found.allowed, found.denied) == (False, denied)


@pytest.mark.parametrize(("held", "resource"), [(GET, "pods"), (SECRETS, "secrets")])
async def test_what_cannot_be_looked_up_is_not_known(held: str, resource: str) -> None:
    down = world(APP)
    down.down = True
    at = {"namespace": "ns", "name": "q"}
    assert await opinion(down, reading(held), verb="get", resource=resource, **at) is None


async def test_a_pod_names_the_node_of_a_read() -> None:
    held = reading("{resources: [nodes], relation: own-node}", node="[pod]")
    for name, denied in (("n1", False), ("n2", True)):
        found = await opinion(world(), held, verb="get", resource="nodes", name=name, extra=BY_POD)
        assert found is not None
        assert found.denied == denied
