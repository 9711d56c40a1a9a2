"""The life of a server process: listen, follow certificates, watch itself, drain, stop."""

import asyncio
import contextlib
import datetime as dt
import gc
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from noderestrict.serving.app import App
from noderestrict.serving.background import Jobs, running
from noderestrict.serving.certificates import Certificates
from noderestrict.serving.limits import Limits
from noderestrict.serving.selftest import known_bad_is_refused
from noderestrict.serving.stop import Stop
from noderestrict.telemetry.logs import LOGGER
from noderestrict.telemetry.metrics import Metrics

_SELF_TEST = 30.0
_LAG_INTERVAL = 0.05
_HANDSHAKE_SECONDS = 10.0
_SHUTDOWN_SECONDS = 1.0
_FINISH_SECONDS = 30.0


class StartError(Exception):
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


class _Connection(RequestHandler):
    """An HTTP connection that must show a request in time, and is one of a bounded number."""

    __slots__ = ("_client_names", "_header_timer", "_limits", "_open")

    def __init__(
        self, *args: Any, options: ServerOptions, open_: set["_Connection"], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._limits = options.limits
        self._client_names = options.client_names
        self._open = open_
        self._header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._open.add(self)
        if len(self._open) > self._limits.connections:
            self.force_close()
            return
        if self._client_names and not self._client_names & _peer_names(transport):
            LOGGER.warning("client refused", extra={"names": sorted(_peer_names(transport))})
            self.force_close()
            return
        loop = asyncio.get_running_loop()
        self._header_timer = loop.call_later(self._limits.header_seconds, self.force_close)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._open.discard(self)
        self.request_seen()
        super().connection_lost(exc)

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 (aiohttp's signature)
        """Go on reading, if that was held up.

        aiohttp calls this for each piece of a body, and parses nothing again each time: 6 % of the
        time. A version that says otherwise whether it is held up is left to do as it does.
        """
        if getattr(self, "_reading_paused", True) or getattr(self, "_buffer_paused", True):
            super().resume_reading(resume_parser)

    def request_seen(self) -> None:
        """Stop the clock: the headers of a request have arrived."""
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None


def _peer_names(transport: asyncio.BaseTransport) -> frozenset[str]:
    certificate = transport.get_extra_info("peercert") or {}
    subject = (pair for part in certificate.get("subject", ()) for pair in part)
    names = {value for key, value in subject if key == "commonName"}
    names.update(value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS")
    return frozenset(names)


class _WebServer(web.Server):
    """aiohttp's low-level server, with our connections."""

    def __init__(self, app: App, options: ServerOptions) -> None:
        self._options = options
        self._open: set[_Connection] = set()
        self._app = app
        super().__init__(
            self._handle,
            access_log=None,
            keepalive_timeout=options.limits.idle_seconds,
            lingering_time=1,
            # A packed body is refused: nothing of it need be unpacked before.
            auto_decompress=False,
            # Our own bound on bodies gives a clearer answer.
            max_field_size=16 * 1024,
        )

    def _handle(self, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        protocol = request.protocol
        if isinstance(protocol, _Connection):
            protocol.request_seen()
        return self._app.handle(request)

    def __call__(self) -> RequestHandler:
        return _Connection(
            self,
            loop=asyncio.get_running_loop(),
            options=self._options,
            open_=self._open,
            **self._kwargs,
        )


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
        if options.metrics is not None:
            await stack.enter_async_context(_metrics_server(app, metrics, options.metrics))
        await _first_certificate(certificates, options.tls_wait)
        jobs = {**_jobs(app, metrics, certificates, options), **background}
        await stack.enter_async_context(running(jobs, metrics))
        web_server = _WebServer(app, options)
        listener = await _listen(
            web_server, options.host, options.port, ssl_context=certificates.context
        )
        # What lives until the end need not be walked by the collector again and again.
        gc.collect()
        gc.freeze()
        # A review leaves no cycles: with Python's own thresholds, looking for some takes 5 % of
        # the time.
        gc.set_threshold(20_000, 50, 100)
        stop.started()
        started(listener.sockets[0].getsockname()[1])
        await stop.first.wait()
        await _drain(app, web_server, listener, options, stop)


async def _drain(
    app: App,
    web_server: _WebServer,
    listener: asyncio.Server,
    options: ServerOptions,
    stop: Stop,
) -> None:
    LOGGER.info("stopping", extra={"shutdown_delay": options.shutdown_delay})
    app.draining = True
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
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    host: str,
    port: int,
    ssl_context: ssl.SSLContext | None = None,
) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(
            protocol_factory,
            host,
            port,
            family=socket.AF_UNSPEC,
            ssl=ssl_context,
            ssl_handshake_timeout=_HANDSHAKE_SECONDS if ssl_context else None,
            # A client that does not say goodbye would keep its place among the connections.
            ssl_shutdown_timeout=_SHUTDOWN_SECONDS if ssl_context else None,
            backlog=1024,
            reuse_address=True,
        )
    except OSError as error:
        raise StartError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None


@contextlib.asynccontextmanager
async def _metrics_server(
    app: App, metrics: Metrics, address: tuple[str, int]
) -> AsyncIterator[None]:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/metrics" and request.method == "GET":
            return web.Response(
                body=metrics.exposition(),
                headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
            )
        if request.path in ("/livez", "/readyz"):
            return await app.handle(request)
        return web.Response(status=404, text="there is only /metrics, /livez and /readyz\n")

    server = web.Server(handle, access_log=None)
    listener = await _listen(server, *address)
    LOGGER.info("metrics", extra={"port": listener.sockets[0].getsockname()[1]})
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
            app.lag = max(0.0, time.monotonic() - due)
            metrics.loop_lag.observe(app.lag)

    app.conditions["self-test"] = lambda: self_test_ok
    app.conditions["certificate"] = lambda: not certificates.expired(dt.datetime.now(dt.UTC))
    return {
        "certificates": poll_certificates,
        "self-test": self_test,
        "event loop lag": measure_lag,
    }
