"""Which policies hold agents, and are they those that were given?"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from noderestrict.doctor.agent_policies import AgentPolicies
from noderestrict.doctor.authorization_config import ConfigurationError, read_authorizers
from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import Finding, failed, passed, unknown
from noderestrict.doctor.installed_agents import installed_policies
from noderestrict.doctor.restore import restore
from noderestrict.doctor.servers import serving
from noderestrict.doctor.trust import some
from noderestrict.doctor.workloads import Workload, setting
from noderestrict.render.agents import is_for_agents

_NAME = ("name the policy files", "noderestrict doctor --agents FILE")


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield which policies are examined, and whether the servers have others."""
    given = cluster.options.agents
    if given.problem:
        yield _unseen(given)
    elif given.origin:
        yield passed(f"{given.origin} holds {_named(given)}; --agents FILE compares it with files")
    elif given:
        yield await _compared(cluster)
    elif asked := await _asked(cluster):
        yield unknown(
            f"the API server asks about agents ({some(asked)}), but no server with their policies "
            "is visible, so that none was examined",
            *_NAME,
        )
    else:
        yield passed("no policy holds an agent to its node")


async def _asked(cluster: Cluster) -> list[str]:
    """Return the names of the webhooks and authorizers that are for agents."""
    webhooks = (await cluster.registration() or {}).get("webhooks") or ()
    found = [str(one["name"]) for one in webhooks if is_for_agents(one)]
    if (file := cluster.options.authorization_config) is not None:
        # Another check says what is wrong with the file.
        with contextlib.suppress(ConfigurationError):
            authorizers = await asyncio.to_thread(read_authorizers, file)
            found += [one.name for one in authorizers if one.is_for_agents]
    return found


def _unseen(policies: AgentPolicies) -> Finding:
    return unknown(f"the servers' policies are not visible: {policies.problem}", *_NAME)


async def _compared(cluster: Cluster) -> Finding:
    """Return whether the servers have the policies that were given."""
    given, installed = cluster.options.agents, await installed_policies(cluster)
    if installed.problem:
        return unknown(
            f"whether the servers have these policies is not visible: {installed.problem}",
            "install them again",
            await restore(cluster),
        )
    if not installed.origin:
        if without := [str(one) for one in await serving(cluster) if not _has_config(one)]:
            return failed(
                f"{some(without)} has no policies of agents",
                "install the servers with them",
                await restore(cluster),
            )
        # The metrics of servers elsewhere say which policies these have.
        return passed(f"{_named(given)}, as given")
    wanted, found = ({one.name: one for one in each} for each in (given, installed))
    others = [name for name in wanted | found if wanted.get(name) != found.get(name)]
    if others:
        return failed(
            f"{installed.origin} has other policies than the files, for {some(others)}",
            "install those of the files, or name other files",
            await restore(cluster),
        )
    return passed(f"{installed.origin} has the policies of the files: {_named(given)}")


def _has_config(workload: Workload) -> bool:
    """Tell whether a server reads a file, which may name policies, too."""
    return any(setting(one, "config") for one in workload.pod_spec.get("containers") or ())


def _named(policies: AgentPolicies) -> str:
    return some([agent.name for agent in policies])


CHECK = Check("agent policies", "Which policies hold agents, and are they as given?", check)
