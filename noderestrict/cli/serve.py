"""``noderestrict serve``: the webhook server."""

import argparse
import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from noderestrict import __version__
from noderestrict.agents.agents import Agents, InForce
from noderestrict.agents.load import PolicyFileError
from noderestrict.cli._errors import UsageError
from noderestrict.cli.agent_files import read_agents
from noderestrict.cli.argument_types import plain_address
from noderestrict.cli.config import Sources, add_config_flags, as_yaml, differences
from noderestrict.cli.fields import add_flags
from noderestrict.cli.serve_config import ServeConfig, is_loopback, with_dev_defaults
from noderestrict.cli.tls_files import certificate_files, how_to_call, tls_options
from noderestrict.cli.yaml_file import ConfigError

if TYPE_CHECKING:
    from noderestrict.cluster.connection import Connection
    from noderestrict.cluster.store import Store
    from noderestrict.policy.settings import Settings
    from noderestrict.render.registration import Registration
    from noderestrict.serving.authorize import Authorizer
    from noderestrict.serving.background import Jobs
    from noderestrict.serving.capture import Capture
    from noderestrict.serving.certificate_sources import Source
    from noderestrict.serving.certificates import Certificates
    from noderestrict.serving.limits import Limits
    from noderestrict.serving.reload import Reloaded
    from noderestrict.serving.reporter import Reporter
    from noderestrict.serving.server import ServerOptions
    from noderestrict.serving.settle import Judge
    from noderestrict.serving.stop import Stop
    from noderestrict.telemetry.metrics import Metrics

    Main = Callable[[Stop], Coroutine[Any, Any, None]]

_REPORT_DROPS_SECONDS = 5.0
#: Requests that a line of the log names.
_SHOWN = 8
#: The fields of the configuration that take effect while the server runs.
_APPLIED = frozenset({"agents", "mode", "rule_modes"})


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's parser."""
    parser = subparsers.add_parser(
        "serve",
        help="answer AdmissionReviews over TLS",
        description="Answer AdmissionReviews over TLS. SIGTERM drains and stops, a second one "
        "stops at once, SIGUSR1 switches debug logs on and off.",
    )
    add_flags(parser, ServeConfig, grouped=True)
    add_config_flags(parser)
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Serve until a signal, which ends the process with exit code 0.

    Raises:
        UsageError: the configuration, the state or the certificate does not allow it.
    """
    try:
        sources = Sources(ServeConfig, options, os.environ, with_dev_defaults)
        config = sources.read()
    except ConfigError as error:
        options.parser.error(str(error))
    if options.print_config:
        print(as_yaml(config), end="")
        return 0
    return _serve_until_signal(config, sources)


def _serve_until_signal(config: ServeConfig, sources: Sources[ServeConfig]) -> int:
    from noderestrict.replay.state import StateError
    from noderestrict.serving.server import StartError
    from noderestrict.serving.stop import run_event_loop
    from noderestrict.telemetry import logs

    _check(config)
    try:
        # What connects from now on waits for the server. An API server that starts together with it
        # gets its answers a little later, not an error.
        sockets = asyncio.run(_opened(config))
        killer = _forked(config, sockets) if config.respawn else ""
        if isinstance(killer, int):
            return killer
        logs.configure(config.log_level, config.log_format)
        if killer:
            logs.LOGGER.error("the server was killed, this is another", extra={"signal": killer})
        server = _Server(config, sources, sockets)
        serve = _with_state(server) if config.state else _with_cluster(server)
        run_event_loop(serve, config.log_level)
    except (PolicyFileError, StartError, StateError, ssl.SSLError) as error:
        raise UsageError(str(error)) from None
    finally:
        logs.close()
    return 0


async def _opened(config: ServeConfig) -> list[socket.socket]:
    from noderestrict.serving.server import opened

    return await opened(config.bind_address, config.port, shared=config.share_port)


def _forked(config: ServeConfig, sockets: Sequence[socket.socket]) -> str | int:
    """Return what ``respawn.forked`` does, when what a server needs is in the memory they share."""
    import noderestrict.serving.app
    from noderestrict.serving import respawn

    if not config.state:
        import noderestrict.cluster.judge
        import noderestrict.cluster.node_authorizer
        import noderestrict.cluster.start  # noqa: F401 (it is loaded once for all)
    return respawn.forked(sockets)


def _check(config: ServeConfig) -> None:
    try:
        config.modes(config, read_agents(config.agents))
    except ValueError as error:
        raise UsageError(str(error)) from None
    if config.state and (config.kubeconfig or config.context):
        raise UsageError("--state answers all lookups: it excludes --kubeconfig and --context")
    if config.state and config.expected_registration:
        raise UsageError("--expected-registration is compared with a cluster's: not with --state")
    if config.tracing_endpoint:
        try:
            import noderestrict.telemetry.tracing  # noqa: F401 (what is missing is told at once)
        except ImportError as error:
            raise UsageError(
                f"--tracing-endpoint needs noderestrict[tracing]; install that: {error}"
            ) from None
    if config.state and config.events:
        raise UsageError("--events are written to a cluster: not with --state")
    if config.state and config.tls_secret:
        raise UsageError("--tls-secret is read from a cluster: not with --state")
    if config.dev and not is_loopback(config.bind_address):
        raise UsageError(f"--dev: --bind-address {config.bind_address!r} is no loopback address")
    if config.dev and config.metrics_address and not is_loopback(config.metrics_address[0]):
        raise UsageError(
            f"--dev: --metrics-address {plain_address(config.metrics_address)!r} is no loopback "
            "address"
        )


def _with_state(server: "_Server") -> "Main":
    """Return what serves with objects that are read here: a signal ends that at once."""
    from noderestrict.graph.graph import Graph
    from noderestrict.replay.state import load_state
    from noderestrict.serving.local import LocalAuthorizer, LocalJudge
    from noderestrict.telemetry.metrics import Metrics

    config = server.config
    settings = config.offline(config.rules)
    graph = Graph(most_edges=None)
    listers = load_state(config.state, graph)
    authorizer = LocalAuthorizer(graph, settings, listers) if config.authorizer else None
    judge = LocalJudge(settings, listers)
    server.hold_agents(settings.features)

    async def serve(stop: "Stop") -> None:
        metrics = Metrics()
        metrics.policy.settings = settings
        _log_start(config, server.in_force, settings, stores=config.state)
        await server.serve(judge, authorizer, metrics, stop, {}, server.certificates(metrics))

    return serve


def _with_cluster(server: "_Server") -> "Main":
    """Return what serves with the objects of a live cluster, once that answers."""
    # Imported here: it takes half a second, which --state need not pay.
    from noderestrict.cluster.connection import ClusterError
    from noderestrict.cluster.start import reached
    from noderestrict.serving.server import StartError
    from noderestrict.telemetry.metrics import Metrics

    config, metrics = server.config, Metrics()

    async def serve(stop: "Stop") -> None:
        try:
            async with reached(
                config.kubeconfig,
                config.context,
                config.cluster_wait,
                config.api_server,
                metrics.count_renewal,
            ) as (connection, minor):
                await _serve_cluster(server, connection, metrics, minor, stop)
        except ClusterError as error:
            raise StartError(str(error)) from None

    return serve


async def _serve_cluster(
    server: "_Server", connection: "Connection", metrics: "Metrics", minor: int, stop: "Stop"
) -> None:
    from noderestrict.cluster.agent_authorizer import AgentAuthorizer
    from noderestrict.cluster.graph_sink import graph_sinks
    from noderestrict.cluster.judge import ClusterJudge, streams
    from noderestrict.cluster.node_authorizer import NodeAuthorizer
    from noderestrict.cluster.node_events import NodeEvents
    from noderestrict.graph.graph import Graph
    from noderestrict.render.registration import parse_registration
    from noderestrict.serving.event_reporter import EventReporter
    from noderestrict.serving.server import StartError
    from noderestrict.serving.tls_secret import TlsSecret

    config = server.config
    settings = config.in_cluster(minor, config.rules)
    metrics.kubernetes(minor, settings.release)
    metrics.policy.settings = settings
    try:
        server.hold_agents(settings.features, minor)
    except PolicyFileError as error:
        raise StartError(str(error)) from None
    graph = Graph()
    sinks = graph_sinks(graph, settings.features) if config.authorizer else ()
    judge = ClusterJudge(
        connection,
        settings,
        metrics,
        streaming=streams(minor),
        sinks=sinks,
        max_staleness=config.max_staleness,
    )
    followed = {*judge.informers.stores, *(resource.plural for resource, _ in sinks)}
    _log_start(config, server.in_force, settings, stores=sorted(followed), api_server=f"1.{minor}")
    authorizer = None
    if config.authorizer:
        nodes = NodeAuthorizer(
            connection,
            graph,
            settings.features,
            judge.informers.has_synced,
            judge.count_live,
            judge.share,
            judge.informers.unreadable,
            judge.informers.freshness,
            release=settings.release,
        )
        authorizer = AgentAuthorizer(judge, nodes)
    jobs = dict(judge.jobs())
    secret = None
    if config.tls_secret is not None:
        secret = TlsSecret(connection, *config.tls_secret, metrics, streaming=streams(minor))
    certificates = server.certificates(metrics, secret)
    if secret is not None:
        jobs["TLS secret"] = partial(secret.follow, certificates.look_soon)
    if (expected := config.expected_registration) is not None:
        jobs["registration"] = partial(
            _watch_registration,
            parse_registration(expected),
            server,
            connection,
            metrics,
            certificates,
            minor,
        )
    if config.events:
        events = NodeEvents(
            connection,
            partial(_uid_of, judge.informers.stores["nodes"]),
            metrics.count_node_event,
        )
        jobs["node events"] = events.run
        server.reporters.append(EventReporter(events.add))
    await server.serve(judge, authorizer, metrics, stop, jobs, certificates)


def _uid_of(nodes: "Store", name: str) -> str | None:
    """Return the uid of a node, None if a store has no such node."""
    from noderestrict.policy.records import NodeRecord

    node = nodes.get("", name)
    return node.uid if isinstance(node, NodeRecord) else None


def _log_start(
    config: ServeConfig,
    in_force: InForce,
    settings: "Settings",
    *,
    stores: Sequence[str],
    api_server: str = "",
) -> None:
    """Log what the server runs with, in one line.

    Args:
        config: of the server.
        in_force: the agents.
        settings: of the rules.
        stores: resources that are followed, or files that stand in for them.
        api_server: its version, "" without one.
    """
    from noderestrict.telemetry.logs import LOGGER

    LOGGER.info(
        "starting",
        extra={
            "version": __version__,
            "api_server": api_server,
            "rules": str(settings.release),
            "mode": config.mode,
            "rule_modes": dict(config.rule_modes),
            "strict_rules": sorted(settings.extra.rules),
            "feature_gates": settings.enabled(),
            "authorizer": config.authorizer,
            "agents": sorted(agent.name for agent in in_force.agents.all),
            "stores": list(stores),
        },
    )


async def _watch_registration(
    registration: "Registration",
    server: "_Server",
    connection: "Connection",
    metrics: "Metrics",
    certificates: "Certificates",
    minor: int,
) -> None:
    """Compare the installed registration with the one that is expected, for ever."""
    from noderestrict.doctor.watch import Expected, watch_registration
    from noderestrict.render.registration import MATCH_CONDITIONS_SINCE

    wanted = Expected(
        registration.value(server.config.extra()),
        certificates.trusted,
        conditions=minor >= MATCH_CONDITIONS_SINCE,
        agents=lambda: registration.agent_webhooks(server.in_force.agents.all),
    )
    await watch_registration(connection, wanted, metrics)


class _Server:
    """What a server needs, whoever answers its lookups.

    Args:
        config: what it runs with.
        sources: read again for a change of the modes.
        sockets: that it accepts connections from.

    Attributes:
        in_force: the agents.
        reporters: are told of answers.
    """

    def __init__(
        self,
        config: ServeConfig,
        sources: Sources[ServeConfig],
        sockets: Sequence[socket.socket],
    ) -> None:
        self.config = config
        self.sockets = sockets
        self._tls = tls_options(config)
        self._files = certificate_files(config)
        self._sources = sources
        self._features: Mapping[str, bool] | None = None
        self._minor: int | None = None
        self.reporters: list[Reporter] = []
        self.in_force = InForce()

    def hold_agents(self, features: Mapping[str, bool], minor: int | None = None) -> None:
        """Read the agents.

        Args:
            features: all feature gates of the API server.
            minor: its version, 1.``minor``; None without one.

        Raises:
            PolicyFileError: a file is unusable, or needs a newer API server.
        """
        self._features = features
        self.in_force.agents = read_agents(self.config.agents, features)
        self._minor = minor
        self._warn(self.in_force.agents)

    def _warn(self, agents: Agents) -> None:
        """Log which policies could keep a cluster from starting while no server answers."""
        from noderestrict.render.agent_start import NODE_IN_TOKENS_SINCE, waiting
        from noderestrict.render.registration import parse_registration
        from noderestrict.telemetry.logs import LOGGER

        expected = self.config.expected_registration
        if expected is not None and parse_registration(expected).failure_policy == "Ignore":
            return
        told = self._minor is None or self._minor >= NODE_IN_TOKENS_SINCE
        for agent in agents.all:
            if asks := waiting(agent, node_in_tokens=told):
                LOGGER.warning(
                    "an agent's start may wait for a server",
                    extra={"agent": agent.name, "waits_for": asks[:_SHOWN], "count": len(asks)},
                )

    def certificates(self, metrics: "Metrics", secret: "Source | None" = None) -> "Certificates":
        """Return the certificates that follow a Secret and the configured files.

        Args:
            metrics: show what is served.
            secret: None if none is watched. It knows a new pair before the files do.
        """
        from noderestrict.serving.certificates import Certificates

        sources = [source for source in (secret, self._files) if source is not None]
        return Certificates(sources, self._tls, metrics)

    async def serve(
        self,
        judge: "Judge",
        authorizer: "Authorizer | None",
        metrics: "Metrics",
        stop: "Stop",
        background: "Jobs",
        certificates: "Certificates",
    ) -> None:
        """Serve until asked to stop."""
        from noderestrict.serving.app import App
        from noderestrict.serving.reload import follow_configuration
        from noderestrict.serving.server import run as serve

        config = self.config
        capture, limits = _capture(config, metrics), _limits(config)
        in_force = self.in_force
        modes = config.modes(config, in_force.agents)
        traced, end_tracing = None, None
        if config.tracing_endpoint:
            from noderestrict.serving.traces import SpanReporter, TracedAuthorizer, Traces
            from noderestrict.telemetry.tracing import tracing

            per_million = config.tracing_sampling_rate_per_million
            tracer, end_tracing = tracing(config.tracing_endpoint, per_million)
            traced = Traces(tracer).endpoint
            authorizer = authorizer and TracedAuthorizer(authorizer)
            self.reporters.append(SpanReporter())
        app = App(
            judge, metrics, limits, authorizer, modes, capture, in_force, self.reporters, traced
        )
        metrics.policy.mode_of = lambda rule: app.state.modes.of(rule)
        metrics.follow_agents(in_force)
        jobs = {"log": _report_drops, **background}
        if self._sources.has_file or config.agents:
            jobs["configuration"] = partial(
                follow_configuration,
                app.state,
                metrics,
                self._read,
                config.config_poll,
                changed=self._warn,
            )
        try:
            await serve(
                app,
                metrics,
                certificates,
                _server_options(config, limits, self.sockets),
                stop=stop,
                started=self._started,
                background=jobs,
            )
        finally:
            if end_tracing is not None:
                await asyncio.to_thread(end_tracing)
            if capture is not None:
                await asyncio.to_thread(capture.close)

    def _read(self) -> "Reloaded":
        """Read the files once."""
        from noderestrict.serving.reload import Reloaded

        wanted = self._sources.read()
        agents = read_agents(wanted.agents, self._features)
        return Reloaded(
            partial(wanted.modes, self.config, agents),
            differences(self.config, wanted, applied=_APPLIED),
            agents,
        )

    def _started(self, port: int) -> None:
        from noderestrict.telemetry.logs import LOGGER

        LOGGER.info("listening", extra={"address": self.config.bind_address, "port": port})
        if self.config.dev:
            print(how_to_call(port), flush=True)


async def _report_drops() -> None:
    """Log now and then how many lines were dropped."""
    from noderestrict.telemetry.logs import report_drops

    while True:
        await asyncio.sleep(_REPORT_DROPS_SECONDS)
        report_drops()


def _capture(config: ServeConfig, metrics: "Metrics") -> "Capture | None":
    from noderestrict.serving.capture import Capture, CaptureOptions

    if config.capture is None:
        return None
    return Capture(
        CaptureOptions(
            config.capture,
            config.capture_denied_only,
            config.capture_every,
            config.capture_files,
            config.capture_file_mib * 2**20,
        ),
        metrics,
    )


def _limits(config: ServeConfig) -> "Limits":
    from noderestrict.serving.limits import Limits

    return Limits(
        requests=config.max_in_flight,
        header_seconds=config.header_timeout,
        age_seconds=config.connection_age,
        body_seconds=config.body_timeout,
    )


def _server_options(
    config: ServeConfig, limits: "Limits", sockets: "Sequence[socket.socket]"
) -> "ServerOptions":
    from noderestrict.serving.server import ServerOptions

    return ServerOptions(
        host=config.bind_address,
        port=config.port,
        metrics=config.metrics_address,
        tls_wait=config.tls_wait,
        poll_certificates=config.tls_poll,
        shutdown_delay=config.shutdown_delay,
        limits=limits,
        client_names=frozenset(config.client_allowed_names),
        shared=config.share_port,
        sockets=sockets,
    )
