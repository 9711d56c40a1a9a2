"""What a store allows that has not heard from the API server lately is confirmed, or 500."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from noderestrict import admission
from noderestrict.cluster.judge import ClusterJudge
from noderestrict.cluster.reflector import Pace
from noderestrict.policy.decision import Allowed, Denied
from noderestrict.policy.extra import Extra
from noderestrict.policy.settings import Settings
from noderestrict.serving.app import App
from noderestrict.telemetry.metrics import Metrics
from tests.cluster.scripted import connected
from tests.cluster.test_judge import review, token
from tests.cluster.world import World, named, pod

POD = "/api/v1/namespaces/ns/pods/p"
EVICTION = {
    "apiVersion": "policy/v1",
    "kind": "Eviction",
    "metadata": {"namespace": "ns", "name": "p"},
}
SETTINGS = Settings.for_version(
    overrides={"PodCertificateRequest": True},
    api_audiences=("api",),
    extra=Extra.of(["events/about-own"]),
)


def evict() -> admission.Request:
    return review("pods", "CREATE", subResource="eviction", object=EVICTION)


def mirror() -> admission.Request:
    owner = {
        "apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "n1-uid", "controller": True,
    }  # fmt: skip
    meta = {
        "namespace": "ns",
        "name": "p",
        "annotations": {"kubernetes.io/config.mirror": "x"},
        "ownerReferences": [owner],
    }
    value = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"nodeName": "n1"}}
    return review("pods", "CREATE", object=value)


def certificate() -> admission.Request:
    spec = {
        "nodeName": "n1", "nodeUID": "n1-uid", "podName": "p", "podUID": "p-uid",
        "serviceAccountName": "sa", "serviceAccountUID": "sa-uid", "signerName": "mesh",
    }  # fmt: skip
    value = {
        "apiVersion": "certificates.k8s.io/v1beta1",
        "kind": "PodCertificateRequest",
        "spec": spec,
    }
    return msgspec.structs.replace(
        review("podcertificaterequests", "CREATE", object=value), group="certificates.k8s.io"
    )


def vault_token() -> admission.Request:
    return token("vault", uid="p-uid")


def world() -> World:
    volume = {
        "name": "v",
        "persistentVolumeClaim": {"claimName": "c"},
        "projected": {"sources": [{"podCertificate": {"signerName": "mesh"}}]},
    }
    driver = {"tokenRequests": [{"audience": "vault"}]}
    return World(
        pod("p", volumes=[volume]),
        named("/api/v1/nodes/n1", {}),
        named("/api/v1/namespaces/ns/serviceaccounts/sa", {}),
        named("/api/v1/namespaces/ns/persistentvolumeclaims/c", {"volumeName": "pv"}),
        named("/api/v1/persistentvolumes/pv", {"csi": {"driver": "csi"}}),
        named("/apis/storage.k8s.io/v1/csidrivers/csi", driver),
    )


class Following:
    """A judge that follows a world, with a clock of our own."""

    def __init__(self, judge: ClusterJudge, metrics: Metrics, world: World) -> None:
        self.judge = judge
        self.metrics = metrics
        self.world = world
        self.now = 1000.0

    async def decide(self, request: admission.Request) -> Allowed | Denied:
        allowed = self.judge.allowed(request)
        return allowed or await self.judge.judge(request, time.monotonic() + 60)

    async def readyz(self) -> tuple[int, str]:
        app = App(self.judge, self.metrics)
        answer = await app.handle(make_mocked_request("GET", "/readyz?verbose"))
        assert isinstance(answer, web.Response)
        return answer.status, str(answer.text)

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(120):
            while not what():  # noqa: ASYNC110 (a state of many tasks)
                await asyncio.sleep(0.01)

    def ages(self) -> dict[str, float]:
        (family,) = (family for family in self.metrics.store_age.collect())
        return {one.labels["resource"]: one.value for one in family.samples}


@asynccontextmanager
async def following(cluster: World, **options: Any) -> AsyncIterator[Following]:
    metrics = Metrics()
    async with connected(cluster) as connection:
        judge = ClusterJudge(
            connection,
            SETTINGS,
            metrics,
            streaming=False,
            pace=Pace(clock=lambda: state.now, jitter=lambda: 1.0, inactivity=3600),
            **options,
        )
        state = Following(judge, metrics, cluster)
        task = asyncio.ensure_future(judge.run())
        try:
            await state.until(judge.informers.has_synced)
            yield state
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


REQUESTS = {
    "eviction": evict, "mirror pod": mirror, "pod certificate": certificate, "token": vault_token,
}  # fmt: skip
requests = pytest.mark.parametrize("make", REQUESTS.values(), ids=REQUESTS)


@requests
async def test_a_fresh_store_allows_without_a_look_up(make: Callable[[], Any]) -> None:
    async with following(world()) as state:
        state.now += 90
        assert isinstance(await state.decide(make()), Allowed)
        assert state.world.asked == []


@requests
async def test_a_stale_store_is_confirmed(make: Callable[[], Any]) -> None:
    async with following(world()) as state:
        state.now += 90.1
        assert state.judge.allowed(make()) is None
        assert isinstance(await state.decide(make()), Allowed)
        assert state.world.asked != []


@requests
async def test_a_stale_store_that_cannot_be_confirmed_is_500(make: Callable[[], Any]) -> None:
    async with following(world()) as state:
        state.now += 90.1
        state.world.down = True
        decision = await state.decide(make())
        assert isinstance(decision, Denied)
        assert decision.code == 500
        assert decision.rule


GONE: dict[str, tuple[Callable[[], Any], str]] = {
    "pod, evicted": (evict, POD),
    "pod, token": (vault_token, POD),
    "pod, certificate": (certificate, POD),
    "node, mirror pod": (mirror, "/api/v1/nodes/n1"),
    "node, certificate": (certificate, "/api/v1/nodes/n1"),
    "account, certificate": (certificate, "/api/v1/namespaces/ns/serviceaccounts/sa"),
    "claim, token": (vault_token, "/api/v1/namespaces/ns/persistentvolumeclaims/c"),
    "volume, token": (vault_token, "/api/v1/persistentvolumes/pv"),
    "driver, token": (vault_token, "/apis/storage.k8s.io/v1/csidrivers/csi"),
}


@pytest.mark.parametrize(("make", "path"), GONE.values(), ids=GONE)
async def test_what_is_gone_allows_nothing_once_the_store_is_stale(
    make: Callable[[], Any], path: str
) -> None:
    async with following(world()) as state:
        del state.world.objects[path]
        state.now += 90.1
        assert isinstance(await state.decide(make()), Denied)


def event_about_a_pod() -> admission.Request:
    about = {"kind": "Pod", "namespace": "ns", "name": "p"}
    meta = {"namespace": "ns", "name": "p.1"}
    value = {"apiVersion": "v1", "kind": "Event", "metadata": meta, "involvedObject": about}
    return review("events", "CREATE", name="p.1", object=value)


async def test_what_a_stale_store_seems_to_lack_allows_nothing() -> None:
    async with following(World(pod("p", node="n2"))) as state:
        assert isinstance(await state.decide(event_about_a_pod()), Denied)
        state.now += 90.1
        assert isinstance(await state.decide(event_about_a_pod()), Denied)
        del state.world.objects[POD]
        assert isinstance(await state.decide(event_about_a_pod()), Allowed)
        state.world.down = True
        decision = await state.decide(event_about_a_pod())
        assert isinstance(decision, Denied)
        assert decision.code == 500


async def test_one_frozen_store_is_confirmed_while_others_are_not() -> None:
    async with following(world()) as state:
        judge = state.judge
        state.now += 100
        for plural, reflector in judge.informers._reflectors.items():
            if plural != "pods":
                reflector._heard = state.now
        assert isinstance(await state.decide(mirror()), Allowed)
        assert state.world.asked == []
        assert isinstance(await state.decide(evict()), Allowed)
        assert state.world.asked == [POD]
        ages = state.ages()
        assert ages.pop("pods") == 100
        assert set(ages.values()) == {0}


async def test_a_store_that_grows_stale_while_the_rules_wait_for_their_turn_is_confirmed() -> None:
    async with following(world()) as state:
        state.world.asked.clear()

        async def late(rules: Callable[[], Any]) -> Any:
            state.now += 50
            return rules()

        decision = await state.judge.judge(evict(), time.monotonic() + 60, run=late)
        assert isinstance(decision, Allowed)
        assert state.world.asked == []
        decision = await state.judge.judge(evict(), time.monotonic() + 60, run=late)
        assert isinstance(decision, Allowed)
        assert state.world.asked != []


async def test_the_bound_is_the_operators() -> None:
    async with following(world(), max_staleness=10) as state:
        state.now += 10.1
        await state.decide(evict())
        assert state.world.asked == [POD]


@pytest.mark.parametrize(("bound_to", "code"), [("n1", 0), ("n2", 403)])
async def test_the_existing_pod_decides_a_deletion_whatever_the_stores_hold(
    bound_to: str, code: int
) -> None:
    cluster = World(pod("p", "n2" if bound_to == "n1" else "n1"))
    async with following(cluster) as state:
        cluster.down = True
        old = {"apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": bound_to}}
        decision = await state.decide(review("pods", "DELETE", oldObject=old))
        assert (decision.code if isinstance(decision, Denied) else 0) == code
        assert cluster.asked == []


async def test_a_deletion_without_the_existing_pod_is_looked_up() -> None:
    cluster = World(pod("p"))
    async with following(cluster) as state:
        cluster.objects.pop(POD)
        state.now += 91
        decision = await state.decide(review("pods", "DELETE"))
        assert isinstance(decision, Denied)
        assert decision.code == 404


async def test_readiness_outlives_stale_stores_while_look_ups_work() -> None:
    async with following(world()) as state:
        state.now += 200
        await state.until(lambda: state.world.probes > 0)
        status, text = await state.readyz()
        assert status == 200
        assert "[+] store pods: 200 s old, stale" in text


async def test_an_outage_makes_unready_once_stores_are_stale_and_ends_with_it() -> None:
    cluster = world()
    async with following(cluster) as state:
        cluster.cut()
        await state.until(lambda: not state.judge.informers._probe.answers)
        # Nothing is stale yet: the stores answer.
        assert (await state.readyz())[0] == 200
        assert isinstance(await state.decide(evict()), Allowed)
        state.now += 91
        status, text = await state.readyz()
        assert status == 503
        assert "[-] api server" in text
        followed = cluster.followed
        cluster.down = False
        await state.until(lambda: state.judge.informers._probe.answers)
        assert (await state.readyz())[0] == 200
        # What waited for half a minute tries again at once.
        await state.until(lambda: max(state.ages().values()) < 90)
        assert cluster.followed >= followed


class Hanging(World):
    """Ends watches in good order, and then accepts connections without answering."""

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if self.down and request.path not in self.broken:
            await asyncio.sleep(3600)
        return await super().__call__(request)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        if not self._cuts:
            await self._moved.wait()
        else:
            await asyncio.sleep(3600)
        return response


@pytest.mark.parametrize("kind", [World, Hanging])
async def test_what_a_restore_of_etcd_undid_in_an_outage_allows_nothing(kind: type[World]) -> None:
    cluster = kind()
    cluster.objects = world().objects
    async with following(cluster) as state:
        assert isinstance(await state.decide(evict()), Allowed)
        # One that fails makes it ask whether the API server answers.
        cluster.broken.add("/apis/storage.k8s.io/v1/csidrivers")
        cluster.cut()
        await state.until(lambda: not state.judge.informers._probe.answers)
        del cluster.objects[POD]
        cluster.down = False
        await state.until(lambda: ("ns", "p") not in state.judge.informers.stores["pods"].held())
        assert isinstance(await state.decide(evict()), Denied)


async def test_a_replica_that_starts_in_an_outage_is_ready_when_it_ends() -> None:
    cluster = world()
    cluster.down = True
    waits: list[float] = []

    async def for_ever(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(3600)

    async with connected(cluster) as connection:
        judge = ClusterJudge(
            connection, SETTINGS, Metrics(), streaming=False, pace=Pace(sleep=for_ever)
        )
        state = Following(judge, judge._metrics, cluster)
        task = asyncio.ensure_future(judge.run())
        await state.until(lambda: len(waits) == 6 and not judge.informers._probe.answers)
        assert (await state.readyz())[0] == 503
        cluster.down = False
        await state.until(judge.informers.has_synced)
        assert (await state.readyz())[0] == 200
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_store_that_fails_while_others_work_waits_longer_and_longer() -> None:
    """Only an API server that answers again ends waiting: one that refuses a list does not."""
    cluster = world()
    cluster.broken.add("/api/v1/persistentvolumes")
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0.001 if len(waits) < 8 else 3600)

    async with connected(cluster) as connection:
        pace = Pace(sleep=wait, jitter=lambda: 1.0)
        judge = ClusterJudge(connection, SETTINGS, Metrics(), streaming=False, pace=pace)
        state = Following(judge, judge._metrics, cluster)
        task = asyncio.ensure_future(judge.run())
        await state.until(lambda: len(waits) == 8)
        await state.until(lambda: cluster.probes > 0)
        assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
        assert judge.informers._probe.answers
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
