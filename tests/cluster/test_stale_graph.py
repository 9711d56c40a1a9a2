"""What the graph allows by stores that have not heard from the API server lately is confirmed."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import pytest

from noderestrict import authorization
from noderestrict.api import corev1
from noderestrict.cluster.connection import Connection
from noderestrict.cluster.freshness import Freshness
from noderestrict.cluster.graph_sink import graph_sinks
from noderestrict.cluster.judge import ClusterJudge
from noderestrict.cluster.node_authorizer import NodeAuthorizer
from noderestrict.cluster.reflector import Pace
from noderestrict.graph.graph import SOURCES, Graph
from noderestrict.graph.rules import Opinion
from noderestrict.policy.settings import Settings
from noderestrict.telemetry.metrics import Metrics
from tests.cluster.scripted import connected
from tests.cluster.world import World, named, pod

SETTINGS = Settings.for_version(overrides={"PodCertificateRequest": True}, api_audiences=("api",))
PODS = "/api/v1/pods"
PV = "/api/v1/persistentvolumes/pv"
CLAIM = "/api/v1/namespaces/ns/persistentvolumeclaims/c"
ATTACHMENT = "/apis/storage.k8s.io/v1/volumeattachments/va"
SLICE = "/apis/resource.k8s.io/v1/resourceslices/rs"
CERTIFICATE = "/apis/certificates.k8s.io/v1/namespaces/ns/podcertificaterequests/pcr"
POD = "/api/v1/namespaces/ns/pods/p"
VOLUMES = [
    {"name": "a", "secret": {"secretName": "own"}},
    {"name": "b", "configMap": {"name": "cm"}},
    {"name": "c", "persistentVolumeClaim": {"claimName": "c"}},
]
#: resource, namespace, name, API group, and the object that leads there
EDGES = {
    "pod": ("pods", "ns", "p", "", POD),
    "secret": ("secrets", "ns", "own", "", POD),
    "config map": ("configmaps", "ns", "cm", "", POD),
    "account": ("serviceaccounts", "ns", "sa", "", POD),
    "claim": ("persistentvolumeclaims", "ns", "c", "", POD),
    "resource claim": ("resourceclaims", "ns", "rc", "resource.k8s.io", POD),
    "volume": ("persistentvolumes", "", "pv", "", PV),
    "volume of a pod that is gone": ("persistentvolumes", "", "pv", "", POD),
    "secret of a volume": ("secrets", "kube-system", "csi", "", PV),
    "secret of a volume of a pod that is gone": ("secrets", "kube-system", "csi", "", POD),
    "attachment": ("volumeattachments", "", "va", "storage.k8s.io", ATTACHMENT),
    "slice": ("resourceslices", "", "rs", "resource.k8s.io", SLICE),
    "certificate": ("podcertificaterequests", "ns", "pcr", "certificates.k8s.io", CERTIFICATE),
}
edges = pytest.mark.parametrize("edge", EDGES.values(), ids=EDGES)


def volume(claim: str = "c", secret: str = "csi", name: str = "pv") -> tuple[str, dict[str, Any]]:
    reference = {"namespace": "kube-system", "name": secret}
    return named(
        f"/api/v1/persistentvolumes/{name}",
        {
            "claimRef": {"namespace": "ns", "name": claim},
            "csi": {"driver": "d", "nodePublishSecretRef": reference},
        },
    )


def world() -> World:
    return World(
        pod("p", volumes=VOLUMES, resourceClaims=[{"name": "r", "resourceClaimName": "rc"}]),
        named("/api/v1/nodes/n1", {}),
        named("/api/v1/nodes/n2", {}),
        named(CLAIM, {"volumeName": "pv"}),
        volume(),
        named(ATTACHMENT, {"nodeName": "n1"}),
        named(SLICE, {"nodeName": "n1"}),
        named(CERTIFICATE, {"nodeName": "n1"}),
    )


def review(
    resource: str, namespace: str, name: str, group: str = "", _by: str = "", node: str = "n1"
) -> authorization.Review:
    attributes = {
        "verb": "get", "group": group, "resource": resource, "namespace": namespace, "name": name,
    }  # fmt: skip
    spec = {
        "user": f"system:node:{node}",
        "groups": ["system:nodes"],
        "resourceAttributes": attributes,
    }
    api = "authorization.k8s.io/v1"
    body = {"apiVersion": api, "kind": "SubjectAccessReview", "spec": spec}
    return authorization.decode(msgspec.json.encode(body))


class Following:
    def __init__(self, world: World) -> None:
        self.world = world
        self.graph = Graph()
        self.now = 1000.0
        self.judge: ClusterJudge
        self.authorizer: NodeAuthorizer

    async def ask(self, *edge: Any, **more: Any) -> Opinion | None:
        return await self.authorizer.authorize(review(*edge, **more), time.monotonic() + 60)

    async def allowed(self, *edge: Any, **more: Any) -> bool | None:
        opinion = await self.ask(*edge, **more)
        return None if opinion is None else opinion.allowed

    def refresh(self, *but: str) -> None:
        """Let all stores but some hear from the API server."""
        for plural, reflector in self.judge.informers._reflectors.items():
            if plural not in but:
                reflector._heard = self.now


@asynccontextmanager
async def following(cluster: World) -> AsyncIterator[Following]:
    state = Following(cluster)
    async with connected(cluster) as connection:
        state.judge = judge = ClusterJudge(
            connection,
            SETTINGS,
            Metrics(),
            streaming=False,
            pace=Pace(clock=lambda: state.now, jitter=lambda: 1.0, inactivity=3600),
            sinks=graph_sinks(state.graph, SETTINGS.features),
        )
        state.authorizer = NodeAuthorizer(
            connection, state.graph, SETTINGS.features, judge.informers.has_synced,
            judge.count_live,
            judge.share, freshness=judge.informers.freshness, clock=lambda: state.now,
        )  # fmt: skip
        task = asyncio.ensure_future(judge.run())
        try:
            async with asyncio.timeout(120):
                while not judge.informers.has_synced():  # noqa: ASYNC110 (a state of many tasks)
                    await asyncio.sleep(0.01)
            yield state
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@edges
async def test_a_fresh_graph_allows_without_a_look_up(edge: Any) -> None:
    async with following(world()) as state:
        state.now += 90
        assert await state.allowed(*edge) is True
        assert state.world.asked == []
        assert state.world.lists == []


@edges
async def test_a_stale_graph_is_confirmed_once(edge: Any) -> None:
    async with following(world()) as state:
        state.now += 91
        assert await state.allowed(*edge) is True
        calls = len(state.world.asked) + len(state.world.lists)
        assert calls > 0
        state.now += 90
        assert await state.allowed(*edge) is True
        assert len(state.world.asked) + len(state.world.lists) == calls
        # Not for ever.
        state.now += 1
        assert await state.allowed(*edge) is True
        assert len(state.world.asked) + len(state.world.lists) > calls


@edges
async def test_a_stale_graph_that_cannot_be_confirmed_is_no_answer(edge: Any) -> None:
    async with following(world()) as state:
        state.world.down = True
        assert await state.allowed(*edge) is True
        state.now += 91
        assert await state.allowed(*edge) is None


@edges
async def test_what_is_gone_opens_nothing_once_the_graph_is_stale(edge: Any) -> None:
    async with following(world()) as state:
        del state.world.objects[edge[-1]]
        state.now += 91
        assert await state.allowed(*edge) is False


@edges
async def test_what_moved_to_another_node_opens_nothing_once_the_graph_is_stale(edge: Any) -> None:
    async with following(world()) as state:
        spec = state.world.objects[edge[-1]]["spec"]
        if edge[-1] == PV:
            spec["claimRef"]["name"] = "other"
        else:
            spec["nodeName"] = "n2"
        state.now += 91
        assert await state.allowed(*edge) is False


@edges
async def test_what_is_newer_than_a_stale_graph_opens(edge: Any) -> None:
    full, empty = world(), World(named("/api/v1/nodes/n1", {}))
    async with following(empty) as state:
        state.now += 91
        assert await state.allowed(*edge) is False
        empty.objects |= full.objects
        state.now += 1
        assert await state.allowed(*edge) is True


@pytest.mark.parametrize(
    ("frozen", "edge"),
    [
        ("persistentvolumes", "volume"),
        ("persistentvolumes", "secret of a volume"),
        ("volumeattachments", "attachment"),
        ("resourceslices", "slice"),
        ("podcertificaterequests", "certificate"),
        ("pods", "secret"),
    ],
)
async def test_one_frozen_store_is_confirmed_by_its_own_objects_alone(
    frozen: str, edge: str
) -> None:
    async with following(world()) as state:
        state.now += 91
        state.refresh(frozen)
        assert await state.allowed(*EDGES[edge]) is True
        if frozen == "pods":
            assert state.world.lists == [(PODS, "spec.nodeName=n1")]
            assert state.world.asked == []
        else:
            assert state.world.asked == [EDGES[edge][-1]]
            assert state.world.lists == []
        for other, path in EDGES.items():
            if other in ("config map", "slice", "attachment") and other != edge:
                before = list(state.world.asked)
                assert await state.allowed(*path) is True
                assert state.world.asked == before


async def test_a_refusal_of_what_names_its_node_rests_on_that_object() -> None:
    cluster = world()
    attachment = cluster.objects.pop(ATTACHMENT)
    async with following(cluster) as state:
        assert await state.allowed(*EDGES["attachment"]) is False
        cluster.objects[ATTACHMENT] = attachment
        state.now += 1
        assert await state.allowed(*EDGES["attachment"]) is True
        assert cluster.lists == []


@pytest.mark.parametrize(
    "vertex",
    [
        ("volumeattachments", "ns", "va", "storage.k8s.io"),
        ("resourceslices", "ns", "rs", "resource.k8s.io"),
        ("persistentvolumes", "ns", "pv", ""),
        ("podcertificaterequests", "", "pcr", "certificates.k8s.io"),
        ("volumeattachments", "", "../volumeattachments/va", "storage.k8s.io"),
        ("volumeattachments", "", "va?", "storage.k8s.io"),
        ("persistentvolumes", "", "a/../pv", ""),
    ],
)
async def test_names_that_no_object_has_lead_nowhere(vertex: Any) -> None:
    async with following(world()) as state:
        state.now += 91
        assert await state.allowed(*vertex) is False
        assert state.world.asked == []


async def test_a_pod_of_another_node_opens_nothing_here() -> None:
    async with following(world()) as state:
        state.now += 91
        for edge in EDGES.values():
            assert await state.allowed(*edge, node="n2") is False


async def test_a_secret_through_a_volume_that_the_graph_lacks_is_found_by_the_claim() -> None:
    cluster = world()
    cluster.objects.pop(PV)
    async with following(cluster) as state:
        cluster.objects[PV] = volume()[1]
        state.now += 91
        assert await state.allowed(*EDGES["secret of a volume"]) is True
        assert cluster.asked == [CLAIM, PV]


async def test_a_large_pod_is_refused_no_secret_of_a_volume_that_the_graph_lacks() -> None:
    """Of what it names, only that is kept which the graph knows to lead there."""
    cluster = world()
    cluster.objects.pop(PV)
    many = [{"name": f"s{n}", "secret": {"secretName": f"many-{n}"}} for n in range(2_000)]
    cluster.objects[POD] = pod("p", volumes=[*VOLUMES, *many])[1]
    async with following(cluster) as state:
        edge = EDGES["secret of a volume"]
        assert await state.allowed(*edge) is False
        cluster.objects[PV] = volume()[1]
        state.now += 91
        assert await state.allowed(*edge) is None
        # What no volume leads to is refused as ever; what the graph knows is confirmed.
        state.now += 0.001
        assert await state.allowed("configmaps", "ns", "no such") is False
        state.now += 0.001
        assert await state.allowed("secrets", "ns", "many-1999") is True


async def test_a_node_that_asks_too_much_of_a_stale_graph_gets_no_answer() -> None:
    async with following(world()) as state:
        state.now += 91
        answers = []
        for number in range(80):
            state.now += 0.001
            answers.append(await state.allowed("secrets", "ns", f"x{number}"))
        assert answers.count(False) == 50
        assert answers.count(None) == 30
        # What was confirmed is not asked for again, and costs nothing.
        assert await state.allowed(*EDGES["secret"]) is True


class Direct:
    """Lists pods without a socket, of which thousands of calls would take half a minute."""

    def __init__(self, pods: dict[str, dict[str, Any]]) -> None:
        self._pods = pods
        self.lists: list[str] = []

    async def get(self, path: str, query: dict[str, str], **_more: float) -> bytes:
        assert path == PODS
        node = query["fieldSelector"].removeprefix("spec.nodeName=")
        self.lists.append(node)
        # As long as it takes: others ask meanwhile.
        await asyncio.sleep(0.001)
        return msgspec.json.encode(
            {"metadata": {"resourceVersion": "1"}, "items": [self._pods[node]]}
        )

    async def stream(self, path: str, query: dict[str, str], **more: float) -> AsyncIterator[bytes]:
        yield await self.get(path, query, **more)


async def test_thousands_of_nodes_cost_one_list_each_for_all_their_questions() -> None:
    nodes = [f"n{number}" for number in range(2000)]
    pods = {node: pod("p", node, node, volumes=VOLUMES)[1] for node in nodes}
    direct = Direct(pods)
    graph = Graph()
    for value in pods.values():
        graph.upsert("pods", msgspec.convert(value, corev1.Pod))
    now, heard = 1000.0, 1000.0
    freshness = Freshness(dict.fromkeys(SOURCES, lambda: now - heard), clock=lambda: now)
    authorizer = NodeAuthorizer(
        cast("Connection", direct), graph, SETTINGS.features, lambda: True,
        freshness=freshness, clock=lambda: now,
    )  # fmt: skip

    async def ask(some: list[str]) -> set[bool | None]:
        found: set[bool | None] = set()
        kinds = (("secrets", "own"), ("configmaps", "cm"), ("serviceaccounts", "sa"))
        for start in range(0, len(some), 50):
            end = time.monotonic() + 60
            asked = (
                authorizer.authorize(review(kind, node, name, node=node), end)
                for node in some[start : start + 50]
                for kind, name in kinds
            )
            found |= {one.allowed if one else None for one in await asyncio.gather(*asked)}
        return found

    assert await ask(nodes) == {True}
    assert direct.lists == []
    now += 91
    assert await ask(nodes) == {True}
    assert sorted(direct.lists) == sorted(nodes)
    now += 90
    assert await ask(nodes) == {True}
    assert len(direct.lists) == len(nodes)
    now += 1
    assert await ask(nodes[:10]) == {True}
    assert len(direct.lists) == len(nodes) + 10
