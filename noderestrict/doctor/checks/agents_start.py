"""Does the network come back without a server, where a policy holds its agents?

Behind a Service, API servers reach a server through kube-proxy and the network plugin of its node.
What these write while they start must not wait for it.
"""

from collections.abc import AsyncIterator

from noderestrict.agents.file import Agent
from noderestrict.api.resources import qualified
from noderestrict.doctor.agent_policies import accounts_of
from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import Finding, passed, unknown, warned
from noderestrict.doctor.gates import NODE_IN_TOKENS, is_on
from noderestrict.doctor.restore import EDIT_API_SERVER, restore
from noderestrict.doctor.trust import some
from noderestrict.doctor.workloads import account_of, daemon_sets, is_network_agent
from noderestrict.render.agent_start import waiting
from noderestrict.render.agents import is_for_agents


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield which agents of the network wait for a server that is reached through them."""
    webhooks = [one for one in await cluster.webhooks() if is_for_agents(one)]
    webhooks = [one for one in webhooks if one.get("failurePolicy") != "Ignore"]
    if not any((one.get("clientConfig") or {}).get("service") for one in webhooks):
        yield passed("no agent's start waits for a server that is reached through a Service")
        return
    network = {
        account_of(one) for one in await daemon_sets(cluster) if is_network_agent(one.pod_spec)
    }
    agents = [one for one in cluster.options.agents if not network.isdisjoint(_accounts(one))]
    if not agents:
        yield passed("no policy holds kube-proxy or a network plugin")
        return
    told = await is_on(cluster, NODE_IN_TOKENS)
    for agent in agents:
        yield await _finding(cluster, agent, told=told)


def _accounts(agent: Agent) -> list[str]:
    return [qualified(*one) for one in accounts_of(agent)]


async def _finding(cluster: Cluster, agent: Agent, *, told: bool | None) -> Finding:
    who = f"agent {agent.name!r}"
    found = waiting(agent, node_in_tokens=told is True)
    if told is None and found != waiting(agent):
        return unknown(
            f"{who}: whether its start waits for a server depends on feature gate "
            f"{NODE_IN_TOKENS}, which is not visible in the API server's metrics",
            "see whether its flags turn it off",
            EDIT_API_SERVER,
        )
    if not found:
        return passed(f"{who}: what it may need to start is decided without a server")
    return warned(
        f"{who}: the network depends on it, and these writes wait for a server that is reached "
        f"through it: {some(found)}: if all nodes go off, the cluster may not come back",
        "use manifests/overlays/control-plane, or take what its start needs out of the policy; see "
        '"Enforce it" in docs/agents.md',
        await restore(cluster, overlay="control-plane"),
    )


CHECK = Check("agent start", "Does the network come back without a server?", check)
