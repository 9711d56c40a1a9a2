"""Feed the resources of the cluster into the graph."""

from collections.abc import Mapping
from typing import Any

from noderestrict.api.resources import RESOURCES, Resource
from noderestrict.cluster.connection import Connection
from noderestrict.cluster.reflector import Reflector
from noderestrict.cluster.server_info import server_version
from noderestrict.graph.graph import Graph
from noderestrict.policy.features import POD_CERTIFICATE_REQUEST, defaults


class GraphSink:
    """Feeds one resource into the graph.

    A list is merged as it arrives, and objects that are missing from it are removed at its end, so
    the graph never lacks an object in between.
    """

    def __init__(self, graph: Graph, plural: str) -> None:
        self._graph = graph
        self._plural = plural
        self._seen: set[tuple[str, str]] = set()

    def begin(self) -> None:
        """Start to merge a list."""
        self._seen = set()

    def add(self, value: Any) -> None:
        """Merge one object of a list."""
        self._seen.add(_key(value))
        self._graph.upsert(self._plural, value)

    def discard(self, value: Any) -> None:
        """Remove one object of a list that was deleted before its end."""
        self._seen.discard(_key(value))
        self.delete(value)

    def commit(self) -> None:
        """Remove the objects that the list did not contain."""
        for namespace, name in set(self._graph.objects(self._plural)) - self._seen:
            self._graph.delete(self._plural, namespace, name)
        self._seen = set()

    def upsert(self, value: Any) -> None:
        """Add or change one object."""
        self._graph.upsert(self._plural, value)

    def delete(self, value: Any) -> None:
        """Remove one object."""
        self._graph.delete(self._plural, *_key(value))


def _key(value: Any) -> tuple[str, str]:
    meta = value.metadata
    return (meta.namespace or "", meta.name or "") if meta else ("", "")


def graph_sinks(graph: Graph, features: Mapping[str, bool]) -> list[tuple[Resource, GraphSink]]:
    """Return the resources that the graph must follow, where the API server serves them.

    Args:
        graph: to feed.
        features: every feature gate with its value.
    """
    plurals = ["pods", "persistentvolumes", "volumeattachments", "resourceslices"]
    if features[POD_CERTIFICATE_REQUEST]:
        plurals.append("podcertificaterequests")
    return [(RESOURCES[plural], GraphSink(graph, plural)) for plural in plurals]


async def read_graph(connection: Connection) -> Graph:
    """Return the graph of a cluster as it is now.

    Raises:
        ClusterError: a resource could not be listed.
    """
    minor, _ = await server_version(connection)
    graph = Graph(most_edges=None)
    for resource, sink in graph_sinks(graph, defaults(minor)):
        reflector = Reflector(connection, resource, [sink])
        if await reflector.is_served():
            await reflector.list_once()
    return graph
