"""The configuration of ``noderestrict serve``: every setting, declared once."""

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noderestrict.agents.agents import Agents, agent_of
from noderestrict.cli import shared_flags
from noderestrict.cli.argument_types import (
    ADDRESS,
    COUNT,
    DIRECTORY,
    FILES,
    HOST,
    HTTP_URL,
    MIB,
    MODE,
    NAMES,
    NAMESPACED_NAME,
    PATH,
    PER_MILLION,
    PORT,
    REGISTRATION,
    RULE_MODES,
    RULES_OF,
    SECONDS,
    one_of,
)
from noderestrict.cli.fields import Group, setting, switch
from noderestrict.cli.shared_flags import CLUSTER, RULES
from noderestrict.policy.modes import ENFORCE
from noderestrict.policy.releases import Release
from noderestrict.policy.table import STRICT_RULE_IDS
from noderestrict.serving.modes import Modes
from noderestrict.telemetry.logs import LEVELS

#: Where ``--dev`` writes its pair.
DEV_DIRECTORY = Path(".noderestrict-dev")
_LOOPBACK = "127.0.0.1"
TLS_VERSIONS = {"VersionTLS12": ssl.TLSVersion.TLSv1_2, "VersionTLS13": ssl.TLSVersion.TLSv1_3}

_LISTENING = Group("listening")
_TLS = Group("TLS")
_LIMITS = Group("limits")
_CAPTURE = Group(
    "capture", "Write reviews as case files for replay, without secrets, tokens and CSRs."
)
_LOGS = Group("logs")
_TURN_ON = "name it in strict-rules, labels in forbid-node-labels; a restart is needed"


def with_dev_defaults(given: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that are given, by field, with the defaults of ``--dev`` if it is."""
    if not given.get("dev"):
        return given
    own: dict[str, Any] = {
        "bind_address": _LOOPBACK,
        "metrics_address": (_LOOPBACK, 9090),
        "shutdown_delay": 0.0,
    }
    return own | given


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, kw_only=True)
class ServeConfig(shared_flags.Policy, shared_flags.ClusterAccess):
    """What a server runs with."""

    rules: Release | None = setting(
        None,
        RULES_OF,
        "Kubernetes release whose rules apply, whatever the version of the cluster is; the newest "
        "ones have the newest security fixes",
        RULES,
    )
    bind_address: str = setting(
        "0.0.0.0",  # noqa: S104 (a server)
        HOST,
        "address to listen on",
        _LISTENING,
    )
    port: int = setting(8443, PORT, "port to listen on; 0 takes any free port", _LISTENING)
    share_port: bool = switch(
        "listen beside another server with the same addresses (SO_REUSEPORT), for requests once "
        "this one is ready, so that it can take over without a gap",
        _LISTENING,
    )
    respawn: bool = switch(
        "run in a child process, and start another one at once when a signal kills it; connections "
        "wait for it meanwhile",
        _LISTENING,
    )
    metrics_address: tuple[str, int] | None = setting(
        ("0.0.0.0", 9090),  # noqa: S104 (scraped from other machines)
        ADDRESS,
        "address of /metrics, /livez and /readyz over plain HTTP; an empty value turns them off",
        _LISTENING,
    )

    tls_cert_file: Path | None = setting(
        None, PATH, "certificate chain to serve, in PEM, leaf first", _TLS
    )
    tls_private_key_file: Path | None = setting(
        None, PATH, "private key of the certificate, in PEM", _TLS
    )
    tls_dir: Path | None = setting(
        None,
        DIRECTORY,
        "mounted Secret of type kubernetes.io/tls, with tls.crt, tls.key and ca.crt",
        _TLS,
    )
    tls_secret: tuple[str, str] | None = setting(
        None,
        NAMESPACED_NAME,
        "Secret of type kubernetes.io/tls that is watched through the API, so that a new pair is "
        "served within a second; if files are given too, the newer valid pair is served",
        _TLS,
    )
    dev: bool = switch(
        f"serve a certificate for this machine, which is written to {DEV_DIRECTORY} with its CA, "
        f"on loopback addresses alone (default: {_LOOPBACK}), and stop without a delay",
        _TLS,
    )
    tls_wait: float = setting(
        60.0, SECONDS, "how long to wait for a usable certificate at start", _TLS
    )
    tls_poll: float = setting(10.0, SECONDS, "how often to check the certificate files", _TLS)
    expected_dns_names: tuple[str, ...] = setting(
        (), NAMES, "DNS names that a certificate must cover to be served", _TLS
    )
    client_ca_file: Path | None = setting(
        None, PATH, "CAs, in PEM, one of which must have signed a client's certificate", _TLS
    )
    client_allowed_names: tuple[str, ...] = setting(
        (),
        NAMES,
        "common names or DNS names, one of which a client's certificate must have; needs "
        "--client-ca-file",
        _TLS,
    )
    tls_min_version: str = setting(
        "VersionTLS12", one_of(*sorted(TLS_VERSIONS)), "oldest TLS version to accept", _TLS
    )
    tls_cipher_suites: tuple[str, ...] = setting(
        (),
        NAMES,
        "cipher suites for TLS 1.2, by their names in Kubernetes, such as "
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        _TLS,
    )

    cluster_wait: float = setting(
        60.0, SECONDS, "how long to wait for the API server at start", CLUSTER
    )
    expected_registration: str | None = setting(
        None,
        REGISTRATION,
        "registration as it was rendered; if the installed one differs, metrics and log report it "
        "within a minute",
        CLUSTER,
    )
    max_staleness: float = setting(
        90.0,
        SECONDS,
        "how long ago a store may have last heard from the API server; what an older one allows is "
        "confirmed by a lookup; bookmarks come every minute",
        CLUSTER,
    )

    events: bool = switch(
        "write an Event about each node whose request breaks a rule, at most one a minute for each "
        "rule; needs the rights to create and patch events in namespace default",
        CLUSTER,
    )

    max_in_flight: int = setting(512, COUNT, "requests to answer at the same time", _LIMITS)
    header_timeout: float = setting(
        10.0,
        SECONDS,
        "how long a client may take from connecting, or from the first byte of a later request, to "
        "the end of the headers",
        _LIMITS,
    )
    body_timeout: float = setting(
        10.0,
        SECONDS,
        "how long a client may take from the headers to the end of the body",
        _LIMITS,
    )
    connection_age: float = setting(
        600.0,
        SECONDS,
        "age at which a connection ends with an answer, at the latest, so that load spreads over "
        "replicas; 0 for never",
        _LIMITS,
    )
    shutdown_delay: float = setting(
        5.0, SECONDS, "how long to keep listening after SIGTERM", _LIMITS
    )

    authorizer: bool = switch(
        "answer SubjectAccessReviews at /authorize too, as the Node authorizer does",
        RULES,
    )
    agents: tuple[str, ...] = setting(
        (),
        FILES,
        "policy files that hold service accounts of DaemonSets to their node; changes take effect "
        "without a restart",
        RULES,
    )
    mode: str = setting(
        ENFORCE,
        MODE,
        "mode of all rules: deny, allow with a warning to the client, allow and only report, or "
        "ignore the rule",
        RULES,
    )
    rule_modes: dict[str, str] = setting(
        {},
        RULE_MODES,
        "modes of single rules, such as nodes/labels=audit, or of an agent: agents/NAME=audit",
        RULES,
    )
    config_poll: float = setting(
        5.0,
        SECONDS,
        "how often to read the file of --config, whose mode and rule-modes take effect without a "
        "restart",
        RULES,
    )

    capture: Path | None = setting(
        None, DIRECTORY, "directory to which evaluated reviews are written", _CAPTURE
    )
    capture_denied_only: bool = switch("write denied reviews only", _CAPTURE)
    capture_every: int = setting(1, COUNT, "write one review out of N", _CAPTURE)
    capture_files: int = setting(10, COUNT, "files to keep", _CAPTURE)
    capture_file_mib: int = setting(10, MIB, "size of a file at which the next begins", _CAPTURE)

    log_format: str = setting("json", one_of("json", "console"), "format of log lines", _LOGS)
    tracing_endpoint: str | None = setting(
        None,
        HTTP_URL,
        "where spans of reviews are sent, by OTLP over HTTP, such as "
        "http://127.0.0.1:4318/v1/traces; they continue the traces of the API server; needs "
        "noderestrict[tracing]",
        _LOGS,
    )
    tracing_sampling_rate_per_million: int = setting(
        0,
        PER_MILLION,
        "how many of a million reviews get a span that the API server does not trace itself",
        _LOGS,
    )

    log_level: str = setting("info", one_of(*LEVELS), "lowest level to log", _LOGS)

    def modes(self, running: "ServeConfig", agents: Agents) -> Modes:
        """Return the modes of the rules.

        Args:
            running: what the server runs with: strict rules are on as it says.
            agents: whose rules may have modes.

        Raises:
            ValueError: a mode is given for a rule that is off, or for an unknown agent.
        """
        known = {agent.name for agent in agents.all}
        on = running.extra().rules
        for rule in self.rule_modes:
            if rule in STRICT_RULE_IDS and rule not in on:
                raise ValueError(f"rule-modes: {rule!r} is off, so that it has no mode: {_TURN_ON}")
            if (agent := agent_of(rule)) and agent not in known:
                raise ValueError(f"rule-modes: {rule!r}: no file of --agents has agent {agent!r}")
        return Modes(self.mode, self.rule_modes, agents.modes())
