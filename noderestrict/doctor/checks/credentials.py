"""Can untrusted nodes get our credentials, or our accounts do harm?"""

from collections.abc import AsyncIterator

from noderestrict.api.resources import ObjectKey, qualified
from noderestrict.cluster.graph_sink import read_graph
from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import Finding, failed, passed, warned
from noderestrict.doctor.permissions import (
    Permission,
    changes_of_registration,
    granted,
    listed,
    revoking,
)
from noderestrict.doctor.restore import restore
from noderestrict.doctor.trust import read_trust, some
from noderestrict.graph.graph import Graph
from noderestrict.render.workload import NEW_CA

_SHOWN = 10
#: Each is enough to get the token of any account of the namespace.
_HARMFUL = (("create", "secrets"), ("create", "pods"))


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield which nodes can read our Secrets or get tokens, and which accounts can do harm."""
    trusted = (await read_trust(cluster)).trusted()
    graph = await read_graph(cluster.connection)
    namespace = cluster.options.namespace
    accounts = await _names(cluster, "serviceaccounts")
    secrets = await _names(cluster, "secrets")
    objects = [ObjectKey("secrets", namespace, name) for name in secrets]
    objects += [
        ObjectKey("serviceaccounts", namespace, name) for name in accounts if name != "default"
    ]
    again = await restore(cluster)
    for key in objects:
        yield _readers(graph, key, trusted, again)
    harmful = (
        *changes_of_registration(cluster.options.configuration),
        *(Permission(verb, "", plural, namespace=namespace) for verb, plural in _HARMFUL),
    )
    for account in accounts:
        user = f"system:serviceaccount:{namespace}:{account}"
        has = await granted(cluster, user, harmful)
        if has and account == NEW_CA:
            yield warned(
                f"{user} can {listed(has)} while the CA is being replaced",
                "once it is, delete the Job and its rights",
                "kubectl delete -f manifests/overlays/self-signed/new-ca.yaml",
            )
        elif has:
            yield failed(
                f"{user} can {listed(has)}",
                'remove what grants this; see "Upgrade" in docs/install.md',
                await revoking(cluster, user, has),
            )


def _readers(graph: Graph, key: ObjectKey, trusted: frozenset[str], again: str) -> Finding:
    nodes = graph.who(key)
    kind = "Secret" if key.resource == "secrets" else "tokens of ServiceAccount"
    what = f"{kind} {key.name}"
    others = [name for name in nodes if name not in trusted]
    if others:
        pods = sorted(
            {
                qualified(namespace, name)
                for node in others[:_SHOWN]
                for resource, namespace, name in graph.path(node, key)
                if resource == "pods"
            }
        )
        return failed(
            f"{what}: accessible to {some(others)} through pods {some(pods)}",
            'delete these pods and replace the credential; see "Upgrade" in docs/install.md',
            "\n".join(
                [f"kubectl -n {key.namespace} delete pod {pod.partition('/')[2]}" for pod in pods]
                + (
                    [f"kubectl -n {key.namespace} delete secret {key.name}", again]
                    if key.resource == "secrets"
                    else []
                )
            ),
        )
    return passed(f"{what}: accessible to {some(nodes) if nodes else 'no node'}")


async def _names(cluster: Cluster, plural: str) -> list[str]:
    items = await cluster.items(f"/api/v1/namespaces/{cluster.options.namespace}/{plural}")
    return [item["metadata"]["name"] for item in items]


CHECK = Check("credentials", "Can untrusted nodes get our credentials?", check)
