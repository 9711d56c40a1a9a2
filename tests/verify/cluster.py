"""An API server over a real socket that answers a node's requests by our rules."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from noderestrict import admission
from noderestrict.authorization.decode import decode as decode_access
from noderestrict.graph.rules import authorize
from noderestrict.policy import features
from noderestrict.policy.decision import Allowed, Question
from noderestrict.policy.releases import LATEST
from noderestrict.policy.rule import CREATE, DELETE, UPDATE
from noderestrict.policy.settings import Settings
from noderestrict.probes.access import reached
from noderestrict.probes.observed import named
from noderestrict.probes.request import API, Request
from tests.probes.cluster import LISTERS, OBSERVED

TOKEN = "a-token-that-nobody-may-see"
OPERATIONS = {"POST": CREATE, "PATCH": UPDATE, "DELETE": DELETE}
Object = dict[str, Any]


class Paths:
    def reaches(self, node: str, vertex: tuple[str, str, str]) -> bool:
        return node == OBSERVED.node and vertex in reached(OBSERVED)


class APIServer:
    """Answers as an API server with the in-tree plugin, or with our webhook, or without any.

    Attributes:
        user: as whom everybody is connected.
        may_impersonate: whether that user may.
        release: whose rules it has.
        says: turns the rule's words into the answer's.
        skipped: ids of rules that are off.
        drops: key of a status that it does not know.
        grants: verbs that its authorizers allow on anything.
        mints: whether it answers token requests with a token.
        writes: method, path, query and impersonated user of each request that is no read.
        failing: path prefixes that are answered with 403.
    """

    def __init__(self) -> None:
        self.user = ("admin", ["system:masters"])
        self.may_impersonate = True
        self.release = LATEST
        self.says: Callable[[str], str] = 'x "x" is forbidden: node "n1" is not allowed: {}'.format
        self.enforces = True
        self.skipped: frozenset[str] = frozenset()
        self.drops = ""
        self.grants: frozenset[str] = frozenset()
        self.mints = False
        self.writes: list[tuple[str, str, dict[str, str], str]] = []
        self.failing: tuple[str, ...] = ()
        self.objects = dict(_objects())

    async def answer(self, request: web.Request) -> web.Response:
        code, value = await self._answer(request)
        return web.json_response(value, status=code)

    async def _answer(self, request: web.Request) -> tuple[int, Object]:
        path = request.path
        if path.startswith(self.failing) and self.failing:
            return _refused("pods is forbidden: you may not")
        if request.method == "GET":
            return self._read(path, dict(request.query))
        body = await request.json()
        last = path.rpartition("/")[2]
        if last == "selfsubjectreviews":
            info = {"username": self.user[0], "groups": self.user[1]}
            return 201, {"status": {"userInfo": info}}
        if last == "selfsubjectaccessreviews":
            return 201, {"status": {"allowed": self.may_impersonate}}
        if last == "subjectaccessreviews":
            return 201, {"status": self._access(body)}
        user = request.headers.get("Impersonate-User", "")
        self.writes.append((request.method, path, dict(request.query), user))
        return self._write(request.method, path, body, user or self.user[0])

    def _read(self, path: str, query: dict[str, str]) -> tuple[int, Object]:
        if path == "/version":
            return 200, {"gitVersion": "v1.36.0"}
        if path == "/api/v1/pods":
            own = query["fieldSelector"] == f"spec.nodeName={OBSERVED.node}"
            pods = OBSERVED.own_pods if own else OBSERVED.foreign_pods
            return 200, {"items": list(pods)}
        if path in self.objects:
            return 200, self.objects[path]
        return 404, {"message": "not found"}

    def _access(self, body: Object) -> Object:
        asked = decode_access(json.dumps(body).encode())
        if asked.access is None:
            return {"allowed": False}
        if asked.access.verb in self.grants:
            return {"allowed": True, "reason": "RBAC: allowed"}
        gates = features.defaults(features.OFFLINE_MINOR)
        opinion = authorize(asked.access, Paths(), gates)
        reason = "" if opinion.allowed else "no relationship found between node 'n1' and this"
        return {"allowed": opinion.allowed, "reason": reason}

    def _write(self, method: str, path: str, body: Object, user: str) -> tuple[int, Object]:
        asked = self._request(method, path, body, user)
        if asked.api.resource == "nodes" and body.get("kind") == "Lease":
            return 400, {"message": "Lease in version v1 cannot be handled as a Node"}
        if self.enforces:
            decoded = admission.decode(json.dumps(asked.review("u")).encode())
            gates = {features.POD_CERTIFICATE_REQUEST: True, features.CSI_VOLUME_HEALTH: True}
            settings = Settings.for_version(overrides=gates, release=self.release)
            decision = admission.evaluate(decoded, settings, LISTERS, self.skipped)
            denied = decision.otherwise if isinstance(decision, Question) else decision
            if not isinstance(denied, Allowed):
                return _refused(self.says(denied.message), denied.code)
        if asked.api.kind == "TokenRequest":
            if self.mints:
                return 201, {"status": {"token": TOKEN}}
            return 400, {"message": 'cannot bind token for serviceaccount "web" to pod'}
        answer: Object = msgspec.to_builtins(asked.new or {})
        answer.get("status", {}).pop(self.drops, None)
        return 200, answer

    def _request(self, method: str, path: str, body: Object, user: str) -> Request:
        parts = path.strip("/").split("/")
        group, version, rest = ("", parts[1], parts[2:])
        if parts[0] == "apis":
            group, version, rest = parts[1], parts[2], parts[3:]
        namespace = ""
        if rest[0] == "namespaces":
            namespace, rest = rest[1], rest[2:]
        resource, name, sub = (*rest, "", "")[:3]
        old = self.objects.get(path.removesuffix(f"/{sub}") if sub else path)
        kind = body.get("kind") or (old or {}).get("kind") or resource
        if resource == "nodes":
            kind = "Node"
        kinds = {
            "pods": "Pod",
            "persistentvolumeclaims": "PersistentVolumeClaim",
            "csinodes": "CSINode",
        }
        if method != "POST":
            kind = kinds.get(resource, kind)
        kind_version = body.get("apiVersion", "") if method == "POST" and sub else ""
        api = API(group, version, resource, kind, sub, kind_version)
        shown = name or body.get("metadata", {}).get("name", "")
        operation = OPERATIONS[method]
        return Request(user, api, operation, namespace, shown, body, old)


def _objects() -> list[tuple[str, Object]]:
    found: list[tuple[str, Object]] = [
        ("/api/v1/nodes", {"items": [OBSERVED.own_node]}),
        (f"/api/v1/nodes/{OBSERVED.node}", dict(OBSERVED.own_node or {})),
        ("/apis/storage.k8s.io/v1/volumeattachments", {"items": [
            {"metadata": {"name": "attachment"}, "spec": {"nodeName": OBSERVED.node}},
        ]}),
        (f"/apis/storage.k8s.io/v1/csinodes/{OBSERVED.node}", dict(OBSERVED.csi_node or {})),
        ("/apis/storage.k8s.io", {"versions": [{"version": "v1"}]}),
        ("/apis/storage.k8s.io/v1", {"resources": [{"name": "csinodes/status"}]}),
        ("/apis/resource.k8s.io", {"versions": [{"version": "v1"}]}),
        ("/apis/resource.k8s.io/v1", {"resources": [{"name": "resourceslices"}]}),
        ("/apis/certificates.k8s.io", {"versions": [{"version": "v1"}, {"version": "v1beta1"}]}),
        ("/apis/certificates.k8s.io/v1", {"resources": []}),
        ("/apis/certificates.k8s.io/v1beta1", {"resources": [{"name": "podcertificaterequests"}]}),
    ]  # fmt: skip
    for pods in (OBSERVED.own_pods, OBSERVED.foreign_pods):
        found += [(_path("pods", named(pod)), dict(pod)) for pod in pods]
    for plural, values in (
        ("persistentvolumeclaims", OBSERVED.claims),
        ("serviceaccounts", OBSERVED.accounts),
    ):
        found += [(_path(plural, key), dict(value)) for key, value in values.items()]
    for name, value in OBSERVED.volumes.items():
        found.append((f"/api/v1/persistentvolumes/{name}", dict(value)))
    return found


def _path(plural: str, key: tuple[str, str]) -> str:
    return f"/api/v1/namespaces/{key[0]}/{plural}/{key[1]}"


def _refused(message: str, code: int = 403) -> tuple[int, Object]:
    return code, {"kind": "Status", "message": message, "code": code}


@asynccontextmanager
async def running(server: APIServer, folder: Path) -> AsyncIterator[str]:
    """Serve, and yield a kubeconfig."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    _, port = runner.addresses[0][:2]
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }
    file = folder / "kubeconfig"
    await asyncio.to_thread(file.write_text, json.dumps(config))
    try:
        yield str(file)
    finally:
        await runner.cleanup()
