"""What would close a path."""

from collections.abc import Iterator, Sequence
from enum import StrEnum

from noderestrict.api.resources import qualified
from noderestrict.exposure.findings import Remedy, Thing
from noderestrict.exposure.network import ASSUMED, NODE_AUTHORIZER, Walked
from noderestrict.exposure.steps import BOOTSTRAP, UNHELD, By, Use
from noderestrict.exposure.world import World
from noderestrict.rbac.rights import EVERYTHING
from noderestrict.survey.holding import IMPERSONATION_SINCE, UNSEEN, kubelet_lacks


class Do(StrEnum):
    """What closes a path."""

    APART = "keep-off"
    DELETE = "delete-secret"
    ADMISSION = "admission"
    AUTHORIZER = "authorizer"
    UNBIND = "remove-binding"
    POLICY = "agent-policy"
    IMPERSONATION = "impersonation"
    NARROW = "narrow-role"
    PROTECT = "protect"
    MOVE = "move-pod"


def told(remedy: Remedy) -> str:
    """Return a remedy in words."""
    what = qualified(remedy.to.namespace, remedy.to.name) if remedy.to else ""
    kind = remedy.to.kind if remedy.to else ""
    binding = remedy.binding
    granted = f"{binding.kind} {qualified(binding.namespace, binding.name)}" if binding else ""
    match Do(remedy.by):
        case Do.APART:
            return "keep all else off it: whoever has a control plane has the cluster"
        case Do.DELETE:
            return f"delete Secret {what}: its token does not expire"
        case Do.ADMISSION:
            return "the admission half, of noderestrict or in-tree"
        case Do.AUTHORIZER:
            return "the authorizer half, of noderestrict or in-tree"
        case Do.UNBIND:
            return f"remove {granted}: the authorizer half grants what kubelets need"
        case Do.POLICY:
            return f"an agent policy for {what}"
        case Do.IMPERSONATION:
            return f"constrained impersonation in {what}"
        case Do.NARROW:
            return f"narrow {kind} {what}, which {granted} grants"
        case Do.PROTECT:
            return "guard the registration with noderestrict render protection"
        case Do.MOVE:
            return f"move pod {what} to nodes of its own"


class Remedies:
    """Tells what closes paths in a cluster.

    Args:
        world: the cluster.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._agents = world.agents

    def of(self, path: Sequence[Walked]) -> tuple[Remedy, ...]:
        """Return what would close a path, by its first step that can be."""
        pod = next((edge.end for _, edge in path if edge.by is By.RUNS), None)
        for start, edge in path:
            if edge.by is By.CONTROL_PLANE and start[0] == "nodes" and start == path[0][0]:
                return (Remedy(Do.APART),)
            if edge.by is By.HOLDS and edge.end != BOOTSTRAP:
                return (Remedy(Do.DELETE, Thing(*start)),)
            if edge.by is not By.RIGHT or edge.use is None or not edge.use.rights:
                continue
            kind, namespace, name = start
            if kind == "kubelets":
                return tuple(_of_kubelet(edge.use))
            found = list(self._of_account(namespace, name, edge.use)) if name else []
            if edge.end == UNHELD:
                found.append(Remedy(Do.PROTECT))
            if pod is not None and (namespace, name) not in self._agents:
                found.append(Remedy(Do.MOVE, Thing(*pod)))
            return tuple(found)
        return ()

    def _of_account(self, namespace: str, name: str, use: Use) -> Iterator[Remedy]:
        account = Thing("serviceaccounts", namespace, name)
        right = use.rights[0]
        if (namespace, name) in self._agents and right != EVERYTHING.id:
            if not right.startswith(UNSEEN):
                yield Remedy(Do.POLICY, account)
            asked = [
                (one.verb, _written(one.group, one.combined), one.namespace) for one in use.requests
            ]
            minor = self._world.minor
            has_it = minor is None or minor >= IMPERSONATION_SINCE
            if has_it and not any(kubelet_lacks(asked, minor)):
                yield Remedy(Do.IMPERSONATION, account)
        grant = use.grants[0]
        yield Remedy(Do.NARROW, Thing(*grant.role), Thing(*grant.binding))


def _of_kubelet(use: Use) -> Iterator[Remedy]:
    grant = use.grants[0]
    if grant.binding == NODE_AUTHORIZER:
        yield Remedy(Do.ADMISSION)
    elif grant.binding == ASSUMED:
        yield Remedy(Do.AUTHORIZER)
    else:
        yield Remedy(Do.UNBIND, None, Thing(*grant.binding))


def _written(group: str, combined: str) -> str:
    resource, slash, sub_resource = combined.partition("/")
    return f"{resource}.{group}{slash}{sub_resource}" if group else combined
