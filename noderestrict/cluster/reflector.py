"""Follow one resource by list and watch.

A reflector lists (as a streaming list if the server supports it, else in pages) and then watches
from the list's version. A watch that ends resumes from the last version seen. If the server has
forgotten that version (410), or has not answered, the reflector lists again. Objects go to sinks,
which see a list completely or not at all. An undecodable object affects only itself: the sinks do
not have it, and the reflector knows its name.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from noderestrict.api import corev1
from noderestrict.api.resources import Resource
from noderestrict.api.scanner import ScanError, members
from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.discovery import Discovery
from noderestrict.cluster.metadata import METADATA, METADATA_LIST, metadata_only
from noderestrict.cluster.objects import DECODE_ERRORS, LONG, ObjectDecoder, Unreadable
from noderestrict.cluster.pages import pages
from noderestrict.telemetry.logs import LOGGER, NodeLimiter

#: Not found: the version that was followed is not served any more.
_LIST_AGAIN = (HTTPStatus.GONE, HTTPStatus.GATEWAY_TIMEOUT, HTTPStatus.NOT_FOUND)
#: Until the API server is asked again for a resource that it does not serve.
_UNSERVED_SECONDS = 30.0
#: Resources of which names and uids are enough. A Node's addresses, which one strict rule reads,
#: are looked up live: that rule denies what a store without them does not show.
METADATA_ONLY = frozenset({"nodes", "serviceaccounts"})
#: Seconds for which their events gather, to be received at once, which takes half as long. What a
#: store lacks meanwhile is looked up live before it is denied.
_GATHER = 0.1
_INITIAL_EVENTS_END = "k8s.io/initial-events-end"
#: How many objects to decode before other tasks run.
_SLICE = 50
_PAGE = 250
# The API server stores objects of up to 3 MiB.
_LONGEST_LINE = 2**24
_MOST_NAMES = 100_000
_FAILURES_BEFORE_LIST = 3
_CHANGES = frozenset({"ADDED", "MODIFIED", "DELETED"})
#: How much of the time limit of a watch may have passed before an event extends it: to move a
#: timer takes longer than to read most events.
_PASSED = 0.01


class Sink(Protocol):
    """Where objects go. Between ``begin`` and ``commit`` it collects new content."""

    def begin(self) -> None:
        """Start to collect, and drop an unfinished collection."""

    def add(self, value: Any) -> None:
        """Collect one object."""

    def discard(self, value: Any) -> None:
        """Drop one collected object that was deleted before the list ended."""

    def commit(self) -> None:
        """Replace the content with the collection."""

    def upsert(self, value: Any) -> None:
        """Add or change one object."""

    def delete(self, value: Any) -> None:
        """Remove one object."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Waiting, for tests to replace.

    Attributes:
        sleep: waits for seconds.
        jitter: returns a factor for it.
        clock: seconds, monotonic.
        inactivity: seconds without a complete event after which to abandon a watch; bookmarks
            arrive every minute.
        watch: seconds after which the server should end a watch.
    """

    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.5)  # noqa: S311 (no secret)
    clock: Callable[[], float] = time.monotonic
    inactivity: float = 90
    watch: float = 400


class _BookmarkMeta(msgspec.Struct, gc=False):
    resourceVersion: str | None = None  # noqa: N815 (the API's name)
    annotations: dict[str, str] | None = None


class _Bookmark(msgspec.Struct):
    metadata: _BookmarkMeta


_T = TypeVar("_T")


class _Event(msgspec.Struct, Generic[_T], gc=False):
    type: str
    object: _T


class _Status(msgspec.Struct):
    code: int | None = None
    message: str | None = None


_events = msgspec.json.Decoder(_Event[msgspec.Raw])
_bookmarks = msgspec.json.Decoder(_Bookmark)
_statuses = msgspec.json.Decoder(_Status)


class _UnexpectedError(ClusterError):
    """The API server sent something unexpected, and will most likely do so again."""


class Reflector:
    """Keeps sinks equal to one resource of the cluster.

    Args:
        connection: to the API server.
        resource: what to follow.
        sinks: receive every change, in order.
        streaming: try a streaming list.
        pace: of waiting.
        failed: called with ``list`` or ``watch`` for each failure.
        lost: called for each undecodable object.
        only: namespace and name of the one object to follow; None for all.

    Attributes:
        has_synced: whether the sinks have ever equalled the cluster.
        problem: the last failure, "" if there was none.
    """

    def __init__(
        self,
        connection: Connection,
        resource: Resource,
        sinks: Sequence[Sink],
        *,
        streaming: bool = True,
        pace: Pace | None = None,
        failed: Callable[[str], None] = lambda _verb: None,
        lost: Callable[[], None] = lambda: None,
        only: tuple[str, str] | None = None,
    ) -> None:
        self._discovery = Discovery(connection, seconds=0)
        self._connection = connection
        self._resource = resource
        self._sinks = sinks
        self._streaming = streaming
        self._pace = pace or Pace()
        self._failed = failed
        self._lost = lost
        self._path, self._selector = resource.list_path, {}
        if only is not None:
            # RBAC grants list and watch by name only if the name is selected in exactly this way.
            self._path = resource.path(*only).rpartition("/")[0]
            self._selector = {"fieldSelector": f"metadata.name={only[1]}"}
        self._objects = ObjectDecoder(resource.struct)
        self._changes = msgspec.json.Decoder(_Event[resource.struct])  # type: ignore[name-defined]
        self._version: str | None = None
        self._listing = False
        self._failures = 0
        # Failures since the last list, and the version after which the API server sent something
        # unexpected. It will send it again until it sends a later version.
        self._since_list = 0
        self._stuck_at: str | None = None
        # Undecodable objects with their versions, in the sinks' content and in an unfinished list.
        self._unreadable: dict[tuple[str, str], str | None] = {}
        self._unreadable_next: dict[tuple[str, str], str | None] = {}
        self._logged = NodeLimiter()
        self._names: dict[str, str] = {}
        self._is_of_pods = resource.struct is corev1.Pod
        self._gather = (
            partial(self._pace.sleep, _GATHER) if resource.plural in METADATA_ONLY else None
        )
        self._heard: float | None = None
        self.has_synced = False
        self.problem = ""

    def age(self) -> float | None:
        """Return the seconds since the sinks last equalled the cluster; None if they never have.

        A list counts once it is complete, from the time of its request.
        """
        return None if self._heard is None else self._pace.clock() - self._heard

    def unreadable(self) -> Set[tuple[str, str]]:
        """Return the namespace and name of each undecodable object, which the sinks lack."""
        return self._unreadable.keys()

    async def run(self) -> None:
        """Follow the resource until cancelled."""
        while True:
            verb = "list" if self._version is None else "watch"
            try:
                if self._version is None and not await self.is_served():
                    await self._pace.sleep(_UNSERVED_SECONDS * self._pace.jitter())
                elif self._version is None and not self._streaming:
                    await self.list_once()
                else:
                    await self._watch()
            except ClusterError as error:
                await self._recover(verb, error)

    def forget(self) -> None:
        """List again next, instead of going on from the last version.

        While nobody answered, etcd may have been restored from a snapshot. A watch from a version
        that is yet to come hears nothing until then, and never what was undone.
        """
        self._version = None

    async def is_served(self) -> bool:
        """Return whether the API server serves the resource; if not, empty the sinks.

        Raises:
            ClusterError: the API server did not answer.
        """
        if not self._resource.older_versions:
            return True
        asked = self._pace.clock()
        found = await self._discovery.served(self._resource)
        if found is None:
            self._begin()
            self._commit(None, asked)
            return False
        self._path = found.list_path
        return True

    async def _recover(self, verb: str, error: ClusterError) -> None:
        if self._version is None and self._streaming and error.code:
            # The server answered, so it or its etcd does not support streaming lists.
            self._streaming = False
            return
        self.problem = str(error)
        self._failed(verb)
        self._failures += 1
        if self._version is not None:
            self._since_list += 1
            if error.code or isinstance(error, _UnexpectedError):
                self._stuck_at = self._version
            else:
                self.forget()
            if error.code in _LIST_AGAIN or self._since_list >= _FAILURES_BEFORE_LIST:
                self._version = None
        level = LOGGER.info if error.code == HTTPStatus.GONE else LOGGER.warning
        level(
            "%s failed",
            verb,
            extra={"resource": self._resource.plural, "error": str(error)[:500]},
        )
        if error.code == HTTPStatus.GONE and self._failures == 1:
            return
        delay = min(30.0, 0.5 * 2 ** min(self._failures, 7))
        await self._pace.sleep(delay * self._pace.jitter())

    def _went_on(self, version: str | None) -> None:
        """Note that an event was processed, and the version of the resource after it."""
        if not self._listing:
            self._heard = self._pace.clock()
        if version is None or self._listing:
            return
        if self._stuck_at is None or _is_later(version, self._stuck_at):
            self._failures = self._since_list = 0
            self._stuck_at = None
        self._version = version

    def _begin(self) -> None:
        self._listing = True
        self._unreadable_next = {}
        for sink in self._sinks:
            sink.begin()

    def _commit(self, version: str | None, asked: float) -> None:
        for sink in self._sinks:
            sink.commit()
        self._unreadable, self._unreadable_next = self._unreadable_next, {}
        self._listing = False
        self._heard = asked
        self._version = version
        self._since_list = 0
        if self._stuck_at is None:
            self._failures = 0
        self.has_synced = True

    def _accept(self, kind: str = METADATA) -> str | None:
        if self._resource.plural not in METADATA_ONLY:
            return None
        return f"{metadata_only(kind)},application/json"

    async def list_once(self) -> None:
        """Replace the content of the sinks with a list read in pages.

        Raises:
            ClusterError: the list failed; the sinks keep what they had.
        """
        asked = self._pace.clock()
        self._begin()
        version = None
        try:
            async for part in pages(
                self._connection, self._path, _PAGE, self._selector, self._accept(METADATA_LIST)
            ):
                for number, raw in enumerate(part.items):
                    if not number % _SLICE:
                        # Decoding a page takes milliseconds; let requests run in between.
                        await asyncio.sleep(0)
                    value = self._objects.quick(raw)
                    if value is None:
                        value = await self._objects.decode(raw)
                    self._take("ADDED", value)
                if part.metadata is not None:
                    version = part.metadata.resourceVersion
        except (*DECODE_ERRORS, ScanError) as error:
            raise _UnexpectedError(f"not what was expected: {error}") from None
        if not version:
            raise ClusterError("the list has no metadata.resourceVersion")
        self._commit(version, asked)

    async def _watch(self) -> None:
        query = {
            **self._selector,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(int(self._pace.watch * self._pace.jitter())),
        }
        if self._version is None:
            query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
            self._begin()
        else:
            query["resourceVersion"] = self._version
        started = self._pace.clock()
        try:
            await self._follow(query, started)
        except (*DECODE_ERRORS, ScanError) as error:
            raise _UnexpectedError(f"not what was expected: {error}") from None
        if self._version is None:
            raise ClusterError("the streaming list ended early")
        if self._pace.clock() - started < 1:
            # Do not hammer a server that ends every watch at once.
            await self._pace.sleep(self._pace.jitter())

    async def _follow(self, query: Mapping[str, str], started: float) -> None:
        """Process the lines of a watch until it ends."""
        # An event may arrive in many pieces, which are joined once, when it is complete.
        pieces: list[bytes] = []
        size = 0
        loop = asyncio.get_running_loop()
        inactivity = self._pace.inactivity
        extended = loop.time()
        try:
            async with asyncio.timeout(inactivity) as limit:
                async for piece in self._connection.stream(
                    self._path, query, accept=self._accept(), gather=self._gather
                ):
                    head, newline, rest = piece.partition(b"\n")
                    pieces.append(head)
                    size += len(head)
                    if size > _LONGEST_LINE:
                        raise _UnexpectedError(f"watch: an event is over {_LONGEST_LINE} bytes")
                    if not newline:
                        continue
                    lines = rest.split(b"\n")
                    events = await self._event(b"".join(pieces), started)
                    pieces = [lines.pop()]
                    size = len(pieces[0])
                    for line in lines:
                        events |= await self._event(line, started)
                    # Only events count: a connection may trickle bytes forever.
                    if events and (now := loop.time()) - extended > _PASSED * inactivity:
                        extended = now
                        limit.reschedule(now + inactivity)
        except TimeoutError:
            raise ClusterError(f"watch: no event for {inactivity:g} s") from None

    async def _event(self, line: bytes, started: float) -> bool:
        """Process one line of a watch started at a time; return whether it was an event."""
        if not line.strip():
            return False
        if len(line) <= LONG:
            try:
                change = self._changes.decode(line)
            except DECODE_ERRORS:
                pass  # no change, or of an undecodable object
            else:
                if change.type in _CHANGES:
                    self._take(change.type, change.object)
                    meta = change.object.metadata
                    self._went_on(meta.resourceVersion or None if meta else None)
                    return True
        try:
            event = _events.decode(line)
        except DECODE_ERRORS:
            # Perhaps only its object is undecodable.
            event = await asyncio.to_thread(_taken_apart, line)
        kind, raw = event.type, event.object
        if kind == "ERROR":
            status = _statuses.decode(raw)
            raise ClusterError(f"watch: {status.message}", status.code or 0)
        if kind == "BOOKMARK":
            meta = _bookmarks.decode(raw).metadata
            if self._listing and (meta.annotations or {}).get(_INITIAL_EVENTS_END) == "true":
                if not meta.resourceVersion:
                    raise ClusterError("the end of the streaming list has no resourceVersion")
                self._commit(meta.resourceVersion, started)
                return True
            version = meta.resourceVersion
        elif kind in _CHANGES:
            value, version = await self._objects.decode_versioned(raw)
            self._take(kind, value)
        else:
            raise _UnexpectedError(f"watch: unknown event type {kind[:40]!r}")
        self._went_on(version or None)
        return True

    def _take(self, kind: str, value: Any) -> None:
        """Apply an added, modified or deleted object to the sinks."""
        if value.__class__ is Unreadable:
            self._lose(kind, value)
            return
        meta = value.metadata
        if not meta or not meta.name:
            self._lose(kind, Unreadable("", "", None, "it has no metadata.name"))
            return
        known = self._unreadable_next if self._listing else self._unreadable
        if known:
            known.pop((meta.namespace or "", meta.name), None)
        # Many objects have the same names, so objects and sinks share the strings.
        names = self._names
        if len(names) >= _MOST_NAMES:
            # Made-up names must not fill the memory; clearing loses only the sharing.
            names.clear()
        if namespace := meta.namespace:
            meta.namespace = names.setdefault(namespace, namespace)
        if self._is_of_pods and (spec := value.spec):
            if node := spec.nodeName:
                spec.nodeName = names.setdefault(node, node)
            if account := spec.serviceAccountName:
                spec.serviceAccountName = names.setdefault(account, account)
        try:
            self._change(kind, value)
        except Exception as error:  # noqa: BLE001 (a bad object must affect only itself)
            problem = f"{type(error).__name__}: {error}"
            self._lose(kind, Unreadable(meta.namespace or "", meta.name, None, problem))

    def _change(self, kind: str, value: Any) -> None:
        if kind == "DELETED":
            for sink in self._sinks:
                (sink.discard if self._listing else sink.delete)(value)
        elif self._listing:
            for sink in self._sinks:
                sink.add(value)
        else:
            for sink in self._sinks:
                sink.upsert(value)

    def _lose(self, kind: str, lost: Unreadable) -> None:
        """Drop an undecodable object; those who need it look it up live."""
        key = (lost.namespace, lost.name)
        known = self._unreadable_next if self._listing else self._unreadable
        if lost.name:
            # Its name is all that sinks need to remove it.
            name = {"metadata": {"namespace": lost.namespace, "name": lost.name}}
            self._change("DELETED", msgspec.convert(name, self._resource.struct))
        if kind == "DELETED":
            known.pop(key, None)
            if lost.name:
                return
        self._lost()
        seen = known.get(key) or self._unreadable.get(key)
        if lost.name:
            known[key] = lost.version
        if (seen is None or seen != lost.version) and self._logged.allow(self._resource.plural):
            LOGGER.warning(
                "an object cannot be decoded",
                extra={
                    "resource": self._resource.plural,
                    "namespace": lost.namespace,
                    "object": lost.name,
                    "error": lost.problem[:500],
                },
            )


def _taken_apart(line: bytes) -> _Event[msgspec.Raw]:
    """Return a line of a watch as an event, even if its object is undecodable.

    Raises:
        ScanError: the line is not a JSON object.
        MsgspecError: it has no type or no object.
    """
    found = members(line, (b"type", b"object"))
    kind = msgspec.json.decode(found.get(b"type", b"null"), type=str)
    return _Event(kind, msgspec.Raw(found.get(b"object", b"null")))


def _is_later(version: str, other: str) -> bool:
    """Return whether a resourceVersion is later than another; in practice both are numbers."""
    if version.isdecimal() and other.isdecimal():
        return int(version) > int(other)
    return version != other
