"""Pages are split as they arrive, and shrink where objects are large."""

import json
import tracemalloc
from typing import Any

import pytest
from aiohttp import web

from noderestrict.cluster import pages as module
from noderestrict.cluster.pages import pages
from tests.cluster.scripted import connected


class Pods:
    """An API server with objects of given sizes; keeps the limits that were asked for."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes
        self.limits: list[int] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        limit = int(request.query["limit"])
        self.limits.append(limit)
        start = int(request.query.get("continue", "0"))
        end = min(len(self.sizes), start + limit)
        response = web.StreamResponse()
        await response.prepare(request)
        meta = {"resourceVersion": "1", "continue": str(end) if end < len(self.sizes) else ""}
        await response.write(b'{"metadata":%b,"items":[' % json.dumps(meta).encode())
        for number in range(start, end):
            value = json.dumps({"metadata": {"name": str(number)}, "x": "y" * self.sizes[number]})
            await response.write(b"," * (number > start) + value.encode())
        await response.write(b"]}")
        return response


async def read(server: Any, size: int = 250) -> list[str]:
    names = []
    async with connected(server) as connection:
        async for part in pages(connection, "/list", size):
            names += [json.loads(bytes(item))["metadata"]["name"] for item in part.items]
    return names


@pytest.mark.parametrize("size", [10, 1_500_000])
async def test_every_object_comes_once_and_in_order(size: int) -> None:
    assert await read(Pods([size] * 40)) == [str(number) for number in range(40)]


async def test_fewer_objects_are_asked_for_where_they_are_large_and_more_again_after() -> None:
    server = Pods([200_000] * 300 + [10] * 2_000)
    assert len(await read(server)) == 2_300
    assert server.limits[0] == 250
    assert max(server.limits[1:3]) * 200_000 <= module._AIM
    assert server.limits[-1] == 250
    grown = zip(server.limits[1:], server.limits[2:], strict=False)
    assert all(later <= 2 * earlier for earlier, later in grown)


async def test_an_object_larger_than_a_page_should_be_comes_alone() -> None:
    server = Pods([2 * module._AIM] * 6)
    assert len(await read(server, size=2)) == 6
    assert set(server.limits[1:]) == {1}


async def test_a_page_of_large_objects_is_never_held_whole() -> None:
    server = Pods([1_000_000] * 50)
    tracemalloc.start()
    try:
        assert len(await read(server)) == 50
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40_000_000
