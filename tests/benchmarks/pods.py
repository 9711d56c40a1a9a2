"""An API server with pods and little else: ``python -m tests.benchmarks.pods``."""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

NODES, PODS_A_NODE = 5_000, 30
TOTAL = NODES * PODS_A_NODE
# What one tenant can make with 330 MB: pods with as many references as fit into the API server's
# 1.5 MB.
LARGE, REFERENCES = 233, 18_500

_PLAIN = {"manager": "kubelet", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1"}
_FIELDS: dict[str, dict[str, object]] = {
    f"f:field-{number}": {".": {}, "f:type": {}} for number in range(30)
}
_POD = {
    "metadata": {
        "name": "@NAME@",
        "namespace": "@SPACE@",
        "uid": "@UID@",
        "resourceVersion": "1",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"app.kubernetes.io/name": "web", "pod-template-hash": "7d4b9c6f5"},
        "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u",
             "controller": True, "blockOwnerDeletion": True},
        ],
        "managedFields": [{**_PLAIN, "fieldsV1": _FIELDS}],
    },
    "spec": {
        "nodeName": "@NODE@",
        "serviceAccountName": "web",
        "containers": [
            {"name": f"c{number}", "image": "registry.example.com/team/web:1.2.3",
             "env": [{"name": f"E{one}", "value": "some value"} for one in range(5)],
             "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
             "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/token"}]}
            for number in range(2)
        ],
        "volumes": [
            {"name": "token", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token", "audience": "vault"}}]}},
            {"name": "data", "persistentVolumeClaim": {"claimName": "@NAME@"}},
        ],
        "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute"}] * 2,
    },
    "status": {
        "phase": "Running",
        "conditions": [
            {"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
            for kind in ("Ready", "Initialized", "ContainersReady", "PodScheduled")
        ],
        "podIP": "10.0.0.1",
    },
}  # fmt: skip
_TEMPLATE = json.dumps(_POD)


def pod_json(number: int) -> str:
    """Return one pod of the cluster, about 3 KB."""
    text = _TEMPLATE.replace("@NAME@", f"web-7d4b9c6f5-{number}")
    text = text.replace("@SPACE@", f"team-{number % 50}").replace(
        "@NODE@", f"node-{number % NODES}"
    )
    return text.replace("@UID@", f"00000000-0000-4000-8000-{number:012d}")


async def _list(request: web.Request) -> web.Response:
    if selector := request.query.get("fieldSelector"):
        node = int(selector.rpartition("-")[2])
        return _page(map(pod_json, range(node, TOTAL, NODES)), 0)
    start, limit = _asked(request)
    end = min(TOTAL, start + limit)
    return _page(map(pod_json, range(start, end)), end if end < TOTAL else 0)


async def _endless(request: web.Request) -> web.Response:
    """List the pods again and again, so that no machine is done before it has been measured."""
    start, limit = _asked(request)
    numbers = (number % TOTAL for number in range(start, start + limit))
    return _page(map(pod_json, numbers), start + limit)


async def _nodes(request: web.Request) -> web.Response:
    """List the Nodes, as by their metadata."""
    start, limit = _asked(request)
    end = min(NODES, start + limit)
    items = (
        f'{{"metadata":{{"name":"node-{number}","uid":"00000000-0000-4000-9000-{number:012d}"}}}}'
        for number in range(start, end)
    )
    return _page(items, end if end < NODES else 0)


def _asked(request: web.Request) -> tuple[int, int]:
    return int(request.query.get("continue") or "0"), int(request.query.get("limit") or "500")


def _page(items: Iterable[str], continued: int) -> web.Response:
    token = f'"continue": "{continued}", ' if continued else ""
    body = (
        f'{{"apiVersion": "v1", "kind": "List", "metadata": {{{token}"resourceVersion": "1"}}, '
        f'"items": [{",".join(items)}]}}'
    )
    return web.Response(text=body, content_type="application/json")


async def _large(request: web.Request) -> web.StreamResponse:
    """List the pods that name as much as fits into one."""
    start = int(request.query.get("continue") or "0")
    end = min(LARGE, start + int(request.query.get("limit") or "500"))
    response = web.StreamResponse()
    await response.prepare(request)
    token = str(end) if end < LARGE else ""
    await response.write(
        b'{"metadata":{"continue":"%b","resourceVersion":"1"},"items":[' % token.encode()
    )
    for number in range(start, end):
        names = ",".join(
            f'{{"name":"v{one}","secret":{{"secretName":"secret-{number}-{one}"}}}}'
            for one in range(REFERENCES)
        )
        spec = f'{{"nodeName":"node-{number}","serviceAccountName":"web","volumes":[{names}]}}'
        meta = f'{{"namespace":"team","name":"large-{number}","uid":"{number}"}}'
        pod = f'{{"metadata":{meta},"spec":{spec}}}'.encode()
        await response.write(b"," * (number > start) + pod)
    await response.write(b"]}")
    return response


async def _version(_request: web.Request) -> web.Response:
    return web.json_response({"major": "1", "minor": "31", "gitVersion": "v1.31.0"})


async def _nothing(_request: web.Request) -> web.Response:
    return web.json_response({"metadata": {"resourceVersion": "1"}, "items": []})


async def _silence(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await asyncio.Event().wait()
    return response


class Watches:
    """The watches of pods, which are sent events only on demand."""

    def __init__(self) -> None:
        self._open: list[web.StreamResponse] = []

    async def watch(self, request: web.Request) -> web.StreamResponse:
        """Keep a watch open."""
        response = web.StreamResponse()
        await response.prepare(request)
        self._open.append(response)
        await asyncio.Event().wait()
        return response

    async def emit(self, request: web.Request) -> web.Response:
        """Tell each watch of so many changed pods, at so many a second; answers when it last did.

        That is a time of the monotonic clock, which all processes share.
        """
        count, rate = int(request.query["count"]), float(request.query["rate"])
        first = int(request.query.get("first", "0"))
        last = time.monotonic()
        for number in range(first, first + count):
            line = f'{{"type":"MODIFIED","object":{pod_json(number)}}}\n'.encode()
            last = time.monotonic()
            for one in self._open:
                await one.write(line)
            await asyncio.sleep(1 / rate)
        return web.Response(text=str(last))


WATCHES = Watches()


@web.middleware
async def _watched(request: web.Request, handler: Handler) -> web.StreamResponse:
    if "watch" not in request.query:
        return await handler(request)
    pods = request.path.endswith("/pods")
    return await (WATCHES.watch if pods else _silence)(request)


@contextlib.contextmanager
def api_server() -> Iterator[str]:
    """Run it in a process of its own, and yield its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.pods"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def following(url: str, folder: Path) -> tuple[str, ...]:
    """Return the flags of a server that follows an API server at a URL."""
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": url}}],
                "users": [{"name": "u", "user": {}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    return ("--kubeconfig", str(kubeconfig), "--api-audiences", "a")


async def main() -> None:
    app = web.Application(middlewares=[_watched])
    app.router.add_get("/api/v1/pods", _list)
    app.router.add_get("/api/v1/nodes", _nodes)
    app.router.add_get("/large/api/v1/pods", _large)
    app.router.add_get("/endless/api/v1/pods", _endless)
    app.router.add_get("/{way:(endless/)?}version", _version)
    app.router.add_get("/emit", WATCHES.emit)
    app.router.add_get("/{any:.*}", _nothing)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
