"""The authorizer looks again before it says no."""

import asyncio
import time
from functools import partial
from typing import Any

import msgspec
import pytest

from noderestrict import authorization
from noderestrict.cluster import node_authorizer as authorizer_module
from noderestrict.cluster.live import Budget
from noderestrict.cluster.node_authorizer import NodeAuthorizer
from noderestrict.graph.graph import Graph
from noderestrict.graph.rules import Opinion
from noderestrict.policy.features import OFFLINE_MINOR, defaults
from tests.cluster.scripted import Answer, Scripted, connected, reply


def pod(name: str, secret: str, node: str = "n1") -> dict[str, Any]:
    volume = {"name": "v", "secret": {"secretName": secret}}
    return {
        "metadata": {"namespace": "ns", "name": name},
        "spec": {"nodeName": node, "volumes": [volume]},
    }


def page(*items: dict[str, Any], more: str = "") -> Answer:
    return reply({"metadata": {"continue": more}, "items": list(items)})


def review(secret: str) -> authorization.Review:
    attributes = {"verb": "get", "resource": "secrets", "namespace": "ns", "name": secret}
    spec = {
        "user": "system:node:n1",
        "groups": ["system:nodes"],
        "resourceAttributes": {"version": "v1", **attributes},
    }
    api = "authorization.k8s.io/v1"
    body = {"apiVersion": api, "kind": "SubjectAccessReview", "spec": spec}
    return authorization.decode(msgspec.json.encode(body))


async def opinions(script: Scripted, *secrets: str) -> list[Opinion | None]:
    async with connected(script) as connection:
        gates = defaults(OFFLINE_MINOR)
        authorizer = NodeAuthorizer(connection, Graph(), gates, lambda: True)
        end = time.monotonic() + 60
        return await asyncio.gather(
            *(authorizer.authorize(review(secret), end) for secret in secrets)
        )


async def test_pods_that_the_graph_lacks_are_read_page_by_page() -> None:
    script = Scripted(page(pod("a", "one"), more="next"), page(pod("b", "two")))
    (opinion,) = await opinions(script, "two")
    assert opinion is not None
    assert opinion.allowed
    assert [query.get("continue") for _, query in script.asked] == [None, "next"]
    assert {query["fieldSelector"] for _, query in script.asked} == {"spec.nodeName=n1"}
    # API servers before 1.34 read the second page from etcd, past the pods of all nodes.
    assert int(script.asked[0][1]["limit"]) >= 500


async def test_questions_of_one_node_at_a_time_share_one_list() -> None:
    # Who asks while a list is under way waits for the next one, which is new enough.
    script = Scripted(page(pod("a", "one")), page(pod("a", "one")))
    found = await opinions(script, "one", "other", "one", "another")
    assert [opinion.allowed for opinion in found if opinion] == [True, False, True, False]
    assert len(script.asked) <= 2


async def test_a_pod_of_another_node_opens_nothing() -> None:
    (opinion,) = await opinions(Scripted(page(pod("a", "one", node="n2"))), "one")
    assert opinion is not None
    assert not opinion.allowed


async def test_a_list_that_fails_halfway_is_no_answer() -> None:
    script = Scripted(page(pod("a", "one"), more="next"), reply({"message": "gone"}, 410))
    assert await opinions(script, "one") == [None]


async def test_nobody_at_another_address_can_use_up_the_lists_of_a_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = partial(Budget, clock=lambda: 0.0)
    monkeypatch.setattr(authorizer_module, "Budget", slow)
    script = Scripted(*[page(pod("a", "one"))] * 101)
    async with connected(script) as connection:
        gates = defaults(OFFLINE_MINOR)
        authorizer = NodeAuthorizer(connection, Graph(), gates, lambda: True)
        end = time.monotonic() + 60
        for _ in range(100):
            await authorizer.authorize(review("none"), end, "10.0.0.66")
        opinion = await authorizer.authorize(review("one"), end, "10.0.0.1")
    assert opinion is not None
    assert opinion.allowed
