"""List and watch, one behaviour at a time, without real waiting."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from noderestrict.api import corev1
from noderestrict.api.resources import RESOURCES, Resource
from noderestrict.cluster import store as store_module
from noderestrict.cluster.graph_sink import GraphSink
from noderestrict.cluster.reflector import Pace, Reflector
from noderestrict.cluster.store import Store
from noderestrict.graph.graph import Graph
from tests.cluster.scripted import Scripted, connected, reply, silent, trickle, watch

PODS = RESOURCES["pods"]


def pod(name: str, version: int, node: str = "n1") -> dict[str, Any]:
    meta = {"namespace": "ns", "name": name, "uid": name, "resourceVersion": str(version)}
    return {"metadata": meta, "spec": {"nodeName": node}}


def page(*pods: dict[str, Any], version: int = 10, token: str = "") -> dict[str, Any]:
    return {"metadata": {"resourceVersion": str(version), "continue": token}, "items": list(pods)}


def event(kind: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "object": value}


def bookmark(version: int, *, end: bool = False) -> dict[str, Any]:
    meta: dict[str, Any] = {"resourceVersion": str(version)}
    if end:
        meta["annotations"] = {"k8s.io/initial-events-end": "true"}
    return event("BOOKMARK", {"metadata": meta})


GONE = event("ERROR", {"code": 410, "message": "too old"})


class Run:
    """What a reflector did with a script."""

    def __init__(self) -> None:
        self.store = Store("pods")
        self.slept: list[float] = []
        self.failed: list[str] = []

    async def follow(
        self,
        script: Scripted,
        *,
        streaming: bool = False,
        inactivity: float = 5,
        clock: Callable[[], float] = time.monotonic,
        resource: Resource = PODS,
    ) -> None:
        async def sleep(seconds: float) -> None:
            self.slept.append(seconds)

        pace = Pace(sleep=sleep, jitter=lambda: 1.0, inactivity=inactivity, clock=clock)
        async with connected(script) as connection:
            self.reflector = Reflector(
                connection,
                resource,
                [self.store if resource is PODS else Store(resource.plural)],
                streaming=streaming,
                pace=pace,
                failed=self.failed.append,
            )
            task = asyncio.get_running_loop().create_task(self.reflector.run())
            finished = asyncio.ensure_future(script.finished.wait())
            done, _ = await asyncio.wait(
                (task, finished), timeout=120, return_when=asyncio.FIRST_COMPLETED
            )
            finished.cancel()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert finished in done, (script.asked, task)

    def names(self) -> set[str]:
        return {name for _, name in self.store.held()}


async def test_a_list_is_read_in_pages_and_watched_from_its_version() -> None:
    script = Scripted(reply(page(pod("a", 1), token="t")), reply(page(pod("b", 2))))
    run = Run()
    await run.follow(script)
    assert run.names() == {"a", "b"}
    assert [query.get("continue") for _, query in script.asked] == [None, "t", None]
    assert script.asked[2][1]["resourceVersion"] == "10"
    assert run.reflector.has_synced


@pytest.mark.parametrize(
    ("plural", "partial"), [("nodes", True), ("serviceaccounts", True), ("pods", False)]
)
@pytest.mark.parametrize("streaming", [True, False])
async def test_nothing_is_asked_for_that_no_sink_keeps(
    plural: str, partial: bool, streaming: bool
) -> None:
    run = Run()
    steps = [watch(bookmark(10, end=True))] if streaming else [reply(page())]
    script = Scripted(*steps)
    await run.follow(script, streaming=streaming, resource=RESOURCES[plural])
    kinds = ["", ""] if streaming else ["List", ""]
    for headers, suffix in zip(script.headers, kinds, strict=True):
        asked, _, otherwise = headers["Accept"].rpartition(",")
        assert otherwise == "application/json"
        wanted = f"application/json;as=PartialObjectMetadata{suffix};g=meta.k8s.io;v=v1"
        assert asked == (wanted if partial else "")


async def test_no_list_and_no_watch_is_compressed() -> None:
    run = Run()
    script = Scripted(reply(page(pod("a", 1))))
    await run.follow(script)
    assert [one["Accept-Encoding"] for one in script.headers] == ["identity", "identity"]


async def test_a_list_that_is_read_again_holds_nothing_twice() -> None:
    run = Run()
    same, moved = pod("a", 1), pod("b", 1)
    held: list[Any] = []

    def keep(_request: web.Request) -> Any:
        held.extend(run.store.get("ns", name) for name in ("a", "b"))
        return reply(page(same, pod("b", 2, node="n2"), version=20))(_request)

    script = Scripted(reply(page(same, moved)), watch(GONE), keep)
    await run.follow(script)
    before, after = held, [run.store.get("ns", name) for name in ("a", "b")]
    assert before[0] is after[0]
    assert (before[1].node_name, after[1].node_name) == ("n1", "n2")  # type: ignore[union-attr]


def with_audience(name: str, audience: str) -> corev1.Pod:
    source = {"serviceAccountToken": {"path": "t", "audience": audience}}
    value = pod(name, 1)
    value["spec"]["volumes"] = [{"name": "v", "projected": {"sources": [source]}}]
    return msgspec.convert(value, corev1.Pod)


def test_pods_have_the_same_audiences_in_common() -> None:
    store = Store("pods")
    for name in ("a", "b", "c"):
        # Strings that are equal, and not the same.
        store.upsert(with_audience(name, "".join(["vau", "lt" if name != "c" else "x"])))
    first, second, third = (store.get("ns", name).audiences for name in ("a", "b", "c"))  # type: ignore[union-attr]
    assert first is second
    assert (first, third) == (("vault",), ("vaux",))


def test_made_up_audiences_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_MOST_COMMON", 10)
    store = Store("pods")
    for number in range(100):
        store.upsert(with_audience("a", f"made-up-{number}"))
    assert len(store._common) <= 10
    assert store.get("ns", "a").audiences == ("made-up-99",)  # type: ignore[union-attr]


async def test_a_list_that_breaks_off_changes_nothing() -> None:
    script = Scripted(
        reply(page(pod("a", 1))),
        watch(GONE),
        reply(page(pod("b", 2), token="t")),
        reply({"message": "sorry"}, 500),
    )
    run = Run()
    await run.follow(script)
    assert run.names() == {"a"}
    assert run.failed == ["watch", "list"]
    assert run.slept


async def test_events_change_the_store_and_the_next_watch_goes_on_from_the_last() -> None:
    changes = watch(
        event("ADDED", pod("b", 11)),
        event("MODIFIED", pod("a", 12, "n2")),
        event("DELETED", pod("b", 13)),
        event("ADDED", pod("c", 14)),
        split=7,
    )
    script = Scripted(reply(page(pod("a", 1))), changes)
    run = Run()
    await run.follow(script)
    assert run.names() == {"a", "c"}
    record: Any = run.store.get("ns", "a")
    assert record.node_name == "n2"
    assert script.asked[-1][1]["resourceVersion"] == "14"


async def test_a_bookmark_moves_the_version() -> None:
    script = Scripted(reply(page()), watch(bookmark(99)))
    await Run().follow(script)
    assert script.asked[-1][1]["resourceVersion"] == "99"


@pytest.mark.parametrize(
    "gone", [watch(GONE), reply({"message": "too old"}, 410), reply({"message": "large"}, 504)]
)
async def test_a_forgotten_version_means_a_new_list(gone: Any) -> None:
    script = Scripted(reply(page(pod("a", 1))), gone, reply(page(pod("b", 2), version=50)))
    run = Run()
    await run.follow(script)
    assert run.names() == {"b"}
    assert script.asked[-1][1]["resourceVersion"] == "50"


@pytest.mark.parametrize("lost", [watch(bookmark(20), cut=True), watch(cut=True), silent()])
async def test_after_nobody_answered_what_was_undone_meanwhile_is_gone(lost: Any) -> None:
    """A restore takes etcd back to an earlier version, which no watch from a later one tells."""
    restored = reply(page(pod("b", 2), version=5))
    script = Scripted(reply(page(pod("a", 1), pod("b", 2))), lost, restored)
    run = Run()
    await run.follow(script, inactivity=0.2)
    assert run.names() == {"b"}
    assert run.failed == ["watch"]
    assert script.asked[-1][1]["resourceVersion"] == "5"


async def test_a_silent_watch_is_given_up() -> None:
    script = Scripted(reply(page()), silent())
    run = Run()
    await run.follow(script, inactivity=0.5)
    assert run.failed == ["watch"]


@pytest.mark.parametrize("piece", [b"\n", b"{", b'{"type":', b" \r\n"])
async def test_a_watch_that_sends_bytes_but_no_events_is_given_up(piece: bytes) -> None:
    script = Scripted(reply(page(pod("a", 1))), trickle(piece, 0.01))
    run = Run()
    await run.follow(script, inactivity=0.2)
    assert run.failed == ["watch"]
    assert run.names() == {"a"}


async def test_a_store_is_as_old_as_the_list_that_fills_it() -> None:
    """Pages of a list that is not complete tell nothing of what the store holds."""
    now = 0.0
    ages: list[float | None] = []

    def later(answer: Any) -> Any:
        async def wait(request: Any) -> Any:
            nonlocal now
            ages.append(run.reflector.age())
            now += 10
            return await answer(request)

        return wait

    run = Run()
    first, second = reply(page(pod("a", 1), token="t")), reply(page(pod("b", 2)))
    script = Scripted(
        *(later(one) for one in (first, second, watch(GONE), first, second, watch(bookmark(99)))),
        later(watch()),
    )
    await run.follow(script, clock=lambda: now)
    assert ages[:7] == [None, None, 20, 30, 40, 20, 0]


async def test_initial_events_of_a_streaming_list_do_not_make_the_store_younger() -> None:
    now = 0.0
    ages: list[float | None] = []

    def later(answer: Any) -> Any:
        async def wait(request: Any) -> Any:
            nonlocal now
            ages.append(run.reflector.age())
            now += 10
            return await answer(request)

        return wait

    run = Run()
    begun = watch(event("ADDED", pod("a", 1)))
    whole = watch(event("ADDED", pod("a", 1)), bookmark(5, end=True))
    await run.follow(
        Scripted(later(begun), later(whole), later(watch())),
        streaming=True,
        clock=lambda: now,
    )
    assert ages[:3] == [None, None, 10]


async def test_waiting_grows_and_is_bounded() -> None:
    script = Scripted(*(reply({"message": "down"}, 500) for _ in range(9)), reply(page()))
    run = Run()
    await run.follow(script)
    assert run.slept[:3] == [1.0, 2.0, 4.0]
    assert max(run.slept) == 30.0
    assert run.reflector.has_synced


@pytest.mark.parametrize("garbage", [{"items": 5}, {"metadata": {}}, [], "text"])
async def test_a_list_that_is_none_is_an_error_and_tried_again(garbage: Any) -> None:
    run = Run()
    await run.follow(Scripted(reply(garbage), reply(page(pod("a", 1)))))
    assert run.failed == ["list"]
    assert run.names() == {"a"}


async def test_a_streaming_list_replaces_the_store_at_its_end() -> None:
    script = Scripted(
        watch(event("ADDED", pod("a", 1)), bookmark(5, end=True), event("ADDED", pod("b", 6)))
    )
    run = Run()
    await run.follow(script, streaming=True)
    assert run.names() == {"a", "b"}
    first = script.asked[0][1]
    assert first["sendInitialEvents"] == "true"
    assert first["resourceVersionMatch"] == "NotOlderThan"
    assert script.asked[1][1]["resourceVersion"] == "6"


async def test_what_is_deleted_while_it_is_listed_is_gone() -> None:
    script = Scripted(
        watch(
            event("ADDED", pod("a", 1)),
            event("ADDED", pod("b", 2)),
            event("DELETED", pod("a", 3)),
            bookmark(5, end=True),
        )
    )
    run = Run()
    await run.follow(script, streaming=True)
    assert run.names() == {"b"}


def test_a_pod_that_is_deleted_while_it_is_listed_opens_nothing() -> None:
    graph = Graph()
    sink = GraphSink(graph, "pods")
    value = {"metadata": {"namespace": "ns", "name": "a"}, "spec": {"nodeName": "n1"}}
    listed = msgspec.convert(value, corev1.Pod)
    sink.begin()
    sink.add(listed)
    assert list(graph.objects("pods")) == [("ns", "a")]
    sink.discard(listed)
    sink.commit()
    assert list(graph.objects("pods")) == []


async def test_a_streaming_list_that_breaks_off_changes_nothing() -> None:
    script = Scripted(watch(event("ADDED", pod("a", 1))))
    run = Run()
    await run.follow(script, streaming=True)
    assert run.names() == set()
    assert not run.reflector.has_synced


@pytest.mark.parametrize(
    "refusal",
    [
        reply({"message": "forbidden"}, 422),
        reply({"message": "bad"}, 400),
        watch(event("ERROR", {"code": 500, "message": "storage feature is disabled"})),
    ],
)
async def test_a_server_without_streaming_lists_is_asked_for_pages(refusal: Any) -> None:
    run = Run()
    await run.follow(Scripted(refusal, reply(page(pod("a", 1)))), streaming=True)
    assert run.names() == {"a"}
    assert run.slept == []


steps = st.lists(
    st.sampled_from(["add", "delete", "bookmark", "disconnect", "gone", "error", "split"]),
    max_size=12,
)


@given(steps, st.booleans())
@settings(max_examples=40, deadline=None)
def test_any_interleaving_leaves_the_store_equal_to_the_server(
    plan: list[str], streaming: bool
) -> None:
    """The server keeps the truth; each step changes it, tells it, or fails."""
    asyncio.run(_interleave(plan, streaming=streaming))


async def _interleave(plan: list[str], *, streaming: bool) -> None:
    truth: dict[str, int] = {}
    version = 10
    script = Scripted()

    def listing() -> Any:
        pods = [pod(name, at) for name, at in truth.items()]
        if streaming:
            return watch(*(event("ADDED", p) for p in pods), bookmark(version, end=True))
        return reply(page(*pods, version=version))

    script.steps.append(listing())
    for number, step in enumerate(plan):
        version += 1
        if step in ("add", "split"):
            truth[f"p{number}"] = version
            told = event("ADDED", pod(f"p{number}", version))
            script.steps.append(watch(told, split=5 if step == "split" else None))
        elif step == "delete" and truth:
            name = next(iter(truth))
            del truth[name]
            script.steps.append(watch(event("DELETED", pod(name, version))))
        elif step == "bookmark":
            script.steps.append(watch(bookmark(version)))
        elif step == "disconnect":
            script.steps += [watch(cut=True), listing()]
        elif step == "gone":
            # Lost: a change that no watch tells, then the server forgets.
            truth[f"q{number}"] = version
            script.steps.append(watch(GONE))
            script.steps.append(listing())
        elif step == "error":
            script.steps.append(watch())
    version += 1
    script.steps += [watch(GONE), listing()]
    run = Run()
    await run.follow(script, streaming=streaming)
    assert run.names() == set(truth)
