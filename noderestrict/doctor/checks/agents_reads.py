"""Is the authorizer asked about what agents read, before RBAC allows it?

Reads never reach admission. So a policy's entries for reads hold nothing without the other half.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from noderestrict.agents import reads
from noderestrict.agents.agents import READ, RULE_PREFIX, Agents
from noderestrict.agents.file import Agent
from noderestrict.agents.identity import User as Requester
from noderestrict.agents.reads import Asked, needs_selectors
from noderestrict.cluster.server_info import server_version
from noderestrict.doctor import exposition
from noderestrict.doctor.agent_policies import users_of
from noderestrict.doctor.authorization_config import (
    Authorizer,
    ConfigurationError,
    read_authorizers,
)
from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import FAIL, Finding, failed, passed, unknown, warned
from noderestrict.doctor.gates import is_on
from noderestrict.doctor.permissions import Permission, read_rbac, review
from noderestrict.doctor.restore import EDIT_API_SERVER, correcting, rendering_authorizer
from noderestrict.doctor.trust import some
from noderestrict.doctor.workloads import api_servers, values
from noderestrict.policy.features import AUTHORIZE_WITH_SELECTORS
from noderestrict.policy.listers import MemoryListers
from noderestrict.policy.modes import ENFORCE
from noderestrict.rbac.grants import RBAC
from noderestrict.rbac.rules import ALL, Request
from noderestrict.rbac.subjects import User, account_of
from noderestrict.render.agents import read_conditions
from noderestrict.render.authorizer import is_for_agents
from noderestrict.serving.modes import Modes

#: Since then there are AuthorizationConfigurations.
_SINCE = 30
_FLAG = "--authorization-config"
#: What is asked for: no such object is anybody's.
_NAME = "noderestrict-doctor"
_UNKNOWN_GROUP = "noderestrict.io"
_LOGS = "kubectl -n kube-system logs --selector app.kubernetes.io/name=noderestrict-authorizer"
_INSTALL = (
    "install the authorizer with the policies, see docs/authorizer.md, or take read out of them"
)
_SEE = "noderestrict doctor --authorization-config /etc/kubernetes/noderestrict/authorization.yaml"
_COUNTS = (
    "apiserver_authorization_match_condition_exclusions_total",
    "apiserver_authorization_decisions_total",
)


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield which agents' reads nobody holds, and what of that could not be seen."""
    held = [agent for agent in cluster.options.agents if agent.read is not None]
    if not held:
        yield passed("no policy names reads: RBAC alone decides on them")
        return
    minor, _ = await server_version(cluster.connection)
    names = some([agent.name for agent in held])
    if minor < _SINCE:
        yield failed(
            f"nobody holds the reads that the policies of {names} name: an API server asks about "
            f"agents from Kubernetes 1.{_SINCE} on",
            "upgrade it, or take read out of the policies",
            await correcting(cluster, held[0]),
        )
        return
    again = rendering_authorizer(cluster, minor)
    findings = [
        *await _selectors(cluster, held),
        *await _without_configuration(cluster, names, again),
        *await _probed(cluster, held, again),
    ]
    for finding in findings:
        yield finding
    file = cluster.options.authorization_config
    if file is None:
        # Where nobody is asked at all, no file says more.
        if all(finding.status != FAIL for finding in findings):
            yield unknown(
                "whether the API server asks about all that the policies hold, and denies it while "
                "nobody answers, is in its AuthorizationConfiguration alone",
                "check a copy of that file",
                _SEE,
            )
        return
    for finding in await asyncio.to_thread(lambda: list(check_file(file, held, minor, again))):
        yield finding


async def _selectors(cluster: Cluster, held: Sequence[Agent]) -> list[Finding]:
    """Return whether lists can be held, which takes selectors that an API server tells."""
    if not (problem := needs_selectors(Agents(held), {AUTHORIZE_WITH_SELECTORS: False})):
        return []
    on = await is_on(cluster, AUTHORIZE_WITH_SELECTORS)
    if on is None:
        return [
            unknown(
                f"whether feature gate {AUTHORIZE_WITH_SELECTORS} is on, which these policies "
                "need, is not visible in the API server's metrics",
                "see whether its flags turn it off",
                EDIT_API_SERVER,
            )
        ]
    if on:
        return []
    return [failed(problem, "upgrade the API server, or hold no lists", EDIT_API_SERVER)]


async def _without_configuration(cluster: Cluster, names: str, again: str) -> list[Finding]:
    servers = await api_servers(cluster)
    without = [name for name, command in servers.items() if not values(command, _FLAG)]
    if not without:
        return []
    return [
        failed(
            f"{some(without)}: without {_FLAG}, nobody is asked about reads of {names}",
            _INSTALL,
            again,
        )
    ]


# By asking.


@dataclass(frozen=True, slots=True)
class _Probe:
    """A read that a policy refuses, as a SubjectAccessReview asks for it.

    Attributes:
        user: who would send it.
        asked: the request.
        granted: whether RBAC allows it.
    """

    user: User
    asked: Permission
    granted: bool


async def _probed(cluster: Cluster, held: Sequence[Agent], again: str) -> list[Finding]:
    """Return what becomes of a read of each agent that its policy refuses."""
    rbac = await read_rbac(cluster)
    agents = cluster.options.agents.agents
    modes = Modes(cluster.options.expected_mode, by_agent=agents.modes())
    found = []
    for agent in held:
        who = f"agent {agent.name!r}"
        if modes.of(f"{RULE_PREFIX}{agent.name}/{READ}") != ENFORCE:
            found.append(await _counted(cluster, who))
            continue
        probes = [one for user in users_of(agent) if (one := _probe(agents, agent, user, rbac))]
        if not probes:
            found.append(passed(f"{who}: its policy refuses no read"))
        for probe in probes:
            status = await review(cluster, probe.user.name, probe.asked, sorted(probe.user.groups))
            found.append(_answered(who, agent, probe, status, again))
    return found


async def _counted(cluster: Cluster, who: str) -> Finding:
    """Return whether the API server counts an authorizer for agents, whatever that denies."""
    text = await exposition.of_api_server(cluster)
    for one in exposition.samples(text, _COUNTS):
        if is_for_agents(one.labels.get("name", "")):
            return passed(f"{who}: the API server asks about its reads, which are not enforced")
    return unknown(
        f"{who}: its reads are not enforced, so that no answer shows whether the API server asks "
        "about them, and its metrics do not tell",
        "check its AuthorizationConfiguration",
        _SEE,
    )


def _probe(agents: Agents, agent: Agent, user: User, rbac: RBAC) -> _Probe | None:
    """Return a read that the policy refuses, if there is one: best one that RBAC allows."""
    if account_of(user.name) is None:
        # Of a user whose name tells the node, that of no node.
        user = User(f"{user.name}{_NAME}", user.groups)
    found = None
    for asked in _candidates(agent, user, rbac):
        if not _is_refused(agents, user, asked):
            continue
        request = Request(
            asked.verb, asked.group, asked.resource, namespace=asked.namespace, name=asked.name
        )
        granted = rbac.allows(user, request) is not None
        if granted:
            return _Probe(user, asked, granted)
        found = found or _Probe(user, asked, granted)
    return found


def _candidates(agent: Agent, user: User, rbac: RBAC) -> Iterator[Permission]:
    """Yield reads of an agent: of what the policy names, of what RBAC grants, of anything."""
    for entry in agent.read or ():
        for group in entry.api_groups:
            for resource in entry.resources:
                for verb in entry.verbs:
                    for namespace in entry.namespaces or ("",):
                        for name in entry.names or (_NAME,):
                            yield _read(verb, group, resource, name, namespace)
    for grant in rbac.grants(user):
        rule = grant.rule
        for group in rule.groups:
            for resource in rule.resources:
                for asked in ("get", "list"):
                    if ALL not in (group, resource) and {asked, ALL} & set(rule.verbs):
                        name = rule.names[0] if rule.names else _NAME
                        yield _read(asked, group, resource, name, grant.namespace)
    yield _read("get", _UNKNOWN_GROUP, "nothings", _NAME, "")


def _read(verb: str, group: str, resource: str, name: str, namespace: str) -> Permission:
    return Permission(verb, group, resource, name if verb == "get" else "", namespace)


def _is_refused(agents: Agents, user: User, asked: Permission) -> bool:
    agent = agents.find(user.name, user.groups)
    if agent is None or "/" in asked.resource:
        return False
    request = Asked(
        agent=agent,
        user=Requester(user.name, "", msgspec.Raw(b"null")),
        verb=asked.verb,
        group=asked.group,
        resource=asked.resource,
        namespace=asked.namespace,
        name=asked.name,
    )
    return reads.evaluate(request, MemoryListers([])) is not None


def _answered(
    who: str, agent: Agent, probe: _Probe, status: Mapping[str, Any], again: str
) -> Finding:
    """Return what the answer to a read says that the policy refuses."""
    reason = str(status.get("reason") or "")
    if status.get("denied"):
        if f"agent {agent.name!r}" in reason:
            how = "before RBAC allows them" if probe.granted else "and RBAC allows none"
            return passed(f"{who}: reads that its policy refuses are denied, {how}")
        if error := status.get("evaluationError"):
            return failed(
                f"{who}: the API server gets no answer about its reads, and denies them: {error}",
                "see why",
                _LOGS,
            )
        return unknown(
            f"{who}: something else denied what its policy refuses: {reason or 'it does not say'}",
            "see what the API server asks",
            EDIT_API_SERVER,
        )
    if status.get("allowed"):
        return failed(
            f"{who}: its policy refuses to {probe.asked}, but {reason or 'something'} allows it: "
            "the authorizer is not asked before RBAC, or does not have this policy",
            _INSTALL,
            again,
        )
    return failed(
        f"{who}: its policy refuses to {probe.asked}, but nobody denies it: once RBAC allows that, "
        "nothing holds it",
        _INSTALL,
        again,
    )


# By the file.


def check_file(file: Path, held: Sequence[Agent], minor: int, again: str) -> Iterator[Finding]:
    """Yield what is wrong with the authorizers for agents of an AuthorizationConfiguration.

    Args:
        file: copy of the API server's.
        held: agents whose reads are held.
        minor: Kubernetes version of the API server, 1.``minor``.
        again: the command that renders the file.
    """
    try:
        authorizers = read_authorizers(file)
    except ConfigurationError as error:
        yield failed(str(error), "render it again", again)
        return
    problems = list(_problems(authorizers, held, minor))
    for what, is_grave in problems:
        make = failed if is_grave else warned
        yield make(f"{file}: {what}", "render it again", again)
    if not problems:
        yield passed(f"{file}: it asks about these agents, before RBAC, and denies without answer")


def _problems(
    authorizers: Sequence[Authorizer], held: Sequence[Agent], minor: int
) -> Iterator[tuple[str, bool]]:
    """Yield what is wrong, and whether agents are not held for it."""
    ours = [(at, one) for at, one in enumerate(authorizers) if one.is_for_agents]
    wanted = read_conditions(held, minor)
    given = [_expressions(one) for _, one in ours]
    if not ours:
        yield "no authorizer asks about agents, so that nobody holds their reads", True
        return
    if sorted(given) != sorted([one] for one in wanted):
        names = ", ".join(one.name for _, one in ours)
        yield f"{names}: matchConditions are not those that are rendered for these policies", True
    for at, one in ours:
        policy = one.webhook.get("failurePolicy")
        if policy != "Deny":
            yield (
                f"{one.name}: failurePolicy is {policy!r}, so that RBAC allows everything while "
                "nobody answers",
                True,
            )
        for before in authorizers[:at]:
            # The Node authorizer has no opinion on others than nodes.
            if before.is_for_agents or before.kind == "Node":
                continue
            allows = before.kind != "Webhook"
            what = "allows" if allows else "may allow"
            yield f"{before.name} ({before.kind}) precedes {one.name}, and {what} first", allows


def _expressions(authorizer: Authorizer) -> list[str]:
    return [str(one.get("expression")) for one in authorizer.webhook.get("matchConditions") or ()]


CHECK = Check("agent reads", "Is the authorizer asked about agents, before RBAC?", check)
