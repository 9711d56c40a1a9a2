"""Find what would fall with each node of a cluster, worst first."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from noderestrict.exposure.findings import (
    Compared,
    ExposedNode,
    Findings,
    Step,
    Thing,
    UsedRequest,
    Way,
)
from noderestrict.exposure.network import Network, Rights, Search, Structure, Towards, Walked
from noderestrict.exposure.remedies import Remedies
from noderestrict.exposure.setups import Half, SetUp
from noderestrict.exposure.steps import CLUSTER, UNHELD, By, Edge
from noderestrict.exposure.world import Key, World
from noderestrict.graph.edges import Vertex

#: What falls, for reports; the others are only on the way.
_WORTH = (
    "cluster", "nodes", "hosted", "kubelets", "serviceaccounts", "users", "groups", "bootstrap",
    "clusterroles", "roles", "namespaces", "secrets", "configmaps", "persistentvolumeclaims",
    "persistentvolumes", "resourceclaims", "volumeattachments", "resourceslices",
    "podcertificaterequests",
)  # fmt: skip
_NOTHING = (CLUSTER, UNHELD)
#: What pods refer to.
_OBJECTS = (
    "secrets", "configmaps", "persistentvolumeclaims", "persistentvolumes", "resourceclaims",
    "volumeattachments", "resourceslices", "podcertificaterequests",
)  # fmt: skip


def expose(
    world: World,
    set_up: SetUp,
    compared: Iterable[SetUp] = (),
    why: str = "",
) -> Findings:
    """Return what would fall with each node.

    Args:
        world: the cluster.
        set_up: what holds its nodes and agents.
        compared: set-ups to put side by side.
        why: how the set-up is known.
    """
    structure, rights = Structure(world), Rights(world)
    steps = _Steps()
    reports = {}
    for one in {one.id: one for one in (*compared, set_up)}.values():
        reports[one.id] = _Exposure(structure, rights, one, steps if one.id == set_up.id else None)
    chosen = reports[set_up.id]
    return Findings(
        kubernetes="" if world.minor is None else f"1.{world.minor}",
        set_up=set_up.id,
        why_set_up=why,
        nodes=tuple(sorted(chosen.workers, key=_rank)),
        control_planes=tuple(chosen.control_planes),
        set_ups=tuple(report.compared() for report in reports.values()),
        secrets=len(world.secrets),
        secrets_per_node=round(chosen.per_node, 1),
        service_accounts=len(world.accounts),
        steps=tuple(steps.steps),
        not_seen=tuple(world.not_seen),
        notes=tuple(world.notes),
    )


def _rank(node: ExposedNode) -> tuple[bool, int, int, int, str]:
    steps = node.cluster_steps
    return (steps is None, steps or 0, -node.secrets, -node.service_accounts, node.name)


@dataclass(slots=True)
class _Steps:
    """The steps of a report, each once."""

    steps: list[Step] = field(default_factory=list)
    _indexes: dict[tuple[Vertex, Vertex, tuple[str, ...]], int] = field(default_factory=dict)

    def path(self, walked: Iterable[Walked]) -> tuple[int, ...]:
        """Return the indexes of some steps."""
        return tuple(map(self._index, walked))

    def _index(self, walked: Walked) -> int:
        start, edge = walked
        key = start, edge.end, (edge.by, *(edge.use.rights if edge.use else ()))
        if key not in self._indexes:
            self._indexes[key] = len(self.steps)
            requests = []
            if edge.use is not None:
                rights = edge.use.rights or ("",) * len(edge.use.requests)
                for right, request, grant in zip(
                    rights, edge.use.requests, edge.use.grants, strict=True
                ):
                    requests.append(
                        UsedRequest(
                            right, request.verb, request.group, request.combined,
                            request.namespace, request.name, Thing(*grant.binding),
                            Thing(*grant.role),
                        )
                    )  # fmt: skip
            volume = Thing("persistentvolumes", "", edge.volume) if edge.volume else None
            self.steps.append(
                Step(Thing(*start), Thing(*edge.end), edge.by, edge.cost, tuple(requests), volume)
            )
        return self._indexes[key]


@dataclass(frozen=True, slots=True)
class _Free:
    """What comes once our webhook refuses nothing any more.

    Attributes:
        to: how far everything is from that.
        network: of all steps then.
        towards: how far everything is from the cluster then.
    """

    to: Towards
    network: Network
    towards: Towards


class _Exposure:
    """What falls with each node in one set-up.

    Args:
        structure: of the cluster.
        rights: of all holders.
        set_up: to look at.
        steps: filled with the steps of all paths; None to count alone.
    """

    def __init__(
        self, structure: Structure, rights: Rights, set_up: SetUp, steps: _Steps | None
    ) -> None:
        self._world = structure.world
        self._set_up = set_up
        self._steps = steps
        self._remedies = Remedies(self._world)
        self._network = Network(structure, rights, set_up)
        self._towards = self._network.towards(CLUSTER)
        self._unheld: _Free | None = None
        to_unheld = self._network.towards(UNHELD)
        if len(to_unheld.cost) > 1:
            # Whoever takes the webhook's registration away is held by nothing that it enforces.
            free = replace(set_up, admission=Half.OFF, policies=())
            network = Network(structure, rights, free)
            self._unheld = _Free(to_unheld, network, network.towards(CLUSTER))
        workers = [
            name for name in sorted(self._world.nodes) if name not in self._world.control_planes
        ]
        own = [self._own_secrets(name) for name in workers]
        #: Secrets that a worker has on average.
        self.per_node = sum(own) / len(own) if own else 0.0
        self.workers = [self._node(name) for name in workers]
        self.control_planes = [self._node(name) for name in sorted(self._world.control_planes)]

    def _own_secrets(self, name: str) -> int:
        return sum(kind == "secrets" for kind, _, _ in self._world.graph.reachable(name))

    def compared(self) -> Compared:
        """Return the sums over all workers."""
        steps = [node.cluster_steps for node in self.workers if node.cluster_steps is not None]
        worths = [node.nodes_worth for node in self.workers]
        return Compared(
            set_up=self._set_up.id,
            title=self._set_up.title,
            falling=len(steps),
            fewest_steps=min(steps, default=None),
            nodes_worth=round(sum(worths) / len(worths), 1) if worths else 0.0,
            worst_nodes_worth=max(worths, default=0.0),
        )

    def _node(self, name: str) -> ExposedNode:
        world = self._world
        start = "nodes", "", name
        paths = self._to_cluster(start)
        objects = Counter(kind for kind, _, _ in world.graph.reachable(name) if kind in _OBJECTS)
        if paths:
            shortest = _cost(paths[0])
            secrets, accounts, nodes = len(world.secrets), len(world.accounts), len(world.nodes) - 1
            searches = [self._network.search(start, most=1)] if self._steps else []
        else:
            shortest = None
            searches = self._searches(start)
            secrets, accounts, nodes = _counts(searches, name)
        ways = [*self._to(paths), *self._ways(searches)] if self._steps else []
        return ExposedNode(
            name=name,
            control_plane=world.control_planes.get(name, ""),
            cluster_steps=shortest,
            secrets=secrets,
            nodes_worth=round(secrets / self.per_node, 1) if self.per_node else 0.0,
            service_accounts=accounts,
            nodes=nodes,
            objects=dict(sorted(objects.items())),
            ways=tuple(ways),
        )

    def _searches(self, start: Vertex) -> list[Search]:
        """Return what a node leads to, and what it does once nothing holds its kubelet."""
        searches = [self._network.search(start)]
        if self._unheld is not None and start in self._unheld.to.cost:
            free = self._unheld.network.search(start)
            free.before = (*self._unheld.to.path(start), _freed(start))
            searches.append(free)
        return searches

    def _to_cluster(self, start: Vertex) -> list[list[Walked]]:
        """Return a shortest path for each credential on a node that leads to the cluster.

        The shortest one of all is the first.
        """
        found: dict[Vertex, list[Walked]] = {}
        for first in self._first_steps(start):
            vertex = first[-1][1].end
            if vertex not in found and (rest := self._rest(start, vertex)) is not None:
                found[vertex] = [*first, *rest]
        own = "kubelets", *start[1:]
        if own in found and found[own][1][1].end in found:
            # It makes a token of a pod that is there anyway.
            del found[own]
        return sorted(found.values(), key=_cost)

    def _first_steps(self, start: Vertex) -> Iterator[list[Walked]]:
        """Yield the paths to what is on a node."""
        for edge in self._network.edges(start):
            if edge.by is By.RUNS:
                for following in self._network.edges(edge.end):
                    yield [(start, edge), (edge.end, following)]
            else:
                yield [(start, edge)]

    def _rest(self, start: Vertex, vertex: Vertex) -> list[Walked] | None:
        """Return the shortest path to the cluster from what is on a node, None if there is none."""
        rests = []
        if vertex in self._towards.cost:
            rests.append(self._towards.path(vertex))
        free = self._unheld
        if free is not None and vertex in free.to.cost and start in free.towards.cost:
            rests.append([*free.to.path(vertex), _freed(start), *free.towards.path(start)])
        return min(rests, key=_cost, default=None)

    def _to(self, paths: Sequence[list[Walked]]) -> Iterator[Way]:
        for path in paths:
            yield self._way(CLUSTER, path)

    def _way(self, end: Vertex, path: Sequence[Walked]) -> Way:
        steps = self._steps or _Steps()
        return Way(
            Thing(*end), self._count(end), _cost(path), steps.path(path), self._remedies.of(path)
        )

    def _ways(self, searches: Sequence[Search]) -> Iterator[Way]:
        """Yield how everything falls that is not told by all objects of its kind."""
        told: set[Vertex] = set()
        for search in searches:
            for vertex in search.cost:
                if vertex in told or vertex[0] not in _WORTH or vertex in _NOTHING:
                    continue
                told.add(vertex)
                last = search.last.get(vertex)
                if last is not None and last[1].by is not By.MEMBER and last[1].by is not By.IS:
                    yield self._way(vertex, search.path(vertex))

    def _count(self, vertex: Vertex) -> int:
        kind, namespace, name = vertex
        if name or kind == "cluster":
            return 1
        keys: Collection[Key]
        match kind:
            case "secrets":
                keys = self._world.secrets
            case "serviceaccounts":
                keys = self._world.accounts
            case _:
                return len(self._world.nodes)
        return sum(namespace in ("", one) for one, _ in keys)


def _cost(path: Iterable[Walked]) -> int:
    return sum(edge.cost for _, edge in path)


def _freed(start: Vertex) -> Walked:
    return UNHELD, Edge(start, By.UNHELD)


def _counts(searches: Iterable[Search], node: str) -> tuple[int, int, int]:
    """Return how many Secrets, service accounts and other nodes fall."""
    reached = {vertex for search in searches for vertex in search.cost if vertex[2]}
    return (
        sum(kind == "secrets" for kind, _, _ in reached),
        sum(kind == "serviceaccounts" for kind, _, _ in reached),
        len({name for kind, _, name in reached if kind in ("nodes", "hosted")} - {node}),
    )
