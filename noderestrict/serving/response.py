"""The answer to a review, as one write."""

import time
from email.utils import formatdate
from functools import lru_cache

from aiohttp import HttpVersion11, web

#: Answers that a client may leave unread: no API server leaves any.
_UNREAD_BYTES = 1024 * 1024


class Answer:
    """JSON with status 200, whose head and body leave in one piece.

    It has what aiohttp's connections ask of a ``web.StreamResponse``, and no more: to put such a
    one together takes longer than most decisions.

    Args:
        body: JSON.
    """

    __slots__ = ("_answer", "_close", "_request")

    def __init__(self, body: bytes) -> None:
        self._answer = body
        self._close = False
        self._request: web.BaseRequest | None = None

    @property
    def keep_alive(self) -> bool:
        """Whether the connection stays open."""
        return not self._close

    def force_close(self) -> None:
        """Close the connection after this answer."""
        self._close = True

    async def prepare(self, request: web.BaseRequest) -> None:
        """Take the request that this answers; nothing is written yet."""
        self._request = request
        if not request.keep_alive or request.version < HttpVersion11:
            self._close = True

    async def write_eof(self) -> None:
        """Write everything.

        Raises:
            ConnectionResetError: the client is gone, or sends on and on without reading.
        """
        transport = self._request.transport if self._request is not None else None
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%b%bContent-Length: %d\r\n\r\n%b"
            % (
                _date(int(time.time())),
                b"Connection: close\r\n" if self._close else b"",
                len(self._answer),
                self._answer,
            )
        )
        if transport.get_write_buffer_size() > _UNREAD_BYTES:
            transport.abort()
            raise ConnectionResetError("the client does not read its answers")


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return f"Date: {formatdate(second, usegmt=True)}\r\n".encode("ascii")
