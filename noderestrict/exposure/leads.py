"""What the rights of one holder lead to.

The table of rights says what a right gives; here are the conditions, such as a second right that
it takes. Sources: the API server's checks in pkg/registry/rbac, the impersonation filter,
pkg/registry/certificates and pkg/controller/certificates/approver of Kubernetes, and the
kube-aggregator.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from noderestrict.exposure.steps import APPROVAL, BOOTSTRAP, CLUSTER, UNHELD, By, Edge, Use
from noderestrict.exposure.world import SCALED, SYSTEM, Index, World
from noderestrict.graph.edges import Vertex
from noderestrict.policy.identity import NODE_USER_PREFIX, NODES_GROUP
from noderestrict.rbac.grants import Reference
from noderestrict.rbac.rights import ALTER, READ, GrantedRight, Lead, Part, parts_of
from noderestrict.rbac.rules import ALL, Request
from noderestrict.rbac.subjects import account_of

_MASTERS = "system:masters"
_RBAC = "rbac.authorization.k8s.io"
_CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"
_KUBELET_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
_REGISTRATION = "noderestrict"
_WEBHOOKS = "validatingwebhookconfigurations"
_POLICIES = "mutatingadmissionpolicies"
_POLICY_BINDINGS = "mutatingadmissionpolicybindings"
#: Rights to change the image, which a static pod's kubelet takes from its file alone.
_NOT_STATIC = ("pods/image", "pods/ephemeralcontainers")
_API_SERVICES = "apiservices"
#: Whoever answers for one of these has the cluster; an APIService is named ``VERSION.GROUP``.
_TAKING_GROUPS = (
    "", "apps", "batch", "rbac.authorization.k8s.io", "admissionregistration.k8s.io",
    "certificates.k8s.io", "authentication.k8s.io",
)  # fmt: skip
_AUTOSCALERS = "horizontalpodautoscalers"
_SCALING = ("workloads/scale", "autoscalers/write")
_OF_NODES = ("nodes/write", "nodes/status", "nodes/delete")


@dataclass(frozen=True)
class Holder:
    """Somebody with rights.

    Attributes:
        world: the cluster.
        held: rights of the table.
    """

    world: World
    held: Sequence[GrantedRight]

    @cached_property
    def _by_id(self) -> Mapping[str, GrantedRight]:
        return {one.right.id: one for one in self.held}

    def edges(self) -> list[Edge]:
        """Return where the rights lead, each place once."""
        found: dict[tuple[Vertex, str], Edge] = {}
        for held in self.held:
            for lead in held.right.leads:
                for part in held.parts:
                    for edge in _LEADS[lead](self, held.right.id, part):
                        found.setdefault((edge.end, held.right.id), edge)
        return list(found.values())

    def parts(self, right: str) -> Iterable[Part]:
        """Return how a right is held."""
        held = self._by_id.get(right)
        return held.parts if held else ()


_Edges = Iterator[Edge]


def _step(
    right: str, part: Part, end: Vertex, *others: tuple[str, Part, Request],
    verbs: Iterable[str] = (), namespace: str | None = None, name: str = "",
) -> Edge:  # fmt: skip
    """Return a step.

    Args:
        right: id of the right that leads on.
        part: how it is held.
        end: where it leads.
        others: further rights that it takes.
        verbs: that do; any of the part if none are given.
        namespace: of the request; that of the grant if None.
        name: of the object that is asked for.
    """
    verb = next(one for one in part.verbs if not verbs or one in verbs)
    where = part.grant.namespace if namespace is None else namespace
    rights = (right, *(one for one, _, _ in others))
    requests = (asked(part, verb, where, name), *(request for _, _, request in others))
    return Edge(
        end, By.RIGHT, Use(rights, requests, (part.grant, *(p.grant for _, p, _ in others)))
    )


def asked(part: Part, verb: str, namespace: str, name: str = "") -> Request:
    """Return a request that a part of a right allows."""
    group, resource, sub_resource = parts_of(part.resource)
    if part.names and not name:
        name = part.names[0]
    return Request(verb, group, resource, sub_resource, namespace, name)


def _each(right: str, part: Part, kind: str, known: Index, verbs: Sequence[str] = ()) -> _Edges:
    """Yield steps to the objects that a role names, or to all where it holds."""
    where = part.grant.namespace
    if not part.names:
        yield _step(right, part, (kind, where, ""), verbs=verbs)
    for name in part.names:
        for namespace in known.get(name, ()):
            if where in ("", namespace):
                end = kind, namespace, name
                yield _step(right, part, end, verbs=verbs, namespace=namespace, name=name)


def _cluster(holder: Holder, right: str, part: Part) -> _Edges:
    _, resource, _ = parts_of(part.resource)
    if part.grant.namespace:
        yield _step(right, part, ("namespaces", "", part.grant.namespace))
    elif resource == _POLICY_BINDINGS:
        return
    elif resource == _POLICIES and not set(part.verbs).intersection(ALTER):
        # A new policy takes a binding.
        for other in holder.parts(right):
            if parts_of(other.resource)[1] == _POLICY_BINDINGS and "create" in other.verbs:
                request = asked(other, "create", "")
                yield _step(right, part, CLUSTER, (right, other, request))
    elif right != "everything" and part.names and set(part.verbs) == {"create"}:
        return
    elif resource == _API_SERVICES and part.names:
        for name in part.names:
            _, dot, group = name.partition(".")
            if dot and group in _TAKING_GROUPS and set(part.verbs).intersection(ALTER):
                yield _step(right, part, CLUSTER, verbs=ALTER, name=name)
    else:
        yield _step(right, part, CLUSTER)


def _accounts(holder: Holder, right: str, part: Part) -> _Edges:
    if right == "serviceaccounts/token":
        yield from _each(right, part, "serviceaccounts", holder.world.index["serviceaccounts"])
        return
    if right != "secrets/write":
        yield _step(right, part, ("serviceaccounts", part.grant.namespace, ""))
        return
    if "create" not in part.verbs:
        return
    if part.grant.namespace in ("", SYSTEM) and holder.world.bootstrap_user is not None:
        yield _step(right, part, BOOTSTRAP, verbs=("create",), namespace=SYSTEM)
    # Whoever asks for a token Secret must read what the controller puts in it.
    for other_right, verbs in (("secrets/read", READ), (right, ALTER)):
        for other in holder.parts(other_right):
            where = _both(part.grant.namespace, other.grant.namespace)
            verb = next((one for one in other.verbs if one in verbs), None)
            if where is not None and verb is not None:
                reading = other_right, other, asked(other, verb, where)
                end = "serviceaccounts", where, ""
                yield _step(right, part, end, reading, verbs=("create",), namespace=where)


def _both(one: str, other: str) -> str | None:
    """Return the namespace in which two grants hold, "" for all, None if there is none."""
    if not one or not other or one == other:
        return one or other
    return None


def _secrets(holder: Holder, right: str, part: Part) -> _Edges:
    if right == "admission/validate":
        yield _step(right, part, ("secrets", "", ""))
    elif right == "secrets/write":
        # The answer to a patch is the whole Secret.
        if any(verb in ALTER for verb in part.verbs):
            yield from _each(right, part, "secrets", holder.world.index["secrets"], ALTER)
    elif right == "secrets/read":
        yield from _each(right, part, "secrets", holder.world.index["secrets"])
    else:
        yield _step(right, part, ("secrets", part.grant.namespace, ""))


def _pods(holder: Holder, right: str, part: Part) -> _Edges:
    index = holder.world.index
    if right == "pods/exec" and "create" not in part.verbs and not holder.world.reads_connect:
        return
    if right not in _NOT_STATIC:
        yield from _each(right, part, "containers", index["pods"])
    elif part.names:
        yield from _each(right, part, "containers", index["changeable"])
    else:
        yield _step(right, part, ("images", part.grant.namespace, ""))


def _hosted(holder: Holder, right: str, part: Part) -> _Edges:
    verbs = ("get", "create")
    if not set(verbs).intersection(part.verbs):
        return
    for name in part.names or ("",):
        if not name or name in holder.world.nodes:
            yield _step(right, part, ("hosted", "", name), verbs=verbs, name=name)


def _nodes(holder: Holder, right: str, part: Part) -> _Edges:
    world, where = holder.world, part.grant.namespace
    spaces = [where] if where else sorted(world.namespaces)
    if not world.confined.issuperset(spaces):
        yield _step(right, part, ("nodes", "", ""))
        return
    for other in holder.parts("namespaces/write"):
        verb = next((one for one in other.verbs if one in ALTER), None)
        for space in spaces if verb else ():
            if other.grant.namespace in ("", space) and (not other.names or space in other.names):
                lifting = "namespaces/write", other, asked(other, verb or "", space, space)
                yield _step(right, part, ("nodes", "", ""), lifting, namespace=space)
    # No pod security level looks at the volume behind a claim, and pods bring claims along.
    for other in holder.parts("persistentvolumes/write"):
        if "create" in other.verbs:
            making = "persistentvolumes/write", other, asked(other, "create", "")
            yield _step(right, part, ("nodes", "", ""), making, namespace=spaces[0])


def _moved(holder: Holder, right: str, part: Part) -> _Edges:
    if right in _SCALING:
        yield from _scaled(holder, right, part)
        return
    if right not in _OF_NODES:
        yield from _each(right, part, "pods", holder.world.index["moving"])
        return
    if not part.names:
        yield _step(right, part, ("pods", "", ""))
    for node in part.names:
        for pod in holder.world.by_node.get(node, ()):
            if pod.can_move:
                yield _step(right, part, pod.vertex, name=node)


def _scaled(holder: Holder, right: str, part: Part) -> _Edges:
    """Yield pods of which more can be made, one of them on the stolen node."""
    _, resource, _ = parts_of(part.resource)
    where = part.grant.namespace
    if resource == _AUTOSCALERS:
        # What it scales is in the object: a name binds it to nothing.
        verbs = [verb for verb in part.verbs if verb != "create" or not part.names]
        for scope in SCALED if verbs else ():
            yield _step(right, part, (scope, where, ""), verbs=verbs)
        return
    scope = "replicasets" if resource == "deployments" else resource
    if not part.names:
        yield _step(right, part, (scope, where, ""))
        return
    for pod in holder.world.pods.values():
        name = pod.owner_name
        if resource == "deployments":
            # Its ReplicaSets are named after it and the pod template.
            name = name.rpartition("-")[0]
        if pod.owner == SCALED[scope] and name in part.names and where in ("", pod.namespace):
            yield _step(right, part, pod.vertex, namespace=pod.namespace, name=name)


def _others(holder: Holder, right: str, part: Part) -> _Edges:
    _, resource, _ = parts_of(part.resource)
    world = holder.world
    if resource == "serviceaccounts":
        yield from _each(right, part, "serviceaccounts", world.index["serviceaccounts"])
    elif resource == "users":
        known = [name for name in world.rbac.users() if account_of(name) is None]
        for name in part.names or known:
            if account_of(name) is None:
                yield _step(right, part, ("users", "", name), name=name)
    else:
        yield from _groups(holder, right, part)


def _groups(holder: Holder, right: str, part: Part) -> _Edges:
    """Yield what the right to be in groups gives: who claims a group must claim a user, too."""
    for other in holder.parts(right):
        _, resource, _ = parts_of(other.resource)
        if resource == "groups":
            continue
        namespace, name = other.grant.namespace, next(iter(other.names), "")
        user = right, other, asked(other, "impersonate", namespace, name)
        for group in part.names or (_MASTERS, NODES_GROUP):
            if group == _MASTERS:
                yield _step(right, part, CLUSTER, user, name=group)
                continue
            if part.names:
                yield _step(right, part, ("groups", "", group), user, name=group)
            if group == NODES_GROUP and resource == "users":
                for node in holder.world.nodes:
                    title = f"{NODE_USER_PREFIX}{node}"
                    if not other.names or title in other.names:
                        being = right, other, asked(other, "impersonate", "", title)
                        yield _step(right, part, ("kubelets", "", node), being, name=group)


def _roles(holder: Holder, right: str, part: Part) -> _Edges:
    _, resource, _ = parts_of(part.resource)
    if "escalate" in part.verbs:
        yield from _escalated(holder, right, part, resource)
    if "bind" in part.verbs:
        yield from _bound(holder, right, part, resource)


def _escalated(holder: Holder, right: str, part: Part, resource: str) -> _Edges:
    """Yield what a holder gets that may put more into the roles that it has."""
    of_cluster = resource == "clusterroles"
    if of_cluster and part.grant.namespace:
        return
    if of_cluster:
        yield from _gathered(holder, right, part)
    own = {
        (part.grant.role, part.grant.namespace): part.grant
        for held in holder.held
        for part in held.parts
    }
    for other in holder.parts("roles/write"):
        verb = next((one for one in other.verbs if one in ALTER), None)
        if verb is None or parts_of(other.resource)[1] != resource:
            continue
        for role, where in own:
            if (role.kind == "ClusterRole") != of_cluster:
                continue
            at = _both(part.grant.namespace, other.grant.namespace)
            if at is None or (not of_cluster and _both(at, role.namespace) is None):
                continue
            if all(not one.names or role.name in one.names for one in (part, other)):
                space = role.namespace
                writing = "roles/write", other, asked(other, verb, space, role.name)
                end = ("namespaces", "", where) if where else CLUSTER
                yield _step(
                    right, part, end, writing,
                    verbs=("escalate",), namespace=space, name=role.name,
                )  # fmt: skip


def _gathered(holder: Holder, right: str, part: Part) -> _Edges:
    """Yield what a holder gets by ClusterRoles that one of its own gathers by their labels."""
    if part.names:
        # To create one is to name none, and the labels of others are not known here.
        return
    own = {
        part.grant.namespace
        for held in holder.held
        for part in held.parts
        if part.grant.role in holder.world.rbac.gathering
    }
    for other in holder.parts("roles/write"):
        if parts_of(other.resource)[1] != "clusterroles" or "create" not in other.verbs:
            continue
        if other.names or other.grant.namespace:
            continue
        for where in own:
            end = ("namespaces", "", where) if where else CLUSTER
            making = "roles/write", other, asked(other, "create", "")
            yield _step(right, part, end, making, verbs=("escalate",), namespace="")


def _bound(holder: Holder, right: str, part: Part, resource: str) -> _Edges:
    """Yield the rights of roles that a holder may bind to itself."""
    world = holder.world
    for other in holder.parts("roles/write"):
        _, kind, _ = parts_of(other.resource)
        if kind not in ("clusterrolebindings", "rolebindings"):
            continue
        in_cluster = kind == "clusterrolebindings"
        if in_cluster and (resource != "clusterroles" or part.grant.namespace):
            continue
        where = "" if in_cluster else _both(part.grant.namespace, other.grant.namespace)
        if where is None:
            continue
        for role, space, binding in _bindable(world, part, other, where, in_cluster=in_cluster):
            verb = "create" if "create" in other.verbs else other.verbs[0]
            writing = "roles/write", other, asked(other, verb, space, binding)
            if not space and world.allows_everything(role):
                end = CLUSTER
            else:
                end = ("clusterroles" if role.kind == "ClusterRole" else "roles", space, role.name)
            yield _step(right, part, end, writing, verbs=("bind",), namespace=space, name=role.name)


def _bindable(
    world: World, part: Part, other: Part, where: str, *, in_cluster: bool
) -> Iterator[tuple[Reference, str, str]]:
    """Yield roles, the namespace that they can be bound in, and the binding, "" for a new one."""
    _, resource, _ = parts_of(part.resource)
    kind = "ClusterRole" if resource == "clusterroles" else "Role"
    roles = [
        role
        for role in world.rbac.roles
        if role.kind == kind and (not part.names or role.name in part.names)
    ]
    # Where one allows everything, the others add nothing.
    roles = [role for role in roles if world.allows_everything(role)][:1] or roles
    if "create" in other.verbs:
        if in_cluster:
            yield from ((role, "", "") for role in roles)
            return
        for role in roles:
            spaces = [where] if where else sorted(world.namespaces)
            for space in spaces if kind == "ClusterRole" else [role.namespace]:
                if where in ("", space):
                    yield role, space, ""
        return
    for binding, role in world.rbac.bound.items():
        if (binding.kind == "ClusterRoleBinding") != in_cluster or role not in roles:
            continue
        if where in ("", binding.namespace) and (not other.names or binding.name in other.names):
            yield role, binding.namespace, binding.name


def _certificates(holder: Holder, right: str, part: Part) -> _Edges:
    """Yield what a holder gets that has certificates approved.

    A controller approves those of nodes if who requests them has the right to. Others are for
    whoever may approve them; the kubelet of the stolen node may request them, but admission
    refuses it those of other nodes.
    """
    if right == "certificates/nodeclient":
        for asking in _asking(holder):
            if not part.names:
                yield _step(right, part, ("kubelets", "", ""), asking)
        return
    if "approve" not in part.verbs:
        return
    for other in holder.parts("certificates/approve"):
        if other.names or not other.resource.endswith("/approval"):
            continue
        approving = "certificates/approve", other, asked(other, other.verbs[0], "")
        for name in _signers(part, _CLIENT_SIGNER):
            yield _step(right, part, CLUSTER, approving, verbs=("approve",), name=name)
        for name in _signers(part, _KUBELET_SIGNER):
            yield _step(right, part, APPROVAL, approving, verbs=("approve",), name=name)
            for asking in _asking(holder):
                end = "kubelets", "", ""
                yield _step(right, part, end, approving, asking, verbs=("approve",), name=name)


def _signers(part: Part, signer: str) -> Iterator[str]:
    """Yield a name by which a part of a right allows a signer, if it does."""
    for name in (signer, f"{signer.partition('/')[0]}/{ALL}"):
        if not part.names or name in part.names:
            yield name
            return


def _asking(holder: Holder) -> Iterator[tuple[str, Part, Request]]:
    """Yield how a holder may request certificates."""
    for other in holder.parts("certificates/request"):
        if not other.names:
            yield "certificates/request", other, asked(other, "create", "")


def _unheld(holder: Holder, right: str, part: Part) -> _Edges:
    del holder
    if parts_of(part.resource)[1] != _WEBHOOKS:
        return
    if part.names and _REGISTRATION not in part.names:
        return
    verbs = tuple(verb for verb in part.verbs if verb != "create")
    if verbs:
        yield _step(right, part, UNHELD, verbs=verbs, name=_REGISTRATION)


_LEADS: Mapping[Lead, Callable[[Holder, str, Part], _Edges]] = {
    Lead.CLUSTER: _cluster,
    Lead.ACCOUNTS: _accounts,
    Lead.SECRETS: _secrets,
    Lead.PODS: _pods,
    Lead.HOSTED: _hosted,
    Lead.NODES: _nodes,
    Lead.MOVED: _moved,
    Lead.OTHERS: _others,
    Lead.ROLES: _roles,
    Lead.CERTIFICATES: _certificates,
    Lead.UNHELD: _unheld,
}
