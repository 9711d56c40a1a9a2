"""``/authorize`` of a server that follows a cluster, from bytes to bytes."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from noderestrict.cluster.graph_sink import graph_sinks
from noderestrict.cluster.judge import ClusterJudge
from noderestrict.cluster.node_authorizer import NodeAuthorizer
from noderestrict.cluster.reflector import Pace
from noderestrict.graph.graph import Graph
from noderestrict.policy.settings import Settings
from noderestrict.serving.limits import Limits
from noderestrict.telemetry.metrics import Metrics
from tests.cluster.scripted import connected
from tests.cluster.world import World, named, pod
from tests.serving.clients import http
from tests.serving.inprocess import Running, listening

Object = dict[str, Any]
SETTINGS = Settings.for_version(api_audiences=("api",))
VOLUMES = [{"name": "a", "secret": {"secretName": "own"}}]


def review(node: str = "n1", name: str = "own", **changes: Any) -> Object:
    attributes = {"verb": "get", "version": "v1", "resource": "secrets", "namespace": "ns"}
    spec = {
        "user": f"system:node:{node}",
        "groups": ["system:nodes"],
        "resourceAttributes": {**attributes, "name": name},
        **changes,
    }
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "metadata": {},
        "spec": spec,
    }


@dataclass
class Server:
    running: Running
    world: World

    async def post(self, body: Any) -> tuple[int, Object, str]:
        """Return status, body and head of the answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        client = await self.running.connect()
        client.writer.write(http(data, "?timeout=30s", "/authorize"))
        head = await client.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split()[0])
        answer = json.loads(await client.reader.readexactly(length))
        client.abort()
        return int(head.split()[1]), answer, head.decode()

    async def allowed(self, **fields: Any) -> bool:
        status, answer, _ = await self.post(review(**fields))
        assert status == 200
        assert answer["apiVersion"] == "authorization.k8s.io/v1"
        assert answer["kind"] == "SubjectAccessReview"
        assert "denied" not in answer["status"]
        allowed: bool = answer["status"]["allowed"]
        return allowed

    def answered(self, result: str) -> float | None:
        return self.running.metrics.registry.get_sample_value(
            "noderestrict_authorization_decisions_total", {"decision": result}
        )


@asynccontextmanager
async def serving(world: World) -> AsyncIterator[Server]:
    graph = Graph()
    async with connected(world) as connection:
        judge = ClusterJudge(
            connection,
            SETTINGS,
            Metrics(),
            streaming=False,
            pace=Pace(inactivity=3600),
            sinks=graph_sinks(graph, SETTINGS.features),
        )
        authorizer = NodeAuthorizer(
            connection,
            graph,
            SETTINGS.features,
            judge.informers.has_synced,
            judge.count_live,
            judge.share,
        )
        task = asyncio.ensure_future(judge.run())
        try:
            async with asyncio.timeout(60):
                while not judge.informers.has_synced():  # noqa: ASYNC110 (a state of many tasks)
                    await asyncio.sleep(0.01)
            async with listening(Limits(), judge, authorizer=authorizer) as running:
                yield Server(running, world)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def world() -> World:
    return World(
        pod("p", volumes=VOLUMES), named("/api/v1/nodes/n1", {}), named("/api/v1/nodes/n2", {})
    )


async def test_a_node_reads_what_its_pods_name_and_nobody_else_does() -> None:
    async with serving(world()) as server:
        assert await server.allowed()
        assert not await server.allowed(node="n2")
        assert not await server.allowed(name="other")
        assert not await server.allowed(user="own-admin")
        assert not await server.allowed(groups=["system:authenticated"])
        assert server.answered("allowed") == 1
        assert server.answered("no_opinion") == 4


async def test_a_pod_that_is_newer_than_the_graph_opens_what_it_names() -> None:
    async with serving(world()) as server:
        assert not await server.allowed(node="n2")
        key, value = pod("q", "n2", volumes=VOLUMES)
        server.world.objects[key] = value
        assert await server.allowed(node="n2")


async def test_what_cannot_be_known_now_is_to_be_asked_again_and_is_no_opinion() -> None:
    async with serving(world()) as server:
        server.world.down = True
        # What the graph has needs no API server.
        assert await server.allowed()
        status, answer, head = await server.post(review(node="n2"))
        assert status == 503
        assert "Retry-After: 1" in head
        assert "allowed" not in answer
        assert server.answered("no_opinion") == 0


async def test_no_opinion_is_logged_with_its_reason_and_an_answer_tells_none_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    async with serving(world()) as server:
        await server.allowed(node="n2")
        (record,) = (one for one in caplog.records if one.message == "no opinion")
        assert record.node == "n2"  # type: ignore[attr-defined]
        assert "secrets" in record.request  # type: ignore[attr-defined]
        assert record.why  # type: ignore[attr-defined]
        caplog.clear()
        # Who is no node makes no line: every request of the cluster may come here.
        await server.allowed(user="alice")
        assert not [one for one in caplog.records if one.message == "no opinion"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "SubjectAccessReview"),
        (b"", "SubjectAccessReview"),
        ({**review(), "kind": "AdmissionReview"}, "AdmissionReview"),
        ({**review(), "apiVersion": "authorization.k8s.io/v2"}, "v2"),
        ({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}, "spec"),
    ],
)
async def test_what_is_no_review_is_an_http_error(body: Any, says: str) -> None:
    async with serving(world()) as server:
        status, answer, _ = await server.post(body)
        assert status == 400
        assert says in answer["message"]


async def test_a_server_without_an_authorizer_has_no_such_path() -> None:
    async with listening(Limits()) as running:
        status, answer, _ = await Server(running, world()).post(review())
        assert status == 404
        assert "/authorize" not in answer["message"]
