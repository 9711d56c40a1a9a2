"""Edges of the graph read live from the API server and cached for a short time."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from http import HTTPStatus
from itertools import islice
from typing import Any, Generic, TypeVar

from noderestrict.api import corev1
from noderestrict.api.resources import RESOURCES
from noderestrict.api.scanner import ScanError
from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.discovery import Discovery
from noderestrict.cluster.live import CALL_SECONDS, is_path_segment
from noderestrict.cluster.objects import ObjectDecoder, Unreadable
from noderestrict.graph.edges import Vertex, named_node, volume_edges
from noderestrict.graph.graph import SOURCES

_T = TypeVar("_T")
CLAIMS = "persistentvolumeclaims"
#: Resources read object by object; the pods of a node are listed instead.
_READ = (CLAIMS, *(plural for plural in SOURCES if plural != "pods"))


class Remembered(Generic[_T]):
    """A cache of answers, each with the time of its request.

    Args:
        clock: seconds, monotonic.
        seconds: how long to keep an answer.
        entries: how many answers to keep.
    """

    def __init__(self, clock: Callable[[], float], seconds: float, entries: int) -> None:
        self._clock = clock
        self._seconds = seconds
        self._entries = entries
        self._running: dict[Hashable, tuple[float, asyncio.Task[_T]]] = {}
        #: In the order of their requests.
        self._known: OrderedDict[Hashable, tuple[float, _T]] = OrderedDict()

    async def get(
        self,
        key: Hashable,
        since: float,
        call: Callable[[], Awaitable[_T]],
        left: Callable[[], float],
        spend: Callable[[], None],
    ) -> _T:
        """Return an answer requested at ``since`` or later; concurrent callers share one call.

        Args:
            key: of the request.
            since: a time of the clock, not in the future.
            call: makes the request.
            left: returns the seconds left to wait.
            spend: called before the request is made.

        Raises:
            TimeoutError: no answer came in time; the call continues for the others.
        """
        known = self._known.get(key)
        if known is not None and known[0] >= since:
            return known[1]
        while (running := self._running.get(key)) is not None and running[0] < since:
            # Its answer may be too old. The first caller that sees it end makes a new request.
            done, _ = await asyncio.wait((running[1],), timeout=max(0.0, left()))
            if not done:
                raise TimeoutError
        if running is None:
            spend()
            asked = self._clock()
            task = asyncio.get_running_loop().create_task(self._ask(key, asked, call))
            task.add_done_callback(_retrieved)
            running = self._running[key] = asked, task
        return await asyncio.wait_for(asyncio.shield(running[1]), max(0.0, left()))

    async def _ask(self, key: Hashable, asked: float, call: Callable[[], Awaitable[_T]]) -> _T:
        try:
            answer = await call()
        finally:
            del self._running[key]
        self._known[key] = asked, answer
        self._known.move_to_end(key)
        for oldest in list(islice(self._known, 2)):
            # Evict up to two entries for each new one, so that old answers do not stay.
            if self._known[oldest][0] < asked - self._seconds or len(self._known) > self._entries:
                del self._known[oldest]
        return answer


def _retrieved(task: asyncio.Task[Any]) -> None:
    # All callers may have left before it failed.
    if not task.cancelled():
        task.exception()


class LiveEdges:
    """Reads single objects that have edges from a node to other objects.

    Args:
        connection: to the API server.
        counted: called with a resource name and a result, as for lookups.
        seconds: how long to keep an answer.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        connection: Connection,
        counted: Callable[[str, str], None],
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._discovery = Discovery(connection, seconds, clock)
        self._counted = counted
        self._objects: Remembered[Any] = Remembered(clock, seconds, 20_000)
        self._decoders = {plural: ObjectDecoder(RESOURCES[plural].struct) for plural in _READ}

    async def node_of(
        self, vertex: Vertex, since: float, left: Callable[[], float], spend: Callable[[], None]
    ) -> str:
        """Return the node that an object names, "" for none or no object.

        Args:
            vertex: of a resource whose objects name a node.
            since: a time of the clock; the answer is not older.
            left: returns the seconds left to wait.
            spend: called before each request to the API server.

        Raises:
            ClusterError: the request failed.
            TimeoutError: no answer came in time.
        """
        value = await self._objects.get(
            vertex, since, lambda: self._read(vertex, named_node), left, spend
        )
        return value or ""

    async def volume(
        self, name: str, since: float, left: Callable[[], float], spend: Callable[[], None]
    ) -> tuple[Vertex | None, frozenset[Vertex]]:
        """Return the claim of a PersistentVolume, and the objects reached through it.

        Arguments and errors are those of ``node_of``.
        """
        vertex = ("persistentvolumes", "", name)
        found = await self._objects.get(
            vertex, since, lambda: self._read(vertex, volume_edges), left, spend
        )
        return found or (None, frozenset())

    async def volume_of(
        self, claim: Vertex, since: float, left: Callable[[], float], spend: Callable[[], None]
    ) -> str:
        """Return the name of the PersistentVolume of a claim, "" for none or no claim.

        Arguments and errors are those of ``node_of``.
        """
        value = await self._objects.get(
            claim, since, lambda: self._read(claim, _volume_name), left, spend
        )
        return value or ""

    async def _read(self, vertex: Vertex, reduce: Callable[[Any], _T]) -> _T | None:
        plural, namespace, name = vertex
        resource = await self._discovery.served(RESOURCES[plural])
        if resource is None:
            return None
        segments = (name, namespace) if resource.namespaced else (name,)
        if not all(map(is_path_segment, segments)) or (namespace and not resource.namespaced):
            # No object can have such a name, but a node can request any.
            return None
        path = resource.path(namespace, name)
        try:
            body = await self._connection.get(path, seconds=CALL_SECONDS)
        except ClusterError as error:
            if error.code == HTTPStatus.NOT_FOUND:
                self._counted(plural, "not_found")
                return None
            self._counted(plural, "error")
            raise
        decoder = self._decoders[plural]
        try:
            value = decoder.quick(body)
            if value is None:
                value = await decoder.decode(body)
        except ScanError as error:
            value = Unreadable(namespace, name, None, str(error))
        if isinstance(value, Unreadable):
            self._counted(plural, "error")
            raise ClusterError(f"{path}: {value.problem}")
        self._counted(plural, "found")
        return reduce(value)


def _volume_name(claim: corev1.PersistentVolumeClaim) -> str:
    return (claim.spec.volumeName if claim.spec else None) or ""
