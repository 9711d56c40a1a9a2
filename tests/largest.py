"""Reviews of the largest objects that an API server stores, built to cost what they can.

Each entry asks one rule, or one decoder, to look at everything: nothing that is refused early, and
as many, as small or as unusual parts as fit into an object.
"""

import base64
import json
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from noderestrict.cli.argument_types import parse_strict_rules
from noderestrict.policy.extra import Extra
from noderestrict.policy.keys import parse_node_keys
from noderestrict.policy.settings import Settings
from tests.builders import (
    Object,
    claim,
    create_mirror,
    mirror_pod,
    node,
    obj,
    pod_status,
    review,
    token_request,
    update_claim,
    update_node,
)

#: Bytes of an object: the limit of a request to etcd.
STORED = 1_500_000

_STRICT = Settings.for_version(
    extra=Extra.of(
        parse_strict_rules("all"),
        allowed_labels=parse_node_keys("n*=example.kubernetes.io/*"),
        forbidden_labels=parse_node_keys("n*=forbidden.example.com/*"),
        allowed_annotations=parse_node_keys("n*=example.com/*"),
    )
)


def filled(make: Callable[[int], Any], size: int) -> list[Any]:
    """Return as many items as are about so many bytes of JSON."""
    items: list[Any] = []
    length = 0
    for number in count():
        item = make(number)
        length += len(json.dumps(item, separators=(",", ":"))) + 1
        if length > size:
            return items
        items.append(item)
    raise AssertionError


def keys(prefix: str, size: int, value: str | None = "") -> dict[str, str | None]:
    """Return a map of about so many bytes of JSON."""
    each = len(json.dumps({f"{prefix}{size:x}": value}, separators=(",", ":"))) - 1
    return {f"{prefix}{number:x}": value for number in range(size // each)}


def reviews(size: int = STORED) -> Iterator[tuple[str, bytes, Settings | None]]:
    """Yield name, review and settings, where they are not the defaults."""

    def mirror(name: str, **spec: Any) -> tuple[str, bytes, Settings | None]:
        return f"mirror pod, {name}", create_mirror(mirror_pod(**spec)), None

    yield mirror(
        "references",
        containers=[
            {
                "name": "c",
                "env": filled(
                    lambda number: {
                        "name": f"E{number}",
                        "valueFrom": {"secretKeyRef": {"name": f"s{number}", "key": "k"}},
                    },
                    size,
                ),
            }
        ],
    )
    yield mirror(
        "empty references",
        containers=[
            {"name": "c", "env": filled(lambda _: {"valueFrom": {"secretKeyRef": {}}}, size)}
        ],
    )
    yield mirror("volumes", volumes=filled(lambda n: {"name": f"{n:x}", "emptyDir": {}}, size))
    yield mirror(
        "last of all volume sources",
        volumes=filled(lambda n: {"name": f"{n:x}", "vsphereVolume": {}}, size),
    )
    yield mirror(
        "projected sources",
        volumes=[
            {"name": "v", "projected": {"sources": filled(lambda _: {"downwardAPI": {}}, size)}}
        ],
    )
    yield mirror("containers", containers=filled(lambda _: {}, size))

    def status(name: str, old: Object, new: Object) -> tuple[str, bytes, Settings | None]:
        spec = {"nodeName": "n1"}
        return (
            f"pod status, {name}",
            pod_status(obj("pods", spec=spec, **old), obj("pods", spec=spec, **new)),
            None,
        )

    labels = keys("", size)
    yield status("labels", {"metadata": {"labels": labels}}, {"metadata": {"labels": labels}})
    yield status(
        "labels of another spelling",
        {"metadata": {"labels": keys("", size, None)}},
        {"metadata": {"labels": keys("", size, "")}},
    )
    claims = filled(lambda n: {"name": f"{n:x}", "resourceClaimName": f"{n:x}"}, size)
    yield status(
        "resource claims",
        {"status": {"resourceClaimStatuses": claims}},
        {"status": {"resourceClaimStatuses": claims}},
    )
    yield status(
        "resource claims of another spelling",
        {"status": {"resourceClaimStatuses": filled(lambda _: {"name": None}, size)}},
        {"status": {"resourceClaimStatuses": filled(lambda _: {"name": ""}, size)}},
    )
    yield status(
        "extended claim of another spelling",
        {
            "status": {
                "extendedResourceClaimStatus": {
                    "requestMappings": filled(lambda _: {"requestName": None}, size)
                }
            }
        },
        {
            "status": {
                "extendedResourceClaimStatus": {
                    "requestMappings": filled(lambda _: {"requestName": ""}, size)
                }
            }
        },
    )

    for name, settings in (("", None), ("strict, ", _STRICT)):

        def changed(
            what: str, old: Object, new: Object, name: str = name, settings: Any = settings
        ) -> tuple[str, bytes, Settings | None]:
            return f"node, {name}{what}", update_node(node(**old), node(**new)), settings

        for prefix in (
            "",
            "node.kubernetes.io/",
            "example.kubernetes.io/",
            "a.b.c.d.kubelet.kubernetes.io/",
        ):
            labels = keys(prefix, size)
            yield changed(f"new labels {prefix}", {}, {"labels": labels})
            yield changed(f"kept labels {prefix}", {"labels": labels}, {"labels": labels})
        many = keys("example.com/", size)
        yield changed("new annotations", {}, {"metadata": {"annotations": many}})
        taints = filled(lambda n: {"key": f"{n:x}", "effect": "NoExecute"}, size)
        yield changed("taints", {"spec": {"taints": taints}}, {"spec": {"taints": taints}})
        yield changed(
            "taints of another spelling",
            {"spec": {"taints": filled(lambda _: {"key": None}, size)}},
            {"spec": {"taints": filled(lambda _: {"key": ""}, size)}},
        )
        yield changed(
            "owners of another spelling",
            {"metadata": {"ownerReferences": filled(lambda _: {"uid": None}, size)}},
            {"metadata": {"ownerReferences": filled(lambda _: {"uid": ""}, size)}},
        )
        yield changed("pod CIDRs", {"spec": {"podCIDRs": filled(str, size)}}, {})
        yield changed("finalizers", {}, {"metadata": {"finalizers": filled(str, size)}})

    def update(name: str, old: Any, new: Any) -> tuple[str, bytes, Settings | None]:
        before, after = claim(), claim(capacity={"storage": "2Gi"})
        before["spec"]["resources"]["requests"] = old
        after["spec"]["resources"]["requests"] = new
        return f"claim status, {name}", update_claim(before, after), None

    requests = keys("", size, "1Gi")
    yield update("equal quantities", requests, requests)
    yield update("one quantity of another spelling", requests, {**requests, "0": "1024Mi"})
    yield update("quantities of another spelling", requests, keys("", size, "1024Mi"))
    yield update("long quantities", {"a": "9" * size}, {"a": "8" * size})
    yield update("huge exponents", keys("", size, "1e999999999"), keys("", size, "2e999999999"))

    audiences = filled(lambda n: f"{n:x}", size)
    yield "token, audiences", token_request("p1", "p1-uid", *audiences), None
    for name, pem in pems(size * 3 // 4):
        spec = {
            "signerName": "kubernetes.io/kubelet-serving",
            "request": base64.b64encode(pem).decode(),
        }
        body = review(
            "certificatesigningrequests",
            "CREATE",
            name="c",
            new=obj("certificatesigningrequests", metadata={"name": "c"}, spec=spec),
        )
        yield f"CSR, {name}", body, _STRICT
    meta = {"name": "n1", "namespace": "kube-node-lease", "labels": keys("", size)}
    yield (
        "lease, labels",
        review("leases", "CREATE", namespace="kube-node-lease", new=obj("leases", metadata=meta)),
        None,
    )


def pems(size: int) -> Iterator[tuple[str, bytes]]:
    """Yield PEM texts of so many bytes."""
    block = b"-----BEGIN A-----\n-----END B-----\n"
    yield "blocks", block * (size // len(block))
    yield "headers", b"-----BEGIN CERTIFICATE REQUEST-----\n" + b":\n" * (size // 2)
    yield "ends", b"\n-----END " * (size // 10)
    yield "begins", b"-----BEGIN " * (size // 11) + b"\n-----END "
    for name, der in (("names", names(size * 3 // 4)), ("alternative names", san(size * 3 // 4))):
        body = base64.encodebytes(der)
        yield (
            name,
            b"-----BEGIN CERTIFICATE REQUEST-----\n%b-----END CERTIFICATE REQUEST-----\n" % body,
        )


def _der(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 128:
        return bytes((tag, length)) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 128 + len(octets))) + octets + content


def _request(subject: bytes, attributes: bytes) -> bytes:
    algorithm = _der(0x30, bytes.fromhex("06082a8648ce3d040302"))
    key = bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107") + _der(
        0x03, b"\0\4" + b"\1" * 64
    )
    info = _der(0x30, b"\2\1\0" + _der(0x30, subject) + _der(0x30, key) + _der(0xA0, attributes))
    return _der(0x30, info + algorithm + _der(0x03, b"\0" + bytes.fromhex("3006020101020101")))


def names(size: int) -> bytes:
    """Return a request with as many common names as fit."""
    one = _der(0x31, _der(0x30, bytes.fromhex("0603550403") + _der(0x0C, b"a")))
    return _request(one * (size // len(one)), b"")


def san(size: int) -> bytes:
    """Return a request with as many alternative names as fit."""
    subject = _der(0x31, _der(0x30, bytes.fromhex("0603550403") + _der(0x0C, b"system:node:n1")))
    extension = _der(
        0x30,
        bytes.fromhex("0603551d11") + _der(0x04, _der(0x30, _der(0x82, b"a") * (size // 3))),
    )
    attribute = _der(
        0x30, bytes.fromhex("06092a864886f70d01090e") + _der(0x31, _der(0x30, extension))
    )
    return _request(subject, attribute)


def pods(size: int = STORED) -> Iterator[tuple[str, Object]]:
    """Yield names and pods that are large to reduce to a record."""
    sources = filled(lambda n: {"serviceAccountToken": {"audience": f"{n:x}"}}, size)
    for name, volumes in (
        ("audiences", [{"name": "v", "projected": {"sources": sources}}]),
        ("volumes", filled(lambda n: {"name": f"{n:x}", "emptyDir": {}}, size)),
        (
            "claims",
            filled(
                lambda n: {"name": f"{n:x}", "persistentVolumeClaim": {"claimName": f"{n:x}"}},
                size,
            ),
        ),
        ("drivers", filled(lambda n: {"name": f"{n:x}", "csi": {"driver": f"{n:x}"}}, size)),
    ):
        yield (
            name,
            obj(
                "pods",
                metadata={"name": "p1", "namespace": "ns"},
                spec={"nodeName": "n1", "volumes": volumes},
            ),
        )
