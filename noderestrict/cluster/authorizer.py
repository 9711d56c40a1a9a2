"""Answer SubjectAccessReviews from a graph that follows the cluster.

Before "nothing refers to it" is answered, the pods of the node are listed live once: a pod may be
newer than the graph.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import quote

from noderestrict import authorization
from noderestrict.api import corev1
from noderestrict.api.scanner import ScanError
from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.live import Budget, BudgetExhaustedError, Coalescer
from noderestrict.cluster.objects import DECODE_ERRORS, LONG, ObjectDecoder, Unreadable
from noderestrict.cluster.pages import pages
from noderestrict.cluster.questions import server_version
from noderestrict.cluster.reflector import Reflector, Resource
from noderestrict.graph.authorizer import Opinion
from noderestrict.graph.edges import Vertex
from noderestrict.graph.graph import Graph
from noderestrict.graph.objects import RESOURCES
from noderestrict.policy.features import POD_CERTIFICATE_REQUEST, defaults

_PATHS = {
    "pods": "/api/v1/pods",
    "persistentvolumes": "/api/v1/persistentvolumes",
    "volumeattachments": "/apis/storage.k8s.io/v1/volumeattachments",
    "resourceslices": "/apis/resource.k8s.io/v1/resourceslices",
    "podcertificaterequests": "/apis/certificates.k8s.io/v1beta1/podcertificaterequests",
}
_RESOURCE_SLICES_SINCE = 34
_LIST_SECONDS = 5.0
#: A node chooses how large its mirror pods are: few of them at a time fit into memory.
_PAGE = 20
#: Lists of nodes' pods at a time: each may hold a page of the largest pods.
_LISTS = 8


class GraphSink:
    """Brings one resource into the graph.

    A list is merged as it comes, and what it did not hold is removed at its end: the graph never
    lacks in between what it had before.
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
        """Remove one object of a list that is gone before its end."""
        self._seen.discard(_key(value))
        self.delete(value)

    def commit(self) -> None:
        """Remove what the list did not hold."""
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


def graph_sinks(
    graph: Graph, features: Mapping[str, bool], minor: int
) -> list[tuple[Resource, GraphSink]]:
    """Return what the graph must follow on a server of Kubernetes 1.``minor``."""
    plurals = ["pods", "persistentvolumes", "volumeattachments"]
    if minor >= _RESOURCE_SLICES_SINCE:
        plurals.append("resourceslices")
    if features[POD_CERTIFICATE_REQUEST]:
        plurals.append("podcertificaterequests")
    return [
        (Resource(plural, _PATHS[plural], RESOURCES[plural][1]), GraphSink(graph, plural))
        for plural in plurals
    ]


async def read_graph(connection: Connection) -> Graph:
    """Return the graph of a cluster as it is now.

    Raises:
        ClusterError: a resource could not be listed.
    """
    minor, _ = await server_version(connection)
    graph = Graph(most_edges=None)
    for resource, sink in graph_sinks(graph, defaults(minor), minor):
        await Reflector(connection, resource, [sink]).list_once()
    return graph


class ClusterAuthorizer:
    """Answers from the graph, and looks again before it says no.

    Args:
        connection: to the API server.
        graph: kept by the sinks.
        features: all gates.
        synced: tells whether the graph has been filled once.
        counted: called with a resource name and a result, as for look-ups.
        share: returns whose budget of lists is spent for a node, by a client at an address.
        unreadable: tells whether an object exists that cannot be decoded, and is not in the graph.
    """

    def __init__(
        self,
        connection: Connection,
        graph: Graph,
        features: Mapping[str, bool],
        synced: Callable[[], bool],
        counted: Callable[[str, str], None] = lambda _resource, _result: None,
        share: Callable[[str, str], Hashable] = lambda node, peer: (peer, node),
        unreadable: Callable[[Vertex], bool] = lambda _vertex: False,
    ) -> None:
        self._connection = connection
        self._graph = graph
        self._features = features
        self._synced = synced
        self._share = share
        self._unreadable = unreadable
        self._counted = counted
        self._budget = Budget(burst=50, per_second=5)
        self._calls: Coalescer[_Listed] = Coalescer()
        # What is asked about each node at the moment; how often.
        self._asked: dict[str, Counter[Vertex]] = {}
        self._lists = asyncio.Semaphore(_LISTS)
        self._decoder = ObjectDecoder(corev1.Pod)

    async def authorize(
        self, review: authorization.Review, deadline: float, peer: str = ""
    ) -> Opinion | None:
        """Return the opinion; None if the API server had to be asked and could not be."""
        opinion = authorization.judge(review, self._graph, self._features)
        if opinion.allowed or not opinion.by_path or review.attributes is None:
            return opinion
        node = review.attributes.node
        vertex = review.attributes.vertex
        if self._unreadable(vertex):
            # Nothing is known of what it leads to.
            return None
        asked = self._asked.setdefault(node, Counter())
        asked[vertex] += 1
        try:
            self._budget.spend(self._share(node, peer))
            left = deadline - time.monotonic()
            listed = await self._calls.ask(node, lambda: self._list(node), left)
        except BudgetExhaustedError:
            # A node that is refused so often gets its refusals from the graph alone, unless that
            # does not hold all that its pods name.
            known = self._synced() and not self._graph.has_large_pods(node)
            return opinion if known else None
        except (ClusterError, TimeoutError):
            return None
        finally:
            asked[vertex] -= 1
            if not asked[vertex]:
                del asked[vertex]
            if not asked and self._asked.get(node) is asked:
                del self._asked[node]
        again = authorization.judge(review, listed.graph, self._features)
        if again.allowed or (self._synced() and listed.complete):
            return again
        return None

    async def _list(self, node: str) -> "_Listed":
        """Return the graph of a node's pods as the API server has them now."""
        asked = frozenset(self._asked.get(node, ()))

        @cache
        def wanted() -> frozenset[Vertex]:
            return asked | self._graph.claims_to(asked)

        graph = Graph(wanted=wanted)
        complete = True
        selector = {"fieldSelector": f"spec.nodeName={quote(node, safe='')}"}
        try:
            async with asyncio.timeout(_LIST_SECONDS), self._lists:
                async for part in pages(self._connection, _PATHS["pods"], _PAGE, selector):
                    for raw in part.items:
                        pod = self._decoder.quick(raw)
                        if pod is None:
                            pod = await self._decoder.decode(raw)
                        if isinstance(pod, Unreadable):
                            complete = False
                        # The server selects; a pod of another node must never count, whatever the
                        # name held.
                        elif pod.spec is not None and pod.spec.nodeName == node:
                            if len(raw) > LONG:
                                # Looking through all that it names takes milliseconds; what is
                                # looked for comes from a graph that changes meanwhile.
                                wanted()
                                await asyncio.to_thread(graph.upsert, "pods", pod)
                            else:
                                graph.upsert("pods", pod)
        except (*DECODE_ERRORS, ScanError, TimeoutError) as error:
            self._counted("pods_of_node", "error")
            what = error or type(error).__name__
            raise ClusterError(f"pods of node {node}: {what}") from None
        except ClusterError:
            self._counted("pods_of_node", "error")
            raise
        self._counted("pods_of_node", "found")
        graph.volumes_from(self._graph)
        return _Listed(graph, complete)


@dataclass(frozen=True, slots=True)
class _Listed:
    """The graph of one node's pods, which is complete unless one of them cannot be decoded."""

    graph: Graph
    complete: bool
