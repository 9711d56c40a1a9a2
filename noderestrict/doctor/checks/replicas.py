"""Do all servers run, with fresh stores and the policy that is expected?"""

import json
import math
import shlex
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

from noderestrict.cluster.connection import ClusterError
from noderestrict.cluster.server_info import server_version
from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import Finding, failed, passed, unknown, warned
from noderestrict.doctor.gates import exposed_gates
from noderestrict.doctor.restore import restore
from noderestrict.doctor.servers import Server, read_servers, serving
from noderestrict.doctor.trust import some
from noderestrict.doctor.workloads import Workload
from noderestrict.policy.modes import OFF
from noderestrict.policy.releases import Release
from noderestrict.policy.table import RULES
from noderestrict.telemetry.metrics import ABSENT

#: As the default of --max-staleness.
_STALE_SECONDS = 90


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield findings on the workloads, and on what each server exposes."""
    running = await serving(cluster)
    for workload in running:
        yield _complete(workload, cluster.options.kubectl)
    servers = []
    async for found in read_servers(cluster, running):
        if isinstance(found, Server):
            servers.append(found)
        else:
            yield found
    gates = await exposed_gates(cluster) if servers else {}
    version = await _version(cluster)
    for server in servers:
        findings = [
            *_judged(server, cluster.options.logs),
            *_modes(cluster, server, await restore(cluster)),
            *_rules(server, version, running, await restore(cluster)),
            *_gates(server, gates, running),
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


def _complete(workload: Workload, kubectl: str) -> Finding:
    text = f"{workload}: {workload.ready} of {workload.wanted} replicas are ready"
    if workload.ready < workload.wanted or not workload.wanted:
        return failed(text, "see why the others are not", f"{kubectl} describe pods")
    if workload.current < workload.wanted:
        return failed(
            f"{text}, but {workload.wanted - workload.current} of them run an older pod template",
            "wait until the update is complete, or see what it waits for",
            f"{kubectl} rollout status {workload.kind} {workload.name}",
        )
    return passed(text)


def _judged(server: Server, logs: str) -> Iterator[Finding]:
    if not server.denies:
        yield failed(f"{server.name}: it does not deny a known-bad review", "see its log", logs)
    if not server.serves_newest:
        yield failed(
            f"{server.name}: the renewed certificate cannot be served", "see its log", logs
        )
    stale = {name: age for name, age in server.ages.items() if age > _STALE_SECONDS}
    if stale:
        ages = ", ".join(f"{name} ({_age(age)})" for name, age in sorted(stale.items()))
        yield failed(
            f"{server.name}: stores are stale: {ages}",
            "see whether it reaches the API server",
            logs,
        )


def _age(seconds: float) -> str:
    return "never filled" if math.isinf(seconds) else f"{seconds:.0f} s"


def _modes(cluster: Cluster, server: Server, again: str) -> Iterator[Finding]:
    extra, expected = cluster.options.extra, cluster.options.expected_mode
    if not server.modes:
        yield unknown(
            f"{server.name}: it does not say in which modes its rules run", "upgrade it", again
        )
        return
    others: dict[str, list[str]] = {}
    added = []
    for rule in RULES:
        mode = server.modes.get(rule.id, "unknown")
        if rule.strict and rule.id not in extra.rules:
            if mode not in (OFF, ABSENT):
                added.append(rule.id)
        elif mode not in (ABSENT, expected):
            others.setdefault(mode, []).append(rule.id)
    for mode, rules in others.items():
        yield failed(
            f"{server.name}: rules run in mode {mode} instead of {expected}: {some(rules)}",
            f"set mode and rule-modes to {expected}, or say --expect-mode {mode}",
            again,
        )
    if added:
        yield warned(
            f"{server.name}: strict rules are on: {some(added)}",
            "run doctor with the same policy flags",
            f"noderestrict doctor --strict-rules={','.join(added)}",
        )


async def _version(cluster: Cluster) -> Release | None:
    """Return the version of the API server, None if it could not be read: another check says so."""
    try:
        return Release(*await server_version(cluster.connection))
    except ClusterError:
        return None


def _rules(
    server: Server, version: Release | None, running: Sequence[Workload], again: str
) -> Iterator[Finding]:
    """Yield whether a server is older, or has older rules, than the API server."""
    if version is None:
        return
    known = server.api_server
    if known is not None and known.minor != version.minor:
        yield warned(
            f"{server.name}: it has the feature gates of Kubernetes {known}, as the API server had "
            f"when it started; that is {version} now",
            "start it anew",
            _restarting(running),
        )
    lacking = [
        rule.id
        for rule in RULES
        if server.modes.get(rule.id) == ABSENT and rule.since.includes(version)
    ]
    if lacking:
        which = f" ({server.release})" if server.release else ""
        yield warned(
            f"{server.name}: the release of its --rules{which} lacks {some(lacking)}, which the "
            f"plugin of the API server's own version, {version}, has",
            "start the server without --rules",
            again,
        )


def _restarting(running: Sequence[Workload]) -> str:
    commands = [
        f"kubectl -n {one.namespace} rollout restart {one.kind}/{one.name}" for one in running
    ]
    return "\n".join(commands) or "sudo systemctl restart noderestrict"


def _gates(
    server: Server, enabled: Mapping[str, bool], running: Sequence[Workload]
) -> Iterator[Finding]:
    wrong = [
        f"{name}={str(enabled[name]).lower()}"
        for name, on in sorted(server.gates.items())
        if enabled.get(name, on) != on
    ]
    if wrong:
        flag = f"--feature-gates={','.join(wrong)}"
        yield failed(
            f"{server.name}: the API server has other feature gates: {', '.join(wrong)}",
            f"start the server with {flag}",
            _with_flag(running, flag),
        )


def _with_flag(running: Sequence[Workload], flag: str) -> str:
    """Return what gives servers another flag."""
    place = "/spec/template/spec/containers/0/args/-"
    patch = json.dumps([{"op": "add", "path": place, "value": flag}])
    commands = [
        shlex.join(["kubectl", "-n", one.namespace, "patch", one.kind, one.name, "--type=json",
                    f"--patch={patch}"])
        for one in running
    ]  # fmt: skip
    return "\n".join(commands) or "sudo systemctl edit --full noderestrict"


def _as_expected(cluster: Cluster, server: Server) -> Finding:
    return passed(
        f"{server.name}: every rule runs in mode {cluster.options.expected_mode}, and its stores "
        "are fresh"
    )


CHECK = Check("replicas", "Do all servers run, with fresh stores and the expected modes?", check)
