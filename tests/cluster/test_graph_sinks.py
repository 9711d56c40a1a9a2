"""The graph equals what the lists and watches of a cluster have said last."""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from noderestrict.api import corev1
from noderestrict.cluster.graph_sink import graph_sinks
from noderestrict.cluster.reflector import Pace, Reflector
from noderestrict.graph.graph import Graph
from noderestrict.policy.features import OFFLINE_MINOR, POD_CERTIFICATE_REQUEST, defaults
from tests.cluster.scripted import Answer, Scripted, connected, reply, watch

Object = dict[str, Any]
Vertex = tuple[str, str, str]
GATES = {**defaults(OFFLINE_MINOR), POD_CERTIFICATE_REQUEST: True}
GONE = {"type": "ERROR", "object": {"code": 410, "message": "too old"}}


def bound(plural: str, name: str, node: str) -> Object:
    """Return an object that leads to its node, a volume through the claim of the node's pod."""
    spec: Object = {"nodeName": node}
    if plural == "persistentvolumes":
        spec = {"claimRef": {"namespace": "ns", "name": f"c-{node}"}}
    if plural == "pods":
        spec["volumes"] = [{"name": "v", "secret": {"secretName": f"of-{name}"}}]
    meta = {"name": name, "uid": name, "resourceVersion": "1"}
    if plural in ("pods", "podcertificaterequests"):
        meta["namespace"] = "ns"
    return {"metadata": meta, "spec": spec}


def lead_to(plural: str, name: str) -> Vertex:
    """Return what a node reaches by such an object alone."""
    if plural == "pods":
        return "secrets", "ns", f"of-{name}"
    return plural, "ns" if plural == "podcertificaterequests" else "", name


def page(*items: Object, token: str = "") -> Answer:
    return reply({"metadata": {"resourceVersion": "10", "continue": token}, "items": list(items)})


def event(kind: str, value: Object) -> Object:
    value["metadata"]["resourceVersion"] = "11"
    return {"type": kind, "object": value}


async def follow(script: Scripted, graph: Graph, plural: str, *, streaming: bool = False) -> str:
    """Follow one resource until the script has ended; returns the path of its list."""

    async def sleep(_seconds: float) -> None:
        pass

    ((resource, sink),) = (pair for pair in graph_sinks(graph, GATES) if pair[0].plural == plural)
    async with connected(script) as connection:
        pace = Pace(sleep=sleep, inactivity=3600)
        reflector = Reflector(connection, resource, [sink], streaming=streaming, pace=pace)
        task = asyncio.ensure_future(reflector.run())
        async with asyncio.timeout(60):
            await script.finished.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    (path,) = {path for path, _ in script.asked}
    return path


def graph_with_claims() -> Graph:
    """Return a graph in which each node has a pod with a claim."""
    graph = Graph()
    for node in ("n1", "n2"):
        volume = {"name": "v", "persistentVolumeClaim": {"claimName": f"c-{node}"}}
        meta = {"namespace": "ns", "name": f"pod-on-{node}"}
        value = {"metadata": meta, "spec": {"nodeName": node, "volumes": [volume]}}
        graph.upsert("pods", msgspec.convert(value, corev1.Pod))
    return graph


def reached(graph: Graph, plural: str) -> Mapping[str, set[str]]:
    """Return, for each node, the names of the objects a to z by which it reaches something."""
    return {
        node: {name for name in "abcdz" if graph.reaches(node, lead_to(plural, name))}
        for node in ("n1", "n2")
    }


PLURALS = {
    "pods": "/api/v1/pods",
    "persistentvolumes": "/api/v1/persistentvolumes",
    "volumeattachments": "/apis/storage.k8s.io/v1/volumeattachments",
    "resourceslices": "/apis/resource.k8s.io/v1/resourceslices",
    "podcertificaterequests": "/apis/certificates.k8s.io/v1/podcertificaterequests",
}
plurals = pytest.mark.parametrize("plural", PLURALS)


@plurals
async def test_what_a_later_list_does_not_hold_opens_nothing_any_more(plural: str) -> None:
    graph = graph_with_claims()
    script = Scripted(
        page(bound(plural, "a", "n1"), token="more"),
        page(bound(plural, "b", "n1")),
        watch(GONE),
        # One is gone, one has moved, one is new.
        page(bound(plural, "b", "n2"), token="more"),
        page(bound(plural, "c", "n1")),
    )
    assert await follow(script, graph, plural) == PLURALS[plural]
    assert reached(graph, plural) == {"n1": {"c"}, "n2": {"b"}}


@plurals
async def test_a_list_that_breaks_off_takes_nothing_away(plural: str) -> None:
    graph = graph_with_claims()
    listed = page(bound(plural, "a", "n1"), bound(plural, "b", "n2"))
    script = Scripted(listed, watch(GONE), page(token="more"), reply({}, 410))
    await follow(script, graph, plural)
    assert reached(graph, plural) == {"n1": {"a"}, "n2": {"b"}}


@plurals
async def test_what_was_listed_before_a_list_broke_off_is_not_taken_for_part_of_the_next(
    plural: str,
) -> None:
    graph = graph_with_claims()
    script = Scripted(
        page(bound(plural, "a", "n1"), token="more"),
        reply({}, 500),
        page(bound(plural, "b", "n1")),
    )
    await follow(script, graph, plural)
    assert reached(graph, plural) == {"n1": {"b"}, "n2": set()}


@plurals
async def test_each_event_of_a_watch_opens_or_shuts(plural: str) -> None:
    graph = graph_with_claims()
    script = Scripted(
        page(bound(plural, "a", "n1"), bound(plural, "b", "n1")),
        watch(
            event("ADDED", bound(plural, "c", "n2")),
            event("MODIFIED", bound(plural, "a", "n2")),
            event("DELETED", bound(plural, "b", "n1")),
        ),
    )
    await follow(script, graph, plural)
    assert reached(graph, plural) == {"n1": set(), "n2": {"a", "c"}}


@plurals
async def test_what_is_deleted_while_it_is_listed_opens_nothing(plural: str) -> None:
    graph = graph_with_claims()
    meta = {"resourceVersion": "12", "annotations": {"k8s.io/initial-events-end": "true"}}
    script = Scripted(
        watch(
            event("ADDED", bound(plural, "a", "n1")),
            event("ADDED", bound(plural, "b", "n1")),
            event("DELETED", bound(plural, "a", "n1")),
            {"type": "BOOKMARK", "object": {"metadata": meta}},
        ),
    )
    await follow(script, graph, plural, streaming=True)
    assert reached(graph, plural) == {"n1": {"b"}, "n2": set()}
