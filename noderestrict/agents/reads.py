"""Judge one read of an agent: it is refused, or left to RBAC.

A list or a watch shows what its selectors let through: it is held to the node if one of them
demands that. A webhook gets them from Kubernetes 1.32 on, or by gate from 1.31.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from noderestrict.agents.agents import NODE, READ, UNNAMED_READ, Agents, Entry, Held
from noderestrict.agents.evaluate import unknown_node
from noderestrict.agents.file import RelationKind, kind_of
from noderestrict.agents.identity import Known, Unknown, User, node_of
from noderestrict.api.resources import qualified
from noderestrict.policy.decision import Denied, forbidden
from noderestrict.policy.features import AUTHORIZE_WITH_SELECTORS
from noderestrict.policy.listers import Listers

VERBS = frozenset(("get", "list", "watch"))
#: Subresources that are opened, though with the verb get: admission judges that as CONNECT.
CONNECTED = frozenset(("attach", "exec", "portforward", "proxy"))
#: Subresources of Nodes that kubelets serve themselves: they ask authorizers, and no admission.
KUBELET_API = frozenset(
    ("checkpoint", "configz", "healthz", "log", "metrics", "pods", "proxy", "spec", "stats")
)
#: Keys of which a selector demands one value, with that value.
Selectors = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of an agent, as a SubjectAccessReview tells it.

    Attributes:
        agent: that the user is.
        user: who makes the request.
        verb: of the request.
        group: API group, "" for the core group.
        resource: plural.
        sub_resource: "" for none.
        namespace: "" for none.
        name: "" for none; of a list or watch, the one that a field selector demands.
        fields: of the field selector.
        labels: of the label selector.
    """

    agent: Held
    user: User
    verb: str
    group: str
    resource: str
    sub_resource: str = ""
    namespace: str = ""
    name: str = ""
    fields: Selectors = frozenset()
    labels: Selectors = frozenset()

    def __str__(self) -> str:
        """Return verb, resource and object as people write them."""
        sub = f"/{self.sub_resource}" if self.sub_resource else ""
        where = qualified(self.namespace, self.name)
        return f"{self.verb} {self.resource}{sub} {where}".rstrip()


@dataclass(frozen=True, slots=True)
class Reach:
    """Whether a pod on the node refers to the object decides.

    Attributes:
        node: the agent's.
        otherwise: the denial if none does.
    """

    node: str
    otherwise: Denied


def evaluate(
    asked: Asked, listers: Listers, skipped: Collection[str] = frozenset()
) -> Denied | Reach | None:
    """Return why a read is refused, what decides on it, or None if it is left to RBAC.

    Args:
        asked: to judge.
        listers: answer lookups.
        skipped: ids of rules to ignore.

    Raises:
        LookupUnavailableError: a lookup failed.
    """
    agent = asked.agent
    named = _named(asked)
    if agent.reads is None or named is None:
        return None
    entries = [
        entry
        for entry in named
        if (not entry.namespaces or asked.namespace in entry.namespaces)
        and (not entry.names or asked.name in entry.names)
    ]
    if not entries:
        opens = opens_kubelet(asked)
        rule = agent.rule(UNNAMED_READ)
        if (agent.unnamed_writes if opens else agent.unnamed_reads) or rule in skipped:
            return None
        where = "write, with operation CONNECT" if opens else "read"
        return forbidden(
            f"{asked}: the policy of agent {agent.name!r} does not name it; if its work needs "
            f"that, add it to {where}",
            rule=rule,
        )
    if any(entry.kind == RelationKind.ANY for entry in entries):
        return None
    node = node_of(agent, asked.user, listers)
    if isinstance(node, Unknown):
        unknown = unknown_node(agent, f"{asked}: ", node)
        return None if agent.rule(NODE) in skipped else unknown
    rule = agent.rule(READ)
    if rule in skipped:
        return None
    held = [_HELD[entry.kind](entry, asked, node, listers) for entry in entries]
    if None in held:
        return None
    demands = " or ".join(dict.fromkeys(demand for demand in held if demand))
    denied = forbidden(
        f"{asked}: agent {agent.name!r} on {node} may {asked.verb} only {demands}", rule=rule
    )
    if any(entry.kind == RelationKind.REFERENCED for entry in entries) and asked.name:
        return Reach(node.name, denied)
    return denied


def opens_kubelet(asked: Asked) -> bool:
    """Return whether a request to a kubelet does more than read; entries for CONNECT are about it.

    A kubelet asks for verb get, too, before it runs a command.
    """
    return (
        (asked.group, asked.resource) == ("", "nodes")
        and asked.sub_resource in KUBELET_API
        and (asked.sub_resource == "proxy" or asked.verb not in VERBS)
    )


def _named(asked: Asked) -> Sequence[Entry] | None:
    """Return the entries about a request, whatever the object; None if it is not judged here."""
    if opens_kubelet(asked):
        return asked.agent.write_entries("", asked.resource, asked.sub_resource, "CONNECT")
    if asked.verb not in VERBS or asked.sub_resource in CONNECTED:
        return None
    return asked.agent.read_entries(asked.group, asked.resource, asked.sub_resource, asked.verb)


def _own_node(_entry: Entry, asked: Asked, node: Known, _listers: Listers) -> str | None:
    return _with_name(node.name, node.shown, "its own Node", asked)


def _name(entry: Entry, asked: Asked, node: Known, _listers: Listers) -> str | None:
    shown = entry.named(node.shown)
    return _with_name(entry.named(node.name), shown, f"the object named {shown!r}", asked)


def _with_name(wanted: str, shown: str, demand: str, asked: Asked) -> str | None:
    if asked.name == wanted or ("metadata.name", wanted) in asked.fields:
        return None
    if asked.verb not in ("list", "watch"):
        return demand
    return f"{demand}, with field selector metadata.name={shown}"


def _own_pods(_entry: Entry, asked: Asked, node: Known, listers: Listers) -> str | None:
    if ("spec.nodeName", node.name) in asked.fields:
        return None
    if asked.name and asked.namespace:
        pod = listers.pod(asked.namespace, asked.name)
        if pod is not None and pod.node_name == node.name:
            return None
    if asked.verb == "get":
        return "pods on its own node"
    return f"pods on its own node, with field selector spec.nodeName={node.shown}"


def _field(entry: Entry, asked: Asked, node: Known, _listers: Listers) -> str | None:
    key = ".".join(entry.steps)
    return None if (key, node.name) in asked.fields else f"with field selector {key}={node.shown}"


def _label(entry: Entry, asked: Asked, node: Known, _listers: Listers) -> str | None:
    key = entry.label
    return None if (key, node.name) in asked.labels else f"with label selector {key}={node.shown}"


def _referenced(_entry: Entry, _asked: Asked, _node: Known, _listers: Listers) -> str | None:
    return "by name what a pod on its own node refers to"


#: Tells the demand of a relation that does not hold for what is asked; None if it holds.
_HELD: dict[RelationKind, Callable[[Entry, Asked, Known, Listers], str | None]] = {
    RelationKind.OWN_NODE: _own_node,
    RelationKind.OWN_PODS: _own_pods,
    RelationKind.NAME: _name,
    RelationKind.FIELD: _field,
    RelationKind.LABEL: _label,
    RelationKind.REFERENCED: _referenced,
}


def needs_selectors(agents: Agents, features: Mapping[str, bool]) -> str:
    """Return what is wrong with policies in a cluster whose authorizers see no selectors; or "".

    Lists of one object by its name are seen as such by every API server.
    """
    if features[AUTHORIZE_WITH_SELECTORS]:
        return ""
    for agent in agents.all:
        for index, read in enumerate(agent.read or ()):
            kind = kind_of(read.relation)
            if kind in _BY_SELECTOR and {"list", "watch"} & set(read.verbs):
                return (
                    f"agent {agent.name!r}: read[{index}].verbs: the API server tells authorizers "
                    f"no selectors, which lists of {', '.join(read.resources)} with relation "
                    f"{kind.value} need: that takes Kubernetes 1.32, or feature gate "
                    f"{AUTHORIZE_WITH_SELECTORS}"
                )
    return ""


_BY_SELECTOR = (RelationKind.OWN_PODS, RelationKind.FIELD, RelationKind.LABEL)
