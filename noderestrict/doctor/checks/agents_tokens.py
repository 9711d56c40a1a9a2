"""Do the tokens of agents tell their node, and are there others that tell none?

A policy refuses whoever's node it does not know what is held to a node. So an agent that uses
another token than the one in its pod cannot work, and a copy of such a token is good on any node
for what is not held.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from noderestrict.agents.file import Agent, Source
from noderestrict.api.resources import qualified
from noderestrict.doctor.agent_policies import accounts_of
from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import Finding, failed, passed, unknown, warned
from noderestrict.doctor.gates import NODE_IN_TOKENS, is_on
from noderestrict.doctor.restore import EDIT_API_SERVER, correcting
from noderestrict.doctor.trust import some
from noderestrict.doctor.workloads import Workload, account_of, daemon_sets, mounts_token
from noderestrict.render.agent_start import NODE_IN_TOKENS_SINCE

_TYPE = "kubernetes.io/service-account-token"
_NAME = "kubernetes.io/service-account.name"
_USUAL = (Source.TOKEN, Source.POD)


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield whose node no token tells, and which tokens tell none."""
    told = await is_on(cluster, NODE_IN_TOKENS)
    running = await daemon_sets(cluster)
    for agent in cluster.options.agents:
        accounts = accounts_of(agent)
        if not accounts:
            yield passed(f"agent {agent.name!r}: its users' names tell their node")
            continue
        yield await _source(cluster, agent, told=told)
        for namespace, name in accounts:
            account = qualified(namespace, name)
            own = [one for one in running if account_of(one) == account]
            secrets = await _long_lived(cluster, namespace, name)
            for finding in _of_secrets(agent, account, secrets, own):
                yield finding
            for one in own:
                if not await mounts_token(cluster, one):
                    yield warned(
                        f"agent {agent.name!r}: DaemonSet {one.namespace}/{one.name} mounts no "
                        f"token of {account}: what else it uses, this policy may not hold",
                        "find out which credential it uses",
                        f"kubectl -n {one.namespace} get daemonset {one.name} -o yaml",
                    )


async def _source(cluster: Cluster, agent: Agent, *, told: bool | None) -> Finding:
    """Return how the node of an agent is known."""
    who = f"agent {agent.name!r}"
    sources = agent.node or _USUAL
    if Source.TOKEN in sources and told:
        return passed(f"{who}: its node is known, since tokens tell it")
    if Source.POD in sources:
        return passed(f"{who}: its node is known, since tokens tell the pod, which is looked up")
    if told is None:
        return unknown(
            f"{who}: its policy takes the node from the token alone; the metrics of the API server "
            f"do not say whether feature gate {NODE_IN_TOKENS} puts it there",
            "see whether the API server turns it off",
            EDIT_API_SERVER,
        )
    return failed(
        f"{who}: its policy takes the node from the token alone, but the API server does not put "
        f"it there, without feature gate {NODE_IN_TOKENS}, on since 1.{NODE_IN_TOKENS_SINCE}: the "
        "node is never known",
        "let the policy look up the pod, with node: [token, pod]",
        await correcting(cluster, agent),
    )


async def _long_lived(cluster: Cluster, namespace: str, account: str) -> list[str]:
    """Return the Secrets with a token of a service account."""
    path, query = f"/api/v1/namespaces/{namespace}/secrets", {"fieldSelector": f"type={_TYPE}"}
    return [
        one["metadata"]["name"]
        for one in await cluster.items(path, query)
        if one.get("type") == _TYPE
        and (one["metadata"].get("annotations") or {}).get(_NAME) == account
    ]


def _of_secrets(
    agent: Agent, account: str, secrets: Sequence[str], own: Sequence[Workload]
) -> Iterator[Finding]:
    """Yield who uses which token of a Secret."""
    namespace = account.partition("/")[0]
    for secret in secrets:
        users = [
            qualified(one.namespace, one.name) for one in own if secret in _secrets_of(one.pod_spec)
        ]
        if users:
            yield failed(
                f"agent {agent.name!r}: DaemonSet {some(users)} gets a token of {account} from "
                f"Secret {secret}, which names no pod: what it does with it is on no known node",
                "let it use the token that is mounted into each pod",
                f"kubectl -n {namespace} describe daemonset {own[0].name}",
            )
        else:
            yield warned(
                f"agent {agent.name!r}: Secret {namespace}/{secret} has a token of {account} that "
                "is bound to no pod: it has no node, and may do what is held to none",
                "delete it, once nothing uses it",
                f"kubectl -n {namespace} delete secret {secret}",
            )


def _secrets_of(pod_spec: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the Secrets that a pod gets."""
    for volume in pod_spec.get("volumes") or ():
        if name := (volume.get("secret") or {}).get("secretName"):
            yield name
        for source in (volume.get("projected") or {}).get("sources") or ():
            if name := (source.get("secret") or {}).get("name"):
                yield name
    for field in ("initContainers", "containers"):
        for container in pod_spec.get(field) or ():
            for one in container.get("envFrom") or ():
                if name := (one.get("secretRef") or {}).get("name"):
                    yield name
            for variable in container.get("env") or ():
                source = (variable.get("valueFrom") or {}).get("secretKeyRef") or {}
                if name := source.get("name"):
                    yield name


CHECK = Check("agent tokens", "Do the tokens of agents tell their node?", check)
