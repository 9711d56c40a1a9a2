"""Survey a cluster: who runs on every node, and what a stolen node would get with it."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from noderestrict.agents.file import Agent
from noderestrict.api.resources import qualified
from noderestrict.rbac.grants import RBAC, Grant, aggregated
from noderestrict.rbac.rights import EVERYTHING, READ, RIGHTS, WRITE, GrantedRight, Severity, held
from noderestrict.rbac.rules import ALL
from noderestrict.rbac.subjects import service_account
from noderestrict.survey.accounts import Account, accounts, static_pods
from noderestrict.survey.findings import (
    NONE,
    Findings,
    FoundAgent,
    FoundRight,
    FoundStaticPod,
    OtherAccess,
)
from noderestrict.survey.holding import (
    IMPERSONATION_SINCE,
    holds,
    impersonates,
    kubelet_lacks,
    policy_of,
)
from noderestrict.survey.objects import Objects

#: They ask, and change nothing.
_ASKED = ("authentication.k8s.io", "authorization.k8s.io")
_SEVERITIES = ("critical", "high", "medium", "low")
_NAMED = 3


def survey(objects: Objects, agents: Sequence[Agent] = ()) -> Findings:
    """Return what the service accounts of DaemonSets may do beyond their node, worst first.

    Args:
        objects: that were read.
        agents: of policies that hold some of them.
    """
    read = objects.by_resource
    rbac = RBAC.of(
        aggregated([*read["clusterroles"], *read["roles"]]),
        [*read["clusterrolebindings"], *read["rolebindings"]],
    )
    pods = read["pods"]
    found = [
        _agent(account, rbac, agents, objects.minor)
        for account in accounts(read["daemonsets"], pods)
    ]
    return Findings(
        kubernetes="" if objects.minor is None else f"1.{objects.minor}",
        agents=tuple(sorted(found, key=_rank)),
        static_pods=tuple(
            FoundStaticPod(one.name, tuple(sorted(one.nodes)), tuple(sorted(one.kubeconfigs)))
            for one in static_pods(pods)
        ),
        not_seen=tuple(objects.not_seen),
        dangling=tuple(f"{binding} → {role}" for binding, role in rbac.dangling),
    )


def _rank(agent: FoundAgent) -> tuple[object, ...]:
    counts = Counter(right.severity for right in agent.open)
    return (*(-counts[one] for one in _SEVERITIES), -agent.nodes, agent.service_account)


def _agent(account: Account, rbac: RBAC, agents: Sequence[Agent], minor: int | None) -> FoundAgent:
    name = qualified(account.namespace, account.name)
    grants = rbac.grants(service_account(account.namespace, account.name))
    policy = policy_of(name, agents)
    rights = held(grants)
    kept = {one.right.id for one in rights if policy is not None and holds(policy, one)}
    by_policy = f"policy {policy.name}" if policy is not None else ""
    opened = [one for one in rights if one.right.id not in kept]
    has_impersonation = minor is None or minor >= IMPERSONATION_SINCE
    as_node = impersonates(grants) if has_impersonation else ()
    holders = []
    if policy is not None:
        mode = "" if policy.mode is None else f" ({policy.mode})"
        holders.append(f"{by_policy}{mode}")
    if as_node:
        holders.append("impersonation")
    writes, reads = _others(grants, WRITE), _others(grants, READ)
    return FoundAgent(
        service_account=name,
        daemon_sets=tuple(sorted(account.daemon_sets)),
        nodes=len(account.nodes) or account.wanted,
        severity=str(max(one.severity for one in opened)) if opened else NONE,
        held_by=tuple(holders),
        rights=tuple(_right(one, by_policy if one.right.id in kept else "") for one in rights),
        writes=writes,
        reads=reads,
        impersonates=as_node,
        remedy=_remedy(opened, writes, minor, has_policy=policy is not None),
    )


def _right(one: GrantedRight, held_by: str) -> FoundRight:
    return FoundRight(
        right=one.right.id,
        severity=str(one.severity),
        verbs=one.verbs,
        resources=one.resources,
        why=one.right.why,
        namespaces=one.namespaces,
        names=one.names,
        from_=one.sources,
        held_by=held_by,
    )


def _others(grants: Iterable[Grant], verbs: Sequence[str]) -> tuple[OtherAccess, ...]:
    """Return what some verbs are granted on that no right of the table speaks of."""
    found: dict[tuple[str, str, tuple[str, ...]], set[str]] = defaultdict(set)
    for grant in grants:
        rule = grant.rule
        if rule.is_everything:
            continue
        had = [verb for verb in verbs if verb in rule.verbs or ALL in rule.verbs]
        for group in rule.groups:
            for resource in rule.resources:
                plural, slash, sub_resource = resource.partition("/")
                shown = f"{plural}.{group}{slash}{sub_resource}" if group else resource
                new = set(had) - _IN_TABLE.get(shown, frozenset())
                if new and group not in _ASKED:
                    found[shown, grant.namespace, rule.names] |= new
    return tuple(
        OtherAccess(
            resource,
            tuple(verb for verb in verbs if verb in found[resource, namespace, names]),
            (namespace,) if namespace else (),
            names,
        )
        for resource, namespace, names in sorted(found)
    )


def _in_table() -> Mapping[str, frozenset[str]]:
    """Return the verbs on each resource that rights of the table are about."""
    found: dict[str, frozenset[str]] = {}
    for right in RIGHTS:
        for resource in right.resources:
            found[resource] = found.get(resource, frozenset()).union(right.verbs)
    return found


_IN_TABLE = _in_table()


def _remedy(
    opened: Sequence[GrantedRight],
    writes: Sequence[OtherAccess],
    minor: int | None,
    *,
    has_policy: bool,
) -> str:
    """Return what would hold the rights that are open."""
    if all(one.severity is Severity.LOW for one in opened):
        return ""
    if has_policy:
        return "its policy leaves these rights open: narrow it, or the roles"
    if minor is not None and minor < IMPERSONATION_SINCE:
        return f"a policy: Kubernetes 1.{minor} has no constrained impersonation"
    if any(one.right is EVERYTHING for one in opened):
        return "narrow its roles first, which allow everything"
    asked = {request for one in opened for request in one.requests}
    asked.update(
        (verb, other.resource, "".join(other.namespaces))
        for other in writes
        for verb in other.verbs
    )
    lacks = list(kubelet_lacks(sorted(asked), minor))
    if not lacks:
        since = "" if minor is not None else f", from Kubernetes 1.{IMPERSONATION_SINCE} on"
        return f"constrained impersonation would do{since}: a kubelet has all of these rights"
    more = f"; and {len(lacks) - _NAMED} more" if len(lacks) > _NAMED else ""
    return f"a policy: a kubelet may not {'; '.join(lacks[:_NAMED])}{more}"
