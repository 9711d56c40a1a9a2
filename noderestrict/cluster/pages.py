"""Read a list in pages, and each page as it arrives."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from noderestrict.api.scanner import ListSplitter, ScanError
from noderestrict.cluster.connection import Connection
from noderestrict.cluster.objects import DECODE_ERRORS

# Pages up to this length are read whole; longer ones are split while they arrive.
_WHOLE = 2**22
# The target length of a page. The API can limit only the number of objects.
_AIM = 2**21
_INACTIVITY = 30.0


class ListMeta(msgspec.Struct, gc=False):
    """The metadata of a list."""

    resourceVersion: str | None = None  # noqa: N815 (the API's name)
    continue_: str | None = msgspec.field(default=None, name="continue")


class _Page(msgspec.Struct):
    metadata: ListMeta
    items: list[msgspec.Raw] | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """Some objects of a page.

    Attributes:
        items: JSON of each.
        metadata: of the list, in the last part of each page; else None.
    """

    items: Sequence[bytes | msgspec.Raw]
    metadata: ListMeta | None = None


_pages = msgspec.json.Decoder(_Page)
_metas = msgspec.json.Decoder(ListMeta)


async def pages(
    connection: Connection,
    path: str,
    size: int,
    query: Mapping[str, str] | None = None,
    accept: str | None = None,
) -> AsyncIterator[Part]:
    """Yield a list part by part, each page in one or more.

    Args:
        connection: to the API server.
        path: of the list.
        size: the maximum number of objects per page; pages of large objects have fewer.
        query: further parameters.
        accept: media type to ask for, if not JSON as it is.

    Raises:
        ClusterError: the list failed.
        ScanError: an answer is not a list; MsgspecError and UnicodeDecodeError likewise.
    """
    asked = dict(query or {})
    limit = size
    while True:
        asked["limit"] = str(limit)
        page = _Arriving()
        metadata = None
        async for piece in connection.stream(path, asked, inactivity=_INACTIVITY, accept=accept):
            if page.add(piece):
                yield Part(await page.split())
        part = await page.rest()
        yield part
        metadata = part.metadata
        if metadata is None or not metadata.continue_:
            return
        asked["continue"] = metadata.continue_
        fitting = _AIM * page.items // page.size if page.items else limit
        limit = max(1, min(size, 2 * limit, fitting))


class _Arriving:
    """One page while it arrives.

    Attributes:
        size: bytes so far.
        items: objects so far.
    """

    def __init__(self) -> None:
        self.size = 0
        self.items = 0
        self._pieces: list[bytes] = []
        self._splitter: ListSplitter | None = None

    def add(self, piece: bytes) -> bool:
        """Add a piece, and return whether the page must be split now."""
        self.size += len(piece)
        if self._splitter is not None:
            return self._splitter.add(piece)
        self._pieces.append(piece)
        return self.size > _WHOLE

    async def split(self) -> list[bytes]:
        """Return the objects that are now complete."""
        items = await asyncio.to_thread(self._splitting().split)
        self.items += len(items)
        return items

    async def rest(self) -> Part:
        """Return the remaining objects with the list's metadata; the page is complete."""
        if self._splitter is None:
            try:
                page = _pages.decode(b"".join(self._pieces))
            except DECODE_ERRORS:
                # Perhaps one object is undecodable; the splitter reports anything else.
                pass
            else:
                self.items = len(page.items or ())
                return Part(page.items or (), page.metadata)
        splitter = self._splitting()
        items = await asyncio.to_thread(lambda: splitter.split(last=True))
        self.items += len(items)
        if splitter.metadata is None:
            raise ScanError("the list has no metadata")
        return Part(items, _metas.decode(splitter.metadata))

    def _splitting(self) -> ListSplitter:
        if self._splitter is None:
            self._splitter = ListSplitter()
            for piece in self._pieces:
                self._splitter.add(piece)
            self._pieces.clear()
        return self._splitter
