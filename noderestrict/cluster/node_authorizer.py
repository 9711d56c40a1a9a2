"""Answer SubjectAccessReviews from a graph that follows the cluster.

The graph may be stale. Before the answer is "nothing refers to it", the pods of the node are listed
live, or the object that would name the node is read.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Set
from functools import cache
from typing import NamedTuple
from urllib.parse import quote

from noderestrict import authorization
from noderestrict.api import corev1
from noderestrict.api.resources import RESOURCES
from noderestrict.api.scanner import ScanError
from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.freshness import Freshness
from noderestrict.cluster.live import Budget, BudgetExhaustedError
from noderestrict.cluster.live_edges import CLAIMS, LiveEdges, Remembered
from noderestrict.cluster.objects import DECODE_ERRORS, LONG, ObjectDecoder, Unreadable
from noderestrict.cluster.pages import pages
from noderestrict.errors import said
from noderestrict.graph.edges import Vertex
from noderestrict.graph.graph import NODE_NAMED, Graph
from noderestrict.graph.rules import Opinion
from noderestrict.policy.releases import LATEST, Release

_LIST_SECONDS = 5.0
#: More than run on a node: before 1.34, API servers read a second page from etcd, past the pods of
#: all nodes, which takes seconds in a large cluster. Pages are split while they arrive, since a
#: node chooses how large its mirror pods are.
_PAGE = 500
#: Concurrent lists of nodes' pods.
_LISTS = 8
#: How many pods to decode before other tasks run.
_SLICE = 20


#: The stores that an answer about a resource depends on; pods by default.
_RESTS_ON = {
    "secrets": ("pods", "persistentvolumes"),
    "persistentvolumes": ("pods", "persistentvolumes"),
    **{plural: (plural,) for plural in NODE_NAMED},
}
_NEVER_STALE = Freshness({})
#: Claims of one node to look up before a denial, and how many at a time.
_MOST_CLAIMS, _AT_A_TIME = 200, 10


class NodeAuthorizer:
    """Answers from the graph, and confirms every no.

    A yes is confirmed too if a store that it depends on is stale. Confirmed answers are cached for
    the maximum staleness of a store.

    Args:
        connection: to the API server.
        graph: kept by the sinks.
        features: all feature gates.
        synced: returns whether the graph has been filled once.
        counted: called with a resource name and a result, as for lookups.
        share: returns the share of the budget to spend for a node and a client address.
        unreadable: returns the namespace and name of each undecodable object of a resource, which
            the graph lacks.
        freshness: of the stores.
        clock: seconds, monotonic.
        release: whose rules apply.
    """

    def __init__(
        self,
        connection: Connection,
        graph: Graph,
        features: Mapping[str, bool],
        synced: Callable[[], bool],
        counted: Callable[[str, str], None] = lambda _resource, _result: None,
        share: Callable[[str, str], Hashable] = lambda node, peer: (peer, node),
        unreadable: Callable[[str], Set[tuple[str, str]]] = lambda _plural: frozenset(),
        freshness: Freshness = _NEVER_STALE,
        clock: Callable[[], float] = time.monotonic,
        release: Release = LATEST,
    ) -> None:
        self._connection = connection
        self._graph = graph
        self._features = features
        self._release = release
        self._synced = synced
        self._filled = False
        self._share = share
        self._unreadable = unreadable
        self._counted = counted
        self._freshness = freshness
        self._clock = clock
        self._budget = Budget(burst=50, per_second=5, clock=clock)
        self._pods: Remembered[_Pods] = Remembered(clock, freshness.limit, 10_000)
        self._edges = LiveEdges(connection, counted, freshness.limit, clock)
        # The objects being asked about for each node, with counts.
        self._asked: dict[str, Counter[Vertex]] = {}
        self._lists = asyncio.Semaphore(_LISTS)
        self._decoder = ObjectDecoder(corev1.Pod)

    async def authorize(
        self, review: authorization.Review, deadline: float, peer: str = ""
    ) -> Opinion | None:
        """Return the opinion; None if a live lookup was needed and failed."""
        opinion = authorization.evaluate(review, self._graph, self._features, self._release)
        asked = review.access
        if not opinion.by_path or asked is None:
            return opinion
        stale = self._rests_on_stale(asked.resource)
        if opinion.allowed and not stale:
            return opinion
        vertex = asked.vertex
        if vertex[1:] in self._unreadable(vertex[0]):
            # Its edges are unknown.
            return None
        question = _Question(
            asked.node, vertex, lambda: deadline - time.monotonic(), self._spender(asked.node, peer)
        )
        now = self._clock()
        about = self._asked.setdefault(asked.node, Counter())
        about[vertex] += 1
        try:
            # For a yes, a cached answer is enough if it is not stale.
            reached = stale and await self._reaches(question, now - self._freshness.limit, now)
            if not reached:
                reached = await self._reaches(question, now, now)
        except BudgetExhaustedError:
            # A node that is denied this often gets its denials from the graph only, unless the
            # graph lacks references of its pods.
            known = not stale and not self._graph.has_large_pods(asked.node)
            return opinion if known and not opinion.allowed else None
        except (ClusterError, TimeoutError):
            return None
        finally:
            about[vertex] -= 1
            if not about[vertex]:
                del about[vertex]
            if not about and self._asked.get(asked.node) is about:
                del self._asked[asked.node]
        if not reached and not self._filled:
            return None
        return authorization.evaluate(review, _Reached(reached), self._features, self._release)

    def _rests_on_stale(self, plural: str) -> bool:
        """Return whether the graph's answer about a resource must be confirmed."""
        if not self._filled:
            self._filled = self._synced()
        if self._filled and not self._freshness.any_stale():
            return False
        rests_on = _RESTS_ON.get(plural, ("pods",))
        return not self._filled or any(map(self._freshness.stale, rests_on))

    def _spender(self, node: str, peer: str) -> Callable[[], None]:
        """Return a function that spends the budget of a client, at most once."""
        spent = False

        def spend() -> None:
            nonlocal spent
            if not spent:
                self._budget.spend(self._share(node, peer))
                spent = True

        return spend

    async def _reaches(self, question: "_Question", since: float, now: float) -> bool:
        """Return whether a node reaches an object, from answers no older than a time.

        Raises:
            BudgetExhaustedError: the client has used up its share.
            ClusterError: a live lookup failed.
            TimeoutError: a live lookup took too long.
        """
        node, vertex, left, spend = question
        if vertex[0] in NODE_NAMED:
            return await self._edges.node_of(vertex, since, left, spend) == node
        if since < now and self._filled and not self._freshness.stale("pods"):
            pods = _Pods(self._graph.pods_reach(node))
        else:
            pods = await self._pods.get(node, since, lambda: self._pods_of(node), left, spend)
        if vertex in pods.edges or await self._volumes_reach(question, pods.edges, since, now):
            return True
        if since == now:
            if not pods.complete:
                raise ClusterError(f"node {node} has an undecodable pod")
            if pods.large and self._may_lack_volumes(vertex[0]):
                raise ClusterError(f"a large pod of node {node} may have claims that lead there")
        return False

    async def _volumes_reach(
        self, question: "_Question", pods: Set[Vertex], since: float, now: float
    ) -> bool:
        """Return whether an object is reached through a claim of the pods; errors as above."""
        vertex = question.vertex
        if "persistentvolumes" not in _RESTS_ON.get(vertex[0], ()):
            return False
        claims = {edge for edge in pods if edge[0] == CLAIMS}
        if self._may_lack_volumes(vertex[0]):
            return await self._reaches_by_volume(question, claims, since, now)
        if any(vertex in self._volume_edges(claim) for claim in claims):
            return True
        lost = self._unreadable("persistentvolumes")
        if lost and since == now:
            # Their edges are unknown. A claim bound to none of them leads nowhere else.
            volumes = await self._volumes_of(claims, question, since)
            if not lost.isdisjoint(("", volume) for volume in volumes):
                raise ClusterError("a volume is undecodable")
        return False

    def _may_lack_volumes(self, plural: str) -> bool:
        """Return whether a resource is reached by volumes that the graph may lack."""
        return "persistentvolumes" in _RESTS_ON.get(plural, ()) and (
            not self._filled or self._freshness.stale("persistentvolumes")
        )

    async def _volumes_of(
        self, claims: Set[Vertex], question: "_Question", since: float
    ) -> list[str]:
        """Return the volume that each claim is bound to, "" for none.

        Errors are those of ``_reaches``; also ClusterError for too many claims.
        """
        if len(claims) > _MOST_CLAIMS:
            raise ClusterError(f"too many claims to look up: {len(claims)}")
        at_a_time = asyncio.Semaphore(_AT_A_TIME)

        async def volume_of(claim: Vertex) -> str:
            async with at_a_time:
                return await self._edges.volume_of(claim, since, question.left, question.spend)

        return await asyncio.gather(*map(volume_of, sorted(claims)))

    def _volume_edges(self, claim: Vertex) -> Set[Vertex]:
        return set().union(*(edges for _, edges in self._graph.volumes_of(claim)))

    async def _reaches_by_volume(
        self, question: "_Question", claims: Set[Vertex], since: float, now: float
    ) -> bool:
        """Return whether a volume of some claims leads to an object; reads volumes one by one."""
        _, vertex, left, spend = question

        async def leads(volume: str) -> bool:
            claim, edges = await self._edges.volume(volume, since, left, spend)
            return claim in claims and vertex in edges

        if vertex[0] == "persistentvolumes":
            return not vertex[1] and await leads(vertex[2])
        for claim in sorted(claims):
            for volume, edges in self._graph.volumes_of(claim):
                if vertex in edges and await leads(volume):
                    return True
        if since < now or not self._filled:
            return False
        # The graph may lack volumes, so a denial needs the current volume of each claim.
        volumes = await self._volumes_of(claims, question, since)
        for first in range(0, len(volumes), _AT_A_TIME):
            some = filter(None, volumes[first : first + _AT_A_TIME])
            if any(await asyncio.gather(*map(leads, some))):
                return True
        return False

    async def _pods_of(self, node: str) -> "_Pods":
        """Return the references of a node's pods, read live.

        For a pod with very many references, only those being asked about are returned.
        """
        asked = frozenset(self._asked.get(node, ()))

        @cache
        def wanted() -> frozenset[Vertex]:
            return asked | self._graph.claims_to(asked)

        graph = Graph(wanted=wanted)
        complete = True
        selector = {"fieldSelector": f"spec.nodeName={quote(node, safe='')}"}
        path = RESOURCES["pods"].list_path
        try:
            async with asyncio.timeout(_LIST_SECONDS), self._lists:
                async for part in pages(self._connection, path, _PAGE, selector):
                    for number, raw in enumerate(part.items):
                        if not number % _SLICE:
                            await asyncio.sleep(0)
                        pod = self._decoder.quick(raw)
                        if pod is None:
                            pod = await self._decoder.decode(raw)
                        if isinstance(pod, Unreadable):
                            complete = False
                        # The server filters, but a pod of another node must never count, whatever
                        # the node's name contains.
                        elif pod.spec is not None and pod.spec.nodeName == node:
                            if len(raw) > LONG:
                                # This takes milliseconds and runs in a thread, so read what is
                                # wanted from the graph first: it changes meanwhile.
                                wanted()
                                await asyncio.to_thread(graph.upsert, "pods", pod)
                            else:
                                graph.upsert("pods", pod)
        except (*DECODE_ERRORS, ScanError, TimeoutError) as error:
            self._counted("pods_of_node", "error")
            raise ClusterError(f"pods of node {node}: {said(error)}") from None
        except ClusterError:
            self._counted("pods_of_node", "error")
            raise
        self._counted("pods_of_node", "found")
        edges = self._graph.shared(node, graph.pods_reach(node))
        return _Pods(edges, complete, graph.has_large_pods(node))


class _Pods(NamedTuple):
    """The references of a node's pods.

    They are complete unless one of the pods is undecodable. Of a large pod's claims, they include
    only those that were asked about, or led there when the pods were listed.
    """

    edges: Set[Vertex]
    complete: bool = True
    large: bool = False


class _Question(NamedTuple):
    """Whether a node reaches an object, with the seconds left and a function to spend budget."""

    node: str
    vertex: Vertex
    left: Callable[[], float]
    spend: Callable[[], None]


class _Reached:
    """The answer about one object, as a graph."""

    def __init__(self, reached: bool) -> None:  # noqa: FBT001 (the one thing that it holds)
        self._reached = reached

    def reaches(self, _node: str, _vertex: Vertex) -> bool:
        """Return whether a node may reach an object."""
        return self._reached
