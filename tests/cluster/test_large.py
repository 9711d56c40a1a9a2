"""Objects that name as much as fits into them: bounded memory, the same answers."""

import asyncio
import time
from typing import Any

import msgspec
import pytest
from aiohttp import web

from noderestrict import authorization
from noderestrict.api.resources import RESOURCES
from noderestrict.cluster.graph_sink import GraphSink
from noderestrict.cluster.live import Budget
from noderestrict.cluster.node_authorizer import NodeAuthorizer
from noderestrict.cluster.reflector import Reflector
from noderestrict.cluster.store import Store
from noderestrict.graph.graph import Graph
from noderestrict.policy.features import OFFLINE_MINOR, defaults
from tests.cluster.scripted import connected, raw

REFERENCES = 18_500


def large_pod(name: str, node: str = "n1") -> bytes:
    """Return a pod of 1.4 MB that names as many Secrets and claims as possible."""
    volumes: list[dict[str, Any]] = [
        {"name": f"v{number}", "secret": {"secretName": f"{name}-{number}"}}
        for number in range(REFERENCES - 2_000)
    ]
    volumes += [
        {"name": f"c{number}", "persistentVolumeClaim": {"claimName": f"{name}-claim-{number}"}}
        for number in range(2_000)
    ]
    spec = {"nodeName": node, "serviceAccountName": "sa", "volumes": volumes}
    metadata = {"namespace": "ns", "name": name, "uid": "u"}
    return msgspec.json.encode({"metadata": metadata, "spec": spec})


def volume(claim: str, secret: str) -> Any:
    spec = {
        "csi": {"nodeStageSecretRef": {"namespace": "ns", "name": secret}},
        "claimRef": {"namespace": "ns", "name": claim},
    }
    return {"metadata": {"name": f"pv-{claim}"}, "spec": spec}


class Pods:
    """An API server with pods, which it writes one by one."""

    def __init__(self, *pods: bytes, times: int = 1) -> None:
        self.pods = pods * times
        self.lists = 0

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.lists += 1
        limit = int(request.query["limit"])
        start = int(request.query.get("continue", "0"))
        end = min(len(self.pods), start + limit)
        token = str(end) if end < len(self.pods) else ""
        response = web.StreamResponse()
        await response.prepare(request)
        head = {"resourceVersion": "1", "continue": token}
        await response.write(b'{"metadata":%b,"items":[' % msgspec.json.encode(head))
        for number, pod in enumerate(self.pods[start:end]):
            named = pod.replace(b'"name":"p"', b'"name":"p%d"' % (start + number), 1)
            await response.write(b"," * bool(number) + named)
        await response.write(b"]}")
        return response


async def test_pods_that_name_all_that_fits_do_not_fill_the_memory() -> None:
    server = Pods(large_pod("p"), times=10)
    store, graph = Store("pods"), Graph()
    resource = RESOURCES["pods"]
    async with connected(server) as connection:
        reflector = Reflector(
            connection, resource, [store, GraphSink(graph, "pods")], streaming=False
        )
        await reflector.list_once()
    assert len(store) == len(list(graph.objects("pods"))) == 10
    # Itself each, and the account of all.
    assert len(graph.reachable("n1")) == 11
    record: Any = store.get("ns", "p0")
    assert (record.node_name, record.uid, record.service_account_name) == ("n1", "u", "sa")
    assert record.claims == ()


def review(secret: str, resource: str = "secrets") -> authorization.Review:
    attributes = {"verb": "get", "resource": resource, "namespace": "ns", "name": secret}
    if resource == "persistentvolumes":
        del attributes["namespace"]
    spec = {
        "user": "system:node:n1",
        "groups": ["system:nodes"],
        "resourceAttributes": {"version": "v1", **attributes},
    }
    api = "authorization.k8s.io/v1"
    body = {"apiVersion": api, "kind": "SubjectAccessReview", "spec": spec}
    return authorization.decode(msgspec.json.encode(body))


async def test_all_that_a_large_pod_names_is_reached_by_asking_live() -> None:
    graph = Graph()
    decode = msgspec.convert
    pod_struct, volume_struct = RESOURCES["pods"].struct, RESOURCES["persistentvolumes"].struct
    pod = large_pod("p")
    graph.upsert("pods", msgspec.json.decode(pod, type=pod_struct))
    graph.upsert("persistentvolumes", decode(volume("p-claim-1999", "key"), volume_struct))
    graph.upsert("persistentvolumes", decode(volume("other", "no-key"), volume_struct))
    server = Pods(pod)
    async with connected(server) as connection:
        authorizer = NodeAuthorizer(connection, graph, defaults(OFFLINE_MINOR), lambda: True)
        end = time.monotonic() + 60
        # Known without asking.
        for name, resource in (("p", "pods"), ("sa", "serviceaccounts")):
            opinion = await authorizer.authorize(review(name, resource), end)
            assert opinion is not None
            assert opinion.allowed
        assert server.lists == 0
        yes = [
            review("p-0"),
            review("p-16499"),
            review("p-claim-1999", "persistentvolumeclaims"),
            review("pv-p-claim-1999", "persistentvolumes"),
            review("key"),
        ]
        no = [review("p-16500"), review("no-key"), review("pv-other", "persistentvolumes")]
        # All at once, so that they share lists, and then one by one.
        found = await asyncio.gather(*(authorizer.authorize(one, end) for one in (*yes, *no)))
        assert [one and one.allowed for one in found] == [True] * len(yes) + [False] * len(no)
        assert server.lists <= 2
        for one in yes:
            opinion = await authorizer.authorize(one, end)
            assert opinion is not None
            assert opinion.allowed
        assert not authorizer._asked


async def test_without_a_look_a_large_pods_node_is_not_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = Graph()
    async with connected(raw(b"")) as connection:
        authorizer = NodeAuthorizer(connection, graph, defaults(OFFLINE_MINOR), lambda: True)
        monkeypatch.setattr(authorizer, "_budget", Budget(burst=0, per_second=0))
        end = time.monotonic() + 60
        opinion = await authorizer.authorize(review("p-0"), end)
        assert opinion is not None
        assert not opinion.allowed
        graph.upsert("pods", msgspec.json.decode(large_pod("p"), type=RESOURCES["pods"].struct))
        assert await authorizer.authorize(review("p-0"), end) is None
        assert await authorizer.authorize(review("other"), end) is None


def test_long_names_are_not_held_however_few_they_are() -> None:
    store = Store("pods")
    for name, length in (("long", 1_000), ("short", 60)):
        sources = [
            {"serviceAccountToken": {"audience": f"{number}".ljust(length, "x")}}
            for number in range(500)
        ]
        spec = {"volumes": [{"name": "v", "projected": {"sources": sources}}]}
        value = {"metadata": {"namespace": "ns", "name": name}, "spec": spec}
        store.upsert(msgspec.convert(value, RESOURCES["pods"].struct))
    held: dict[str, Any] = {name: store.get("ns", name) for name in ("long", "short")}
    assert {name: len(one.audiences) for name, one in held.items()} == {"long": 0, "short": 500}


def test_what_a_node_reports_of_itself_is_bounded() -> None:
    store = Store("nodes")
    addresses = [
        {"type": "InternalIP", "address": f"10.0.{n // 256}.{n % 256}"} for n in range(5_000)
    ]
    for name, some in (
        ("few", addresses[:3]),
        ("many", addresses),
        ("long", [{"address": "x" * 10**6}]),
    ):
        value = {"metadata": {"name": name, "uid": "u"}, "status": {"addresses": some}}
        store.upsert(msgspec.convert(value, RESOURCES["nodes"].struct))
    counts = {name: len(store.get("", name).addresses) for name in ("few", "many", "long")}  # type: ignore[union-attr]
    assert counts == {"few": 3, "many": 0, "long": 0}
    record: Any = store.get("", "many")
    assert record.uid == "u"


def test_names_are_shared_between_objects() -> None:
    store = Store("pods")
    graph = Graph()
    reflector = Reflector(
        None,  # type: ignore[arg-type] # nothing is asked
        RESOURCES["pods"],
        [store, GraphSink(graph, "pods")],
    )
    for name in ("a", "b"):
        raw_pod = {
            "metadata": {"namespace": "".join(("n", "s")), "name": name},
            "spec": {"nodeName": "".join(("n", "1")), "serviceAccountName": "".join(("s", "a"))},
        }
        value = msgspec.json.decode(msgspec.json.encode(raw_pod), type=RESOURCES["pods"].struct)
        reflector._take("ADDED", value)
    one: Any = store.get("ns", "a")
    two: Any = store.get("ns", "b")
    for field in ("namespace", "node_name", "service_account_name"):
        assert getattr(one, field) is getattr(two, field)
