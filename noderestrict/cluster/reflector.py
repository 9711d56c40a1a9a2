"""Follow one resource by list and watch.

The states: list (a streaming list where the server has it, else in pages), then watch from the
list's version; a watch that ends goes on from the last version seen; a version that the server
has forgotten (410) means a new list. What is read goes to sinks, which see a list as a whole or
not at all.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.telemetry.logs import LOGGER

GONE = 410
_TOO_LARGE = 504
_INITIAL_EVENTS_END = "k8s.io/initial-events-end"
#: Objects that are decoded in one go.
_SLICE = 50
_PAGE = 250
_FAILURES_BEFORE_LIST = 3


class Sink(Protocol):
    """Where objects go. Between ``begin`` and ``commit``, a new content is collected."""

    def begin(self) -> None:
        """Start to collect; what an unfinished collection has is dropped."""

    def add(self, value: Any) -> None:
        """Collect one object."""

    def discard(self, value: Any) -> None:
        """Drop one object that was collected: it is gone before the list has ended."""

    def commit(self) -> None:
        """Make what was collected the content."""

    def upsert(self, value: Any) -> None:
        """Add or change one object."""

    def delete(self, value: Any) -> None:
        """Remove one object."""


@dataclass(frozen=True, slots=True)
class Resource:
    """What to follow: the plural, the path of its list, the Struct of one object."""

    plural: str
    path: str
    struct: type[msgspec.Struct]


@dataclass(frozen=True, slots=True)
class Pace:
    """Waiting, for tests to replace.

    Attributes:
        sleep: waits for seconds.
        jitter: returns a factor for it.
        clock: seconds, monotonic.
        inactivity: seconds without a complete event after which a watch is given up; bookmarks
            come every minute.
        watch: seconds after which the server is asked to end a watch.
    """

    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.5)  # noqa: S311 (no secret)
    clock: Callable[[], float] = time.monotonic
    inactivity: float = 90
    watch: float = 400


class _Meta(msgspec.Struct, gc=False):
    resourceVersion: str | None = None  # noqa: N815 (the API's name)
    continue_: str | None = msgspec.field(default=None, name="continue")
    annotations: dict[str, str] | None = None


class Page(msgspec.Struct):
    """One page of a list, whose objects stay raw."""

    metadata: _Meta
    items: list[msgspec.Raw] | None = None


class _Versioned(msgspec.Struct, gc=False):
    metadata: _Meta = msgspec.field(default_factory=_Meta)


class _Event(msgspec.Struct, gc=False):
    type: str
    object: msgspec.Raw


class _Status(msgspec.Struct):
    code: int | None = None
    message: str | None = None


_pages = msgspec.json.Decoder(Page)
_events = msgspec.json.Decoder(_Event)
_versions = msgspec.json.Decoder(_Versioned)
_statuses = msgspec.json.Decoder(_Status)


async def pages(
    connection: Connection, path: str, size: int, query: Mapping[str, str] | None = None
) -> AsyncIterator[Page]:
    """Yield a list page by page.

    Args:
        connection: to the API server.
        path: of the list.
        size: objects of one page.
        query: further parameters.

    Raises:
        ClusterError: the list failed.
        msgspec.MsgspecError: an answer is no list; UnicodeDecodeError and RecursionError likewise.
    """
    asked = {**(query or {}), "limit": str(size)}
    while True:
        page = _pages.decode(await connection.get(path, asked))
        yield page
        if not page.metadata.continue_:
            return
        asked["continue"] = page.metadata.continue_


class Reflector:
    """Keeps sinks equal to one resource of the cluster.

    Args:
        connection: to the API server.
        resource: what to follow.
        sinks: told of everything, in order.
        streaming: try a streaming list.
        pace: waiting.
        failed: called with ``list`` or ``watch`` for each that failed.
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
    ) -> None:
        self._connection = connection
        self._resource = resource
        self._sinks = sinks
        self._streaming = streaming
        self._pace = pace or Pace()
        self._failed = failed
        self._objects = msgspec.json.Decoder(resource.struct)
        self._version: str | None = None
        self._listing = False
        self._failures = 0
        self._heard: float | None = None
        self.has_synced = False

    def age(self) -> float | None:
        """Return the seconds since the sinks last equalled the cluster; None before they did.

        A list tells how things were when it was asked for, and counts once it is complete.
        """
        return None if self._heard is None else self._pace.clock() - self._heard

    async def run(self) -> None:
        """Follow the resource until cancelled."""
        while True:
            verb = "list" if self._version is None else "watch"
            try:
                if self._version is None and not self._streaming:
                    await self.list_once()
                else:
                    await self._watch()
            except ClusterError as error:
                await self._recover(verb, error)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                await self._recover(verb, ClusterError(f"not what was expected: {error}"))

    async def _recover(self, verb: str, error: ClusterError) -> None:
        if self._version is None and self._streaming and error.code:
            # The server answered: it has no streaming lists, or not with its etcd.
            self._streaming = False
            return
        self._failed(verb)
        self._failures += 1
        stale = error.code in (GONE, _TOO_LARGE) or self._failures >= _FAILURES_BEFORE_LIST
        if stale and self._version is not None:
            self._version = None
        level = LOGGER.info if error.code == GONE else LOGGER.warning
        level(
            "%s failed",
            verb,
            extra={"resource": self._resource.plural, "error": str(error)[:500]},
        )
        if error.code == GONE and self._failures == 1:
            return
        delay = min(30.0, 0.5 * 2 ** min(self._failures, 7))
        await self._pace.sleep(delay * self._pace.jitter())

    def _alive(self) -> None:
        if not self._listing:
            self._heard = self._pace.clock()
        self._failures = 0

    def _begin(self) -> None:
        self._listing = True
        for sink in self._sinks:
            sink.begin()

    def _commit(self, version: str, asked: float) -> None:
        for sink in self._sinks:
            sink.commit()
        self._listing = False
        self._heard = asked
        self._version = version
        self.has_synced = True

    async def list_once(self) -> None:
        """Replace the content of the sinks by what a list in pages holds.

        Raises:
            ClusterError: the list failed; the sinks keep what they had.
        """
        asked = self._pace.clock()
        self._begin()
        version = None
        async for page in pages(self._connection, self._resource.path, _PAGE):
            for number, raw in enumerate(page.items or ()):
                if not number % _SLICE:
                    # Decoding a page takes milliseconds: requests come in between.
                    await asyncio.sleep(0)
                self._add(self._objects.decode(raw))
            version = page.metadata.resourceVersion
        if not version:
            raise ClusterError("the list has no metadata.resourceVersion")
        self._alive()
        self._commit(version, asked)

    def _add(self, value: Any) -> None:
        for sink in self._sinks:
            sink.add(value)

    async def _watch(self) -> None:
        query = {
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
        # An event may come in many pieces: they are joined once, when its end is there.
        pieces: list[bytes] = []
        loop = asyncio.get_running_loop()
        inactivity = self._pace.inactivity
        try:
            async with asyncio.timeout(inactivity) as limit:
                async for piece in self._connection.stream(
                    self._resource.path, query, inactivity=inactivity
                ):
                    head, newline, rest = piece.partition(b"\n")
                    pieces.append(head)
                    if not newline:
                        continue
                    lines = rest.split(b"\n")
                    events = self._event(b"".join(pieces), started)
                    pieces = [lines.pop()]
                    for line in lines:
                        events |= self._event(line, started)
                    if events:
                        # Bytes alone are no life: a connection may trickle them for ever.
                        limit.reschedule(loop.time() + inactivity)
        except TimeoutError:
            raise ClusterError(f"watch: no event for {inactivity:g} s") from None
        if self._version is None:
            raise ClusterError("the streaming list broke off")
        if self._pace.clock() - started < 1:
            # A server that ends every watch at once must not be asked in a tight loop.
            await self._pace.sleep(self._pace.jitter())

    def _event(self, line: bytes, started: float) -> bool:
        """Take one line of a watch that began at a time, and return whether it was an event."""
        if not line.strip():
            return False
        event = _events.decode(line)
        if event.type == "ERROR":
            status = _statuses.decode(event.object)
            raise ClusterError(f"watch: {status.message}", status.code or 0)
        self._alive()
        meta = _versions.decode(event.object).metadata
        if event.type == "BOOKMARK":
            if self._listing and (meta.annotations or {}).get(_INITIAL_EVENTS_END) == "true":
                if not meta.resourceVersion:
                    raise ClusterError("the end of the streaming list has no resourceVersion")
                self._commit(meta.resourceVersion, started)
        elif event.type in ("ADDED", "MODIFIED", "DELETED"):
            self._change(event.type, self._objects.decode(event.object))
        else:
            raise ClusterError(f"watch: unknown event type {event.type[:40]!r}")
        if not self._listing and meta.resourceVersion:
            self._version = meta.resourceVersion
        return True

    def _change(self, kind: str, value: Any) -> None:
        for sink in self._sinks:
            if self._listing:
                (sink.discard if kind == "DELETED" else sink.add)(value)
            elif kind == "DELETED":
                sink.delete(value)
            else:
                sink.upsert(value)
