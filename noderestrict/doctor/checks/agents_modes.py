"""Does every server have the policies, and refuse what they do not allow?"""

from collections.abc import AsyncIterator, Iterator

from noderestrict.agents.agents import RULE_PREFIX, RULES
from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import Finding, failed, passed, unknown, warned
from noderestrict.doctor.restore import correcting, restore
from noderestrict.doctor.servers import Server, read_servers, serving
from noderestrict.doctor.trust import some
from noderestrict.policy.modes import ENFORCE
from noderestrict.serving.modes import Modes


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield which servers have other policies or modes, and which policies refuse nothing."""
    again = await restore(cluster)
    seen = False
    async for found in read_servers(cluster, await serving(cluster)):
        seen = True
        if not isinstance(found, Server):
            yield found
            continue
        problems = list(_problems(cluster, found, again))
        for finding in problems or [passed(f"{found.name}: it has these policies, in their modes")]:
            yield finding
    if not seen:
        text = "no server runs that says which policies it has"
        yield unknown(text, "see why", cluster.options.logs)
    if cluster.options.audited:
        return
    for agent in cluster.options.agents:
        if agent.mode not in (None, ENFORCE):
            yield warned(
                f"agent {agent.name!r}: its policy has mode {agent.mode}, and refuses nothing",
                "set mode: enforce once it would refuse nothing honest",
                await correcting(cluster, agent),
            )


def _problems(cluster: Cluster, server: Server, again: str) -> Iterator[Finding]:
    """Yield how what a server has differs from the policies."""
    agents = cluster.options.agents.agents
    digests = agents.digests
    lacking = [name for name in digests if name not in server.agents]
    changed = [name for name in digests if server.agents.get(name, digests[name]) != digests[name]]
    surplus = [name for name in server.agents if name not in digests]
    if lacking:
        yield failed(
            f"{server.name}: it has no policy of {some(lacking)}, and allows them everything",
            "install the servers with the policies",
            again,
        )
    if changed:
        yield failed(
            f"{server.name}: it has another policy of {some(changed)}",
            "see whether its log rejects the file; a changed ConfigMap takes a minute",
            f"{cluster.options.logs}\n{again}",
        )
    if surplus:
        yield warned(
            f"{server.name}: it also holds {some(surplus)}, of which no policy was examined",
            "name their policy files as well",
            "noderestrict doctor --agents FILE FILE",
        )
    modes = Modes(cluster.options.expected_mode, by_agent=agents.modes())
    for name in digests:
        if name not in lacking:
            yield from _modes(server, name, modes, again)


def _modes(server: Server, agent: str, modes: Modes, again: str) -> Iterator[Finding]:
    others: dict[str, list[str]] = {}
    for last in RULES:
        rule = f"{RULE_PREFIX}{agent}/{last}"
        mode = server.modes.get(rule, "unknown")
        if mode != modes.of(rule):
            others.setdefault(mode, []).append(last)
    for mode, rules in others.items():
        which = "all its rules" if len(rules) == len(RULES) else f"its rules {', '.join(rules)}"
        wanted = modes.of(f"{RULE_PREFIX}{agent}/{rules[0]}")
        yield failed(
            f"{server.name}: agent {agent!r}: {which} run in mode {mode} instead of {wanted}",
            "set mode and rule-modes of the servers so",
            again,
        )


CHECK = Check("agent modes", "Does every server have the policies, in the expected modes?", check)
