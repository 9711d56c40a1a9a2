"""The index: for each node, every object that it may reach, with the number of paths to it.

Objects reached through a claim are counted at the node too, so a query is a single lookup. The cost
of an update is proportional to the change.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from itertools import islice
from typing import Any

from noderestrict.api import corev1
from noderestrict.graph.edges import Vertex, each_pod_edge, named_node, pod_edges, volume_edges

#: Resources whose objects each name their node.
NODE_NAMED = ("volumeattachments", "resourceslices", "podcertificaterequests")
#: Resources whose objects have edges.
SOURCES = ("pods", "persistentvolumes", *NODE_NAMED)
#: How many objects a pod may refer to in a graph that must stay small. A reference takes about 250
#: bytes, and a pod of 1.5 MB can have 18,500. Real pods, with a volume or a variable for each,
#: rarely have more than 100.
MOST_EDGES = 1_000
#: How many objects all pods with more than ``_MANY`` may refer to together: about 200 MiB.
#: A tenant can create thousands of pods that each stay just below the limit of one.
MOST_EDGES_OF_MANY = 500_000
_MANY = 100
_CLAIMS = "persistentvolumeclaims"
# No object has a longer name, so a longer reference leads nowhere and is not worth the memory.
_LONGEST_NAME = 253
_MOST_NAMES = 100_000


class Graph:
    """Which node may reach which object.

    It always equals a graph built from only the current objects.

    Args:
        most_edges: the maximum number of edges of a pod. A pod with more leads only to itself and
            its service account, and its node is marked. None for no limit.
        wanted: returns the objects to which such a pod leads anyway.
        most_of_many: the maximum number of edges of all pods with more than a hundred together. A
            pod that exceeds it is treated like one with too many edges.
    """

    def __init__(
        self,
        most_edges: int | None = MOST_EDGES,
        wanted: Callable[[], Set[Vertex]] = frozenset,
        most_of_many: int = MOST_EDGES_OF_MANY,
    ) -> None:
        self._most_edges = most_edges
        self._wanted = wanted
        self._most_of_many = most_of_many
        self._of_many = 0
        self._large: dict[str, set[tuple[str, str]]] = {}
        self._names: dict[str, str] = {}
        self._nodes: dict[str, dict[Vertex, int]] = {}
        self._pods: dict[tuple[str, str], tuple[str, tuple[Vertex, ...]]] = {}
        self._volumes: dict[str, tuple[Vertex, frozenset[Vertex]]] = {}
        self._claim_nodes: dict[Vertex, dict[str, int]] = {}
        self._claim_volumes: dict[Vertex, set[str]] = {}
        self._named: dict[Vertex, str] = {}

    def reaches(self, node: str, vertex: Vertex) -> bool:
        """Return whether a node may reach an object."""
        reached = self._nodes.get(node)
        return reached is not None and vertex in reached

    def has_large_pods(self, node: str) -> bool:
        """Return whether a node has pods with more edges than this graph keeps."""
        return node in self._large

    def knows(self, vertex: Vertex) -> bool:
        """Return whether an object, or a node, has an edge."""
        kind, _, name = vertex
        if kind == "nodes":
            return name in self._nodes
        return any(vertex in reached for reached in self._nodes.values())

    def reachable(self, node: str) -> list[Vertex]:
        """Return everything that a node may reach, sorted."""
        return sorted(self._nodes.get(node, ()))

    def who(self, vertex: Vertex) -> list[str]:
        """Return all nodes that may reach an object, sorted."""
        return sorted(node for node, reached in self._nodes.items() if vertex in reached)

    def path(self, node: str, vertex: Vertex) -> list[Vertex]:
        """Return a path from a node to an object, the node first; [] if there is none."""
        if not self.reaches(node, vertex):
            return []
        return next((path for path in self._paths(node) if path[-1] == vertex), [])

    def paths(self, node: str) -> dict[Vertex, list[Vertex]]:
        """Return the paths from a node to everything that it reaches, as ``path`` does each."""
        found: dict[Vertex, list[Vertex]] = {}
        for path in self._paths(node):
            found.setdefault(path[-1], path)
        return found

    def _paths(self, node: str) -> Iterator[list[Vertex]]:
        start = ("nodes", "", node)
        reached = self._nodes.get(node, ())
        yield from ([start, vertex] for vertex in reached if self._named.get(vertex) == node)
        for kind, namespace, name in reached:
            if kind != "pods":
                continue
            pod = (kind, namespace, name)
            yield [start, pod]
            for edge in self._pods[namespace, name][1]:
                yield [start, pod, edge]
                for volume in sorted(self._claim_volumes.get(edge, ())):
                    itself = ("persistentvolumes", "", volume)
                    for vertex in self._volumes[volume][1]:
                        path = [start, pod, edge, itself]
                        yield path if vertex == itself else [*path, vertex]

    def objects(self, resource: str) -> Iterator[tuple[str, str]]:
        """Yield the namespace and name of every known object of a resource."""
        if resource == "pods":
            yield from self._pods
        elif resource == "persistentvolumes":
            yield from (("", name) for name in self._volumes)
        else:
            yield from ((space, name) for kind, space, name in self._named if kind == resource)

    def volumes_of(self, claim: Vertex) -> list[tuple[str, frozenset[Vertex]]]:
        """Return the volumes of a claim, each with the objects reached through it."""
        names = self._claim_volumes.get(claim, ())
        return [(name, self._volumes[name][1]) for name in names]

    def claims_to(self, vertices: Set[Vertex]) -> set[Vertex]:
        """Return the claims through which any of these objects is reached."""
        return {claim for claim, edges in self._volumes.values() if not edges.isdisjoint(vertices)}

    def pods_reach(self, node: str) -> set[Vertex]:
        """Return the pods of a node and the objects that they refer to directly."""
        reached: set[Vertex] = set()
        for kind, namespace, name in self._nodes.get(node, ()):
            if kind == "pods" and (namespace, name) in self._pods:
                reached.update(self._pods[namespace, name][1])
        return reached

    def shared(self, node: str, vertices: Iterable[Vertex]) -> frozenset[Vertex]:
        """Return a set of objects that shares memory with this graph.

        Objects that the node reaches here are not stored a second time.
        """
        known = {vertex: vertex for vertex in self._nodes.get(node, ())}
        return frozenset(known.get(vertex, vertex) for vertex in vertices)

    def upsert(self, resource: str, value: Any) -> None:
        """Add or change an object of a resource that has edges."""
        meta = value.metadata
        namespace, name = (meta.namespace or "", meta.name or "") if meta else ("", "")
        if resource == "pods":
            self._upsert_pod(namespace, name, value)
        elif resource == "persistentvolumes":
            self.delete(resource, "", name)
            claim, edges = volume_edges(value)
            if claim is not None:
                self._set_volume(name, claim, edges)
        elif resource in NODE_NAMED:
            self._upsert_named((resource, namespace, name), value)

    def delete(self, resource: str, namespace: str, name: str) -> None:
        """Remove an object, if present."""
        if resource == "pods":
            pod = self._pods.pop((namespace, name), None)
            if pod is not None:
                self._unreach(pod[0], pod[1])
                self._of_many -= _if_many(pod[1])
                large = self._large.get(pod[0])
                if large is not None:
                    large.discard((namespace, name))
                    if not large:
                        del self._large[pod[0]]
        elif resource == "persistentvolumes":
            volume = self._volumes.pop(name, None)
            if volume is not None:
                claim, edges = volume
                self._claim_volumes[claim].discard(name)
                if not self._claim_volumes[claim]:
                    del self._claim_volumes[claim]
                for node in self._claim_nodes.get(claim, ()):
                    self._subtract(node, edges)
        else:
            vertex = (resource, namespace, name)
            named = self._named.pop(vertex, None)
            if named is not None:
                self._subtract(named, (vertex,))

    def _upsert_pod(self, namespace: str, name: str, pod: corev1.Pod) -> None:
        node = (pod.spec.nodeName if pod.spec else None) or ""
        before = self._pods.get((namespace, name))
        held = _if_many(before[1]) if before is not None else 0
        edges, is_large = self._edges(pod, self._most_of_many - self._of_many + held)
        if before is not None and before[0] == node and not is_large:
            known = set(before[1])
            if known == edges and (namespace, name) not in self._large.get(node, ()):
                return
        if before is not None:
            self.delete("pods", namespace, name)
        if node:
            node = self._shared(node)
            shared = tuple((kind, space, self._shared(title)) for kind, space, title in edges)
            self._pods[namespace, name] = (node, shared)
            self._reach(node, shared)
            self._of_many += _if_many(shared)
            if is_large:
                self._large.setdefault(node, set()).add((namespace, name))

    def _edges(self, pod: corev1.Pod, room: int) -> tuple[set[Vertex], bool]:
        """Return the edges of a pod to keep, and whether it has more.

        Args:
            pod: the pod.
            room: the maximum number of edges, if the pod has many.
        """
        if self._most_edges is None:
            return pod_edges(pod), False
        edges: set[Vertex] = set()
        for edge in each_pod_edge(pod):
            edges.add(edge)
            if len(edges) > self._most_edges or len(edge[2]) > _LONGEST_NAME:
                break
        else:
            if _if_many(edges) <= max(0, room):
                return edges, False
        few = {
            edge
            for edge in islice(each_pod_edge(pod), 2)
            if edge[0] in ("pods", "serviceaccounts") and len(edge[2]) <= _LONGEST_NAME
        }
        if wanted := self._wanted():
            few.update(edge for edge in each_pod_edge(pod) if edge in wanted)
        return few, True

    def _shared(self, name: str) -> str:
        """Return one shared string for equal names."""
        if len(self._names) >= _MOST_NAMES:
            # Made-up names must not fill the memory; clearing loses only the sharing.
            self._names.clear()
        return self._names.setdefault(name, name)

    def _upsert_named(self, vertex: Vertex, value: Any) -> None:
        node = named_node(value)
        if self._named.get(vertex) == node:
            return
        self.delete(*vertex)
        if node:
            self._named[vertex] = node
            self._add(node, (vertex,))

    def _set_volume(self, name: str, claim: Vertex, edges: frozenset[Vertex]) -> None:
        if name in self._volumes:
            return
        self._volumes[name] = (claim, edges)
        self._claim_volumes.setdefault(claim, set()).add(name)
        for node in self._claim_nodes.get(claim, ()):
            self._add(node, edges)

    def _reach(self, node: str, edges: Iterable[Vertex]) -> None:
        edges = tuple(edges)
        self._add(node, edges)
        for claim in edges:
            if claim[0] != _CLAIMS:
                continue
            nodes = self._claim_nodes.setdefault(claim, {})
            nodes[node] = nodes.get(node, 0) + 1
            if nodes[node] == 1:
                for volume in self._claim_volumes.get(claim, ()):
                    self._add(node, self._volumes[volume][1])

    def _unreach(self, node: str, edges: Iterable[Vertex]) -> None:
        for claim in edges:
            if claim[0] != _CLAIMS:
                continue
            nodes = self._claim_nodes[claim]
            nodes[node] -= 1
            if not nodes[node]:
                del nodes[node]
                for volume in self._claim_volumes.get(claim, ()):
                    self._subtract(node, self._volumes[volume][1])
            if not nodes:
                del self._claim_nodes[claim]
        self._subtract(node, edges)

    def _add(self, node: str, vertices: Iterable[Vertex]) -> None:
        reached = self._nodes.setdefault(node, {})
        for vertex in vertices:
            reached[vertex] = reached.get(vertex, 0) + 1

    def _subtract(self, node: str, vertices: Iterable[Vertex]) -> None:
        reached = self._nodes[node]
        for vertex in vertices:
            if reached[vertex] == 1:
                del reached[vertex]
            else:
                reached[vertex] -= 1
        if not reached:
            del self._nodes[node]

    def snapshot(self) -> Mapping[str, Mapping[Vertex, int]]:
        """Return all counts, for comparisons in tests."""
        return {node: dict(reached) for node, reached in self._nodes.items()}


def _if_many(edges: Collection[Vertex]) -> int:
    """Return the number of edges of a pod, 0 for as many as most pods have."""
    return len(edges) if len(edges) > _MANY else 0
