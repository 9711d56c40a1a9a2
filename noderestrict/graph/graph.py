"""The index: for each node, every object it may reach, with the number of ways to it.

What is reached through a claim is counted at the node too, so that each question is one look-up;
an update costs what changed.
"""

from collections.abc import Iterable, Iterator, Mapping
from sys import intern
from typing import Any

from noderestrict.api import corev1
from noderestrict.graph.edges import Vertex, pod_edges, volume_edges

#: Resources of which each object names its node.
NODE_NAMED = ("volumeattachments", "resourceslices", "podcertificaterequests")
_CLAIMS = "persistentvolumeclaims"


class Graph:
    """Which node may reach which object.

    It always equals a graph that is built from the current objects alone.
    """

    def __init__(self) -> None:
        self._nodes: dict[str, dict[Vertex, int]] = {}
        self._pods: dict[tuple[str, str], tuple[str, tuple[Vertex, ...]]] = {}
        self._volumes: dict[str, tuple[Vertex, frozenset[Vertex]]] = {}
        self._claim_nodes: dict[Vertex, dict[str, int]] = {}
        self._claim_volumes: dict[Vertex, set[str]] = {}
        self._named: dict[Vertex, str] = {}

    def reaches(self, node: str, vertex: Vertex) -> bool:
        """Tell whether a node may reach an object."""
        reached = self._nodes.get(node)
        return reached is not None and vertex in reached

    def reachable(self, node: str) -> list[Vertex]:
        """Return all that a node may reach, sorted."""
        return sorted(self._nodes.get(node, ()))

    def who(self, vertex: Vertex) -> list[str]:
        """Return all nodes that may reach an object, sorted."""
        return sorted(node for node, reached in self._nodes.items() if vertex in reached)

    def path(self, node: str, vertex: Vertex) -> list[Vertex]:
        """Return one way from a node to an object, the node first; [] if there is none."""
        start = ("nodes", "", node)
        if not self.reaches(node, vertex):
            return []
        if self._named.get(vertex) == node:
            return [start, vertex]
        for kind, namespace, name in self._nodes[node]:
            if kind != "pods":
                continue
            pod = (kind, namespace, name)
            if pod == vertex:
                return [start, pod]
            for edge in self._pods[namespace, name][1]:
                if edge == vertex:
                    return [start, pod, vertex]
                for volume in sorted(self._claim_volumes.get(edge, ())):
                    through = self._volumes[volume][1]
                    if vertex in through:
                        itself = ("persistentvolumes", "", volume)
                        way = [start, pod, edge, itself]
                        return way if vertex == itself else [*way, vertex]
        return []

    def objects(self, resource: str) -> Iterator[tuple[str, str]]:
        """Yield namespace and name of every known object of a resource."""
        if resource == "pods":
            yield from self._pods
        elif resource == "persistentvolumes":
            yield from (("", name) for name in self._volumes)
        else:
            yield from ((space, name) for kind, space, name in self._named if kind == resource)

    def volumes_of(self, claim: Vertex) -> list[tuple[str, frozenset[Vertex]]]:
        """Return the volumes of a claim, each with what is reached through it."""
        names = self._claim_volumes.get(claim, ())
        return [(name, self._volumes[name][1]) for name in names]

    def volumes_from(self, other: "Graph") -> None:
        """Take over, from another graph, the volumes of the claims that pods here name."""
        for claim in list(self._claim_nodes):
            for name, edges in other.volumes_of(claim):
                self._set_volume(name, claim, edges)

    def upsert(self, resource: str, value: Any) -> None:
        """Add or change an object of a resource that makes edges."""
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
        """Remove an object, if it is known."""
        if resource == "pods":
            pod = self._pods.pop((namespace, name), None)
            if pod is not None:
                self._unreach(pod[0], pod[1])
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
        edges = pod_edges(pod) if node else set()
        if before is not None and before[0] == node:
            known = set(before[1])
            if known == edges:
                return
        if before is not None:
            self.delete("pods", namespace, name)
        if node:
            node = intern(node)
            shared = tuple((intern(kind), intern(space), title) for kind, space, title in edges)
            self._pods[namespace, name] = (node, shared)
            self._reach(node, shared)

    def _upsert_named(self, vertex: Vertex, value: Any) -> None:
        node = (value.spec.nodeName if value.spec else None) or ""
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
