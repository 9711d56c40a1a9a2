"""Attacks: each goes on for as long as its context."""

import contextlib
import json
import resource
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

from tests.e2e.control_plane import Client
from tests.e2e.twins import CLAIMS, MERGE, NAMESPACED, NODES, PODS, Twins, claim, pod, until

#: The deepest JSON that an API server takes has 10,000 levels.
LEVELS = 9_995
#: As large as etcd takes an object, bytes.
LARGE = 1_400_000
STORAGE = "/apis/storage.k8s.io/v1"
HEAD = b"POST /validate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
#: Stores objects that are too deep, filled up to a size in bytes, and returns their paths.
Poison = Callable[[Twins, int], list[str]]


def deep(value: dict[str, Any], size: int = 0) -> bytes:
    """Return an object whose managed fields nest as deep as an API server takes them.

    Args:
        value: without them.
        size: to which the object is filled up with wide ones, bytes.
    """
    wide = "".join(f'"f:{number:060}":{{}},' for number in range(size // 67))
    nested = "{" + wide + '"f:a":{' * LEVELS + "}" * LEVELS + "}"
    managed = {
        "manager": "m",
        "operation": "Update",
        "apiVersion": value["apiVersion"],
        "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": "HERE",
    }
    value = {**value, "metadata": {**value["metadata"], "managedFields": [managed]}}
    return json.dumps(value).replace('"HERE"', nested).encode()


def named(kind: str, version: str = "v1", name: str = "poisoned", **fields: Any) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **fields}


def tenants_pod(twins: Twins, size: int) -> list[str]:
    """A tenant makes a pod."""
    return [stored(twins, PODS, deep(pod("poisoned", "n1"), size))]


def tenants_claim(twins: Twins, size: int) -> list[str]:
    """A tenant makes a claim."""
    return [stored(twins, CLAIMS, deep(claim("poisoned"), size))]


def stolen_node(twins: Twins, size: int) -> list[str]:
    """A stolen node writes itself."""
    node = twins.client("stolen")
    with contextlib.suppress(Exception):
        twins.admin.create(NODES, named("Node", name="stolen"))
    current = node.get(f"{NODES}/stolen")
    code, answer = node.send("PUT", f"{NODES}/stolen", deep(current, size))
    assert code == 200, answer[:300]
    return [f"{NODES}/stolen"]


def others(twins: Twins, size: int) -> list[str]:
    """Somebody makes one of each of the other resources that are followed."""
    volume = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "csi": {"driver": "d", "volumeHandle": "h"},
    }
    attachment = {"attacher": "d", "nodeName": "n1", "source": {"persistentVolumeName": "x"}}
    pool = {"name": "p", "generation": 1, "resourceSliceCount": 1}
    slice_ = {"driver": "d.example.com", "nodeName": "n1", "pool": pool, "devices": []}
    return [
        stored(twins, path, deep(body, size))
        for path, body in (
            ("/api/v1/persistentvolumes", named("PersistentVolume", spec=volume)),
            (f"{NAMESPACED}/serviceaccounts", named("ServiceAccount")),
            (f"{STORAGE}/csidrivers", named("CSIDriver", "storage.k8s.io/v1", spec={})),
            (
                f"{STORAGE}/volumeattachments",
                named("VolumeAttachment", "storage.k8s.io/v1", spec=attachment),
            ),
            (
                "/apis/resource.k8s.io/v1/resourceslices",
                named("ResourceSlice", "resource.k8s.io/v1", spec=slice_),
            ),
        )
    ]


def stored(twins: Twins, path: str, body: bytes) -> str:
    """Store an object, see that it is as deep as it was sent, and return its path."""
    code, answer = twins.admin.send("POST", path, body)
    assert code == 201, answer[:300]
    path = f"{path}/poisoned"
    assert twins.admin.send("GET", path)[1].count(b'"f:a"') == LEVELS
    return path


@contextlib.contextmanager
def poisoned(twins: Twins, poison: Poison, size: int) -> Iterator[None]:
    paths = poison(twins, size)
    try:
        yield
    finally:
        for path in paths:
            twins.admin.send("DELETE", f"{path}?gracePeriodSeconds=0")


@contextlib.contextmanager
def wide_claim(twins: Twins) -> Iterator[None]:
    """A tenant's claim makes what its node writes of it costly."""
    wide = claim("wide")
    wide["spec"]["resources"]["requests"] |= {
        f"a.example/{number}": "1" for number in range(60_000)
    }
    twins.start("wide", "n1", wide)
    done = threading.Event()

    def patch(node: Client) -> int:
        body = {"status": {"capacity": {"storage": "2Gi"}}}
        path = f"{CLAIMS}/wide/status?dryRun=All"
        return node.send("PATCH", path, json.dumps(body).encode(), MERGE)[0]

    def patch_on(node: Client) -> None:
        while not done.is_set():
            patch(node)

    # The node has it once its pod is known.
    until("the claim is written", lambda: patch(twins.client("n1")) == 200, 30)
    threads = [
        threading.Thread(target=patch_on, args=(twins.control_plane.node("n1"),)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()
        twins.remove("wide")


@contextlib.contextmanager
def heavy_pods(twins: Twins, count: int) -> Iterator[list[str]]:
    """Pods refer to as many Secrets as fit; the context has the last one of two of n1's."""

    def secret(number: int, one: int) -> str:
        return f"secret-{number}-{one}"

    for number in range(count):
        body = pod(f"heavy-{number}", f"n{number % 2 + 1}")
        sources = [{"secret": {"name": secret(number, one)}} for one in range(18_500)]
        body["spec"]["volumes"] = [{"name": "s", "projected": {"sources": sources}}]
        twins.admin.create(PODS, body)
    try:
        yield [secret(number, 18_499) for number in (0, 1)]
    finally:
        for number in range(count):
            twins.admin.send("DELETE", f"{PODS}/heavy-{number}?gracePeriodSeconds=0")


def chunked(_: int) -> bytes:
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def bodiless(_: int) -> bytes:
    return HEAD + b"Content-Length: 1\r\n\r\n"


def silent(_: int) -> bytes:
    return b""


def slow_header(number: int) -> bytes:
    return HEAD + b"X-%d: " % number


@contextlib.contextmanager
def connections(
    port: int, count: int, sent: Callable[[int], bytes], *, tls: bool = True
) -> Iterator[None]:
    """Keep connections open that have sent something and go on no further."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.ExitStack() as stack:
        for number in range(count):
            # A server may close what it has too many of.
            with contextlib.suppress(OSError):
                one = socket.create_connection(("127.0.0.1", port), timeout=5)
                if tls:
                    one = context.wrap_socket(one)
                stack.enter_context(one)
                one.sendall(sent(number))
        yield


def deletion(name: str, node: str) -> bytes:
    request = {
        "uid": "1",
        "operation": "DELETE",
        "namespace": "default",
        "name": name,
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "userInfo": {"username": f"system:node:{node}", "groups": ["system:nodes"]},
    }
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    return json.dumps(review).encode()
