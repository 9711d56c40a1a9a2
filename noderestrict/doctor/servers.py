"""What each of our servers says about itself in its metrics."""

from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any

from noderestrict.cluster.connection import ClusterError
from noderestrict.doctor import exposition
from noderestrict.doctor.cluster import LABEL, Cluster
from noderestrict.doctor.exposition import Sample
from noderestrict.doctor.findings import Finding, unknown
from noderestrict.doctor.workloads import SERVERS, Workload, serves, setting, values, workloads
from noderestrict.policy.hostile import brief
from noderestrict.policy.releases import LATEST, Release, parse_release

_PORT = 9090
_MODE, _GATE = "noderestrict_rule_mode", "noderestrict_feature_gate"
_AGE, _BUILD = "noderestrict_store_age_seconds", "noderestrict_build_info"
_KUBERNETES = "noderestrict_kubernetes_info"
_AGENT = "noderestrict_agent_policy_info"
_SELF_TEST, _BAD_PAIR = "noderestrict_self_test_ok", "noderestrict_certificate_problem"
_OURS = (_MODE, _GATE, _AGE, _BUILD, _KUBERNETES, _SELF_TEST, _BAD_PAIR, _AGENT)


@dataclass(slots=True)
class Server:
    """What one server exposes.

    Attributes:
        name: of its pod, or its address.
        modes: by rule.
        gates: by name.
        ages: seconds, by resource.
        agents: digests of the policies of agents, by agent.
        version: of the server, "" if it does not say.
        release: whose rules apply, None if it does not say.
        api_server: version that the API server had when the server started, None if unknown.
        denies: whether it denies a known-bad review.
        serves_newest: whether it can serve its newest certificate.
    """

    name: str
    modes: dict[str, str] = field(default_factory=dict)
    gates: dict[str, bool] = field(default_factory=dict)
    ages: dict[str, float] = field(default_factory=dict)
    agents: dict[str, str] = field(default_factory=dict)
    version: str = ""
    release: Release | None = None
    api_server: Release | None = None
    denies: bool = True
    serves_newest: bool = True

    def take(self, sample: Sample) -> None:
        """Take over one value.

        Raises:
            KeyError: it has not the labels of its metric.
            ValueError: a release cannot be read.
        """
        labels = sample.labels
        match sample.name:
            case name if name == _MODE:
                self.modes[labels["rule"]] = labels["mode"]
            case name if name == _GATE:
                self.gates[labels["name"]] = sample.value == 1
            case name if name == _AGE:
                self.ages[labels["resource"]] = sample.value
            case name if name == _AGENT:
                self.agents[labels["agent"]] = labels["digest"]
            case name if name == _BUILD:
                self.version = labels["version"]
            case name if name == _KUBERNETES:
                self.release = parse_release(labels["rules"])
                self.api_server = parse_release(labels["api_server"])
            case name if name == _SELF_TEST:
                self.denies = sample.value == 1
            case _:
                self.serves_newest = sample.value == 0


async def serving(cluster: Cluster) -> list[Workload]:
    """Return the workloads that run our servers.

    Raises:
        ClusterError: they could not be read.
    """
    found = await workloads(cluster, cluster.options.namespace, SERVERS)
    return [one for one in found if serves(one)]


async def read_servers(
    cluster: Cluster, running: Sequence[Workload]
) -> AsyncIterator[Server | Finding]:
    """Yield what each server exposes, or that it cannot be seen.

    Args:
        cluster: where servers run as pods, or at the addresses of the options.
        running: the workloads that run them.

    Raises:
        ClusterError: pods could not be listed.
    """
    logged = ("see whether it runs", cluster.options.logs)
    for address in cluster.options.metrics:
        name = f"{address[0]}:{address[1]}"
        yield await _read(name, exposition.of_address(address), *logged)
    if cluster.options.metrics:
        return
    if not running:
        yield unknown(
            "no workload runs the server, so its modes and stores are not visible",
            "say where its metrics are",
            "noderestrict doctor --metrics HOST:PORT",
        )
        return
    query, namespace = {"labelSelector": LABEL}, cluster.options.namespace
    for pod in await cluster.items(f"/api/v1/namespaces/{namespace}/pods", query):
        if (pod.get("status") or {}).get("phase") != "Running" or _is_ending(pod):
            continue
        name = pod["metadata"]["name"]
        command = [word for one in pod["spec"]["containers"] for word in one.get("args") or ()]
        if "serve" not in command:
            continue
        host, port = _metrics_address(command)
        if not port:
            yield unknown(
                f"{name}: it exposes no metrics, so its modes and stores are not visible",
                "start it with --metrics-address",
            )
            continue
        if host in ("127.0.0.1", "::1", "localhost"):
            yield await _read(
                name,
                exposition.of_loopback(cluster, namespace, name, port),
                "forward a port to its metrics",
                f"{cluster.options.kubectl} port-forward {name} {_PORT}:{port} &\n"
                f"noderestrict doctor --metrics 127.0.0.1:{_PORT}",
            )
        else:
            exposed = exposition.of_pod(cluster, namespace, name, port)
            yield await _read(name, exposed, *logged)


def _is_ending(pod: Any) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def _metrics_address(command: Sequence[str]) -> tuple[str, int]:
    given = values(command, "--metrics-address")[-1:] or [f"0.0.0.0:{_PORT}"]
    host, _, port = given[0].rpartition(":")
    return host.strip("[]"), int(port) if port.isdecimal() else 0


async def _read(name: str, text: Awaitable[bytes], remedy: str, command: str) -> Server | Finding:
    server = Server(name)
    try:
        for sample in exposition.samples(await text, _OURS):
            server.take(sample)
    except (ClusterError, ValueError, KeyError) as error:
        # What it exposes may be anything, and of any length.
        why = str(error) if isinstance(error, ClusterError) else brief(error)
        return unknown(f"{name}: its modes and stores are not visible: {why}", remedy, command)
    return server


async def enforced_release(cluster: Cluster) -> Release:
    """Return the release whose rules servers enforce; the newest one if they differ.

    What no server says is looked for in its flags; the newest rules are expected of those that
    cannot be seen.
    """
    try:
        running = await serving(cluster)
        found = [
            one.release
            async for one in read_servers(cluster, running)
            if isinstance(one, Server) and one.release is not None
        ]
    except ClusterError:
        return LATEST
    return max(found or map(_release_by_flags, running), default=LATEST)


def _release_by_flags(workload: Workload) -> Release:
    for container in workload.pod_spec.get("containers") or ():
        for given in setting(container, "rules"):
            try:
                return parse_release(given)
            except ValueError:
                # latest, or a server that does not start.
                continue
    return LATEST
