"""What holds an agent's rights to its node: a policy, or impersonation of the node."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from noderestrict.agents.file import Agent, Mode, Operation, Plain, Read, Unnamed, Write
from noderestrict.graph.edges import Vertex
from noderestrict.graph.rules import Access, authorize
from noderestrict.policy.features import defaults
from noderestrict.policy.releases import LATEST_MINOR
from noderestrict.rbac.grants import Grant
from noderestrict.rbac.rights import EVERYTHING, GrantedRight, parts_of
from noderestrict.rbac.rules import ALL, Request

#: Constrained impersonation is on from this version on.
IMPERSONATION_SINCE = 36
_AS_NODE = "impersonate:associated-node"
_ON_NODE = "impersonate-on:associated-node:"
_OPERATIONS = {
    "create": Operation.CREATE,
    "update": Operation.UPDATE,
    "patch": Operation.UPDATE,
    "delete": Operation.DELETE,
    "deletecollection": Operation.DELETE,
}
_READS = ("get", "list", "watch")
_CONNECTED = ("exec", "attach", "portforward", "proxy")
#: The writes without which a right of no API verb leads nowhere.
_THROUGH: Mapping[str, Collection[tuple[str, str]]] = {
    "roles/escalate": [
        (verb, f"{resource}.rbac.authorization.k8s.io")
        for resource in ("clusterroles", "roles", "clusterrolebindings", "rolebindings")
        for verb in ("create", "update")
    ],
    "certificates/nodeclient": [("create", "certificatesigningrequests.certificates.k8s.io")],
    "certificates/sign": [
        ("update", f"certificatesigningrequests.certificates.k8s.io/{subresource}")
        for subresource in ("approval", "status")
    ],
}
#: No admission webhook sees these: the request is another user's, or about what turns admission on.
UNSEEN = ("impersonate", "admission/")
#: The kubelet's request differs from what an agent means by it.
_NOT_AS_NODE = {
    ("create", "pods"): "but for mirror pods",
    ("list", "secrets"): "but for one by name",
    ("watch", "secrets"): "but for one by name",
    ("list", "configmaps"): "but for one by name",
    ("watch", "configmaps"): "but for one by name",
}


def policy_of(account: str, agents: Iterable[Agent]) -> Agent | None:
    """Return the agent of a policy that a service account is, None if there is none."""
    for agent in agents:
        if any(user.service_account == account for user in agent.users):
            return agent
    return None


def holds(agent: Agent, right: GrantedRight) -> bool:
    """Return whether a policy holds all of a right to the node, or refuses it."""
    if agent.mode not in (None, Mode.ENFORCE) or right.right is EVERYTHING:
        return False
    if right.right.id.startswith(UNSEEN):
        return False
    asked = _THROUGH.get(right.right.id) or {(verb, text) for verb, text, _ in right.requests}
    return not any(_is_open(agent, *one) for one in asked)


def _is_open(agent: Agent, verb: str, text: str) -> bool:
    """Return whether a policy lets a request pass, whichever node the object belongs to."""
    group, plural, sub_resource = parts_of(text)
    resource = f"{plural}/{sub_resource}" if sub_resource else plural
    connects = sub_resource in _CONNECTED
    if connects or verb in _OPERATIONS:
        if connects and (group, plural) == ("", "nodes") and agent.read is None:
            # Kubelets ask the authorizer alone.
            return True
        operation = Operation.CONNECT if connects else _OPERATIONS[verb]
        writes = [
            one
            for one in agent.write
            if operation in one.operations and _names(one, group, resource)
        ]
        return _any(writes, unnamed=agent.unnamed_writes)
    if verb in _READS:
        if agent.read is None:
            return True
        reads = [one for one in agent.read if verb in one.verbs and _names(one, group, resource)]
        return _any(reads, unnamed=agent.unnamed_reads)
    # Such as attest, which leads nowhere without a write.
    return False


def _any(entries: Sequence[Write | Read], *, unnamed: Unnamed) -> bool:
    if not entries:
        return unnamed is Unnamed.ALLOW
    # Entries for some objects leave the others to what is unnamed.
    partial = all(one.names or one.namespaces for one in entries)
    return any(one.relation is Plain.ANY for one in entries) or (
        partial and unnamed is Unnamed.ALLOW
    )


def _names(entry: Write | Read, group: str, resource: str) -> bool:
    whole = f"{resource.partition('/')[0]}/*"
    wanted = (resource, whole) if "/" in resource else (resource,)
    return group in entry.api_groups and any(one in wanted for one in entry.resources)


def unnamed_writes(agent: Agent, grants: Iterable[Grant]) -> list[str]:
    """Return the writes of a role that no entry names, and that pass therefore.

    Args:
        agent: of a policy; one whose unnamed writes are refused has none.
        grants: what its users may do.
    """
    if agent.unnamed_writes is Unnamed.REFUSE:
        return []
    found: dict[str, None] = {}
    for rule in (grant.rule for grant in grants):
        for verb, operation in _OPERATIONS.items():
            if ALL not in rule.verbs and verb not in rule.verbs:
                continue
            named = [one for one in agent.write if operation in one.operations]
            for group in rule.groups:
                for resource in rule.resources:
                    if not any(_names(one, group, resource) for one in named):
                        found[f"{verb} {_with_group(resource, group)}"] = None
    return sorted(found)


def impersonates(grants: Iterable[Grant]) -> tuple[str, ...]:
    """Return what a user may do as the node that its token names, none if it may not be that.

    A wildcard does not count: who may do everything was not meant to be held.
    """
    named = [one for one in grants if ALL not in one.rule.verbs]
    request = Request(_AS_NODE, "authentication.k8s.io", "nodes", name=ALL)
    if not any(one.namespace == "" and one.rule.allows(request) for one in named):
        return ()
    return tuple(
        sorted(
            {
                f"{verb.removeprefix(_ON_NODE)} {_with_group(resource, group)}"
                for one in named
                for verb in one.rule.verbs
                if verb.startswith(_ON_NODE)
                for resource in one.rule.resources
                for group in one.rule.groups
            }
        )
    )


def _with_group(resource: str, group: str) -> str:
    return f"{resource}.{group}" if group else resource


class _Related:
    """A graph in which everything belongs to the node."""

    def reaches(self, node: str, vertex: Vertex) -> bool:  # noqa: ARG002 (the interface)
        """Return True."""
        return True


def kubelet_lacks(requests: Iterable[tuple[str, str, str]], minor: int | None) -> Iterator[str]:
    """Yield which requests a kubelet may not make even for what belongs to its node.

    Args:
        requests: verb, resource as the table of rights writes it, and namespace, "" for all.
        minor: of the API server, None if it is not known.
    """
    gates = defaults(LATEST_MINOR if minor is None else min(minor, LATEST_MINOR))
    for verb, resource, namespace in requests:
        where = f" in namespace {namespace}" if namespace else ""
        if but := _NOT_AS_NODE.get((verb, resource)):
            yield f"{verb} {resource}{where}, {but}"
        elif not any(
            authorize(one, _Related(), gates).allowed
            for one in _most_favourable(verb, *parts_of(resource), namespace)
        ):
            yield f"{verb} {resource}{where}"


def _most_favourable(
    verb: str, group: str, resource: str, sub_resource: str, namespace: str
) -> Iterator[Access]:
    node = "n"
    for one in (namespace,) if namespace else ("", "kube-node-lease"):
        yield Access(node, verb, group, resource, sub_resource, one, node, frozenset((node,)))
