"""The life of a server process: listen, drain, stop."""

import asyncio
import contextlib
import datetime as dt
import gc
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from noderestrict.errors import NoderestrictError
from noderestrict.serving.app import App
from noderestrict.serving.background import Jobs, measure_lag, running
from noderestrict.serving.certificates import Certificates
from noderestrict.serving.connections import Connection, Server
from noderestrict.serving.limits import Limits, within_open_files
from noderestrict.serving.listener import (
    Listener,
    bound_sockets,
    is_listening,
    listen,
    listening_sockets,
)
from noderestrict.serving.metrics_server import metrics_server
from noderestrict.serving.room import Room
from noderestrict.serving.selftest import SelfTest
from noderestrict.serving.state import ServerState
from noderestrict.serving.stop import Stop
from noderestrict.telemetry.logs import LOGGER
from noderestrict.telemetry.metrics import Metrics

_FINISH_SECONDS = 30.0
_READY_SECONDS = 30.0
_READY_POLL_SECONDS = 0.05


class StartError(NoderestrictError):
    """The server cannot start; the message says why and what to change."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Where a server listens, and how it stops.

    Attributes:
        host: address to listen on.
        port: 0 for any free one.
        metrics: host and port of the plain-HTTP metrics, or None.
        tls_wait: seconds to wait for a certificate that can be served.
        shutdown_delay: seconds between SIGTERM and the end of listening.
        limits: on what is in flight.
        client_names: a client's certificate must have one of these as its common or DNS name;
            empty for any.
        poll_certificates: seconds between reads of the certificate files.
        shared: whether another server may listen at the same addresses; this one then listens for
            requests once it is ready, unless its sockets listen already.
        sockets: of the host and port, if they are open already.
    """

    host: str
    port: int
    metrics: tuple[str, int] | None = None
    tls_wait: float = 60
    shutdown_delay: float = 5
    limits: Limits = field(default_factory=Limits)
    client_names: frozenset[str] = frozenset()
    poll_certificates: float = 10
    shared: bool = False
    sockets: Sequence[socket.socket] = ()


async def run(
    app: App,
    metrics: Metrics,
    certificates: Certificates,
    options: ServerOptions,
    *,
    stop: Stop,
    started: Callable[[int], None],
    background: Jobs,
) -> None:
    """Serve until asked to stop.

    Args:
        app: answers requests.
        metrics: served on their own port.
        certificates: served, and followed.
        options: where, and for how long.
        stop: asks for that.
        started: called with the port when requests are answered.
        background: run beside the server, such as what keeps the stores; started first.

    Raises:
        StartError: there is no certificate, or the server cannot listen on an address.
    """
    app.state.require(
        "certificate",
        lambda: not certificates.expired(dt.datetime.now(dt.UTC)),
        certificates.detail,
    )
    async with contextlib.AsyncExitStack() as stack:
        limits = within_open_files(options.limits)
        health = None
        if options.metrics is not None:
            health = await stack.enter_async_context(
                _metrics_listener(app, metrics, options.metrics, limits, shared=options.shared)
            )
        # A certificate may come from one of them.
        await stack.enter_async_context(running(background, metrics))
        if not await certificates.loaded_within(options.tls_wait):
            raise StartError(
                f"no certificate to serve after {options.tls_wait:g} s: {certificates.detail()}"
            )
        jobs = _jobs(app.state, metrics, certificates, options)
        await stack.enter_async_context(running(jobs, metrics))
        web_server = _webhook_server(app, metrics, limits, options.client_names)
        sockets = options.sockets or await opened(options.host, options.port, shared=options.shared)
        if options.shared and not is_listening(sockets[0]):
            await _until_ready(app)
        listen(sockets)
        listener = Listener(list(sockets), web_server, metrics, certificates.context)
        _relax_garbage_collection()
        stop.started()
        started(listener.port)
        await stop.first.wait()
        if options.shared and health is not None:
            # The server that takes over answers probes from now on.
            health.close()
        await _drain(app, web_server, listener, options, stop)


def _webhook_server(
    app: App, metrics: Metrics, limits: Limits, client_names: frozenset[str]
) -> Server:
    room: Room[Connection] = Room(limits.fresh, limits.connections - limits.fresh)
    in_flight = app.state.in_flight
    metrics.open_connections("webhook", room.__len__)
    metrics.held_bytes.set_function(lambda: in_flight.bytes)
    count_closed = metrics.closed_connections("webhook")
    return Server(app.handle, limits, room, in_flight, count_closed, client_names)


def _relax_garbage_collection() -> None:
    # The collector need not traverse again what lives until the end.
    gc.collect()
    gc.freeze()
    # A review leaves no cycles; Python's default thresholds would spend 5 % of the time looking for
    # some.
    gc.set_threshold(20_000, 50, 100)


async def _until_ready(app: App) -> None:
    """Wait until a server is ready, but not for ever: one that is not answers what it can."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_READY_SECONDS):
            while not app.ready():  # noqa: ASYNC110 (conditions are evaluated, not announced)
                await asyncio.sleep(_READY_POLL_SECONDS)


async def _drain(
    app: App,
    web_server: Server,
    listener: Listener,
    options: ServerOptions,
    stop: Stop,
) -> None:
    LOGGER.info("stopping", extra={"shutdown_delay": options.shutdown_delay})
    app.state.draining = True
    if options.shared:
        # New connections go to the server that takes over.
        listener.close()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.second.wait(), options.shutdown_delay)
    listener.close()
    web_server.pre_shutdown()
    finish = asyncio.ensure_future(web_server.shutdown(_FINISH_SECONDS))
    second = asyncio.ensure_future(stop.second.wait())
    await asyncio.wait((finish, second), return_when=asyncio.FIRST_COMPLETED)
    for task in (finish, second):
        task.cancel()
    LOGGER.info("stopped")


async def opened(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
    """Return what ``bound_sockets`` does, listening already unless others may listen there.

    Raises:
        StartError: it cannot listen there.
    """
    get = bound_sockets if shared else listening_sockets
    try:
        return await get(host, port, shared=shared)
    except OSError as error:
        raise StartError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None


@contextlib.asynccontextmanager
async def _metrics_listener(
    app: App, metrics: Metrics, address: tuple[str, int], limits: Limits, *, shared: bool
) -> AsyncIterator[Listener]:
    server = metrics_server(app, metrics, limits)
    sockets = await opened(*address, shared=shared)
    listen(sockets)
    listener = Listener(sockets, server, metrics)
    LOGGER.info("metrics", extra={"port": listener.port})
    try:
        yield listener
    finally:
        listener.close()
        await server.shutdown(1)


def _jobs(
    state: ServerState, metrics: Metrics, certificates: Certificates, options: ServerOptions
) -> Jobs:
    """Return what keeps the server's own state current."""
    self_test = SelfTest(metrics)
    state.require("self-test", lambda: self_test.passing)
    return {
        "certificates": partial(certificates.follow, options.poll_certificates),
        "self-test": self_test.repeat,
        "event loop lag": partial(measure_lag, state, metrics),
    }
