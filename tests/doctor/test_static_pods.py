"""A static pod that older plugins let pass is named before anybody enforces."""

from typing import Any

from noderestrict.doctor.checks import static_pods
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import Finding
from tests.cluster.scripted import Scripted, connected, reply

MIRROR = {"kubernetes.io/config.mirror": "x"}
CSI = {"name": "v", "csi": {"driver": "d.example.com"}}
HOST = {"name": "v", "hostPath": {"path": "/etc"}}


def pod(name: str, *volumes: dict[str, Any], mirror: bool = True) -> dict[str, Any]:
    meta = {"name": name, "namespace": "ns", "annotations": MIRROR if mirror else {}}
    return {"metadata": meta, "spec": {"nodeName": "n1", "volumes": list(volumes)}}


async def findings(*pods: dict[str, Any]) -> list[Finding]:
    page = {"metadata": {"resourceVersion": "1"}, "items": list(pods)}
    async with connected(Scripted(reply(page))) as connection:
        return [one async for one in static_pods.check(Cluster(connection))]


async def test_a_static_pod_that_refers_to_a_driver_is_named_with_its_node() -> None:
    (found,) = await findings(pod("agent", CSI), pod("plain", HOST), pod("web", CSI, mirror=False))
    assert found.status == "warn"
    assert "static pod ns/agent of node n1" in found.message
    assert "d.example.com" in found.message
    assert "pods/mirror-references=audit" in found.command


async def test_static_pods_without_references_pass() -> None:
    (found,) = await findings(pod("plain", HOST))
    assert (found.status, found.message) == ("pass", "no static pod refers to other objects")


async def test_a_pod_that_cannot_be_decoded_does_not_hide_another() -> None:
    broken = {"metadata": {"name": 1}}
    found = await findings(broken, pod("agent", CSI))
    assert [one.status for one in found] == ["warn"]
