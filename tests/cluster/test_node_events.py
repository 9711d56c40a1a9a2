"""Events about nodes: few, whatever a node does, and of no consequence for verdicts."""

import asyncio
import datetime as dt
import logging
from collections import Counter
from typing import Any

import pytest
from aiohttp import web

from noderestrict.cluster import node_events
from noderestrict.cluster.node_events import DROPPED, FAILED, WRITTEN, NodeEvents
from tests.cluster.scripted import connected

Object = dict[str, Any]
EVENTS = "/api/v1/namespaces/default/events"
START = dt.datetime(2026, 3, 2, 9, tzinfo=dt.UTC)
REASON = "NodeRequestRefused"


class API:
    """An API server that stores Events.

    Attributes:
        refuses: what it answers instead, if anything.
        about: the node for which it does so; "" for all.
    """

    def __init__(self) -> None:
        self.events: dict[str, Object] = {}
        self.writes: list[str] = []
        self.refuses = 0
        self.about = ""

    async def __call__(self, request: web.Request) -> web.Response:
        assert request.query["fieldManager"] == "noderestrict"
        body = await request.json()
        if self.refuses and self.about in await request.text():
            return web.json_response({"message": "no"}, status=self.refuses)
        if request.method == "POST":
            assert request.path == EVENTS
            name = body["metadata"]["name"]
            assert name not in self.events
            self.events[name] = body
        else:
            name = request.path.removeprefix(f"{EVENTS}/")
            if name not in self.events:
                return web.json_response({"message": "not found"}, status=404)
            for one in body:
                assert one["op"] == "replace"
                self.events[name][one["path"][1:]] = one["value"]
        self.writes.append(f"{request.method} {name}")
        return web.json_response(self.events[name])

    @property
    def event(self) -> Object:
        (found,) = self.events.values()
        return found


class Clock:
    """Time that only tests move."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds

    def now(self) -> dt.datetime:
        return START + dt.timedelta(seconds=self.seconds - 1000)


class Written:
    """Events on a scripted API server, with a clock."""

    def __init__(self, connection: Any, api: API, nodes: dict[str, str]) -> None:
        self.api, self.clock, self.counts = api, Clock(), Counter[str]()
        self.events = NodeEvents(
            connection, nodes.get, self._count, clock=self.clock, now=self.clock.now
        )

    def _count(self, result: str) -> None:
        self.counts[result] += 1

    def refuse(self, node: str = "n1", rule: str = "nodes/labels", message: str = "no") -> None:
        self.events.add(node, REASON, rule, message)

    async def rounds(self, number: int, seconds: float = 10) -> None:
        for _ in range(number):
            await self.events.write()
            self.clock.seconds += seconds


NODES = {f"n{number}": f"uid-{number}" for number in range(1, 300)}


async def test_an_event_is_about_the_node_and_says_why() -> None:
    api = API()
    async with connected(api) as connection:
        written = Written(connection, api, NODES)
        written.refuse(message="nodes n1: labels\nmay not change")
        await written.rounds(1)
    event = api.event
    name = event["metadata"].pop("name")
    assert name.startswith("n1.")
    assert event.pop("reportingInstance")
    assert event == {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "namespace": "default",
            "annotations": {"noderestrict.io/rule": "nodes/labels"},
        },
        "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "uid-1"},
        "type": "Warning",
        "reason": REASON,
        "action": "Refuse",
        "message": "nodes n1: labels\\nmay not change",
        "count": 1,
        "firstTimestamp": "2026-03-02T09:00:00Z",
        "lastTimestamp": "2026-03-02T09:00:00Z",
        "source": {"component": "noderestrict"},
        "reportingComponent": "noderestrict",
    }
    assert written.counts == {WRITTEN: 1}


@pytest.mark.parametrize("message", ["x" * 5000, "é" * 600, "\U0001f600" * 300, "\x00" * 2000])
async def test_a_message_is_no_longer_than_an_events_may_be(message: str) -> None:
    api = API()
    async with connected(api) as connection:
        written = Written(connection, api, NODES)
        written.refuse(message=message)
        await written.rounds(1)
    length = len(api.event["message"].encode())
    assert 1020 <= length <= 1024
    assert api.event["message"].isprintable()


async def test_what_repeats_is_one_event_with_a_count_written_once_a_minute() -> None:
    api = API()
    async with connected(api) as connection:
        written = Written(connection, api, NODES)
        for _ in range(13):
            for _ in range(50):
                written.refuse(message="again")
            await written.rounds(1)
    assert [write.partition(" ")[0] for write in api.writes] == ["POST", "PATCH", "PATCH"]
    assert api.event["count"] == 50 * 13
    assert api.event["firstTimestamp"] == "2026-03-02T09:00:00Z"
    assert api.event["lastTimestamp"] == "2026-03-02T09:02:00Z"


async def test_rules_and_reasons_have_events_of_their_own() -> None:
    api = API()
    async with connected(api) as connection:
        written = Written(connection, api, NODES)
        written.refuse(rule="nodes/labels")
        written.refuse(rule="nodes/taints")
        written.events.add("n1", "NodeRequestWouldBeRefused", "nodes/taints", "no")
        await written.rounds(2)
    assert len(api.events) == 3


async def test_a_node_that_breaks_every_rule_keeps_no_event_of_another_back() -> None:
    api = API()
    async with connected(api) as connection:
        written = Written(connection, api, NODES)
        for number in range(100):
            written.refuse(rule=f"rule/{number}")
        written.refuse("n2")
        await written.rounds(1)
        about = [one["involvedObject"]["name"] for one in api.events.values()]
        assert sorted(about) == ["n1", "n1", "n2"]
        await written.rounds(6)
    assert len(api.writes) <= 2 * 7 + 1


async def test_no_round_writes_more_than_ten_events() -> None:
    api = API()
    async with connected(api) as connection:
        written = Written(connection, api, NODES)
        for number in range(1, 100):
            written.refuse(f"n{number}")
        await written.rounds(1)
        assert len(api.writes) == 10
        await written.rounds(9)
    assert len(api.events) == 99


async def test_what_is_remembered_is_limited_and_room_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(node_events, "_SERIES", 80)
    api = API()
    async with connected(api) as connection:
        written = Written(connection, api, NODES)
        for number in range(1, 100):
            written.refuse(f"n{number}")
        assert len(written.events._series) == 80
        assert written.counts == {DROPPED: 19}
        await written.rounds(8)
        # All have been written, the first ones a while ago.
        written.refuse("n200")
        await written.rounds(1)
        assert written.counts == {DROPPED: 19, WRITTEN: 81}
        assert len(written.events._series) < 80


async def test_who_is_no_node_of_the_cluster_gets_no_event() -> None:
    api = API()
    async with connected(api) as connection:
        written = Written(connection, api, {})
        written.refuse("nobody")
        await written.rounds(1)
    assert (api.writes, written.counts) == ([], {DROPPED: 1})


async def test_an_event_that_has_expired_is_written_anew() -> None:
    api = API()
    async with connected(api) as connection:
        written = Written(connection, api, NODES)
        written.refuse()
        await written.rounds(1)
        api.events.clear()
        written.clock.seconds += 60
        written.refuse()
        await written.rounds(1)
    assert api.event["count"] == 2
    assert [write.partition(" ")[0] for write in api.writes] == ["POST", "POST"]


async def test_a_refusal_long_after_the_last_one_begins_a_new_event() -> None:
    api = API()
    async with connected(api) as connection:
        written = Written(connection, api, NODES)
        written.refuse()
        await written.rounds(1, seconds=3600)
        written.refuse()
        await written.rounds(1)
    assert [one["count"] for one in api.events.values()] == [1, 1]


@pytest.mark.parametrize("status", [403, 409, 429, 500])
async def test_a_failure_is_logged_once_and_tried_again(
    status: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("noderestrict"), "propagate", True)
    api = API()
    async with connected(api) as connection:
        written = Written(connection, api, NODES)
        api.refuses = status
        written.refuse()
        written.refuse("n2")
        await written.rounds(5)
        # One request a round: the others would fail, too.
        assert written.counts == {FAILED: 5}
        assert [record.message for record in caplog.records] == ["an Event could not be written"]
        api.refuses = 0
        await written.rounds(1)
    assert len(api.events) == 2
    assert written.counts == {FAILED: 5, WRITTEN: 2}


async def test_an_event_that_is_never_taken_keeps_no_other_back() -> None:
    api = API()
    async with connected(api) as connection:
        written = Written(connection, api, NODES)
        api.refuses, api.about = 422, "uid-1"
        written.refuse()
        written.refuse("n2")
        await written.rounds(2)
        assert api.event["involvedObject"]["name"] == "n2"
        written.refuse("n3")
        await written.rounds(1)
    assert written.counts == {WRITTEN: 2, FAILED: 3}


async def test_the_job_writes_at_once_and_then_in_periods() -> None:
    api = API()
    waited: list[float] = []
    go = asyncio.Semaphore(0)

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        await go.acquire()

    async def until(writes: int) -> None:
        async with asyncio.timeout(60):
            while len(api.writes) < writes or not waited:  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(0.001)

    async with connected(api) as connection:
        clock = Clock()
        events = NodeEvents(
            connection, NODES.get, lambda _: None, clock=clock, now=clock.now, sleep=sleep
        )
        job = asyncio.create_task(events.run())
        events.add("n1", REASON, "a", "no")
        await until(1)
        for rule in "bcd":
            events.add("n1", REASON, rule, "no")
        go.release()
        await until(3)
        go.release()
        # What the second round left is written without anything new.
        await until(4)
        job.cancel()
    assert set(waited) == {node_events._PERIOD}


async def test_a_name_of_any_length_makes_a_valid_event() -> None:
    name = "a" * 235 + "." + "b" * 17
    api = API()
    async with connected(api) as connection:
        written = Written(connection, api, {name: "u"})
        written.refuse(name)
        await written.rounds(1)
    assert len(api.event["metadata"]["name"]) <= 253
    assert ".." not in api.event["metadata"]["name"]
    assert api.event["involvedObject"]["name"] == name
