"""Do all servers run, with fresh stores and the policy that is expected?"""

import math
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from noderestrict.cluster.connection import ClusterError
from noderestrict.doctor import exposition
from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.exposition import Sample
from noderestrict.doctor.findings import Finding, failed, passed, unknown, warned
from noderestrict.doctor.restore import restore
from noderestrict.doctor.trust import some
from noderestrict.doctor.workloads import SERVERS, Workload, serves, values, workloads
from noderestrict.policy.table import RULES
from noderestrict.render.workload import NAMESPACE
from noderestrict.telemetry.metrics import ABSENT, OFF

_LABELS = {"labelSelector": "app.kubernetes.io/name=noderestrict"}
_LOGS = f"kubectl -n {NAMESPACE} logs --selector {_LABELS['labelSelector']}"
_METRICS_PORT = 9090
#: As the default of --max-staleness.
_STALE_SECONDS = 90
_MODE, _GATE = "noderestrict_rule_mode", "noderestrict_feature_gate"
_AGE, _BUILD = "noderestrict_store_age_seconds", "noderestrict_build_info"
_SELF_TEST, _BAD_PAIR = "noderestrict_self_test_ok", "noderestrict_certificate_problem"
_OURS = (_MODE, _GATE, _AGE, _BUILD, _SELF_TEST, _BAD_PAIR)
#: Of the API server: 1 for each feature gate that is on.
_ENABLED = "kubernetes_feature_enabled"


@dataclass(slots=True)
class _Server:
    """What one server exposes.

    Attributes:
        name: of its pod, or its address.
        modes: by rule.
        gates: by name.
        ages: seconds, by resource.
        version: of the server.
        healthy: whether it denies a bad review, and can serve its certificate, by metric.
    """

    name: str
    modes: dict[str, str] = field(default_factory=dict)
    gates: dict[str, bool] = field(default_factory=dict)
    ages: dict[str, float] = field(default_factory=dict)
    version: str = ""
    healthy: dict[str, bool] = field(default_factory=dict)

    def take(self, sample: Sample) -> None:
        """Take over one value."""
        labels = sample.labels
        match sample.name:
            case name if name == _MODE:
                self.modes[labels["rule"]] = labels["mode"]
            case name if name == _GATE:
                self.gates[labels["name"]] = sample.value == 1
            case name if name == _AGE:
                self.ages[labels["resource"]] = sample.value
            case name if name == _BUILD:
                self.version = labels["version"]
            case name:
                self.healthy[name] = sample.value == (name == _SELF_TEST)


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield findings on the workloads, and on what each server exposes."""
    serving = [one for one in await workloads(cluster, NAMESPACE, SERVERS) if serves(one)]
    for workload in serving:
        yield _complete(workload)
    servers = []
    async for found in _servers(cluster, serving):
        if isinstance(found, _Server):
            servers.append(found)
        else:
            yield found
    gates = await _enabled(cluster) if servers else {}
    for server in servers:
        findings = [
            *_judged(server),
            *_modes(cluster, server, await restore(cluster)),
            *_gates(server, gates),
        ]
        for finding in findings or [_as_expected(cluster, server)]:
            yield finding
    versions = sorted({server.version for server in servers})
    if len(versions) > 1:
        yield warned(
            f"servers run different versions: {', '.join(versions)}",
            "wait until the update is complete, or complete it",
            await restore(cluster),
        )


def _complete(workload: Workload) -> Finding:
    text = f"{workload}: {workload.ready} of {workload.wanted} replicas are ready"
    if workload.ready < workload.wanted or not workload.wanted:
        return failed(text, "see why the others are not", f"kubectl -n {NAMESPACE} describe pods")
    if workload.current < workload.wanted:
        return failed(
            f"{text}, but {workload.wanted - workload.current} of them run an older pod template",
            "wait until the update is complete, or see what it waits for",
            f"kubectl -n {NAMESPACE} rollout status {workload.kind} {workload.name}",
        )
    return passed(text)


async def _servers(
    cluster: Cluster, serving: Sequence[Workload]
) -> AsyncIterator[_Server | Finding]:
    """Yield what each server exposes, or that it cannot be seen."""
    for address in cluster.options.metrics:
        yield await _read(f"{address[0]}:{address[1]}", exposition.of_address(address))
    if cluster.options.metrics:
        return
    if not serving:
        yield unknown(
            "no workload runs the server, so its modes and stores are not visible",
            "say where its metrics are",
            "noderestrict doctor --metrics HOST:PORT",
        )
        return
    for pod in await cluster.items(f"/api/v1/namespaces/{NAMESPACE}/pods", _LABELS):
        if (pod.get("status") or {}).get("phase") != "Running" or _is_ending(pod):
            continue
        name = pod["metadata"]["name"]
        command = [word for one in pod["spec"]["containers"] for word in one.get("args") or ()]
        if "serve" not in command:
            continue
        host, port = _metrics_address(command)
        if not port or host in ("127.0.0.1", "::1", "localhost"):
            yield unknown(
                f"{name}: its modes and stores are not visible from here",
                "forward a port to its metrics",
                f"kubectl -n {NAMESPACE} port-forward {name} {_METRICS_PORT}:{port} &\n"
                f"noderestrict doctor --metrics 127.0.0.1:{_METRICS_PORT}",
            )
        else:
            yield await _read(name, exposition.of_pod(cluster, NAMESPACE, name, port))


def _is_ending(pod: Any) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def _metrics_address(command: Sequence[str]) -> tuple[str, int]:
    given = values(command, "--metrics-address")[-1:] or [f"0.0.0.0:{_METRICS_PORT}"]
    host, _, port = given[0].rpartition(":")
    return host.strip("[]"), int(port) if port.isdecimal() else 0


async def _read(name: str, text: Any) -> _Server | Finding:
    server = _Server(name)
    try:
        for sample in exposition.samples(await text, _OURS):
            server.take(sample)
    except (ClusterError, ValueError, KeyError) as error:
        return unknown(
            f"{name}: its modes and stores are not visible: {error}",
            "see whether it runs",
            _LOGS,
        )
    return server


async def _enabled(cluster: Cluster) -> Mapping[str, bool]:
    """Return the feature gates of the API server; none if it does not expose them."""
    text = await exposition.of_api_server(cluster)
    return {
        sample.labels["name"]: sample.value == 1 for sample in exposition.samples(text, (_ENABLED,))
    }


def _judged(server: _Server) -> Iterator[Finding]:
    if not server.healthy.get(_SELF_TEST, True):
        yield failed(f"{server.name}: it does not deny a known-bad review", "see its log", _LOGS)
    if not server.healthy.get(_BAD_PAIR, True):
        yield failed(
            f"{server.name}: the renewed certificate cannot be served", "see its log", _LOGS
        )
    stale = {name: age for name, age in server.ages.items() if age > _STALE_SECONDS}
    if stale:
        ages = ", ".join(f"{name} ({_age(age)})" for name, age in sorted(stale.items()))
        yield failed(
            f"{server.name}: stores are stale: {ages}",
            "see whether it reaches the API server",
            _LOGS,
        )


def _age(seconds: float) -> str:
    return "never filled" if math.isinf(seconds) else f"{seconds:.0f} s"


def _modes(cluster: Cluster, server: _Server, again: str) -> Iterator[Finding]:
    extra, expected = cluster.options.extra, cluster.options.expected_mode
    if not server.modes:
        yield unknown(
            f"{server.name}: it does not say in which modes its rules run", "upgrade it", again
        )
        return
    others: dict[str, list[str]] = {}
    added, absent = [], []
    for rule in RULES:
        mode = server.modes.get(rule.id, "unknown")
        if rule.strict and rule.id not in extra.rules:
            if mode not in (OFF, ABSENT):
                added.append(rule.id)
        elif mode == ABSENT:
            absent.append(rule.id)
        elif mode != expected:
            others.setdefault(mode, []).append(rule.id)
    for mode, rules in others.items():
        yield failed(
            f"{server.name}: rules run in mode {mode} instead of {expected}: {some(rules)}",
            f"set mode and rule-modes to {expected}, or say --expect-mode {mode}",
            again,
        )
    if absent:
        yield warned(
            f"{server.name}: the release of its --rules lacks {some(absent)}",
            "start the server without --rules",
            again,
        )
    if added:
        yield warned(
            f"{server.name}: strict rules are on: {some(added)}",
            "run doctor with the same policy flags",
            f"noderestrict doctor --strict-rules={','.join(added)}",
        )


def _gates(server: _Server, enabled: Mapping[str, bool]) -> Iterator[Finding]:
    wrong = [
        f"{name}={str(enabled[name]).lower()}"
        for name, on in sorted(server.gates.items())
        if enabled.get(name, on) != on
    ]
    if wrong:
        flag = f"--feature-gates={','.join(wrong)}"
        patch = (
            '[{"op":"add","path":"/spec/template/spec/containers/0/args/-","value":"' + flag + '"}]'
        )
        yield failed(
            f"{server.name}: the API server has other feature gates: {', '.join(wrong)}",
            f"start the server with {flag}",
            f"kubectl -n {NAMESPACE} patch deployment noderestrict --type=json -p '{patch}'",
        )


def _as_expected(cluster: Cluster, server: _Server) -> Finding:
    return passed(
        f"{server.name}: every rule runs in mode {cluster.options.expected_mode}, and its stores "
        "are fresh"
    )


CHECK = Check("replicas", "Do all servers run, with fresh stores and the expected modes?", check)
