"""Prometheus metrics. No label carries a node, pod or user name."""

import platform
import time
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from noderestrict import __version__
from noderestrict.agents.agents import InForce
from noderestrict.policy.modes import OFF
from noderestrict.policy.releases import LATEST_MINOR, Release
from noderestrict.policy.settings import Settings
from noderestrict.policy.table import RULES
from noderestrict.telemetry import hot
from noderestrict.telemetry.logs import DROPS, NODE, RATE, READER

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 3, 10)
_LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1)
_BYTES = (1024, 4096, 16384, 65536, 262144, 1048576, 8388608)
_RESOURCES = {target.resource for rule in RULES for target in rule.targets}
_SUB_RESOURCES = {"", "status", "eviction", "token", "resize", "ephemeralcontainers", "exec"}
OTHER = "other"
#: Mode of rules that the release of --rules lacks.
ABSENT = "absent"
#: Why a connection was ended.
CLOSED = (
    "age", "bytes", "chunks", "client_name", "evicted", "handshake", "header", "no_room", "share",
    "unread",
)  # fmt: skip
_EXPOSED_SECONDS = 1.0
#: Prometheus' text format, and OpenMetrics: how each is made, by its content type.
_FORMS: Mapping[str, Callable[[CollectorRegistry], bytes]] = {
    CONTENT_TYPE_PLAIN_0_0_4: generate_latest,
    openmetrics.CONTENT_TYPE_LATEST: openmetrics.generate_latest,
}

# Else each counter has a second series, of when it was made. process_start_time_seconds says that.
disable_created_metrics()  # type: ignore[no-untyped-call]


class _Decisions(hot.Counter):
    """The decision counter; a resource that no rule covers is counted as ``other``.

    Attributes:
        resources: that are counted by name.
    """

    resources: frozenset[str] = frozenset(_RESOURCES)

    def count(
        self, resource: str, sub_resource: str, operation: str, rule: str, decision: str, mode: str
    ) -> None:
        """Count one decision."""
        counts = self.counts
        key = (resource, sub_resource, operation, rule, decision, mode)
        if key not in counts:
            # Clients choose resource names: the number of series must not grow with them.
            key = (
                resource if resource in self.resources else OTHER,
                sub_resource if sub_resource in _SUB_RESOURCES else OTHER,
                *key[2:],
            )
            counts.setdefault(key, 0)
        counts[key] += 1


class _DroppedLines(Collector):
    """Dropped log lines of the process."""

    label_names = ("reason",)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the metric family."""
        family = CounterMetricFamily(
            "noderestrict_dropped_log_lines",
            "Log lines that were dropped: too many for one node (node), too many at all (rate), or "
            "standard error was not read (reader).",
            labels=self.label_names,
        )
        for reason in (NODE, RATE, READER):
            family.add_metric([reason], DROPS.of(reason))
        yield family


class _Policy(Collector):
    """What the rules run with.

    Attributes:
        settings: of the rules.
        mode_of: returns the mode of a rule that applies, by its id.
        agents: those that are held.
    """

    def __init__(self) -> None:
        self.settings = Settings()
        self.mode_of: Callable[[str], str] = str
        self.agents = InForce()

    def modes(self) -> Mapping[str, str]:
        """Return the mode of each rule, by its id."""
        on, release = self.settings.extra.rules, self.settings.release
        modes = {rule.id: ABSENT for rule in RULES}
        for rule in RULES:
            if rule.since.includes(release):
                applies = not rule.strict or rule.id in on
                modes[rule.id] = self.mode_of(rule.id) if applies else OFF
        return modes | {rule: self.mode_of(rule) for rule in self.agents.agents.rules()}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the metric families."""
        modes = GaugeMetricFamily(
            "noderestrict_rule_mode",
            "1 for the mode in which a rule runs: off for a strict rule that is not turned on, "
            "absent for one that the release of --rules lacks.",
            labels=("rule", "mode"),
        )
        for rule, mode in self.modes().items():
            modes.add_metric([rule, mode], 1)
        yield modes
        features = GaugeMetricFamily(
            "noderestrict_feature_gate", "1 if a feature gate counts as on.", labels=("name",)
        )
        for name, on in self.settings.features.items():
            features.add_metric([name], on)
        yield features
        policies = GaugeMetricFamily(
            "noderestrict_agent_policy_info",
            "1 for each agent that is held, with a digest of its policy.",
            labels=("agent", "digest"),
        )
        for agent, digest in self.agents.agents.digests.items():
            policies.add_metric([agent, digest], 1)
        yield policies
        build = GaugeMetricFamily(
            "noderestrict_build_info",
            "1, with the version, the release of Kubernetes whose rules apply, and the feature "
            "gates that count as on.",
            labels=("version", "python_version", "rules", "feature_gates"),
        )
        gates = ",".join(self.settings.enabled())
        release = str(self.settings.release)
        build.add_metric([__version__, platform.python_version(), release, gates], 1)
        yield build


class Metrics:
    """All metrics of one process, in their own registry."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        durations = hot.Histogram(
            "noderestrict_request_duration_seconds",
            "Time from the end of a request to its answer.",
            _SECONDS,
            registry,
            "endpoint",
            ("validate", "authorize"),
        ).series
        self.validate_seconds = durations["validate"]
        self.authorize_seconds = durations["authorize"]
        self.decisions = _Decisions(
            "noderestrict_admission_decisions",
            "Judged AdmissionReviews.",
            ("resource", "subresource", "operation", "rule", "decision", "mode"),
            registry,
        )
        authorizations = Counter(
            "noderestrict_authorization_decisions_total",
            "Judged SubjectAccessReviews; only reads of agents are ever denied.",
            ("decision",),
            registry=registry,
        )
        self.authorization_allowed = authorizations.labels("allowed")
        self.authorization_no_opinion = authorizations.labels("no_opinion")
        self.authorization_denied = authorizations.labels("denied")
        self.authorization_would_be_denied = authorizations.labels("would_be_denied")
        self.in_flight = Gauge(
            "noderestrict_requests_in_flight", "Requests being answered.", registry=registry
        )
        self.body_bytes = hot.Histogram(
            "noderestrict_request_body_bytes", "Size of request bodies.", _BYTES, registry
        ).series[""]
        rejected = Counter(
            "noderestrict_rejected_requests_total",
            "Requests answered with an HTTP error, by status code.",
            ("code",),
            registry=registry,
        )
        self.rejected = {
            code: rejected.labels(str(code)) for code in (400, 404, 405, 408, 413, 415, 500, 503)
        }
        self.internal_errors = Counter(
            "noderestrict_internal_errors_total",
            "Defects: requests that ended in an exception.",
            registry=registry,
        )
        shed = Counter(
            "noderestrict_shed_requests_total",
            "Requests refused for overload, by the limit that was reached.",
            ("limit",),
            registry=registry,
        )
        self.shed = {
            limit: shed.labels(limit) for limit in ("requests", "bytes", "deadline", "large_bodies")
        }
        self._open_connections = Gauge(
            "noderestrict_open_connections",
            "Open connections of a port (webhook, metrics), TLS handshakes included.",
            ("port",),
            registry=registry,
        )
        self._closed_connections = Counter(
            "noderestrict_closed_connections_total",
            "Connections that the server ended early, by port and reason.",
            ("port", "reason"),
            registry=registry,
        )
        self.accept_errors = Counter(
            "noderestrict_accept_errors_total",
            "Connections that the system could not open, for example because files ran out.",
            registry=registry,
        )
        self.held_bytes = Gauge(
            "noderestrict_held_bytes",
            "Bytes received of requests that are not answered yet.",
            registry=registry,
        )
        registry.register(_DroppedLines())
        self.background_failures = Counter(
            "noderestrict_background_failures_total",
            "Background jobs that ended and were restarted.",
            ("job",),
            registry=registry,
        )
        self.loop_lag = hot.Histogram(
            "noderestrict_event_loop_lag_seconds",
            "How late the event loop was, sampled 20 times a second.",
            _LAG_SECONDS,
            registry,
        ).series[""]
        self.self_test = Gauge(
            "noderestrict_self_test_ok",
            "1 while a known-bad review is refused.",
            registry=registry,
        )
        self.certificate_expiry = Gauge(
            "noderestrict_certificate_expiry_timestamp_seconds",
            "When the served certificate chain expires.",
            registry=registry,
        )
        reloads = Counter(
            "noderestrict_certificate_reloads_total",
            "Changed certificates, by what became of them.",
            ("result",),
            registry=registry,
        )
        self.certificate_loaded = reloads.labels("loaded")
        self.certificate_refused = reloads.labels("refused")
        self.certificate_problem = Gauge(
            "noderestrict_certificate_problem",
            "1 while a source holds a pair that cannot be served.",
            registry=registry,
        )
        self.certificate_warnings = Gauge(
            "noderestrict_certificate_warnings",
            "What is odd about the served chain without harming clients, as the log says.",
            registry=registry,
        )
        self.certificate_source = Gauge(
            "noderestrict_certificate_source",
            "1 for the source of the served certificate: files or secret.",
            ("source",),
            registry=registry,
        )
        config = Counter(
            "noderestrict_config_reloads_total",
            "Changed configuration files that were loaded or refused; changed settings that need a "
            "restart.",
            ("result",),
            registry=registry,
        )
        self.config_loaded = config.labels("loaded")
        self.config_refused = config.labels("refused")
        self.config_needs_restart = config.labels("needs_restart")
        self.captured = Counter(
            "noderestrict_captured_reviews_total", "Reviews written to disk.", registry=registry
        )
        self.capture_dropped = Counter(
            "noderestrict_capture_dropped_total",
            "Reviews that were not written: they did not fit into the queue, or writing failed.",
            registry=registry,
        )
        self.registration_differences = Gauge(
            "noderestrict_registration_differences",
            "Fields of the installed registration that differ from the rendered one.",
            registry=registry,
        )
        self.registration_checked = Gauge(
            "noderestrict_registration_checked_timestamp_seconds",
            "When the installed registration was last compared with the rendered one.",
            registry=registry,
        )
        self.store_objects = Gauge(
            "noderestrict_store_objects",
            "Objects in a store.",
            ("resource",),
            registry=registry,
        )
        self.store_age = Gauge(
            "noderestrict_store_age_seconds",
            "Time since a store last equalled the cluster; +Inf before it ever did.",
            ("resource",),
            registry=registry,
        )
        self.store_errors = Counter(
            "noderestrict_store_errors_total",
            "Lists and watches that failed.",
            ("resource", "verb"),
            registry=registry,
        )
        self.store_undecodable_objects = Gauge(
            "noderestrict_store_undecodable_objects",
            "Objects that a store lacks because they cannot be decoded; they are looked up live.",
            ("resource",),
            registry=registry,
        )
        self.store_undecodable = Counter(
            "noderestrict_store_undecodable_total",
            "Objects of lists and watches that could not be decoded.",
            ("resource",),
            registry=registry,
        )
        self._credential_renewals = Counter(
            "noderestrict_credential_renewals_total",
            "Renewals of the credential for the API server that gave another one, or failed.",
            ("result",),
            registry=registry,
        )
        for result in ("renewed", "failed"):
            self._credential_renewals.labels(result)
        self._credential_problem = Gauge(
            "noderestrict_credential_problem",
            "1 while our credential is refused by the API server, expired or cannot be renewed.",
            registry=registry,
        )
        self._credential_expiry = Gauge(
            "noderestrict_credential_expiry_timestamp_seconds",
            "When the credential for the API server expires; +Inf if that is unknown.",
            registry=registry,
        )
        self._credential_expiry.set(float("inf"))
        self.live_lookups = Counter(
            "noderestrict_live_lookups_total",
            "Lookups sent to the API server, by result.",
            ("resource", "result"),
            registry=registry,
        )
        self._node_events = Counter(
            "noderestrict_node_events_total",
            "Events about nodes that were written or failed, and refusals that none was kept for: "
            "the node is not known, or there are too many.",
            ("result",),
            registry=registry,
        )
        for result in ("written", "failed", "dropped"):
            self._node_events.labels(result)
        self._kubernetes = Gauge(
            "noderestrict_kubernetes_info",
            "1, with the version of the API server, the release of the rules that apply, and "
            "whether the rules and feature gates of that version are known.",
            ("api_server", "rules", "known"),
            registry=registry,
        )
        self.policy = _Policy()
        registry.register(self.policy)

    def follow_agents(self, in_force: InForce) -> None:
        """Expose the agents and the modes of their rules, and count their resources by name."""
        self.policy.agents = in_force
        self.decisions.resources = frozenset(_RESOURCES) | in_force.agents.resources()

    def kubernetes(self, minor: int, rules: Release) -> None:
        """Expose the version of the API server, 1.``minor``, and the release of the rules."""
        known = str(minor <= LATEST_MINOR).lower()
        self._kubernetes.labels(f"1.{minor}", str(rules), known).set(1)

    def open_connections(self, port: str, number: Callable[[], int]) -> None:
        """Expose the number of open connections of a port."""
        self._open_connections.labels(port).set_function(number)

    def closed_connections(self, port: str) -> Callable[[str], None]:
        """Return a function that counts an ended connection of a port, by reason."""
        counters = {reason: self._closed_connections.labels(port, reason) for reason in CLOSED}
        return lambda reason: counters[reason].inc()

    def credential(self, problem: Callable[[], bool], expiry: Callable[[], float]) -> None:
        """Expose whether the credential has a problem, and when it expires, since 1970."""
        self._credential_problem.set_function(problem)
        self._credential_expiry.set_function(expiry)

    def count_renewal(self, result: str) -> None:
        """Count a renewal of the credential: ``renewed`` or ``failed``."""
        self._credential_renewals.labels(result).inc()

    def count_node_event(self, result: str) -> None:
        """Count an Event about a node: ``written``, ``failed`` or ``dropped``."""
        self._node_events.labels(result).inc()

    def exposition(self, content_type: str = CONTENT_TYPE_PLAIN_0_0_4) -> bytes:
        """Return all metrics.

        Args:
            content_type: of ``content_type``.
        """
        return _FORMS[content_type](self.registry)


def content_type(accept: str) -> str:
    """Return the content type in which a client gets metrics: OpenMetrics if it asks for that.

    Args:
        accept: what the client accepts, as in the header of that name.
    """
    try:
        _, chosen = choose_encoder(accept)
    except (TypeError, ValueError):
        # It compares versions that are no numbers.
        return CONTENT_TYPE_PLAIN_0_0_4
    # The encoder's version and escaping are the client's; our names need no escaping.
    asked = chosen.partition(";")[0]
    return next((one for one in _FORMS if one.partition(";")[0] == asked), CONTENT_TYPE_PLAIN_0_0_4)


class Exposition:
    """All metrics as text, generated at most once a second, so that scrapes do not delay reviews.

    Args:
        metrics: exposed.
        clock: seconds.
    """

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._made: dict[str, tuple[float, bytes]] = {}

    def text(self, content_type: str = CONTENT_TYPE_PLAIN_0_0_4) -> bytes:
        """Return the text, at most a second old.

        Args:
            content_type: of ``content_type``.
        """
        now = self._clock()
        made, text = self._made.get(content_type, (float("-inf"), b""))
        if now - made >= _EXPOSED_SECONDS:
            text = self._metrics.exposition(content_type)
            self._made[content_type] = (now, text)
        return text
