"""HTTP connections within bounds, and all that depends on aiohttp's internals."""

import asyncio
import contextlib
import math
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import formatdate
from functools import lru_cache
from typing import Any, TypeVar

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from noderestrict.policy.identity import NODE_USER_PREFIX
from noderestrict.serving.limits import InFlight, Limits
from noderestrict.serving.room import Room, peer_of
from noderestrict.telemetry.logs import LOGGER

_HANDSHAKE_SECONDS = 10.0
_SHUTDOWN_SECONDS = 1.0
#: Of a request line and its headers: an API server sends little more than a bearer token.
_HEAD_BYTES = 64 * 1024
#: Requests up to this size may exceed the limit on bytes by a quarter, so that a few large ones
#: do not block them.
_SMALL = 64 * 1024
_LINE_FEED = 10
#: What is parsed at a time, but of a body whose length is known: a chunk takes some microseconds,
#: and tens of thousands of them may be read at once.
_PIECE = 4 * 1024
#: As Go and most others write it.
_CONTENT_LENGTH = b"\r\nContent-Length: "
#: What the chunks of a body may have besides it, in bytes, and as a part of it. An API server sends
#: no chunks; those of other clients hold kilobytes.
_CHUNKS, _CHUNKS_PART = 8 * 1024, 1 / 8

#: Of answers that a client has not read; an API server reads them all.
_UNREAD_BYTES = 1024 * 1024
#: The part of the age that a connection reaches at least; so they do not all end at once.
_LEAST_AGE = 0.5

Response = TypeVar("Response", bound=web.StreamResponse)


class Answer:
    """A JSON response with status 200, written in one piece.

    It implements what aiohttp's connections use of a ``web.StreamResponse`` and nothing else:
    building one of those takes longer than most decisions.

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
            ConnectionResetError: the client is gone, or keeps sending without reading.
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


class Connection(RequestHandler):
    """An HTTP connection that must send each request in time, one of a bounded number.

    Attributes:
        peer: whom it is from.
        held: bytes received of requests that are not answered yet.
        body_clock: the timeout on the body of the current request.
        shed: whether it holds too much, so that the current request must be rejected.
    """

    __slots__ = (
        "_chunked", "_ended", "_in_flight", "_kept", "_left", "_opening", "_partial", "_payload",
        "_retires", "_server", "_timer", "_unread", "_wire", "body_clock", "held", "peer", "shed",
    )  # fmt: skip

    def __init__(self, server: "Server", peer: str, **kwargs: Any) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **kwargs)
        self.peer = peer
        self.held = 0
        self.shed = False
        self._server = server
        self._in_flight = server.in_flight
        self._kept = False
        # When an answer should be the last one, by the loop's clock.
        self._retires = math.inf
        self._ended = False
        self._opening: asyncio.Task[Any] | None = None
        self._wire: asyncio.Transport | None = None
        # The body that is arriving, its missing bytes, and the bytes of the head after it.
        self._payload: StreamReader | None = None
        self._left = 0.0
        self._partial = 0
        # What came of a body in chunks so far, with the chunks.
        self._chunked = 0
        self.body_clock: asyncio.Timeout | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    # Called by the room and the server.

    def gives_way(self) -> bool:
        """Return whether it may end now: no complete request on it is being answered."""
        if self._server.repeatable or self.writing_paused:
            return True
        if not (self._messages or self._request_in_progress):
            return True
        return self._payload is not None and not self._payload.is_eof()

    def end(self, reason: str) -> None:
        """Close immediately, even during the handshake, and count the reason."""
        if self._ended:
            return
        self._server.count_closed(reason)
        self._leave()
        if self._wire is not None:
            self._wire.abort()
        elif self._opening is not None:
            self._opening.cancel()

    def yield_bytes(self) -> None:
        """Give up the request whose body is arriving; on a kept connection, still answer it."""
        if self._kept:
            self.refuse()
        else:
            self.end("bytes")

    def refuse(self) -> None:
        """Reject the request that is arriving, and stop counting its bytes."""
        self._release(self.held)
        self.shed = True
        if self.body_clock is not None:
            self.body_clock.reschedule(self._loop.time())

    def opening(self, opening: asyncio.Task[Any]) -> None:
        """Remember the task that ends with the handshake."""
        self._opening = opening
        opening.add_done_callback(self._opened)

    def _opened(self, opening: asyncio.Task[Any]) -> None:
        self._opening = None
        error = None if opening.cancelled() else opening.exception()
        if error is not None:
            self.end("handshake")
            if not isinstance(error, OSError):
                LOGGER.error("a connection could not be opened", exc_info=error)
        if self._wire is None:
            # The loop calls this itself only for a connection that was made.
            self.connection_lost(None)

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start, unless the client's certificate lacks an allowed name or belongs to a node."""
        super().connection_made(transport)
        self._wire = self.transport
        if self._ended and self._wire is not None:
            self._wire.abort()
            return
        names, wanted = _peer_names(transport), self._server.client_names
        # The CA of a cluster signs certificates of kubelets, too.
        is_node = any(name.startswith(NODE_USER_PREFIX) for name in names)
        if is_node or (wanted and not wanted & names):
            LOGGER.warning("client rejected", extra={"names": sorted(names)})
            self._server.count_closed("client_name")
            self.force_close()
            return
        self._start_timer()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count it out, and free what the garbage collector would free late."""
        self._leave()
        super().connection_lost(exc)
        self._wire = None
        self._payload = None

    def data_received(self, data: bytes) -> None:
        """Count bytes, and note where a head begins and ends."""
        while len(data) > _PIECE and not self._is_of_one_body(data):
            self.data_received(data[:_PIECE])
            data = data[_PIECE:]
        if self._force_close or self._close:
            # It is closing: aiohttp ignores what still arrives.
            return
        size = len(data)
        self.held += size
        in_flight = self._in_flight
        in_flight.bytes += size
        heads = self._request_count
        # For each request, so without the cost of super().
        RequestHandler.data_received(self, data)
        if self._request_count != heads:
            self._head_received(data)
        elif self._payload is not None:
            self._part_received(self._payload, size)
        elif size:
            self._next_head_begun(size)
        if in_flight.bytes > in_flight.most_bytes and not self.shed:
            self._server.relieve(self)

    def _is_of_one_body(self, data: bytes) -> bool:
        """Return whether data brings no more than one head and a body of known length."""
        if self._payload is not None:
            return self._left < math.inf
        end = data.find(b"\r\n\r\n", 0, _PIECE)
        at = -1 if end < 0 or self._partial else data.find(_CONTENT_LENGTH, 0, end)
        if at < 0:
            return False
        at += len(_CONTENT_LENGTH)
        # aiohttp rejects a head with a length and chunks.
        length = data[at : data.find(b"\r", at)]
        return length.isdigit() and int(length) >= len(data) - end - 4

    def pause_writing(self) -> None:
        """Start the timeout for a client that does not read its answers."""
        super().pause_writing()
        self._unread = self._loop.call_later(self._server.limits.answer_seconds, self.end, "unread")

    def resume_writing(self) -> None:
        """Stop that timeout."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 (aiohttp's signature)
        """Resume reading, if it was paused.

        aiohttp calls this for each piece of a body and runs its parser on nothing, which takes 6 %
        of the time. If a version has other attributes for being paused, its own method runs.
        """
        if getattr(self, "_reading_paused", True) or getattr(self, "_buffer_paused", True):
            super().resume_reading(resume_parser)

    # Called by aiohttp.

    def finish_response(
        self, request: web.BaseRequest, resp: Response, start_time: float | None
    ) -> Any:
        """Write a response, and close the connection after it where that is due."""
        if isinstance(resp, Answer):
            if self._kept:
                stays = self._server.room.stays(self)
            else:
                stays = self._kept = self._server.room.keep(self)
                self._retires = self._loop.time() + self._server.age()
                if not self._partial:
                    self._stop_timer()
            if not stays:
                self._server.count_closed("share")
                resp.force_close()
            elif self._loop.time() >= self._retires and not (self._messages or self._partial):
                # No request is lost: its client sends the next one on another connection.
                self._server.count_closed("age")
                resp.force_close()
        else:
            if not (self._kept or self._messages or self._timer):
                self._start_timer()
        if self._upgraded:
            # Only HTTP is served; nobody would read what follows an upgrade.
            resp.force_close()
        if self._messages or self._partial:
            # Pipelined requests wait behind this one.
            self._release(min(self.held, request.content.total_bytes + _head_bytes(request)))
        else:
            self._in_flight.bytes -= self.held
            self.held = 0
            self.shed = False
        return RequestHandler.finish_response(self, request, resp, start_time)

    # The timeout on a head.

    def _head_received(self, data: bytes) -> None:
        message, payload = self._messages[-1]
        complete = payload.is_eof()
        self._payload = None if complete else payload
        self._partial = 0
        if self._timer is not None:
            self._stop_timer()
        if not isinstance(message, RawRequestMessage):
            # Its frames hold the data, and the error itself.
            message.exc.__traceback__ = None
        elif message.chunked:
            # What follows a chunked body shows when more data arrives.
            self._left = math.inf
            self._chunked = 0
        elif complete:
            # Did more arrive with it? A head ends with a line feed, right before the body.
            end = len(data) - payload.total_bytes - 1
            if end >= 0 and data[end] != _LINE_FEED:
                self._next_head_begun(1)
        else:
            self._left = int(message.headers.get("Content-Length", 0)) - payload.total_bytes

    def _part_received(self, body: StreamReader, size: int) -> None:
        """Note a part of a body, and end a connection on which it comes in too many chunks."""
        self._left -= size
        self._chunked += size
        if body.is_eof():
            self._payload = None
            if self._left < 0:
                self._next_head_begun(int(-self._left))
            return
        most = _CHUNKS + (1 + _CHUNKS_PART) * body.total_bytes
        if self._left == math.inf and self._chunked > most:
            self._server.count_closed("chunks")
            self.force_close()

    def _next_head_begun(self, size: int) -> None:
        self._partial += size
        if self._partial > _HEAD_BYTES:
            self._server.count_closed("header")
            self.force_close()
        elif self._timer is None:
            self._start_timer()

    def _start_timer(self) -> None:
        if self._ended:
            return
        self._timer = self._loop.call_later(self._server.limits.header_seconds, self._head_is_late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_is_late(self) -> None:
        self._timer = None
        if self._messages or self._request_in_progress:
            # aiohttp does not parse it while another request is being answered.
            self._start_timer()
            return
        self._server.count_closed("header")
        self.force_close()

    # Counting.

    def _release(self, size: int) -> None:
        self.held -= size
        self._in_flight.bytes -= size

    def _leave(self) -> None:
        if not self._ended:
            self._ended = True
            self._server.room.leave(self)
        self._release(self.held)
        self._stop_timer()
        if self._unread is not None:
            self._unread.cancel()


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return f"Date: {formatdate(second, usegmt=True)}\r\n".encode("ascii")


def client_of(request: web.BaseRequest) -> str:
    """Return whom a request is from, as budgets, log lines and files are shared out."""
    protocol = request.protocol
    return protocol.peer if isinstance(protocol, Connection) else peer_of(request.remote or "")


def arrived_body(request: web.BaseRequest) -> bytes:
    """Return a body of which nothing is missing, as of most by now; b"" if it must be awaited."""
    content = request.content
    return content.read_nowait(-1) if content.is_eof() and not is_shed(request) else b""


def is_shed(request: web.BaseRequest) -> bool:
    """Return whether a request is rejected because too many bytes are in flight."""
    protocol = request.protocol
    return isinstance(protocol, Connection) and protocol.shed


@contextlib.asynccontextmanager
async def body_clock(request: web.BaseRequest, seconds: float) -> AsyncIterator[None]:
    """Limit how long the ``async with`` block waits for a body.

    Raises:
        TimeoutError: that many seconds have passed, or the request is shed.
    """
    protocol = request.protocol
    async with asyncio.timeout(seconds) as clock:
        if not isinstance(protocol, Connection):
            yield
            return
        if protocol.shed:
            raise TimeoutError
        protocol.body_clock = clock
        try:
            yield
        finally:
            protocol.body_clock = None


def _head_bytes(request: web.BaseRequest) -> int:
    lines = sum(len(name) + len(value) + 4 for name, value in request.raw_headers)
    return len(request.method) + len(request.raw_path) + len(" ") * 2 + len("HTTP/1.1") + 4 + lines


def _peer_names(transport: asyncio.BaseTransport) -> frozenset[str]:
    certificate = transport.get_extra_info("peercert") or {}
    subject = (pair for part in certificate.get("subject", ()) for pair in part)
    names = {value for key, value in subject if key == "commonName"}
    names.update(value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS")
    return frozenset(names)


class _Request(web.BaseRequest):
    """A request whose answer does not tell the names and versions of our libraries."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        response.headers.popall("Server", None)


def _request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: RequestHandler,
    writer: AbstractStreamWriter,
    task: "asyncio.Task[None]",
) -> web.BaseRequest:
    return _Request(message, payload, protocol, writer, task, asyncio.get_running_loop())


class Server(web.Server):
    """aiohttp's low-level server, which opens and limits its connections itself.

    Args:
        handle: answers a request.
        limits: on time; `room` and `in_flight` have those on numbers.
        room: for connections.
        in_flight: counts the bytes that they hold.
        count_closed: called with the reason when the server ends a connection early.
        client_names: a client's certificate must have one of these as its common or DNS name; empty
            for any.
        repeatable: whether clients retry after a lost connection: then any connection may be ended
            for another, and a request is dropped when its client disconnects.
    """

    def __init__(
        self,
        handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        limits: Limits,
        room: Room[Connection],
        in_flight: InFlight,
        count_closed: Callable[[str], None],
        client_names: frozenset[str] = frozenset(),
        *,
        repeatable: bool = False,
    ) -> None:
        self.repeatable = repeatable
        self.limits = limits
        self.room = room
        self.in_flight = in_flight
        self.count_closed = count_closed
        self.client_names = client_names
        super().__init__(
            handle,
            request_factory=_request,
            handler_cancellation=repeatable,
            access_log=None,
            keepalive_timeout=limits.idle_seconds,
            lingering_time=1,
            # A compressed body is rejected, so do not decompress it first.
            auto_decompress=False,
            # Our own limit on bodies gives a clearer error.
            max_field_size=16 * 1024,
        )

    def open(self, sock: socket.socket, address: str, context: ssl.SSLContext | None) -> None:
        """Serve an accepted socket, if there is room for it or another connection gives way.

        Args:
            sock: connected; this closes it in the end.
            address: of the client.
            context: None for plain HTTP.
        """
        connection = Connection(self, peer_of(address), **self._kwargs)
        ends = self.room.enter(connection)
        if ends is connection:
            connection.end("no_room")
            sock.close()
            return
        if ends is not None:
            ends.end("evicted")
        loop = asyncio.get_running_loop()
        opening = loop.create_task(
            loop.connect_accepted_socket(
                lambda: connection,
                sock,
                ssl=context,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS if context else None,
                # Without it, a client that sends no close_notify would stay counted.
                ssl_shutdown_timeout=_SHUTDOWN_SECONDS if context else None,
            )
        )
        connection.opening(opening)
        # If opening failed, no transport owns the socket.
        opening.add_done_callback(
            lambda task: sock.close() if task.cancelled() or task.exception() else None
        )

    def age(self) -> float:
        """Return the seconds after which to end a connection; another number for each."""
        most = self.limits.age_seconds
        return random.uniform(_LEAST_AGE, 1) * most if most else math.inf  # noqa: S311 (no secret)

    def make_room(self) -> bool:
        """End the connection that matters least; return whether there is one."""
        weakest = self.room.weakest()
        if weakest is not None:
            weakest.end("evicted")
        return weakest is not None

    def relieve(self, arriving: Connection) -> None:
        """End or reject what holds most bytes, until they are within the limit.

        Args:
            arriving: received the last ones; its request is rejected if nothing else gives way.
        """
        in_flight = self.in_flight
        while in_flight.bytes > in_flight.most_bytes:
            small = arriving.held <= _SMALL and in_flight.bytes <= in_flight.most_bytes * 5 // 4
            hoarder = None if small else self.room.hoarder()
            if hoarder is None:
                if not small:
                    arriving.refuse()
                return
            hoarder.yield_bytes()
