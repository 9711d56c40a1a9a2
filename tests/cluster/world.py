"""An API server in memory: objects by path, lists of them, watches that tell next to nothing."""

import asyncio
import json
from collections.abc import Collection
from typing import Any

from aiohttp import web

from noderestrict.cluster.freshness import Probe

Object = dict[str, Any]


class World:
    """Answers reads from its objects; counts them.

    Attributes:
        objects: by path of one object.
        asked: path of every request but lists, watches and probes.
        lists: queries of the lists with a field selector, by path.
        probes: how many were answered that it is there.
        down: nothing is answered but 503.
        grants: whether SubjectAccessReviews are allowed.
        served: paths of the lists that it has.
    """

    def __init__(self, *objects: tuple[str, Object]) -> None:
        self.objects: dict[str, Object] = dict(objects)
        self.asked: list[str] = []
        self.lists: list[tuple[str, str]] = []
        self.followed = 0
        self.probes = 0
        self.down = False
        self.grants = False
        self.broken: set[str] = set()
        self.served = set(LISTS)
        self._moved = asyncio.Event()
        self._cuts = 0

    def cut(self) -> None:
        """End every watch, and answer nothing any more."""
        self.down = True
        self._cuts += 1
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        path, query = request.path, request.query
        if self.down or path in self.broken:
            return web.json_response({"message": "down"}, status=503)
        if request.method == "POST":
            self.asked.append(path)
            return web.json_response({"status": {"allowed": self.grants}})
        if query.get("watch"):
            return await self._watch(request)
        if path == Probe.PATH:
            self.probes += 1
            return web.json_response({"message": "not found"}, status=404)
        if is_discovery(path):
            return web.json_response(discovered(path, self.served))
        if path in self.objects:
            self.asked.append(path)
            return web.json_response(self.objects[path])
        items = self._items(path, query.get("fieldSelector", ""))
        if items is None:
            self.asked.append(path)
            return web.json_response({"message": "not found"}, status=404)
        if "fieldSelector" in query:
            self.lists.append((path, query["fieldSelector"]))
        else:
            self.followed += 1
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": items})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        if self._cuts:
            await response.write(json.dumps(_BOOKMARK).encode() + b"\n")
        await self._moved.wait()
        assert request.transport is not None
        request.transport.abort()
        return response

    def _items(self, path: str, selector: str) -> list[Object] | None:
        if path not in self.served:
            return None
        group, _, plural = path.rpartition("/")
        node = selector.removeprefix("spec.nodeName=")
        return [
            value
            for at, value in self.objects.items()
            if at.startswith(f"{group}/")
            and at.split("/")[-2] == plural
            and (not selector or value["spec"].get("nodeName") == node)
        ]


_BOOKMARK = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "2"}}}
LISTS = {
    "/api/v1/nodes",
    "/api/v1/pods",
    "/api/v1/serviceaccounts",
    "/api/v1/persistentvolumeclaims",
    "/api/v1/persistentvolumes",
    "/apis/storage.k8s.io/v1/csidrivers",
    "/apis/storage.k8s.io/v1/volumeattachments",
    "/apis/resource.k8s.io/v1/resourceslices",
    "/apis/certificates.k8s.io/v1/podcertificaterequests",
}


def is_discovery(path: str) -> bool:
    """Return whether a path is that of an API group or of one of its versions."""
    return path.startswith("/apis/") and path.count("/") < 4


def discovered(path: str, lists: Collection[str]) -> Object:
    """Return what an API server with some lists answers to that."""
    below = {at[len(path) + 1 :].split("/")[0] for at in lists if at.startswith(f"{path}/")}
    if path.count("/") == 2:
        return {"versions": [{"version": version} for version in below]}
    return {"resources": [{"name": name} for name in below]}


def named(path: str, spec: Object, **more: Any) -> tuple[str, Object]:
    """Return an object of a path, with name and namespace as the path has them."""
    parts = path.split("/")
    meta = {"name": parts[-1], "uid": f"{parts[-1]}-uid"}
    if "namespaces" in parts:
        meta["namespace"] = parts[parts.index("namespaces") + 1]
    return path, {"metadata": meta, "spec": spec, **more}


def pod(name: str, node: str = "n1", namespace: str = "ns", **spec: Any) -> tuple[str, Object]:
    """Return a pod that is bound to a node."""
    return named(
        f"/api/v1/namespaces/{namespace}/pods/{name}",
        {"nodeName": node, "serviceAccountName": "sa", **spec},
    )
