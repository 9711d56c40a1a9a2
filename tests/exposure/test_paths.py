"""All that falls is found, and each path that is found can be walked."""

import os
import random

import pytest

from noderestrict.exposure.network import (
    ASSUMED,
    NODE_AUTHORIZER,
    Network,
    Rights,
    Search,
    Structure,
)
from noderestrict.exposure.setups import SetUp, set_ups
from noderestrict.exposure.steps import BOOTSTRAP, CLUSTER, By, Edge
from noderestrict.exposure.world import World
from noderestrict.graph.edges import Vertex
from noderestrict.rbac.rules import Request
from noderestrict.rbac.subjects import AUTHENTICATED, User, node, service_account
from tests.exposure.closure import BOOTSTRAP_GROUP, Closure
from tests.exposure.clusters import NODES, random_cluster, world_of

#: What the slow way speaks of.
COMPARED = ("cluster", "secrets", "serviceaccounts", "nodes", "kubelets", "users", "bootstrap")
SEEDS = int(os.environ.get("EXPOSURE_SEEDS", "40"))
SET_UPS = [set_ups()[one] for one in ("nothing", "in-tree")]


def reached(search: Search, world: World) -> set[Vertex]:
    users = {("users", "", name) for name in world.rbac.users()}
    return {
        one
        for one in search.cost
        if one[0] in COMPARED
        and (one[2] or one in (CLUSTER, BOOTSTRAP))
        and (one[0] != "users" or one in users)
    }


def user_of(vertex: Vertex) -> User:
    kind, namespace, name = vertex
    match kind:
        case "serviceaccounts":
            return service_account(namespace, name)
        case "kubelets":
            return node(name)
        case "users":
            return User(name, frozenset((AUTHENTICATED,)))
        case "groups":
            return User("", frozenset((name, AUTHENTICATED)))
        case "bootstrap":
            groups = ("system:bootstrappers", BOOTSTRAP_GROUP, AUTHENTICATED)
            return User("", frozenset(groups))
    raise AssertionError(vertex)


def walk(world: World, start: Vertex, edge: Edge) -> None:
    """Fail if a step cannot be made."""
    match edge.by:
        case By.RUNS:
            pod = world.pods[edge.end[1:]]
            assert pod.node == start[2]
        case By.TOKEN:
            pod = world.pods[start[1:]]
            assert edge.end == pod.account_vertex
            assert start[0] == "pods" or pod.mounts_token
        case By.HOLDS:
            if edge.end == BOOTSTRAP:
                assert start[1:] == ("kube-system", "bootstrap-token")
            else:
                assert world.secrets[start[1:]] == edge.end[2]
        case By.RIGHT:
            assert edge.use is not None
            for request, grant in zip(edge.use.requests, edge.use.grants, strict=True):
                if grant.binding not in (NODE_AUTHORIZER, ASSUMED):
                    assert may(world, start, request), (start, request)


def may(world: World, start: Vertex, request: Request) -> bool:
    if start[0] in ("roles", "clusterroles"):
        return True
    return world.rbac.allows(user_of(start), request) is not None


@pytest.mark.parametrize("set_up", SET_UPS, ids=lambda one: one.id)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_falls_is_what_asking_for_each_request_finds(seed: int, set_up: SetUp) -> None:
    world = world_of(random_cluster(random.Random(seed)))
    world.minor = random.Random(seed).choice((None, 34, 35))
    network = Network(Structure(world), Rights(world), set_up)
    for name in NODES:
        search = network.search(("nodes", "", name))
        slow = {one for one in Closure(world, set_up, name).found if one[0] in COMPARED}
        fast = reached(search, world)
        assert sorted(fast - slow) == []
        # Whoever has the cluster has the rest.
        assert CLUSTER in fast if CLUSTER in slow else sorted(slow - fast) == []
        for vertex in search.last:
            at = search.start
            for start, edge in search.path(vertex):
                assert start == at
                walk(world, start, edge)
                at = edge.end
            assert at == vertex
