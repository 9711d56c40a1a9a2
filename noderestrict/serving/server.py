"""The life of a server process: listen, follow certificates, watch itself, drain, stop."""

import asyncio
import contextlib
import datetime as dt
import gc
import resource
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from aiohttp import web

from noderestrict.errors import NoderestrictError
from noderestrict.serving.app import App
from noderestrict.serving.background import Jobs, running
from noderestrict.serving.certificates import Certificates
from noderestrict.serving.connections import Connection, Server
from noderestrict.serving.limits import InFlight, Limits
from noderestrict.serving.listener import Listener, listening_sockets
from noderestrict.serving.room import Room
from noderestrict.serving.selftest import known_bad_is_refused
from noderestrict.serving.stop import Stop
from noderestrict.serving.turns import Turns
from noderestrict.telemetry.logs import LOGGER
from noderestrict.telemetry.metrics import Exposition, Metrics

_SELF_TEST = 30.0
_LAG_INTERVAL = 0.05
_FINISH_SECONDS = 30.0
#: Answers on the metrics port, which are not to delay reviews.
_METRICS_PER_SECOND = 200


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
        limits: see there.
        client_names: common or DNS names, of which a client's certificate must have one; empty
            for any.
        poll_certificates: seconds between looks at the certificate files.
    """

    host: str
    port: int
    metrics: tuple[str, int] | None = None
    tls_wait: float = 60
    shutdown_delay: float = 5
    limits: Limits = field(default_factory=Limits)
    client_names: frozenset[str] = frozenset()
    poll_certificates: float = 10


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
        background: run beside the server, such as what keeps the stores.

    Raises:
        StartError: there is no certificate, or an address cannot be listened on.
    """
    async with contextlib.AsyncExitStack() as stack:
        limits = _limits_within_files(options.limits)
        if options.metrics is not None:
            await stack.enter_async_context(_metrics_server(app, metrics, options.metrics, limits))
        await _first_certificate(certificates, options.tls_wait)
        jobs = {**_jobs(app, metrics, certificates, options), **background}
        await stack.enter_async_context(running(jobs, metrics))
        room: Room[Connection] = Room(limits.fresh, limits.connections - limits.fresh)
        web_server = Server(
            app.handle,
            limits,
            room,
            app.state.in_flight,
            metrics.closed_connections("webhook"),
            options.client_names,
        )
        metrics.open_connections("webhook", room.__len__)
        metrics.held_bytes.set_function(lambda: app.state.in_flight.bytes)
        listener = await _listen(
            options.host, options.port, web_server, metrics, certificates.context
        )
        # What lives until the end need not be walked by the collector again and again.
        gc.collect()
        gc.freeze()
        # A review leaves no cycles: with Python's own thresholds, looking for some takes 5 % of
        # the time.
        gc.set_threshold(20_000, 50, 100)
        stop.started()
        started(listener.port)
        await stop.first.wait()
        await _drain(app, web_server, listener, options, stop)


async def _drain(
    app: App,
    web_server: Server,
    listener: Listener,
    options: ServerOptions,
    stop: Stop,
) -> None:
    LOGGER.info("stopping", extra={"shutdown_delay": options.shutdown_delay})
    app.state.draining = True
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


async def _listen(
    host: str,
    port: int,
    server: Server,
    metrics: Metrics,
    context: ssl.SSLContext | None = None,
) -> Listener:
    try:
        return Listener(await listening_sockets(host, port), server, metrics, context)
    except OSError as error:
        raise StartError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None


def _limits_within_files(limits: Limits) -> Limits:
    """Raise the limit on open files as far as it helps, and return limits that fit into it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = resource.RLIM_INFINITY
    if soft != infinite and soft < limits.files:
        soft = limits.files if hard == infinite else min(limits.files, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == infinite or soft >= limits.files:
        return limits
    fitting = limits.within(soft)
    LOGGER.warning(
        "few files may be open: fewer connections are taken",
        extra={"files": soft, "wanted": limits.files, "connections": fitting.connections},
    )
    return fitting


@contextlib.asynccontextmanager
async def _metrics_server(
    app: App, metrics: Metrics, address: tuple[str, int], limits: Limits
) -> AsyncIterator[None]:
    exposition = Exposition(metrics)
    turns = Turns(_METRICS_PER_SECOND, burst=limits.metrics_connections)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        await turns.wait()
        if request.path == "/metrics" and request.method == "GET":
            return web.Response(
                body=exposition.text(),
                headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
            )
        if request.path in ("/livez", "/readyz"):
            return await app.handle(request)
        return web.Response(status=404, text="there is only /metrics, /livez and /readyz\n")

    limits = limits.on_metrics_port()
    room: Room[Connection] = Room(limits.connections, 0)
    count_closed = metrics.closed_connections("metrics")
    server = Server(handle, limits, room, InFlight(limits), count_closed, repeatable=True)
    metrics.open_connections("metrics", room.__len__)
    listener = await _listen(*address, server, metrics)
    LOGGER.info("metrics", extra={"port": listener.port})
    try:
        yield
    finally:
        listener.close()
        await server.shutdown(1)


async def _first_certificate(certificates: Certificates, wait: float) -> None:
    """Wait for a certificate that can be served.

    Raises:
        StartError: there is none in time.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + wait
    while not await asyncio.to_thread(certificates.reload, dt.datetime.now(dt.UTC)):
        left = end - loop.time()
        if left <= 0:
            raise StartError(f"no certificate to serve after {wait:g} s: {certificates.problem}")
        await asyncio.sleep(min(0.5, left))


def _jobs(app: App, metrics: Metrics, certificates: Certificates, options: ServerOptions) -> Jobs:
    """Return what watches the server itself."""
    self_test_ok = True

    async def poll_certificates() -> None:
        while True:
            await asyncio.sleep(options.poll_certificates)
            # Beside the event loop: a check takes milliseconds, and a disk may take longer.
            await asyncio.to_thread(certificates.reload, dt.datetime.now(dt.UTC))

    async def self_test() -> None:
        nonlocal self_test_ok
        while True:
            ok = False
            try:
                ok = known_bad_is_refused()
            finally:
                self_test_ok = ok
                metrics.self_test.set(ok)
            if not self_test_ok:
                LOGGER.critical("a known-bad review was allowed: this server is not ready")
            await asyncio.sleep(_SELF_TEST)

    async def measure_lag() -> None:
        while True:
            # Not the loop's own clock, which uvloop reads once a turn, in milliseconds.
            due = time.monotonic() + _LAG_INTERVAL
            await asyncio.sleep(_LAG_INTERVAL)
            app.state.lag = max(0.0, time.monotonic() - due)
            metrics.loop_lag.observe(app.state.lag)

    app.state.require("self-test", lambda: self_test_ok)
    app.state.require("certificate", lambda: not certificates.expired(dt.datetime.now(dt.UTC)))
    return {
        "certificates": poll_certificates,
        "self-test": self_test,
        "event loop lag": measure_lag,
    }
