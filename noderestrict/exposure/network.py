"""Everything that leads from one vertex to another in a cluster with some set-up."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from noderestrict.exposure.escape import Escape
from noderestrict.exposure.leads import Holder
from noderestrict.exposure.setups import Half, SetUp
from noderestrict.exposure.steps import APPROVAL, BOOTSTRAP, CLUSTER, UNHELD, By, Edge, Use
from noderestrict.exposure.world import SCALED, SYSTEM, Key, World
from noderestrict.graph.edges import Vertex
from noderestrict.graph.graph import NODE_NAMED
from noderestrict.graph.rules import Access, authorize
from noderestrict.policy.features import defaults
from noderestrict.policy.releases import Release
from noderestrict.policy.table import row_for
from noderestrict.rbac.grants import Grant, Reference
from noderestrict.rbac.rights import EVERYTHING, RIGHTS, GrantedRight, Part, held, parts_of
from noderestrict.rbac.rules import Request, Rule
from noderestrict.rbac.subjects import ANONYMOUS, AUTHENTICATED, User, node, service_account
from noderestrict.survey.holding import holds, kubelet_lacks, policy_of

_OPERATIONS = {
    "create": "CREATE", "update": "UPDATE", "patch": "UPDATE", "delete": "DELETE",
    "deletecollection": "DELETE",
}  # fmt: skip
#: The plugin is not asked about these.
_CONNECTED = ("exec", "attach", "portforward", "proxy")
#: Where what a kubelet may do comes from, other than RBAC.
NODE_AUTHORIZER = Reference("Authorizer", "", "Node")
SYSTEM_NODE = Reference("ClusterRole", "", "system:node")
ASSUMED = Reference("ClusterRoleBinding", "", "(assumed)")
_REQUESTS = "certificatesigningrequests.certificates.k8s.io"
_NOBODY: Vertex = ("users", "", ANONYMOUS.name)

_BY = {
    Escape.PRIVILEGED: By.PRIVILEGED,
    Escape.CAPABILITY: By.CAPABILITY,
    Escape.HOST_FILES: By.HOST_FILES,
}

#: A step, with where it starts.
Walked = tuple[Vertex, Edge]


class _Everything:
    """A graph in which a node reaches everything."""

    def reaches(self, node: str, vertex: Vertex) -> bool:  # noqa: ARG002 (the interface)
        """Return True."""
        return True


class _Nothing:
    """A graph in which a node reaches nothing."""

    def reaches(self, node: str, vertex: Vertex) -> bool:  # noqa: ARG002 (the interface)
        """Return False."""
        return False


@dataclass(slots=True)
class Structure:
    """What leads on in any set-up: pods, their credentials, and what they refer to.

    Attributes:
        world: the cluster.
        edges: by start.
    """

    world: World
    edges: dict[Vertex, list[Edge]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        """Gather the edges."""
        world = self.world
        for name in sorted(world.nodes):
            self._add_node(name)
        for key, pod in world.pods.items():
            self._add_pod(key)
            self._member("containers", pod.namespace, pod.name, "containers")
            if not pod.is_static:
                self._member("images", pod.namespace, pod.name, "containers")
            if pod.can_move:
                self._member("pods", pod.namespace, pod.name, "pods")
            for scope, kind in SCALED.items():
                if pod.owner == kind:
                    self._member(scope, pod.namespace, pod.name, "pods")
        for namespace, name in sorted(world.accounts):
            self._member("serviceaccounts", namespace, name, "serviceaccounts")
        for key, account in sorted(world.secrets.items()):
            self._member("secrets", *key, "secrets")
            if account:
                self.edges["secrets", *key].append(
                    Edge(("serviceaccounts", key[0], account), By.HOLDS)
                )
            if key in world.bootstrap and world.bootstrap_user is not None:
                self.edges["secrets", *key].append(Edge(BOOTSTRAP, By.HOLDS))
        for kind in ("containers", "images", "pods", *SCALED, "serviceaccounts", "secrets"):
            for namespace in sorted(world.namespaces):
                if (kind, namespace, "") in self.edges:
                    self.edges[kind, "", ""].append(Edge((kind, namespace, ""), By.MEMBER))
        for namespace in sorted(world.namespaces):
            self.edges["namespaces", "", namespace] += (
                *(
                    Edge((kind, namespace, ""), By.MEMBER)
                    for kind in ("serviceaccounts", "secrets", "containers", "pods")
                ),
                Edge(("nodes", "", ""), By.MEMBER),
            )
        if world.bootstrap_user is not None:
            self.edges["namespaces", "", SYSTEM].append(Edge(BOOTSTRAP, By.MEMBER))

    def _member(self, scope: str, namespace: str, name: str, kind: str) -> None:
        self.edges[scope, namespace, ""].append(Edge((kind, namespace, name), By.MEMBER))

    def _add_node(self, name: str) -> None:
        edges, vertex = self.edges, ("nodes", "", name)
        if name in self.world.control_planes:
            edges[vertex].append(Edge(CLUSTER, By.CONTROL_PLANE))
        for pod in self.world.by_node.get(name, ()):
            edges[vertex].append(Edge(pod.vertex, By.RUNS))
            edges["hosted", "", name].append(Edge(("containers", pod.namespace, pod.name), By.RUNS))
        edges[vertex].append(Edge(("kubelets", "", name), By.IS))
        edges[vertex].append(Edge(_NOBODY, By.IS))
        edges[vertex] += (
            Edge(one, By.REFERS) for one in self.world.graph.reachable(name) if one[0] in NODE_NAMED
        )
        for kind in ("nodes", "hosted", "kubelets"):
            self._member(kind, "", name, kind)

    def _add_pod(self, key: Key) -> None:
        pod, edges = self.world.pods[key], self.edges
        inside = "containers", *key
        if pod.account:
            edges[pod.vertex].append(Edge(pod.account_vertex, By.TOKEN))
        if pod.mounts_token:
            edges[inside].append(Edge(pod.account_vertex, By.TOKEN))
        edges[inside] += (Edge(("secrets", pod.namespace, name), By.MOUNTS) for name in pod.secrets)
        if pod.escape is not None:
            by = _BY[pod.escape]
            edges[inside].append(Edge(("nodes", "", pod.node), by, volume=pod.host_volume))
        if pod.control_plane:
            edges[inside].append(Edge(CLUSTER, By.CONTROL_PLANE))
        for vertex in pod.refers:
            edges[pod.vertex].append(Edge(vertex, By.REFERS))
            for volume, reached in self.world.graph.volumes_of(vertex):
                itself = "persistentvolumes", "", volume
                if itself not in edges:
                    edges[itself] += (
                        Edge(one, By.REFERS) for one in sorted(reached) if one != itself
                    )
                if not any(edge.end == itself for edge in edges[vertex]):
                    edges[vertex].append(Edge(itself, By.REFERS))


class Rights:
    """What each holder's rights lead to, before anything holds them.

    Args:
        world: the cluster.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._named = frozenset(world.rbac.users())
        self._known: dict[User, tuple[list[GrantedRight], list[Edge]]] = {}
        self._by_graph: dict[str, list[Edge]] = {}

    def of(self, user: User) -> tuple[list[GrantedRight], list[Edge]]:
        """Return the rights of a user, and where they lead."""
        known = self.told_apart(user)
        if known not in self._known:
            found = held(self._world.rbac.grants(user))
            self._known[known] = found, Holder(self._world, found).edges()
        return self._known[known]

    def told_apart(self, user: User) -> User:
        """Return a user as far as RBAC knows it: of most, it knows the groups alone."""
        return user if user.name in self._named else User("", user.groups)

    def of_role(self, role: Reference, namespace: str) -> list[Edge]:
        """Return where the rights of a role lead in a namespace, "" for all of them."""
        grants = [
            Grant(rule, namespace, role, role, "") for rule in self._world.rbac.roles.get(role, ())
        ]
        return Holder(self._world, held(grants)).edges()

    def of_kubelet(self, name: str) -> list[Edge]:
        """Return what the Node authorizer lets a kubelet take because its pods refer to it."""
        if name not in self._by_graph:
            self._by_graph[name] = list(self._taken_by(name))
        return self._by_graph[name]

    def _taken_by(self, name: str) -> Iterator[Edge]:
        for vertex in self._world.graph.reachable(name):
            kind, namespace, title = vertex
            if kind == "secrets":
                request = Request("get", "", kind, "", namespace, title)
            elif kind == "serviceaccounts":
                request = Request("create", "", kind, "token", namespace, title)
            else:
                continue
            rule = Rule((request.verb,), ("",), (request.combined,), (title,))
            grant = Grant(rule, namespace, NODE_AUTHORIZER, NODE_AUTHORIZER, "")
            yield Edge(vertex, By.RIGHT, Use((), (request,), (grant,)))


class Network:
    """All steps in a cluster with some set-up.

    Args:
        structure: what leads on in any set-up.
        rights: of all holders.
        set_up: what holds them.
    """

    def __init__(self, structure: Structure, rights: Rights, set_up: SetUp) -> None:
        self._structure = structure.edges
        self._world = structure.world
        self._rights = rights
        self.set_up = set_up
        self._held: dict[Vertex, list[Edge]] = {}
        self._gather()

    def edges(self, vertex: Vertex) -> Iterator[Edge]:
        """Yield the steps from a vertex."""
        yield from self._structure.get(vertex, ())
        yield from self._held.get(vertex, ())

    def _gather(self) -> None:
        world = self._world
        agents = world.agents
        for namespace, name in sorted(world.accounts):
            found, edges = self._rights.of(service_account(namespace, name))
            if not edges:
                continue
            kept = self._kept(f"{namespace}/{name}", found, (namespace, name) in agents)
            self._add(("serviceaccounts", namespace, name), edges, kept)
        self._add(_NOBODY, self._rights.of(ANONYMOUS)[1])
        self._add_kubelets()
        waiting = [edge.end for edges in self._held.values() for edge in edges]
        waiting.append(BOOTSTRAP)
        while waiting:
            vertex = waiting.pop()
            if vertex in self._held:
                continue
            kind, namespace, name = vertex
            if kind == "users":
                self._add(vertex, self._rights.of(User(name, frozenset((AUTHENTICATED,))))[1])
            elif kind == "groups":
                self._add(vertex, self._rights.of(User("", frozenset((name, AUTHENTICATED))))[1])
            elif vertex == BOOTSTRAP and world.bootstrap_user is not None:
                self._add(vertex, self._rights.of(world.bootstrap_user)[1])
            elif kind in ("roles", "clusterroles"):
                role = (
                    Reference("Role", namespace, name)
                    if kind == "roles"
                    else Reference("ClusterRole", "", name)
                )
                self._add(vertex, self._rights.of_role(role, namespace))
            else:
                continue
            waiting += (edge.end for edge in self._held[vertex])

    def _add(
        self, start: Vertex, edges: Iterable[Edge], kept: frozenset[str] = frozenset()
    ) -> None:
        ours = self.set_up.admission is Half.OURS
        self._held[start] = [
            edge
            for edge in edges
            if (ours or edge.end != UNHELD)
            and (not kept or edge.use is None or kept.isdisjoint(edge.use.rights))
        ]

    def _kept(self, account: str, found: Sequence[GrantedRight], is_agent: bool) -> frozenset[str]:  # noqa: FBT001
        """Return the rights of an account that the set-up holds to its node."""
        kept: set[str] = set()
        policy = policy_of(account, self.set_up.policies)
        if policy is not None:
            kept.update(one.right.id for one in found if holds(policy, one))
        if self.set_up.impersonation and is_agent:
            minor = self._world.minor
            kept.update(
                one.right.id
                for one in found
                if one.right is not EVERYTHING and not any(kubelet_lacks(one.requests, minor))
            )
        return frozenset(kept)

    def _add_kubelets(self) -> None:
        world, set_up = self._world, self.set_up
        release = set_up.release(world.minor)
        if set_up.admission is Half.OFF or not _is_judged("create", _REQUESTS, release):
            self._held[APPROVAL] = [Edge(("kubelets", "", ""), By.APPROVED)]
        own = list(_of_authorizer(set_up.authorizer, release))
        shared: dict[User, list[Edge]] = {}
        for name in world.nodes:
            user = self._rights.told_apart(node(name))
            if user not in shared:
                found, _ = self._rights.of(user)
                granted = _without_held([*found, *own], set_up.admission, release)
                shared[user] = Holder(world, granted).edges()
            edges = list(shared[user])
            if set_up.authorizer is not Half.OFF:
                edges += self._rights.of_kubelet(name)
            self._add(("kubelets", "", name), edges)

    def search(self, start: Vertex, most: int | None = None) -> "Search":
        """Return everything that a start leads to, each by a shortest path.

        Args:
            start: of all paths.
            most: steps to go at most; None for any number.
        """
        found = Search(start)
        found.cost[start] = 0
        steps, level = 0, [start]
        while level and (most is None or steps <= most):
            following: list[Vertex] = []
            # What costs nothing joins the level that is walked.
            for vertex in level:
                if found.cost[vertex] != steps:
                    continue
                for edge in self.edges(vertex):
                    cost = steps + edge.cost
                    if cost < found.cost.get(edge.end, cost + 1):
                        found.cost[edge.end] = cost
                        found.last[edge.end] = vertex, edge
                        (following if edge.cost else level).append(edge.end)
            steps, level = steps + 1, following
        if most is not None:
            for vertex in level:
                if found.cost[vertex] > most:
                    del found.cost[vertex], found.last[vertex]
        return found

    @cached_property
    def _backwards(self) -> Mapping[Vertex, list[Walked]]:
        back: dict[Vertex, list[Walked]] = defaultdict(list)
        for start in {**self._structure, **self._held}:
            for edge in self.edges(start):
                back[edge.end].append((start, edge))
        return back

    def towards(self, end: Vertex) -> "Towards":
        """Return how far everything is from an end, and the next step on a shortest path."""
        found = Towards()
        found.cost[end] = 0
        steps, level = 0, [end]
        while level:
            before: list[Vertex] = []
            for vertex in level:
                if found.cost[vertex] != steps:
                    continue
                for start, edge in self._backwards.get(vertex, ()):
                    cost = steps + edge.cost
                    if cost < found.cost.get(start, cost + 1):
                        found.cost[start] = cost
                        found.next[start] = edge
                        (before if edge.cost else level).append(start)
            steps, level = steps + 1, before
        return found


@dataclass(slots=True)
class Search:
    """What a start leads to.

    Attributes:
        start: of all paths.
        cost: number of steps to each vertex.
        last: the last step to each vertex.
        before: steps that come before the start.
    """

    start: Vertex
    cost: dict[Vertex, int] = field(default_factory=dict)
    last: dict[Vertex, Walked] = field(default_factory=dict)
    before: tuple[Walked, ...] = ()

    def path(self, end: Vertex) -> list[Walked]:
        """Return a shortest path to a vertex that is reached."""
        steps: list[Walked] = []
        while end != self.start:
            steps.append(self.last[end])
            end = steps[-1][0]
        return [*self.before, *steps[::-1]]


@dataclass(slots=True)
class Towards:
    """How far everything is from an end.

    Attributes:
        cost: number of steps from each vertex that leads there.
        next: the first step from each of these.
    """

    cost: dict[Vertex, int] = field(default_factory=dict)
    next: dict[Vertex, Edge] = field(default_factory=dict)

    def path(self, start: Vertex) -> list[Walked]:
        """Return a shortest path from a vertex that leads there."""
        steps: list[Walked] = []
        while start in self.next:
            edge = self.next[start]
            steps.append((start, edge))
            start = edge.end
        return steps


def _of_authorizer(half: Half, release: Release) -> Iterator[GrantedRight]:
    """Yield the rights that every kubelet has for all objects, without RBAC.

    Without an authorizer for nodes, kubelets work only if RBAC grants them what it would allow for
    some object: for all of them, as ClusterRole system:node does.
    """
    graph = _Everything() if half is Half.OFF else _Nothing()
    source = (ASSUMED, SYSTEM_NODE) if half is Half.OFF else (NODE_AUTHORIZER, NODE_AUTHORIZER)
    gates = defaults(release.minor)
    for right in RIGHTS:
        parts = []
        for text in right.resources if right is not EVERYTHING else ():
            group, resource, sub_resource = parts_of(text)
            combined = f"{resource}/{sub_resource}" if sub_resource else resource
            # Named, in a namespace: what the authorizer is asked about a single object.
            verbs = tuple(
                verb
                for verb in right.verbs
                if authorize(
                    Access("n", verb, group, resource, sub_resource, "x", "x"),
                    graph, gates, release,
                ).allowed
            )  # fmt: skip
            if verbs:
                rule = Rule(verbs, (group,), (combined,))
                parts.append(Part(verbs, text, Grant(rule, "", *source, "Group system:nodes")))
        if parts:
            yield GrantedRight(right, tuple(parts))


def _without_held(
    found: Iterable[GrantedRight], admission: Half, release: Release
) -> list[GrantedRight]:
    """Return the rights of kubelets that admission does not hold to their node."""
    merged: dict[str, list[Part]] = defaultdict(list)
    for one in found:
        for part in one.parts:
            verbs = tuple(
                verb
                for verb in part.verbs
                if admission is Half.OFF or not _is_judged(verb, part.resource, release)
            )
            if verbs:
                merged[one.right.id].append(Part(verbs, part.resource, part.grant))
    return [GrantedRight(right, tuple(merged[right.id])) for right in RIGHTS if right.id in merged]


def _is_judged(verb: str, text: str, release: Release) -> bool:
    """Return whether a rule of admission judges a request of a node."""
    group, resource, sub_resource = parts_of(text)
    operation = _OPERATIONS.get(verb)
    if operation is None or sub_resource in _CONNECTED:
        return False
    return row_for(group, resource, sub_resource, operation, frozenset(), release) is not None
