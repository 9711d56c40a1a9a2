"""Large bodies are judged one after the other, beside everything else."""

import asyncio
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

import pytest

from noderestrict import admission
from noderestrict.policy.decision import Decision
from noderestrict.policy.settings import Settings
from noderestrict.serving.lane import LARGE_BYTES, MOST_WAITING, CrowdedError, Lane
from noderestrict.serving.limits import Limits
from noderestrict.serving.local import LocalJudge
from tests.builders import LISTERS, node, update_node
from tests.serving.clients import hang_up, http
from tests.serving.inprocess import listening

_T = TypeVar("_T")
KIB = 1024


class Held(Executor):
    """Keeps what it is to run until it is let go."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._held: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, call: Callable[..., _T], /, *_args: Any, **_kwargs: Any) -> Future[_T]:
        future: Future[_T] = Future()
        self._held.append((future, call))
        return future

    def let_go(self) -> None:
        future, call = self._held.pop(0)
        self.names.append(call())
        future.set_result(None)

    def __len__(self) -> int:
        return len(self._held)


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def later() -> float:
    return time.monotonic() + 60


async def test_one_call_runs_at_a_time_and_clients_take_turns() -> None:
    held = Held()
    lane = Lane(held)
    names = [("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("c", "c1")]
    tasks = [
        asyncio.create_task(lane.of(client, KIB, later())(lambda name=name: name))  # type: ignore[misc]
        for client, name in names
    ]
    while len(held.names) < len(names):
        await turns()
        assert len(held) == 1
        held.let_go()
    await asyncio.gather(*tasks)
    assert held.names == ["a1", "a2", "b1", "c1", "a3"]


async def test_a_small_body_waits_for_no_large_ones_and_a_large_one_not_for_ever() -> None:
    held = Held()
    lane = Lane(held)
    attackers = [(f"attacker {number}", 8 * KIB, "large") for number in range(8)]
    # Behind the same address as one of them, and at its own.
    names = [*attackers, ("attacker 1", KIB, "small"), ("node", KIB, "small")]
    tasks = [
        asyncio.create_task(lane.of(client, size, later())(lambda name=name: name))  # type: ignore[misc]
        for client, size, name in names
    ]
    await turns()
    tasks += [asyncio.create_task(lane.of("node", KIB, later())(lambda: "next")) for _ in range(20)]
    for _ in range(len(tasks)):
        await turns()
        held.let_go()
    await asyncio.gather(*tasks)
    assert held.names[:3] == ["large", "small", "small"]
    assert held.names.index("large", 1) < len(held.names) - 8


async def test_when_all_places_are_taken_who_has_most_gives_one_up() -> None:
    lane = Lane(Held())
    crowds = [
        asyncio.create_task(lane.of("many" if number % 4 else "some", KIB, later())(str))
        for number in range(MOST_WAITING + 1)
    ]
    await turns()
    assert not any(task.done() for task in crowds)
    with pytest.raises(CrowdedError, match="large_bodies"):
        await lane.of("many", KIB, later())(str)
    other = asyncio.create_task(lane.of("other", KIB, later())(str))
    await turns()
    gone = [task for task in crowds if task.done()]
    assert len(gone) == 1
    assert isinstance(gone[0].exception(), CrowdedError)
    for task in (*crowds, other):
        task.cancel()
    await asyncio.gather(*crowds, other, return_exceptions=True)


async def test_who_waits_too_long_or_goes_away_does_not_hold_up_the_others() -> None:
    held = Held()
    lane = Lane(held)
    first = asyncio.create_task(lane.of("a", KIB, later())(lambda: "first"))
    await turns()
    gone = asyncio.create_task(lane.of("a", KIB, later())(lambda: "gone"))
    await turns()
    gone.cancel()
    with pytest.raises(CrowdedError, match="deadline"):
        await lane.of("a", KIB, time.monotonic())(lambda: "late")
    last = asyncio.create_task(lane.of("a", KIB, later())(lambda: "last"))
    # Who asked for the one that runs goes away, too: it runs to its end alone.
    first.cancel()
    await turns()
    assert len(held) == 1
    held.let_go()
    await turns()
    held.let_go()
    await last
    assert held.names == ["first", "last"]


@pytest.mark.parametrize("moment", range(8))
async def test_whenever_one_goes_away_the_next_has_its_turn(moment: int) -> None:
    held = Held()
    lane = Lane(held)
    first = asyncio.create_task(lane.of("a", KIB, later())(lambda: "first"))
    await turns()
    gone = asyncio.create_task(lane.of("a", KIB, later())(lambda: "gone"))
    await turns()
    last = asyncio.create_task(lane.of("b", KIB, later())(lambda: "last"))
    held.let_go()
    await turns(moment)
    gone.cancel()
    await asyncio.wait_for(first, 60)
    await turns()
    while len(held):
        held.let_go()
        await turns()
    await asyncio.wait_for(last, 60)
    assert held.names in (["first", "last"], ["first", "gone", "last"])


async def test_the_lane_rests_as_long_as_it_worked() -> None:
    lane = Lane()
    worked: list[float] = []

    def work() -> None:
        end = time.thread_time() + 0.05
        worked.append(time.monotonic())
        while time.thread_time() < end:
            pass
        worked.append(time.monotonic())

    await asyncio.gather(*(lane.of("a", KIB, later())(work) for _ in range(2)))
    assert worked[2] - worked[1] >= 0.05


def on_loop() -> bool:
    return threading.current_thread() is threading.main_thread()


async def test_a_large_body_is_judged_beside_the_event_loop_and_a_small_one_on_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judge = admission.evaluate
    noted: list[bool] = []

    def noting(*arguments: Any) -> Decision:
        noted.append(on_loop())
        return judge(*arguments)

    monkeypatch.setattr(admission, "evaluate", noting)
    small = update_node(node(), node())
    changed = update_node(node(), node({"node-restriction.kubernetes.io/a": "b"}))
    padding = b" " * LARGE_BYTES
    async with listening(Limits(), LocalJudge(Settings.for_version(), LISTERS)) as running:
        for body, allowed in ((small, True), (small + padding, True), (changed + padding, False)):
            client = await running.connect()
            status, answer, _ = await client.answer(http(body))
            assert status == 200
            assert json.loads(answer)["response"]["allowed"] is allowed
            await hang_up(client.writer)
    assert noted == [True, False, False]


async def test_a_large_body_that_finds_no_place_may_come_again_and_small_ones_need_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judge = admission.evaluate
    begun, may = threading.Event(), threading.Event()

    def blocking(*arguments: Any) -> Decision:
        if not on_loop():
            begun.set()
            assert may.wait(10)
        return judge(*arguments)

    monkeypatch.setattr(admission, "evaluate", blocking)
    monkeypatch.setattr("noderestrict.serving.lane.MOST_WAITING", 0)
    small = update_node(node(), node())
    large = http(small + b" " * LARGE_BYTES)
    limits = Limits(requests=1)
    async with listening(limits, LocalJudge(Settings.for_version(), LISTERS)) as running:
        first, second = await running.connect(), await running.connect()
        answer = asyncio.create_task(first.answer(large))
        await running.until(begun.is_set)
        status, body, _ = await second.answer(large)
        assert (status, b"large_bodies" in body) == (503, True)
        assert running.shed("large_bodies") == 1
        assert (await second.answer(http(small)))[0] == 200
        may.set()
        assert (await answer)[0] == 200
        for client in (first, second):
            await hang_up(client.writer)
