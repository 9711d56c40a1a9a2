"""One object that a decoder chokes on costs only itself, and not even that if it can be helped."""

import asyncio
import json
import logging
import time
import types
import typing
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from noderestrict import admission, authorization
from noderestrict.api.resources import RESOURCES, ObjectKey
from noderestrict.cluster import reflector as reflector_module
from noderestrict.cluster.connection import ClusterError
from noderestrict.cluster.graph_sink import GraphSink, graph_sinks, read_graph
from noderestrict.cluster.judge import ClusterJudge
from noderestrict.cluster.live import Budget, LiveLookups
from noderestrict.cluster.node_authorizer import NodeAuthorizer
from noderestrict.cluster.reflector import Pace, Reflector
from noderestrict.cluster.store import Store
from noderestrict.graph.graph import SOURCES, Graph
from noderestrict.policy.decision import Allowed, Denied
from noderestrict.policy.features import OFFLINE_MINOR, defaults
from noderestrict.policy.records import RECORDS
from noderestrict.policy.settings import Settings
from noderestrict.telemetry.metrics import Metrics
from tests.cluster.scripted import Scripted, connected, raw, reply
from tests.poisoned import FIELDS, poisoned

#: What stores and graph are kept of.
FOLLOWED = sorted({*RECORDS, *SOURCES})
NODE_NAMED = ("pods", "volumeattachments", "resourceslices", "podcertificaterequests")


def thing(name: str, version: int = 1, **spec: Any) -> dict[str, Any]:
    meta = {"namespace": "ns", "name": name, "uid": f"u-{name}", "resourceVersion": str(version)}
    return {"metadata": meta, "spec": {"nodeName": "n1", **spec}}


def listed(*items: bytes, version: int = 10, more: str = "") -> bytes:
    head = {"resourceVersion": str(version), "continue": more}
    return b'{"metadata":%b,"items":[%b]}' % (json.dumps(head).encode(), b",".join(items))


def line(kind: str, value: bytes) -> bytes:
    return b'{"type":"%b","object":%b}\n' % (kind.encode(), value)


def bookmark(version: int, *, end: bool = False) -> bytes:
    meta: dict[str, Any] = {"resourceVersion": str(version)}
    if end:
        meta["annotations"] = {"k8s.io/initial-events-end": "true"}
    return line("BOOKMARK", json.dumps({"metadata": meta}).encode())


def plain(value: Any) -> bytes:
    return json.dumps(value).encode()


class Run:
    """A reflector of any resource, with the sinks that the server gives it."""

    def __init__(self, plural: str = "pods") -> None:
        self.plural = plural
        self.graph = Graph()
        self.sinks: list[Any] = []
        if plural in RECORDS:
            self.store = Store(plural)
            self.sinks.append(self.store)
        if plural in SOURCES:
            self.sinks.append(GraphSink(self.graph, plural))
        self.slept: list[float] = []
        self.failed: list[str] = []
        self.lost = 0
        self.now = 0.0
        self.ages: list[float | None] = []

    def _count(self) -> None:
        self.lost += 1

    async def follow(self, script: Scripted, *, streaming: bool = False) -> None:
        async def sleep(seconds: float) -> None:
            self.slept.append(seconds)
            self.ages.append(self.reflector.age())
            self.now += seconds

        pace = Pace(sleep=sleep, jitter=lambda: 1.0, inactivity=20, clock=lambda: self.now)
        async with connected(script) as connection:
            self.reflector = Reflector(
                connection,
                RESOURCES[self.plural],
                self.sinks,
                streaming=streaming,
                pace=pace,
                failed=self.failed.append,
                lost=self._count,
            )
            task = asyncio.get_running_loop().create_task(self.reflector.run())
            finished = asyncio.ensure_future(script.finished.wait())
            done, _ = await asyncio.wait(
                (task, finished), timeout=60, return_when=asyncio.FIRST_COMPLETED
            )
            finished.cancel()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert finished in done, (script.asked, task)

    def names(self) -> set[str]:
        """Return the names of what every sink holds."""
        held = []
        if self.plural in RECORDS:
            held.append({name for _, name in self.store.held()})
        if self.plural in NODE_NAMED:
            held.append({name for _, name in self.graph.objects(self.plural)})
        assert all(names == held[0] for names in held), held
        return held[0]


@pytest.mark.parametrize("fields", FIELDS)
@pytest.mark.parametrize("plural", FOLLOWED)
async def test_whatever_its_managed_fields_an_object_is_taken_in(plural: str, fields: str) -> None:
    text = FIELDS[fields]
    ways = {
        "page": (False, [raw(listed(plain(thing("a")), poisoned(thing("p"), text)))]),
        "streaming": (
            True,
            [
                raw(
                    line("ADDED", plain(thing("a")))
                    + line("ADDED", poisoned(thing("p"), text))
                    + bookmark(5, end=True)
                )
            ],
        ),
        "event": (
            False,
            [
                raw(listed(plain(thing("a")), plain(thing("gone")))),
                raw(
                    line("ADDED", poisoned(thing("p", 11), text))
                    + line("DELETED", poisoned(thing("gone", 12), text))
                    + line("ADDED", plain(thing("last", 13)))
                ),
            ],
        ),
    }
    for way, (streaming, steps) in ways.items():
        run = Run(plural)
        await run.follow(Scripted(*steps), streaming=streaming)
        expected = {"a", "p"} | ({"last"} if way == "event" else set())
        if plural != "persistentvolumes":
            assert run.names() == expected, way
        else:
            assert {name for _, name in run.store.held()} == expected, way
        assert run.failed == []
        assert run.lost == 0


def spoiled(struct: type[msgspec.Struct], path: tuple[str, ...] = ()) -> Iterator[Any]:
    """Yield, for each field that is read, a patch that gives it a wrong type."""
    for name, kind in typing.get_type_hints(struct).items():
        for one in typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,):
            origin = typing.get_origin(one)
            inner = typing.get_args(one)
            if isinstance(one, type) and issubclass(one, msgspec.Struct):
                yield {name: 5}
                yield from ({name: patch} for patch in spoiled(one, (*path, name)))
            elif origin is list:
                yield {name: {"a": 1}}
                if isinstance(inner[0], type) and issubclass(inner[0], msgspec.Struct):
                    yield from ({name: [patch]} for patch in spoiled(inner[0], (*path, name)))
                else:
                    yield {name: [["x"]]}
            elif origin is dict:
                yield {name: ["x"]}
                yield {name: {"a": ["x"]}}
            elif one is not types.NoneType:
                yield {name: {"a": 1}}


def patched(value: Any, patch: Any) -> Any:
    if isinstance(value, dict) and isinstance(patch, dict):
        both = {**value, **patch}
        return {
            key: patched(value[key], patch[key]) if key in value and key in patch else both[key]
            for key in both
        }
    return patch


@pytest.mark.parametrize("plural", FOLLOWED)
async def test_a_wrong_type_in_any_field_costs_only_its_object(plural: str) -> None:
    patches = list(spoiled(RESOURCES[plural].struct))
    values = [patched(thing(f"p{number}", 20 + number), one) for number, one in enumerate(patches)]
    nameless = [
        number
        for number, value in enumerate(values)
        if not isinstance(value["metadata"], dict)
        or not all(isinstance(value["metadata"][field], str) for field in ("namespace", "name"))
    ]
    assert len(patches) > 10
    assert nameless
    items = [plain(thing("a")), *map(plain, values), b"5", b"null", b"[]", plain(thing("b"))]
    for streaming in (False, True):
        run = Run(plural)
        before = [plain(thing(f"p{number}")) for number in range(len(values))]
        events = b"".join(line("MODIFIED", item) for item in items)
        await run.follow(
            Scripted(
                raw(b"".join(line("ADDED", item) for item in items) + bookmark(5, end=True))
                if streaming
                else raw(listed(*items)),
                # What was good turns bad while it is watched.
                raw(b"".join(line("ADDED", item) for item in before) + events),
            ),
            streaming=streaming,
        )
        assert run.failed == []
        held = {"a", "b"} | {f"p{number}" for number in nameless}
        if plural in RECORDS:
            assert {name for _, name in run.store.held()} == held
        if plural in NODE_NAMED:
            assert {name for _, name in run.graph.objects(plural)} == held
        assert run.lost == 2 * (len(values) + 3)
        assert len(run.reflector.unreadable()) == len(values) - len(nameless)


async def test_what_can_be_decoded_again_or_is_deleted_is_no_longer_lost() -> None:
    bad = {**thing("p"), "spec": 5}
    run = Run()
    await run.follow(
        Scripted(
            raw(listed(plain(bad), plain(patched(bad, {"metadata": {"name": "q"}})))),
            raw(line("MODIFIED", plain(thing("p", 11))) + line("DELETED", plain(
                patched(bad, {"metadata": {"name": "q", "resourceVersion": "12"}})
            ))),
        )
    )  # fmt: skip
    assert run.names() == {"p"}
    assert run.reflector.unreadable() == set()


async def test_an_object_is_logged_once_for_each_version(caplog: pytest.LogCaptureFixture) -> None:
    bad = plain({**thing("p"), "spec": 5})
    gone = line("ERROR", b'{"code":410}')
    with caplog.at_level(logging.WARNING, "noderestrict"):
        run = Run()
        await run.follow(Scripted(raw(listed(bad)), raw(gone), raw(listed(bad)), raw(gone), raw(
            listed(plain({**thing("p", 2), "spec": 5}))
        )))  # fmt: skip
    logged = [record for record in caplog.records if "cannot be decoded" in record.message]
    assert len(logged) == 2
    assert run.lost == 3


async def test_many_of_them_do_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    bad = [plain({**thing(f"p{number}"), "spec": 5}) for number in range(200)]
    with caplog.at_level(logging.WARNING, "noderestrict"):
        await Run().follow(Scripted(raw(listed(*bad))))
    assert 0 < len(caplog.records) < 50


async def test_a_defect_of_a_sink_costs_only_the_object(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run()
    upsert = Graph.upsert

    def failing(self: Graph, resource: str, value: Any) -> None:
        if value.metadata.name == "p":
            raise AttributeError("defect")
        upsert(self, resource, value)

    monkeypatch.setattr(Graph, "upsert", failing)
    await run.follow(
        Scripted(
            raw(listed(plain(thing("a")), plain(thing("p")))),
            raw(line("MODIFIED", plain(thing("p", 11))) + line("ADDED", plain(thing("b", 12)))),
        )
    )
    assert run.names() == {"a", "b"}
    assert run.failed == []


@pytest.mark.parametrize(
    "garbage",
    [
        b'{"type":"ADDED","object":{"metadata":{"name":"p",}}}\n',
        b'{"type":"ADDED","object":{"metadata":tru}}\n',
        b'{"type":"ADDED"\n',
        b'{"type":5,"object":{}}\n',
        b'{"object":{}}\n',
        b'{"type":"NEW","object":{}}\n',
        b'{"type":"ADDED","object":' + b"[" * 20_000 + b"\n",
    ],
)
async def test_lines_that_are_no_events_cost_growing_waits_and_the_age(garbage: bytes) -> None:
    stream = line("MODIFIED", plain(thing("a", 11))) + garbage
    page = raw(listed(plain(thing("a")), version=10))
    run = Run()
    await run.follow(Scripted(page, *[raw(stream)] * 3, page, *[raw(stream)] * 3, page))
    assert run.names() == {"a"}
    assert run.slept == [1, 2, 4, 8, 16, 30]
    assert run.failed == ["watch"] * 6


async def test_an_event_beyond_the_failure_ends_the_waits() -> None:
    bad = raw(b"garbage\n")
    good = raw(line("MODIFIED", plain(thing("a", 11))))
    run = Run()
    await run.follow(Scripted(raw(listed()), bad, bad, good, bad, raw(bookmark(12)), bad))
    assert [wait for wait in run.slept if wait != 1] == [2]


async def test_versions_that_are_always_gone_do_not_make_lists_without_a_pause() -> None:
    gone = raw(line("ERROR", b'{"code":410}'))
    page = raw(listed())
    run = Run()
    await run.follow(Scripted(*[page, gone] * 5))
    assert run.slept == [2, 4, 8, 16]


async def test_a_line_without_end_costs_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflector_module, "_LONGEST_LINE", 2**20)
    run = Run()
    await run.follow(Scripted(raw(listed()), raw(b'{"type":"ADDED","object":"' + b"x" * 2**22)))
    assert run.failed == ["watch"]


async def test_pages_that_are_no_lists_fail_and_change_nothing() -> None:
    good = listed(plain(thing("a")), plain(thing("b")))
    bad = [good[:-1], good + b"}", good.replace(b"ns", b"\\"), good.replace(b"null", b"nul")]
    bad = [one for one in bad if one != good]
    run = Run()
    gone = raw(line("ERROR", b'{"code":410}'))
    await run.follow(Scripted(raw(good), gone, *map(raw, bad), raw(listed(plain(thing("c"))))))
    assert run.failed == ["watch"] + ["list"] * len(bad)
    assert run.names() == {"c"}


def review(resource: str, operation: str, name: str, node: str = "n1") -> admission.Request:
    request = {
        "uid": "1",
        "operation": operation,
        "namespace": "ns",
        "name": name,
        "resource": {"group": "", "version": "v1", "resource": resource},
        "userInfo": {"username": f"system:node:{node}", "groups": ["system:nodes"]},
    }
    body = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    return admission.decode(json.dumps(body).encode())


def question(secret: str, node: str = "n1") -> authorization.Review:
    attributes = {"verb": "get", "resource": "secrets", "namespace": "ns", "name": secret}
    spec = {
        "user": f"system:node:{node}",
        "groups": ["system:nodes"],
        "resourceAttributes": {"version": "v1", **attributes},
    }
    api = "authorization.k8s.io/v1"
    body = {"apiVersion": api, "kind": "SubjectAccessReview", "spec": spec}
    return authorization.decode(msgspec.json.encode(body))


def with_secret(name: str, secret: str, version: int, node: str = "n1") -> dict[str, Any]:
    volume = {"name": "v", "secret": {"secretName": secret}}
    return thing(name, version, nodeName=node, volumes=[volume])


class Cluster:
    """An API server whose pods are lists and watches as bytes."""

    def __init__(self, pods: bytes, events: bytes) -> None:
        self.pods = pods
        self.events = events
        self.objects: dict[str, bytes] = {}

    async def __call__(self, request: Any) -> Any:
        body = self.objects.get(request.path)
        if body is None and "fieldSelector" in request.query:
            body = self.objects.get(request.query["fieldSelector"], listed())
        if body is None and request.path == "/api/v1/pods":
            body = self.events if "watch" in request.query else self.pods
            if "watch" in request.query:
                self.events = b""
        if body is None and request.path.count("/") <= 4:
            body = b"" if "watch" in request.query else listed()
        if body is None:
            return await reply({"message": "not found"}, 404)(request)
        if body == b"":
            await asyncio.sleep(3600)
        return await raw(body)(request)


@pytest.mark.parametrize("fields", FIELDS)
async def test_a_pod_that_left_beside_a_poisoned_one_is_followed(fields: str) -> None:
    """What n1 may not do any more, it may not do because of another's pod either."""
    poison = poisoned(thing("poison", 11), FIELDS[fields])
    moved = plain(with_secret("p", "s", 12, "n2"))
    cluster = Cluster(
        listed(plain(with_secret("p", "s", 1))),
        line("ADDED", poison) + line("MODIFIED", moved),
    )
    cluster.objects["/api/v1/namespaces/ns/pods/p"] = moved
    cluster.objects["spec.nodeName=n1"] = listed(poison)
    settings = Settings.for_version(api_audiences=("api",))
    async with connected(cluster) as connection:
        graph = Graph()
        sinks = graph_sinks(graph, settings.features)
        judge = ClusterJudge(connection, settings, Metrics(), streaming=False, sinks=sinks)
        authorizer = NodeAuthorizer(
            connection, graph, settings.features, judge.informers.has_synced
        )
        task = asyncio.get_running_loop().create_task(judge.run())
        try:
            async with asyncio.timeout(60):
                while not graph.reaches("n2", ("pods", "ns", "p")):  # noqa: ASYNC110 (no event)
                    await asyncio.sleep(0.01)
            deadline = time.monotonic() + 60
            assert judge.informers.has_synced()
            decision = await judge.judge(review("pods", "DELETE", "p"), deadline)
            assert isinstance(decision, Denied)
            assert decision.code == 403
            assert isinstance(
                await judge.judge(review("pods", "DELETE", "poison"), deadline), Allowed
            )
            opinion = await authorizer.authorize(question("s"), deadline)
            assert opinion is not None
            assert not opinion.allowed
            opinion = await authorizer.authorize(question("s", "n2"), deadline)
            assert opinion is not None
            assert opinion.allowed
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("fields", FIELDS)
@pytest.mark.parametrize("plural", RECORDS)
async def test_live_look_ups_decode_whatever_managed_fields(plural: str, fields: str) -> None:
    async with connected(Scripted(raw(poisoned(thing("p"), FIELDS[fields])))) as connection:
        found = await LiveLookups(connection, Budget()).get(ObjectKey(plural, "ns", "p"), "n1", 30)
        assert found is not None
        assert found.name == "p"


async def test_what_cannot_be_decoded_live_either_is_answered_500_and_others_are_not() -> None:
    cluster = Cluster(listed(), b"")
    cluster.objects["/api/v1/namespaces/ns/pods/p"] = plain({**thing("p"), "spec": 5})
    cluster.objects["/api/v1/namespaces/ns/pods/q"] = plain(thing("q"))
    async with connected(cluster) as connection:
        judge = ClusterJudge(connection, Settings.for_version(api_audiences=("a",)), Metrics())
        deadline = time.monotonic() + 60
        decision = await judge.judge(review("pods", "DELETE", "p"), deadline)
        assert isinstance(decision, Denied)
        assert decision.code == 500
        assert isinstance(await judge.judge(review("pods", "DELETE", "q"), deadline), Allowed)


async def test_a_nodes_questions_are_answered_beside_its_poisoned_pods() -> None:
    cluster = Cluster(listed(), b"")
    own = plain(with_secret("p", "s", 1))
    gates = defaults(OFFLINE_MINOR)
    async with connected(cluster) as connection:
        authorizer = NodeAuthorizer(connection, Graph(), gates, lambda: True)
        deadline = time.monotonic() + 60
        cluster.objects["spec.nodeName=n1"] = listed(poisoned(thing("x")), own)
        opinion = await authorizer.authorize(question("s"), deadline)
        assert opinion is not None
        assert opinion.allowed
        opinion = await authorizer.authorize(question("other"), deadline)
        assert opinion is not None
        assert not opinion.allowed
        # Who knows what this one refers to.
        cluster.objects["spec.nodeName=n1"] = listed(plain({**thing("x"), "spec": 5}), own)
        opinion = await authorizer.authorize(question("s"), deadline)
        assert opinion is not None
        assert opinion.allowed
        assert await authorizer.authorize(question("other"), deadline) is None


async def test_an_object_that_cannot_be_decoded_is_neither_open_nor_shut() -> None:
    async with connected(Cluster(listed(), b"")) as connection:
        lost = {"secrets": {("ns", "s")}}
        authorizer = NodeAuthorizer(
            connection,
            Graph(),
            defaults(OFFLINE_MINOR),
            lambda: True,
            unreadable=lambda plural: lost.get(plural, set()),
        )
        assert await authorizer.authorize(question("s"), time.monotonic() + 60) is None
        assert await authorizer.authorize(question("t"), time.monotonic() + 60) is not None


def with_claim(name: str, claim: str, node: str = "n1") -> dict[str, Any]:
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": claim}}
    return thing(name, nodeName=node, volumes=[volume])


async def test_a_volume_that_cannot_be_decoded_shuts_nothing_that_it_may_open() -> None:
    """The Secrets of a volume are what its node needs to mount it."""
    cluster = Cluster(listed(), b"")
    for number, volume in enumerate(("lost", "read", ""), 1):
        own = plain(with_claim("p", f"c{number}", f"n{number}"))
        cluster.objects[f"spec.nodeName=n{number}"] = listed(own)
        cluster.objects[f"/api/v1/namespaces/ns/persistentvolumeclaims/c{number}"] = plain(
            thing(f"c{number}", volumeName=volume)
        )
    lost = {"persistentvolumes": {("", "lost")}}
    async with connected(cluster) as connection:
        authorizer = NodeAuthorizer(
            connection,
            Graph(),
            defaults(OFFLINE_MINOR),
            lambda: True,
            unreadable=lambda plural: lost.get(plural, set()),
        )
        deadline = time.monotonic() + 60
        assert await authorizer.authorize(question("s"), deadline) is None
        # Others are told no, as before.
        for node in ("n2", "n3", "n4"):
            opinion = await authorizer.authorize(question("s", node), deadline)
            assert opinion is not None
            assert not opinion.allowed
        lost.clear()
        opinion = await authorizer.authorize(question("s"), deadline)
        assert opinion is not None
        assert not opinion.allowed


async def test_the_graph_of_a_cluster_is_read_beside_poisoned_objects() -> None:
    bad = plain({**thing("x"), "spec": 5})
    pods = listed(poisoned(thing("poison")), bad, plain(with_secret("p", "s", 1)))
    cluster = Cluster(pods, b"")
    cluster.objects["/version"] = b'{"gitVersion":"v1.36.0"}'
    async with connected(cluster) as connection:
        graph = await read_graph(connection)
    assert graph.reaches("n1", ("secrets", "ns", "s"))
    assert graph.reaches("n1", ("pods", "ns", "poison"))


async def test_a_broken_list_is_an_error_for_who_reads_it_once() -> None:
    cluster = Cluster(b'{"items":[', b"")
    cluster.objects["/version"] = b'{"gitVersion":"v1.36.0"}'
    async with connected(cluster) as connection:
        with pytest.raises(ClusterError):
            await read_graph(connection)
