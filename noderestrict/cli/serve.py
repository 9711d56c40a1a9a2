"""``noderestrict serve``: the webhook server."""

import argparse
import asyncio
import datetime as dt
import os
import ssl
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noderestrict.cli._config import PREFIX
from noderestrict.cli._errors import UsageError
from noderestrict.cli._flags import add_policy_flags, extra_policy, policy_settings
from noderestrict.policy.settings import Settings
from noderestrict.policy.table import STRICT_RULE_IDS

if TYPE_CHECKING:
    from noderestrict.cluster.connection import Connection
    from noderestrict.serving.authorizers import Authorizer
    from noderestrict.serving.background import Jobs
    from noderestrict.serving.certificates import CertificateFiles
    from noderestrict.serving.judges import Judge
    from noderestrict.serving.modes import Modes
    from noderestrict.serving.stop import Stop
    from noderestrict.telemetry.metrics import Metrics

    Main = Callable[[Stop], Coroutine[Any, Any, None]]

_TLS_VERSIONS = {"VersionTLS12": ssl.TLSVersion.TLSv1_2, "VersionTLS13": ssl.TLSVersion.TLSv1_3}
_DEV_DIRECTORY = Path(".noderestrict-dev")
_DEV_NAMES = ("localhost", "127.0.0.1", "::1")
_DEV_LIFETIME = dt.timedelta(days=30)
_TELL_DROPS_SECONDS = 5.0
_HOW_ON = "name it in --strict-rules, labels in --forbid-node-labels; a restart is needed"


def _address(text: str) -> tuple[str, int] | None:
    if not text:
        return None
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 (as the flag says)


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in text.split(","))))


def _rule_modes(text: str) -> dict[str, str]:
    from noderestrict.policy.table import RULE_IDS
    from noderestrict.serving.modes import MODES

    modes = {}
    for entry in _names(text):
        rule, equals, mode = entry.partition("=")
        if rule not in RULE_IDS:
            raise argparse.ArgumentTypeError(f"{rule!r} is no rule; known: {', '.join(RULE_IDS)}")
        if not equals or mode not in MODES:
            raise argparse.ArgumentTypeError(f"{entry!r} is not RULE={'|'.join(MODES)}")
        modes[rule] = mode
    return modes


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port between 0 and 65535")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        seconds = -1
    if not 0 <= seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


def _registration(text: str) -> str:
    from noderestrict.render.registration import parse_registration

    try:
        parse_registration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's parser."""
    parser = subparsers.add_parser(
        "serve",
        help="answer AdmissionReviews over TLS",
        description="Answer AdmissionReviews over TLS. SIGTERM drains and stops, a second one "
        "stops at once, SIGUSR1 switches debug logs on and off.",
    )
    listen = parser.add_argument_group("listening")
    listen.add_argument("--bind-address", default="0.0.0.0", metavar="HOST")  # noqa: S104 (a server)
    listen.add_argument("--port", type=_port, default=8443, help="0 takes any free port")
    listen.add_argument(
        "--metrics-address",
        type=_address,
        default=("0.0.0.0", 9090),  # noqa: S104 (scraped from other machines)
        metavar="HOST:PORT",
        help="plain HTTP: /metrics, /livez, /readyz; empty for none (default: 0.0.0.0:9090)",
    )
    tls = parser.add_argument_group("TLS")
    tls.add_argument("--tls-cert-file", type=Path, metavar="FILE", help="PEM chain, leaf first")
    tls.add_argument("--tls-private-key-file", type=Path, metavar="FILE", help="PEM key")
    tls.add_argument(
        "--tls-dir",
        type=Path,
        metavar="DIR",
        help="a mounted Secret of type kubernetes.io/tls: tls.crt, tls.key, ca.crt",
    )
    tls.add_argument(
        "--dev", action="store_true", help=f"make a self-signed pair in {_DEV_DIRECTORY}"
    )
    tls.add_argument(
        "--tls-wait",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="how long to wait for a certificate at start (default: 60)",
    )
    tls.add_argument(
        "--tls-poll",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="between looks at the certificate files (default: 10)",
    )
    tls.add_argument(
        "--expected-dns-names",
        type=_names,
        default=(),
        metavar="A,B",
        help="refuse certificates that do not cover these names",
    )
    tls.add_argument(
        "--client-ca-file",
        type=Path,
        metavar="FILE",
        help="accept only clients with a certificate by these CAs",
    )
    tls.add_argument(
        "--client-allowed-names",
        type=_names,
        default=(),
        metavar="A,B",
        help="and only with one of these common names or DNS names",
    )
    tls.add_argument("--tls-min-version", choices=sorted(_TLS_VERSIONS), default="VersionTLS12")
    tls.add_argument(
        "--tls-cipher-suites",
        type=_names,
        default=(),
        metavar="A,B",
        help="for TLS 1.2, with Kubernetes' names, such as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    )
    cluster = parser.add_argument_group(
        "cluster", "Without --state, look-ups are answered from a live cluster."
    )
    cluster.add_argument(
        "--kubeconfig", metavar="FILE", help="default: the service account of the pod"
    )
    cluster.add_argument("--context", metavar="NAME", help="of the kubeconfig")
    cluster.add_argument(
        "--cluster-wait",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="how long to wait for the API server at start (default: 60)",
    )
    cluster.add_argument(
        "--expected-registration",
        type=_registration,
        metavar="JSON",
        help="the registration as it was rendered; where the installed one differs, metrics and "
        "log tell within a minute",
    )
    cluster.add_argument(
        "--max-staleness",
        type=_seconds,
        default=90.0,
        metavar="SECONDS",
        help="since a store last heard from the API server: what an older one allows is confirmed "
        "by a look-up; bookmarks come every minute (default: 90)",
    )
    limits = parser.add_argument_group("limits")
    limits.add_argument("--max-in-flight", type=_positive, default=512, metavar="N")
    limits.add_argument(
        "--header-timeout",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="from connecting, or the first byte of a later request, to the end of its headers "
        "(default: 10)",
    )
    limits.add_argument(
        "--body-timeout",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="from the headers to the end of the body (default: 10)",
    )
    limits.add_argument(
        "--shutdown-delay",
        type=_seconds,
        default=5.0,
        metavar="SECONDS",
        help="between SIGTERM and the end of listening (default: 5)",
    )
    rules = parser.add_argument_group("rules")
    rules.add_argument(
        "--authorizer",
        action="store_true",
        help="answer SubjectAccessReviews too, as the Node authorizer does, at /authorize",
    )
    rules.add_argument(
        "--mode",
        choices=("enforce", "warn", "audit", "off"),
        default="enforce",
        help="of all rules: refuse, allow with a warning to the client, allow and only report, or "
        "do not count (default: enforce)",
    )
    rules.add_argument(
        "--rule-modes",
        type=_rule_modes,
        default={},
        metavar="RULE=MODE,…",
        help="of single rules, such as nodes/labels=audit",
    )
    add_policy_flags(rules)
    rules.add_argument(
        "--config-poll",
        type=_seconds,
        default=5.0,
        metavar="SECONDS",
        help="between looks at the file of --config, whose mode and rule-modes may change while "
        "the server runs (default: 5)",
    )
    capture = parser.add_argument_group(
        "capture", "Judged reviews as case files for replay, without secrets, tokens and CSRs."
    )
    capture.add_argument("--capture", type=Path, metavar="DIR", help="write them there")
    capture.add_argument(
        "--capture-denied-only", action="store_true", help="leave out what was allowed"
    )
    capture.add_argument(
        "--capture-every", type=_positive, default=1, metavar="N", help="one review of N"
    )
    capture.add_argument(
        "--capture-files", type=_positive, default=10, metavar="N", help="how many are kept"
    )
    capture.add_argument(
        "--capture-file-mib", type=_positive, default=10, metavar="MIB", help="size of one file"
    )
    logs = parser.add_argument_group("logs")
    logs.add_argument("--log-format", choices=("json", "console"), default="json")
    logs.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    parser.add_config_flags()
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Serve until a signal, which ends the process with exit code 0.

    Raises:
        UsageError: the flags, the state or the certificate do not allow it.
    """
    from noderestrict.replay.state import StateError
    from noderestrict.serving.server import StartError
    from noderestrict.serving.stop import run_event_loop
    from noderestrict.telemetry import logs

    if options.print_config:
        print(options.parser.effective(options), end="")
        return 0
    try:
        _modes(options)
    except ValueError as error:
        raise UsageError(str(error)) from None
    logs.configure(options.log_level, options.log_format)
    if options.state and (options.kubeconfig or options.context):
        raise UsageError("--state answers all look-ups: it excludes --kubeconfig and --context")
    if options.state and options.expected_registration:
        raise UsageError("--expected-registration is compared with a cluster's: not with --state")
    files = _certificate_files(options)
    try:
        serve = _with_state(options, files) if options.state else _with_cluster(options, files)
        run_event_loop(serve, options.log_level)
    except (StartError, StateError, ssl.SSLError) as error:
        raise UsageError(str(error)) from None
    finally:
        logs.close()
    return 0


def _with_state(options: argparse.Namespace, files: "CertificateFiles") -> "Main":
    """Return what serves with objects that are read here: a signal ends that at once."""
    from noderestrict.graph.graph import Graph
    from noderestrict.replay.state import load_state
    from noderestrict.serving.authorizers import LocalAuthorizer
    from noderestrict.serving.judges import LocalJudge
    from noderestrict.telemetry.metrics import Metrics

    settings = policy_settings(options)
    graph = Graph(most_edges=None)
    listers = load_state((file for group in options.state for file in group), graph)
    authorizer = LocalAuthorizer(graph, settings.features) if options.authorizer else None
    judge = LocalJudge(settings, listers)
    return lambda stop: _serve(options, files, judge, authorizer, Metrics(), stop, {})


def _with_cluster(options: argparse.Namespace, files: "CertificateFiles") -> "Main":
    # Here, because it costs half a second, which --state need not pay.
    from noderestrict.cluster.connection import ClusterError
    from noderestrict.cluster.graph_sink import graph_sinks
    from noderestrict.cluster.judge import STREAMING_SINCE, ClusterJudge
    from noderestrict.cluster.node_authorizer import NodeAuthorizer
    from noderestrict.cluster.start import reached
    from noderestrict.graph.graph import Graph
    from noderestrict.serving.server import StartError
    from noderestrict.telemetry.metrics import Metrics

    async def serve(stop: "Stop") -> None:
        metrics = Metrics()
        async with reached(options.kubeconfig, options.context, options.cluster_wait) as (
            connection,
            minor,
        ):
            settings = Settings.for_version(
                minor if options.kubernetes_version is None else options.kubernetes_version,
                options.feature_gates,
                options.api_audiences,
                audiences_pending=options.api_audiences is None,
                extra=extra_policy(options),
            )
            graph = Graph()
            sinks = graph_sinks(graph, settings.features, minor) if options.authorizer else ()
            judge = ClusterJudge(
                connection,
                settings,
                metrics,
                streaming=minor >= STREAMING_SINCE,
                sinks=sinks,
                max_staleness=options.max_staleness,
            )
            authorizer = None
            if options.authorizer:
                authorizer = NodeAuthorizer(
                    connection,
                    graph,
                    settings.features,
                    judge.informers.has_synced,
                    judge.count_live,
                    judge.share,
                    judge.informers.unreadable,
                    judge.informers.freshness,
                )
            jobs = dict(judge.jobs())
            if options.expected_registration is not None:
                jobs["registration"] = lambda: _watch(options, connection, files, metrics, minor)
            await _serve(options, files, judge, authorizer, metrics, stop, jobs)

    async def serve_or_say_why_not(stop: "Stop") -> None:
        try:
            await serve(stop)
        except ClusterError as error:
            raise StartError(str(error)) from None

    return serve_or_say_why_not


def _watch(
    options: argparse.Namespace,
    connection: "Connection",
    files: "CertificateFiles",
    metrics: "Metrics",
    minor: int,
) -> Coroutine[Any, Any, None]:
    """Return what compares the installed registration with the one that is expected."""
    from noderestrict.doctor.watch import CONDITIONS_SINCE, Expected, watch_registration
    from noderestrict.render.registration import parse_registration

    registration = parse_registration(options.expected_registration).value(extra_policy(options))
    expected = Expected(
        registration, files.certificate.parent / "ca.crt", conditions=minor >= CONDITIONS_SINCE
    )
    return watch_registration(connection, expected, metrics)


async def _serve(
    options: argparse.Namespace,
    files: "CertificateFiles",
    judge: "Judge",
    authorizer: "Authorizer | None",
    metrics: "Metrics",
    stop: "Stop",
    background: "Jobs",
) -> None:
    from noderestrict.serving.app import App
    from noderestrict.serving.capture import Capture, CaptureOptions
    from noderestrict.serving.certificates import Certificates
    from noderestrict.serving.limits import Limits
    from noderestrict.serving.reload import follow_modes
    from noderestrict.serving.server import ServerOptions
    from noderestrict.serving.server import run as serve
    from noderestrict.telemetry.logs import LOGGER, tell_drops

    async def tell_drops_now_and_then() -> None:
        while True:
            await asyncio.sleep(_TELL_DROPS_SECONDS)
            tell_drops()

    capture = None
    if options.capture is not None:
        capture = Capture(
            CaptureOptions(
                options.capture,
                options.capture_denied_only,
                options.capture_every,
                options.capture_files,
                options.capture_file_mib * 2**20,
            ),
            metrics,
        )
    limits = Limits(
        requests=options.max_in_flight,
        header_seconds=options.header_timeout,
        body_seconds=options.body_timeout,
    )

    def started(port: int) -> None:
        LOGGER.info("listening", extra={"address": options.bind_address, "port": port})
        if options.dev:
            print(_how_to_call(port), flush=True)

    app = App(judge, metrics, limits, authorizer, _modes(options), capture)
    jobs = {"log": tell_drops_now_and_then, **background}
    if options.config is not None or os.environ.get(f"{PREFIX}CONFIG"):
        jobs["configuration"] = partial(
            follow_modes, app, metrics, lambda: _modes(options), options.config_poll
        )
    try:
        await serve(
            app,
            metrics,
            Certificates(files, metrics),
            ServerOptions(
                host=options.bind_address,
                port=options.port,
                metrics=options.metrics_address,
                tls_wait=options.tls_wait,
                poll_certificates=options.tls_poll,
                shutdown_delay=options.shutdown_delay,
                limits=limits,
                client_names=frozenset(options.client_allowed_names),
            ),
            stop=stop,
            started=started,
            background=jobs,
        )
    finally:
        if capture is not None:
            await asyncio.to_thread(capture.close)


def _modes(options: argparse.Namespace) -> "Modes":
    """Return the modes as the file has them now.

    Raises:
        ValueError: the file cannot be used, or a rule is named that is off.
    """
    from noderestrict.serving.modes import Modes

    now = options.parser.changed_by_file
    by_rule = now(options, "rule_modes")
    on = extra_policy(options).rules
    for rule in by_rule:
        if rule in STRICT_RULE_IDS and rule not in on:
            raise ValueError(f"rule-modes: {rule!r} is off, so that it has no mode: {_HOW_ON}")
    return Modes(now(options, "mode"), by_rule)


def _certificate_files(options: argparse.Namespace) -> "CertificateFiles":
    from noderestrict.serving.certificates import CertificateFiles

    certificate, key = options.tls_cert_file, options.tls_private_key_file
    if (certificate is None) != (key is None):
        raise UsageError("--tls-cert-file and --tls-private-key-file are needed together")
    sources = [certificate is not None, options.tls_dir is not None, options.dev]
    if sum(sources) != 1:
        raise UsageError(
            "one certificate is needed: --tls-dir DIR, or --tls-cert-file FILE with "
            "--tls-private-key-file FILE, or --dev"
        )
    directory = options.tls_dir
    if options.dev:
        directory = _DEV_DIRECTORY
        _make_dev_pair(directory)
    if directory is not None:
        certificate, key = directory / "tls.crt", directory / "tls.key"
    if options.client_allowed_names and options.client_ca_file is None:
        raise UsageError("--client-allowed-names needs --client-ca-file")
    return CertificateFiles(
        certificate,
        key,
        options.client_ca_file,
        options.expected_dns_names,
        _TLS_VERSIONS[options.tls_min_version],
        _openssl_names(options.tls_cipher_suites),
    )


def _openssl_names(suites: tuple[str, ...]) -> str:
    names = []
    for suite in suites:
        exchange, with_, cipher = suite.removeprefix("TLS_").partition("_WITH_")
        if not with_:
            raise UsageError(f"--tls-cipher-suites: {suite!r} is no TLS 1.2 suite")
        cipher = cipher.removesuffix("_SHA256") if "CHACHA20" in cipher else cipher
        cipher = cipher.replace("AES_128", "AES128").replace("AES_256", "AES256")
        name = f"{exchange}_{cipher}".replace("_", "-").removeprefix("RSA-")
        names.append(name)
    ciphers = ":".join(names)
    if ciphers:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(ciphers)
        except ssl.SSLError:
            raise UsageError(f"--tls-cipher-suites {','.join(suites)}: none is known") from None
    return ciphers


def _make_dev_pair(directory: Path) -> None:
    from noderestrict.pki.files import make_own_directory, write_atomically
    from noderestrict.pki.issue import create_authority

    now = dt.datetime.now(dt.UTC)
    authority = create_authority("noderestrict --dev", lifetime=_DEV_LIFETIME, now=now)
    leaf = authority.issue(_DEV_NAMES, lifetime=_DEV_LIFETIME, now=now)
    try:
        make_own_directory(directory)
        # What is there is replaced; a link is not followed.
        write_atomically(directory / "ca.crt", authority.certificate, mode=0o644)
        write_atomically(directory / "tls.crt", leaf.certificate, mode=0o644)
        write_atomically(directory / "tls.key", leaf.key)
    except OSError as error:
        raise UsageError(f"--dev: {directory}: {error.strerror or error}") from None


def _how_to_call(port: int) -> str:
    ca = _DEV_DIRECTORY / "ca.crt"
    reviews = sorted(Path("examples").glob("*-review.json")) or [Path("review.json")]
    calls = (
        f"  curl --cacert {ca} -H 'Content-Type: application/json' \\\n"
        f"    --data-binary @{review} https://127.0.0.1:{port}/validate"
        for review in reviews
    )
    return "\n".join(("Call it:", *calls))
