"""Does RBAC let agents do what their policies do not hold?

A policy for which every write is asked about holds whatever RBAC grants later, but for what no
webhook is asked about. All else it may leave open, by an entry or by having none.
"""

from collections.abc import AsyncIterator, Iterator, Sequence

from msgspec.structs import replace

from noderestrict.agents.file import Agent
from noderestrict.doctor.agent_policies import users_of
from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import Finding, failed, passed, warned
from noderestrict.doctor.permissions import describing, read_rbac
from noderestrict.doctor.restore import correcting
from noderestrict.doctor.trust import some
from noderestrict.rbac.grants import Grant
from noderestrict.rbac.rights import EVERYTHING, WRITE, GrantedRight, Severity, held
from noderestrict.rbac.rules import ALL
from noderestrict.survey.holding import UNSEEN, holds, unnamed_writes

_API_SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield what RBAC lets agents do beyond their node that nothing holds."""
    rbac = await read_rbac(cluster)
    elsewhere = await _served_elsewhere(cluster)
    for agent in cluster.options.agents:
        grants = [grant for user in users_of(agent) for grant in rbac.grants(user)]
        correct = await correcting(cluster, agent)
        found = [*_open(agent, grants, correct), *_elsewhere(agent, grants, elsewhere)]
        for finding in found or [
            passed(f"agent {agent.name!r}: its policy holds what RBAC lets it do beyond its node")
        ]:
            yield finding


async def _served_elsewhere(cluster: Cluster) -> frozenset[str]:
    """Return the API groups that other API servers serve, which run admission of their own."""
    return frozenset(
        one["spec"].get("group") or ""
        for one in await cluster.items(_API_SERVICES)
        if one["spec"].get("service")
    )


def _open(agent: Agent, grants: Sequence[Grant], correct: str) -> Iterator[Finding]:
    """Yield which rights the policy leaves open, were it enforced."""
    who, enforced = f"agent {agent.name!r}", replace(agent, mode=None)
    opened = [one for one in held(grants) if not holds(enforced, one)]
    for one in opened:
        if one.right is EVERYTHING or one.right.id.startswith(UNSEEN):
            yield failed(
                f"{who}: RBAC lets it {_shown(one)}, which no policy can hold: {one.right.why}",
                "take it out of the agent's roles",
                describing(part.grant.binding for part in one.parts),
            )
    left = [
        one
        for one in opened
        if one.severity >= Severity.HIGH
        and one.right is not EVERYTHING
        and not one.right.id.startswith(UNSEEN)
    ]
    if left:
        yield warned(
            f"{who}: its policy does not hold what RBAC lets it do on any node: "
            f"{some([_shown(one) for one in left])}",
            "narrow the policy, or the agent's roles",
            correct,
        )
    if unnamed := unnamed_writes(agent, grants):
        yield warned(
            f"{who}: RBAC lets it {some(unnamed)}, which its policy does not name, and about "
            "which the API server does not ask",
            "add entries, or let the policy refuse what it does not name",
            correct,
        )


def _shown(right: GrantedRight) -> str:
    if right.right is EVERYTHING:
        return "do everything"
    where = f" in {', '.join(right.namespaces)}" if right.namespaces else ""
    return f"{'/'.join(right.verbs)} {', '.join(right.resources)}{where}"


def _elsewhere(
    agent: Agent, grants: Sequence[Grant], elsewhere: frozenset[str]
) -> Iterator[Finding]:
    """Yield which writes another API server answers."""
    found: dict[str, list[Grant]] = {}
    for grant in grants:
        rule = grant.rule
        if rule.is_everything or not ({ALL, *WRITE} & set(rule.verbs)):
            continue
        for group in sorted(elsewhere if ALL in rule.groups else elsewhere & set(rule.groups)):
            found.setdefault(group, []).append(grant)
    for group, by in found.items():
        yield warned(
            f"agent {agent.name!r}: RBAC lets it write to {group}, which another API server "
            "answers, and that one asks no webhook of this cluster",
            "take it out of the agent's roles, or hold it there",
            describing(grant.binding for grant in by),
        )


CHECK = Check("agent rights", "Do the policies hold what RBAC lets agents do?", check)
