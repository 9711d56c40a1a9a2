"""Resources that moved through versions are followed in whatever version is served."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from noderestrict.cluster.graph_sink import graph_sinks, read_graph
from noderestrict.cluster.informers import Informers
from noderestrict.cluster.live_edges import LiveEdges
from noderestrict.cluster.reflector import Pace
from noderestrict.graph.graph import Graph
from noderestrict.policy.features import POD_CERTIFICATE_REQUEST, defaults
from noderestrict.telemetry.metrics import Metrics
from tests.cluster.scripted import connected
from tests.cluster.world import LISTS, Object, World, named, pod

GATES = {**defaults(36), POD_CERTIFICATE_REQUEST: True}
SLICES, CERTIFICATES = "/apis/resource.k8s.io/", "/apis/certificates.k8s.io/"
#: What an API server of each minor version may serve, of both.
VERSIONS: dict[int, tuple[tuple[str, ...], tuple[str, ...]]] = {
    25: ((), ()),
    30: (("v1alpha2",), ()),
    31: (("v1alpha3",), ()),
    32: (("v1alpha3", "v1beta1"), ()),
    33: (("v1alpha3", "v1beta1", "v1beta2"), ()),
    34: (("v1", "v1beta1", "v1beta2"), ("v1alpha1",)),
    36: (("v1",), ("v1beta1",)),
    37: (("v1",), ("v1",)),
}


def served(slices: tuple[str, ...], certificates: tuple[str, ...]) -> set[str]:
    """Return the lists of an API server with some versions."""
    others = {path for path in LISTS if not path.startswith((SLICES, CERTIFICATES))}
    return {
        *others,
        *(f"{SLICES}{version}/resourceslices" for version in slices),
        *(f"{CERTIFICATES}{version}/podcertificaterequests" for version in certificates),
    }


def cluster(slices: tuple[str, ...], certificates: tuple[str, ...]) -> World:
    """Return a cluster with a pod, and a slice and a certificate request in each version."""
    here: Object = {"nodeName": "n1"}
    in_namespace = "namespaces/ns/podcertificaterequests"
    world = World(
        pod("p"),
        *(named(f"{SLICES}{version}/resourceslices/rs", dict(here)) for version in slices),
        *(named(f"{CERTIFICATES}{version}/{in_namespace}/pcr", here) for version in certificates),
    )
    for version in slices:
        value = world.objects[f"{SLICES}{version}/resourceslices/rs"]
        value["apiVersion"] = f"resource.k8s.io/{version}"
        if version == "v1alpha2":
            # It has no spec.
            value.update(value.pop("spec"))
    world.served = served(slices, certificates)
    return world


def reached(graph: Graph) -> set[str]:
    return {kind for kind, _, _ in graph.reachable("n1")} - {"pods", "serviceaccounts"}


def expected(slices: tuple[str, ...], certificates: tuple[str, ...]) -> set[str]:
    return {
        *(("resourceslices",) if slices else ()),
        *(("podcertificaterequests",) if certificates else ()),
    }


@asynccontextmanager
async def following(world: World) -> AsyncIterator[tuple[Graph, Informers, list[asyncio.Event]]]:
    """Follow a cluster; the last event of the list ends all present pauses."""
    graph = Graph()
    pauses = [asyncio.Event()]

    async def sleep(_seconds: float) -> None:
        await pauses[-1].wait()

    async with connected(world) as connection:
        informers = Informers(
            connection,
            ("nodes",),
            Metrics(),
            streaming=False,
            pace=Pace(sleep=sleep, inactivity=3600),
            sinks=graph_sinks(graph, GATES),
        )
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(job()) for job in informers.jobs().values()]
            await until(informers.has_synced)
            yield graph, informers, pauses
            for task in tasks:
                task.cancel()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 (a state of many tasks)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("minor", VERSIONS)
async def test_what_an_api_server_of_any_version_serves_is_followed(minor: int) -> None:
    world = cluster(*VERSIONS[minor])
    async with following(world) as (graph, informers, _):
        assert all(informers.checks().values())
        assert reached(graph) == expected(*VERSIONS[minor])


async def test_a_resource_that_appears_later_is_followed_without_a_restart() -> None:
    world = cluster(*VERSIONS[37])
    world.served = served((), ())
    async with following(world) as (graph, informers, pauses):
        assert reached(graph) == set()
        assert all(informers.checks().values())
        world.served = served(*VERSIONS[37])
        pauses.append(asyncio.Event())
        pauses[-2].set()
        await until(lambda: reached(graph) == expected(*VERSIONS[37]))


@pytest.mark.parametrize("minor", [25, 30, 33, 36])
async def test_a_graph_is_read_of_what_an_api_server_serves(minor: int) -> None:
    world = cluster(*VERSIONS[minor])
    world.objects["/version"] = {"gitVersion": f"v1.{minor}.0"}
    # The gate of PodCertificateRequests is off by default.
    slices, _ = VERSIONS[minor]
    async with connected(world) as connection:
        assert reached(await read_graph(connection)) == expected(slices, ())


@pytest.mark.parametrize(("minor", "node"), [(25, ""), (30, "n1"), (33, "n1"), (37, "n1")])
async def test_a_live_lookup_asks_for_the_version_that_is_served(minor: int, node: str) -> None:
    async with connected(cluster(*VERSIONS[minor])) as connection:
        edges = LiveEdges(connection, lambda _resource, _result: None, seconds=60)
        found = await edges.node_of(("resourceslices", "", "rs"), 0, lambda: 30.0, lambda: None)
    assert found == node
