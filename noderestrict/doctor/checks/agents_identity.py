"""Who else can act as an agent of any node?

A policy believes the API server about which pod a token is bound to. So whoever gets a token of
such a pod, or may say that it has one, is the agent of that pod's node.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from noderestrict.agents.file import Agent, Source
from noderestrict.api.resources import qualified
from noderestrict.doctor.agent_policies import accounts_of
from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import Finding, failed, passed, warned
from noderestrict.doctor.permissions import describing, read_rbac
from noderestrict.doctor.trust import some
from noderestrict.doctor.workloads import account_of, daemon_sets
from noderestrict.policy.identity import NODES_GROUP
from noderestrict.rbac import subjects
from noderestrict.rbac.grants import RBAC, Grant
from noderestrict.rbac.rights import EVERYTHING, RIGHTS, GrantedRight, Part, held
from noderestrict.rbac.subjects import AUTHENTICATED, SERVICE_ACCOUNTS, UNAUTHENTICATED, User
from noderestrict.survey.holding import holds, policy_of

_TOKEN, _IMPERSONATE = "serviceaccounts/token", "impersonate"
#: What somebody can do by which right of the table.
_WAYS = {
    EVERYTHING.id: "do everything, and so run pods as",
    _TOKEN: "make tokens for pods of",
    "pods/create": "run pods as",
    "workloads/write": "run pods as",
    "pods/exec": "enter pods of",
    "pods/image": "enter pods of",
    "pods/ephemeralcontainers": "enter pods of",
    "nodes/proxy": "enter pods of",
    _IMPERSONATE: "impersonate",
}
_NO_NODE = "impersonate, without a node,"
_RIGHTS = [one for one in RIGHTS if one.id in _WAYS]
#: What the rules for nodes hold.
_HELD_OF_NODES = (_TOKEN, "pods/create")
_EVERYBODY = (AUTHENTICATED, UNAUTHENTICATED, SERVICE_ACCOUNTS)
_EXTRA = "authentication.kubernetes.io/"
#: What somebody must claim, by where the policy takes the node from.
_CLAIMS = {
    Source.TOKEN: ("node-name", "pod-name", "pod-uid"),
    Source.POD: ("pod-name", "pod-uid"),
}
_CONTROLLERS, _SYSTEM = "system:controller:", "kube-system"
_COMPONENTS = ("system:kube-controller-manager", "system:kube-scheduler")


@dataclass(frozen=True, slots=True)
class _Holder:
    """Somebody whom a binding names.

    Attributes:
        title: kind and name.
        direct: has what bindings grant to this name alone.
        user: has all, by groups too.
        account: NAMESPACE/NAME of a service account, "" for others.
    """

    title: str
    direct: User
    user: User
    account: str = ""


@dataclass(slots=True)
class _Way:
    """How somebody can act as agents.

    Attributes:
        agents: names.
        grants: of the right.
    """

    agents: dict[str, None] = field(default_factory=dict)
    grants: dict[Grant, None] = field(default_factory=dict)


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield who can act as an agent of any node; those who may do everything aside."""
    rbac = await read_rbac(cluster)
    running = {account_of(one) for one in await daemon_sets(cluster)}
    agents = cluster.options.agents.agents.all
    any_found = False
    for holder in _holders(rbac):
        on_nodes = _is_on_nodes(holder, running)
        grants = [one for one in rbac.grants(holder.direct) if not _is_of_kubernetes(holder, one)]
        if not on_nodes and any(one.rule.is_everything and not one.namespace for one in grants):
            continue
        rights = _unheld(holder, held(grants, _RIGHTS), agents)
        ways = _ways(rbac, holder, rights, agents)
        if not ways:
            continue
        any_found = True
        yield _finding(holder, ways, on_nodes=on_nodes)
    if not any_found:
        yield passed(
            "but for administrators and Kubernetes itself, RBAC lets nobody act as an agent by "
            "tokens, pods, workloads or impersonation"
        )


def _holders(rbac: RBAC) -> Iterator[_Holder]:
    for name in rbac.users():
        account = subjects.account_of(name)
        if account is None:
            yield _Holder(f"User {name}", User(name), User(name, frozenset((AUTHENTICATED,))))
        else:
            shown = qualified(*account)
            user = subjects.service_account(*account)
            yield _Holder(f"ServiceAccount {shown}", User(name), user, shown)
    for name in rbac.groups():
        user = User("", frozenset((name,)))
        yield _Holder(f"Group {name}", user, User("", frozenset((name, AUTHENTICATED))))


def _is_on_nodes(holder: _Holder, running: set[str]) -> bool:
    """Tell whether everybody who takes a node has the holder's rights."""
    if holder.account:
        return holder.account in running
    spaces = {f"{SERVICE_ACCOUNTS}:{one.partition('/')[0]}" for one in running}
    return not holder.direct.groups.isdisjoint((*_EVERYBODY, NODES_GROUP, *spaces))


def _is_of_kubernetes(holder: _Holder, grant: Grant) -> bool:
    """Tell whether a grant is one that every API server makes for Kubernetes' own controllers."""
    namespace, _, name = holder.account.partition("/")
    own = f"{_CONTROLLERS}{name}" if namespace == _SYSTEM else holder.direct.name
    known = own.startswith(_CONTROLLERS) if holder.account else own in _COMPONENTS
    return known and grant.binding.name == grant.role.name == own


def _unheld(
    holder: _Holder, rights: Sequence[GrantedRight], agents: Sequence[Agent]
) -> list[GrantedRight]:
    """Return the rights that neither the rules for nodes nor a policy hold."""
    if NODES_GROUP in holder.direct.groups:
        return [one for one in rights if one.right.id not in _HELD_OF_NODES]
    policy = policy_of(holder.account, agents) if holder.account else None
    if policy is None:
        return list(rights)
    return [one for one in rights if not holds(replace(policy, mode=None), one)]


def _ways(
    rbac: RBAC, holder: _Holder, rights: Sequence[GrantedRight], agents: Sequence[Agent]
) -> Mapping[str, _Way]:
    """Return how a holder can act as which agents."""
    found: dict[str, _Way] = {}
    for right in rights:
        for agent in agents:
            for namespace, name in accounts_of(agent):
                for part in right.parts:
                    if not _is_about(right.right.id, part, namespace, name):
                        continue
                    how = _WAYS[right.right.id]
                    if right.right.id == _IMPERSONATE and not _may_claim(rbac, holder, agent):
                        how = _NO_NODE
                    way = found.setdefault(how, _Way())
                    way.agents[agent.name] = None
                    way.grants[part.grant] = None
    return found


def _is_about(right: str, part: Part, namespace: str, name: str) -> bool:
    """Tell whether a part of a right is about an account, or the pods in its namespace."""
    if part.grant.namespace not in ("", namespace):
        return False
    if right == _IMPERSONATE and part.resource != "serviceaccounts":
        return False
    return right not in (_TOKEN, _IMPERSONATE) or not part.names or name in part.names


def _may_claim(rbac: RBAC, holder: _Holder, agent: Agent) -> bool:
    """Tell whether somebody may claim to be a pod of the agent on some node."""
    rules = [one.rule for one in rbac.grants(holder.user, "")]

    def may(key: str) -> bool:
        return any(
            one.verbs_of(("impersonate",), "authentication.k8s.io", "userextras", f"{_EXTRA}{key}")
            for one in rules
        )

    sources = agent.node or (Source.TOKEN, Source.POD)
    return any(all(map(may, _CLAIMS[one])) for one in sources)


def _finding(holder: _Holder, ways: Mapping[str, _Way], *, on_nodes: bool) -> Finding:
    told = []
    for how, way in ways.items():
        sources = some(list(dict.fromkeys(one.source for one in way.grants)))
        told.append(f"{how} {some(list(way.agents))} ({sources})")
    so = "do what is held to no node" if ways.keys() == {_NO_NODE} else "be an agent of any node"
    text = f"{holder.title} can {', and '.join(told)}: it can {so}"
    command = describing(grant.binding for way in ways.values() for grant in way.grants)
    if on_nodes:
        return failed(
            f"{text}, as can whoever takes a node",
            "take these rights away, or confine them to other namespaces",
            command,
        )
    return warned(text, "see whether it needs these rights in that namespace", command)


CHECK = Check("agent identity", "Who else can act as an agent of any node?", check)
