"""Listening sockets, from which connections are accepted as file descriptors and limits allow."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Iterable

from noderestrict.serving.connections import Server
from noderestrict.telemetry.logs import LOGGER
from noderestrict.telemetry.metrics import Metrics

_BACKLOG = 1024
#: The kernel's buffers per connection: reviews may be large, answers are small.
_RECEIVE_BYTES = 256 * 1024
_SEND_BYTES = 64 * 1024
#: Accepted in one turn of the event loop.
_AT_ONCE = 16
#: When the system is out of resources: how long to stop accepting, how many connections to end.
_PAUSE_SECONDS = 0.1
_GIVE_WAY = 8
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Listener:
    """Accepts connections for a server.

    Args:
        sockets: listening.
        server: serves what is accepted.
        metrics: count errors.
        context: returns that of the next handshake; None for plain HTTP.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        server: Server,
        metrics: Metrics,
        context: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self._sockets = sockets
        self._server = server
        self._context = context
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._paused: dict[socket.socket, asyncio.TimerHandle] = {}
        for sock in sockets:
            self._loop.add_reader(sock, self._accept, sock)

    @property
    def port(self) -> int:
        """The port of the first socket."""
        port: int = self._sockets[0].getsockname()[1]
        return port

    def close(self) -> None:
        """Stop listening; open connections stay open."""
        for sock in self._sockets:
            if sock not in self._paused:
                # The kernel resets what nobody has accepted.
                self._accept(sock)
            if sock in self._paused:
                self._paused.pop(sock).cancel()
            else:
                self._loop.remove_reader(sock)
            sock.close()
        self._sockets.clear()

    def _accept(self, sock: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                client, address = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause(sock, error)
                # Any other error concerns only the failed connection.
                return
            client.settimeout(0)
            self._server.open(client, address[0], self._context() if self._context else None)

    def _pause(self, sock: socket.socket, error: OSError) -> None:
        self._metrics.accept_errors.inc()
        LOGGER.error("cannot accept a connection", extra={"why": error.strerror})
        for _ in range(_GIVE_WAY):
            if not self._server.make_room():
                break
        self._loop.remove_reader(sock)
        self._paused[sock] = self._loop.call_later(_PAUSE_SECONDS, self._resume, sock)

    def _resume(self, sock: socket.socket) -> None:
        del self._paused[sock]
        self._loop.add_reader(sock, self._accept, sock)


async def listening_sockets(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
    """Return what ``bound_sockets`` does, listening.

    Raises:
        OSError: there is no such address, or it is in use.
    """
    sockets = await bound_sockets(host, port, shared=shared)
    try:
        listen(sockets)
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def listen(sockets: Iterable[socket.socket]) -> None:
    """Let connections to sockets wait until somebody accepts them.

    Raises:
        OSError: the address is in use.
    """
    for sock in sockets:
        sock.listen(_BACKLOG)


def is_listening(sock: socket.socket) -> bool:
    """Return whether connections to a socket wait."""
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


async def bound_sockets(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
    """Return a socket for each address of a host, all with one port, that does not listen yet.

    Args:
        host: name or address; "" for all of IPv4 and IPv6.
        port: 0 for any free one.
        shared: whether other processes of the same user may listen there as well.

    Raises:
        OSError: there is no such address, or it is in use.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
            except OSError as error:
                # The system may be built without IPv6.
                failure = error
                continue
            sockets.append(sock)
            sock.settimeout(0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            chosen = port or (sockets[0].getsockname()[1] if len(sockets) > 1 else 0)
            try:
                sock.bind((address[0], chosen, *address[2:]))
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:
                    raise
                # A name may stand for an address that this machine does not have.
                failure = error
                sockets.pop().close()
                continue
            # Accepted sockets inherit this. By default, the kernel gives each of them megabytes.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    if not sockets:
        raise failure or OSError(errno.EADDRNOTAVAIL, f"{host} has no address")
    return sockets
