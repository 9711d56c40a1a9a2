"""An API server that follows a script, over a real socket."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from kubernetes_asyncio import client
from multidict import CIMultiDictProxy

from noderestrict.api.resources import RESOURCES
from noderestrict.cluster.connection import Connection
from tests.cluster.world import discovered, is_discovery

Answer = Callable[[web.Request], Any]
_SERVED = [resource.list_path for resource in RESOURCES.values()]


class Scripted:
    """Answers each request with the next step; keeps what was asked, and how."""

    def __init__(self, *steps: Answer) -> None:
        self.steps = list(steps)
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.headers: list[CIMultiDictProxy[str]] = []
        self.finished = asyncio.Event()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if is_discovery(request.path):
            return web.json_response(discovered(request.path, _SERVED))
        self.asked.append((request.path, dict(request.query)))
        self.headers.append(request.headers)
        if not self.steps:
            self.finished.set()
            await asyncio.sleep(3600)
        answer: web.StreamResponse = await self.steps.pop(0)(request)
        return answer


def reply(value: Any, status: int = 200) -> Answer:
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response(value, status=status)

    return answer


def raw(body: bytes, pieces: int = 2**16) -> Answer:
    """Answer with bytes as they are, in pieces."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for start in range(0, len(body), pieces):
            await response.write(body[start : start + pieces])
        return response

    return answer


def watch(*events: dict[str, Any], split: int | None = None, cut: bool = False) -> Answer:
    """Stream events, in pieces of ``split`` bytes; ``cut`` breaks the connection off."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        data = b"".join(json.dumps(event).encode() + b"\n" for event in events)
        for start in range(0, len(data), split or len(data) or 1):
            await response.write(data[start : start + (split or len(data))])
        if cut:
            assert request.transport is not None
            request.transport.abort()
        return response

    return answer


def silent() -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await asyncio.sleep(3600)
        return response

    return answer


def trickle(piece: bytes, seconds: float) -> Answer:
    """Send a piece again and again, for ever."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(piece)
            await asyncio.sleep(seconds)

    return answer


@asynccontextmanager
async def connected(handler: Any, token: str | None = None) -> AsyncIterator[Connection]:
    """Serve a handler, and yield a connection to it that authenticates with a token."""

    async def handle(request: web.Request) -> web.StreamResponse:
        answer: web.StreamResponse = await handler(request)
        return answer

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    configuration = client.Configuration(host=f"http://127.0.0.1:{port}")
    if token is not None:
        configuration.api_key["BearerToken"] = f"Bearer {token}"
    connection = Connection(client.ApiClient(configuration))
    try:
        yield connection
    finally:
        await connection.close()
        await runner.cleanup()
