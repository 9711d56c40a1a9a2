"""An API server that grants get, list and watch of one Secret, and nothing else."""

import asyncio
import base64
import json
from typing import Any

from aiohttp import web

from noderestrict.pki.issue import Leaf

NAMESPACE, NAME = "ns", "tls"
PATH = f"/api/v1/namespaces/{NAMESPACE}/secrets"


class SecretsApi:
    """Holds one Secret, and tells watches of each change.

    Attributes:
        down: everything is answered 503, and watches have ended.
        grants: whether the Secret may be read.
        refused: what asked for more than was granted.
        watches: how many are open.
    """

    def __init__(self) -> None:
        self.down = False
        self.grants = True
        self.refused: list[str] = []
        self.watches = 0
        self._version = 1
        self._value: dict[str, Any] | None = None
        self._events: list[tuple[int, str, dict[str, Any]]] = []
        self._moved = asyncio.Event()

    def write(self, pair: Leaf, ca: bytes = b"") -> None:
        """Change the whole Secret at once, as cert-manager does."""
        self.write_data({"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": ca})

    def write_data(self, data: dict[str, bytes]) -> None:
        self.write_object(
            {"data": {key: base64.b64encode(value).decode() for key, value in data.items()}}
        )

    def write_object(self, value: dict[str, Any]) -> None:
        kind = "ADDED" if self._value is None else "MODIFIED"
        self._version += 1
        metadata = {"namespace": NAMESPACE, "name": NAME, "resourceVersion": str(self._version)}
        self._value = {"kind": "Secret", "apiVersion": "v1", **value, "metadata": metadata}
        self._tell(kind, self._value)

    def delete(self) -> None:
        assert self._value is not None
        self._version += 1
        value, self._value = self._value, None
        metadata = {**value["metadata"], "resourceVersion": str(self._version)}
        self._tell("DELETED", {**value, "metadata": metadata})

    def cut(self) -> None:
        """End every watch, and answer nothing any more."""
        self.down = True
        self._wake()

    def _tell(self, kind: str, value: dict[str, Any]) -> None:
        self._events.append((self._version, kind, value))
        self._wake()

    def _wake(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if self.down:
            return web.json_response({"message": "down"}, status=503)
        query = request.query
        granted = query.get("fieldSelector") == f"metadata.name={NAME}" and request.path == PATH
        if not self.grants:
            return web.json_response({"message": "forbidden"}, status=403)
        if request.method != "GET" or not granted:
            self.refused.append(str(request.rel_url))
            return web.json_response({"message": "forbidden"}, status=403)
        if "sendInitialEvents" in query:
            return web.json_response({"message": "no streaming lists"}, status=422)
        if "watch" in query:
            return await self._watch(request, int(query["resourceVersion"]))
        items = [] if self._value is None else [self._value]
        metadata = {"resourceVersion": str(self._version)}
        return web.json_response({"kind": "SecretList", "metadata": metadata, "items": items})

    async def _watch(self, request: web.Request, since: int) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        self.watches += 1
        try:
            while not self.down:
                moved = self._moved
                for version, kind, value in self._events:
                    if version > since:
                        since = version
                        line = json.dumps({"type": kind, "object": value}).encode()
                        await response.write(line + b"\n")
                await moved.wait()
        finally:
            self.watches -= 1
        return response
