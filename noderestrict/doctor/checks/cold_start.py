"""Does the cluster come back after all of it was off?

An API server reaches a Service with the help of pods on its node: kube-proxy and the agent of the
network. Such a pod needs a token, for which the API server asks the webhook, which it cannot reach
without the pod.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from noderestrict.doctor.audiences import known_audiences
from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import Finding, failed, passed, warned
from noderestrict.doctor.restore import restore
from noderestrict.doctor.trust import some
from noderestrict.doctor.workloads import (
    SERVERS,
    account_of,
    api_servers,
    daemon_sets,
    is_network_agent,
    mounts_token,
    values,
    workloads,
)
from noderestrict.render.infrastructure import infrastructure_in

_SEE = 'see "Cold start" in docs/operations.md'
_KUBE_PROXY = "kube-proxy"


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield what on the way between API server and webhook waits for the webhook."""
    webhooks = [one for one in await cluster.webhooks() if one.get("failurePolicy") != "Ignore"]
    if not webhooks:
        yield passed("no request waits for the webhook: failurePolicy is Ignore")
        return
    findings = await _our_way(cluster)
    services = [one for one in webhooks if one["clientConfig"].get("service")]
    if services:
        findings += [one async for one in _its_way(cluster, services)]
    for finding in findings:
        yield finding
    if not findings:
        yield passed("nothing between API server and webhook needs a token from it")


async def _our_way(cluster: Cluster) -> list[Finding]:
    """Return the servers on the host network that need kube-proxy to reach the API server."""
    return [
        failed(
            f"{one}: reaches the API server through its Service, so that it waits for kube-proxy "
            "after a cold start",
            f"render the manifests with --api-server; {_SEE}",
            await restore(cluster, "--api-server=HOST:PORT"),
        )
        for one in await workloads(cluster, cluster.options.namespace, SERVERS)
        if one.pod_spec.get("hostNetwork")
        and not any(values(command, "--api-server") for command in one.commands())
    ]


async def _its_way(cluster: Cluster, webhooks: list[Any]) -> AsyncIterator[Finding]:
    """Yield what is wrong on the way to a Service."""
    infrastructure = infrastructure_in(webhooks)
    left_out = infrastructure.accounts if infrastructure is not None else ()
    routed = await _routes_to_endpoints(cluster)
    own = cluster.options.namespace
    daemons = [one for one in await daemon_sets(cluster) if one.namespace != own]
    agents = {
        account_of(one): f"{one.namespace}/{one.name}"
        for one in daemons
        if is_network_agent(one.pod_spec)
        and not (routed and one.name == _KUBE_PROXY)
        and await mounts_token(cluster, one)
    }
    waiting = sorted(agents.keys() - set(left_out))
    if waiting:
        remedy = "use manifests/overlays/control-plane"
        if await cluster.minor_before_match_conditions() is None:
            flag = f"--infrastructure-accounts={','.join(sorted({*left_out, *waiting}))}"
            remedy += f", or render with {flag}"
            command = await restore(cluster, flag)
        else:
            # Without match conditions no token request can be left out.
            command = await restore(cluster, overlay="control-plane")
        yield failed(
            "the registration names a Service, and tokens for "
            f"{some([agents[one] for one in waiting])} depend on it: if all nodes go off, the "
            "cluster may not come back",
            f"{remedy}; {_SEE}",
            command,
        )
    if infrastructure is None:
        return
    for source, audiences in (await known_audiences(cluster)).items():
        if not set(audiences) <= set(infrastructure.audiences):
            yield failed(
                f"token requests for {some(left_out)} are left out if they are for "
                f"{','.join(infrastructure.audiences)}, but {source} has {','.join(audiences)}: "
                "all of them depend on the Service",
                f"render with --api-audiences={','.join(audiences)}; {_SEE}",
                await restore(cluster, f"--api-audiences={','.join(audiences)}"),
            )
    on_host = {account_of(one) for one in daemons if one.pod_spec.get("hostNetwork")}
    for account in left_out:
        if account not in on_host:
            others = [one for one in left_out if one != account]
            yield warned(
                f"token requests for {account} are left out, but no DaemonSet on the host network "
                "uses it: a node could get tokens that none of its own pods has",
                "take it out of --infrastructure-accounts",
                await restore(cluster, f"--infrastructure-accounts={','.join(others)}"),
            )


async def _routes_to_endpoints(cluster: Cluster) -> bool:
    """Tell whether API servers call the pods of a Service without kube-proxy."""
    servers = await api_servers(cluster)
    return bool(servers) and all(map(_is_routing, servers.values()))


def _is_routing(command: Sequence[str]) -> bool:
    flag = "--enable-aggregator-routing"
    # A flag of a switch takes its value only after an equals sign.
    given = [word for word in command if word.partition("=")[0] == flag]
    return given[-1:] in ([flag], [f"{flag}=true"])


CHECK = Check("cold start", "Does the cluster come back after all of it was off?", check)
