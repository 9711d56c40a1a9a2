"""Does the Service have ready endpoints, all of them on trusted nodes?"""

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from typing import Any

from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import Finding, failed, passed, warned
from noderestrict.doctor.trust import read_trust


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield findings on the Services that the webhooks name."""
    services = {
        (service["namespace"], service["name"])
        for webhook in await cluster.webhooks()
        if (service := webhook["clientConfig"].get("service"))
    }
    for namespace, name in sorted(services):
        slices = await cluster.items(
            f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices",
            {"labelSelector": f"kubernetes.io/service-name={name}"},
        )
        endpoints = [one for each in slices for one in each.get("endpoints") or ()]
        trusted = (await read_trust(cluster)).trusted()
        for finding in _untrusted(f"{namespace}/{name}", endpoints, trusted):
            yield finding
        yield _ready(namespace, name, endpoints)


def _untrusted(
    service: str, endpoints: Sequence[Any], trusted: Collection[str]
) -> Iterator[Finding]:
    for endpoint in endpoints:
        node = endpoint.get("nodeName")
        if trusted and node and node not in trusted:
            pod = (endpoint.get("targetRef") or {}).get("name")
            yield failed(
                f"Service {service}: pod {pod} on untrusted node {node} receives webhook calls",
                'delete the pod; see "Trusted nodes" in docs/install.md',
                f"kubectl -n {service.partition('/')[0]} delete pod {pod}",
            )


def _ready(namespace: str, name: str, endpoints: Sequence[Any]) -> Finding:
    ready = sum(
        (endpoint.get("conditions") or {}).get("ready") is not False for endpoint in endpoints
    )
    text = f"Service {namespace}/{name} has {ready} ready endpoint{'' if ready == 1 else 's'}"
    if ready == 0:
        return failed(text, "see why no server is ready", f"kubectl -n {namespace} describe pods")
    if ready == 1:
        return warned(
            text,
            "run two, on different nodes",
            f"kubectl -n {namespace} scale deployment {name} --replicas=2",
        )
    return passed(text)


CHECK = Check("endpoints", "Does the Service have ready endpoints, on trusted nodes only?", check)
