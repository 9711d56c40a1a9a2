"""Whole resources are read as far as they may be and can be."""

from typing import Any

import msgspec
import pytest
from aiohttp import web

from noderestrict.api import appsv1, rbacv1
from noderestrict.cluster.connection import ClusterError
from noderestrict.cluster.load import Loaded, load
from tests.cluster.scripted import connected

STRUCTS: dict[str, type[msgspec.Struct]] = {"daemonsets": appsv1.DaemonSet, "roles": rbacv1.Role}
GOOD = {"metadata": {"name": "good", "namespace": "a"}}


class Lists:
    """An API server with the items of each resource; a number is the status of an error."""

    def __init__(self, **items: Any) -> None:
        self.items = items

    async def __call__(self, request: web.Request) -> web.Response:
        found = self.items[request.path.rpartition("/")[2]]
        if isinstance(found, int):
            return web.json_response({"kind": "Status", "message": "no"}, status=found)
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": found})


async def read(server: Any) -> Loaded:
    async with connected(server) as connection:
        return await load(connection, STRUCTS)


def names(loaded: Loaded, plural: str) -> list[str]:
    return [one.metadata.name for one in loaded.objects[plural]]


async def test_what_may_not_be_read_costs_only_itself() -> None:
    loaded = await read(Lists(daemonsets=403, roles=[GOOD]))
    assert names(loaded, "roles") == ["good"]
    assert names(loaded, "daemonsets") == []
    assert set(loaded.problems) == {"daemonsets"}
    assert "403" in loaded.problems["daemonsets"]


async def test_an_object_that_cannot_be_decoded_is_named_and_the_others_are_read() -> None:
    bad = {"metadata": {"name": "bad", "namespace": "a"}, "spec": 7}
    loaded = await read(Lists(daemonsets=[bad, GOOD], roles=[]))
    assert names(loaded, "daemonsets") == ["good"]
    assert loaded.problems["daemonsets"].startswith("daemonsets a/bad cannot be decoded: ")


async def test_an_answer_that_is_no_list_is_a_problem() -> None:
    loaded = await read(Lists(daemonsets="none", roles=[GOOD]))
    assert "daemonsets" in loaded.problems


async def test_no_answer_at_all_is_an_error() -> None:
    async def broken(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    with pytest.raises(ClusterError):
        await read(broken)
