"""Missing and stale servers, and those with another policy than is expected, are reported."""

import asyncio
import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonpatch
import pytest

from noderestrict import __version__
from noderestrict.cluster.errors import ClusterError
from noderestrict.cluster.judge import connected
from noderestrict.doctor import exposition
from noderestrict.doctor.checks import replicas
from noderestrict.doctor.cluster import Options
from noderestrict.doctor.findings import Finding
from noderestrict.doctor.run import examine
from noderestrict.policy.extra import Extra
from noderestrict.policy.features import OFFLINE_MINOR, defaults
from noderestrict.policy.releases import parse_release
from noderestrict.policy.settings import Settings
from noderestrict.policy.table import RULE_IDS, STRICT_RULE_IDS
from noderestrict.render.workload import NAMESPACE, daemon_set, deployment
from noderestrict.telemetry.metrics import Metrics
from tests.cli.store import stored
from tests.doctor.test_credentials import Cluster
from tests.serving.tls import serving

Object = dict[str, Any]
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
DAEMON_SETS = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
VERSION = f'version="{__version__}"'.encode()
GATES = defaults(OFFLINE_MINOR)


class APIServer(Cluster):
    """A cluster whose pods and API server have metrics."""

    def __init__(self) -> None:
        super().__init__()
        self.version = "v1.36.2"
        self.exposed: dict[str, bytes] = {"/metrics": enabled(GATES)}

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if path == "/version":
            return 200, {"gitVersion": self.version}
        if path in self.exposed:
            return 200, self.exposed[path]
        if path.endswith("/proxy/metrics"):
            return 503, {"message": "connection refused"}
        return super().answer(method, path, body)

    def deploy(
        self, wanted: int = 1, current: int = 1, ready: int = 1, generation: int = 1
    ) -> None:
        value = deployment()
        value["metadata"]["generation"] = generation
        value["spec"]["replicas"] = wanted
        value["status"] = {
            "observedGeneration": 1, "updatedReplicas": current, "readyReplicas": ready,
        }  # fmt: skip
        self.lists[DEPLOYMENTS] = [value]

    def deploy_on_nodes(self, wanted: int, ready: int) -> Object:
        value = daemon_set()
        value["status"] = {
            "observedGeneration": 1, "desiredNumberScheduled": wanted,
            "updatedNumberScheduled": wanted, "numberReady": ready,
        }  # fmt: skip
        self.lists[DAEMON_SETS] = [value]
        return value

    def run(self, name: str, exposed: bytes | None, *, value: Object | None = None) -> None:
        spec = (value or deployment())["spec"]["template"]["spec"]
        pod = {"metadata": {"name": name}, "spec": spec, "status": {"phase": "Running"}}
        self.add(PODS, pod)
        if exposed is not None:
            self.exposed[f"{PODS}/{name}:9090/proxy/metrics"] = exposed


def enabled(gates: dict[str, bool]) -> bytes:
    """Return the metrics of an API server, a line of another metric included."""
    lines = [
        f'kubernetes_feature_enabled{{name="{name}",stage=""}} {int(on)}\n'
        for name, on in gates.items()
    ]
    return ('apiserver_request_total{code="200"} 5\n' + "".join(lines)).encode()


def server(change: Callable[[Metrics], None] = lambda _: None) -> bytes:
    metrics = Metrics()
    metrics.policy.mode_of = lambda _: "enforce"
    metrics.policy.settings = Settings(features=GATES)
    metrics.self_test.set(1)
    metrics.store_age.labels("pods").set(30)
    change(metrics)
    return metrics.exposition()


class Doctor:
    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = str(kubeconfig)

    def __call__(self, **options: Any) -> list[Finding]:
        return asyncio.run(self._findings(Options(**options)))

    async def _findings(self, options: Options) -> list[Finding]:
        async with connected(self._kubeconfig, None) as connection:
            found = examine(connection, options, [replicas.CHECK])
            return [finding async for _, finding in found]


@pytest.fixture
def cluster() -> APIServer:
    return APIServer()


@pytest.fixture
def doctor(cluster: APIServer, tmp_path: Path) -> Iterator[Doctor]:
    with stored(cluster, tmp_path) as kubeconfig:
        yield Doctor(kubeconfig)


def test_servers_are_read_through_the_api_server(cluster: APIServer, doctor: Doctor) -> None:
    cluster.deploy(2, 2, 2)
    for name in ("a", "b"):
        cluster.run(name, server())
    found = doctor()
    assert [one.status for one in found] == ["pass"] * 3
    assert found[0].message == "deployment noderestrict: 2 of 2 replicas are ready"
    assert found[1].message.startswith("a: every rule runs in mode enforce")


def modes(given: dict[str, str]) -> Callable[[Metrics], None]:
    """Return what lets rules run in other modes; strict ones are then on."""
    strict = tuple(rule for rule in given if rule in STRICT_RULE_IDS)

    def change(metrics: Metrics) -> None:
        metrics.policy.settings = Settings(features=GATES, extra=Extra.of(strict))
        metrics.policy.mode_of = lambda rule: given.get(rule, "enforce")

    return change


def gates(given: dict[str, bool]) -> Callable[[Metrics], None]:
    return lambda metrics: setattr(
        metrics.policy, "settings", Settings(features={**GATES, **given})
    )


GATE = "PodCertificateRequest"
FAULTS: dict[str, tuple[Callable[[Metrics], None], str, str]] = {
    **{
        f"mode of {rule}": (modes({rule: "audit"}), "fail", rule)
        for rule in RULE_IDS
        if rule not in STRICT_RULE_IDS
    },
    "off": (modes({"nodes/labels": "off"}), "fail", "in mode off instead of enforce: nodes/labels"),
    "warn": (modes({"nodes/labels": "warn"}), "fail", "in mode warn instead of enforce"),
    "strict": (modes({"nodes/pod-cidr": "enforce"}), "warn", "strict rules are on: nodes/pod-cidr"),
    "gate": (gates({GATE: not GATES[GATE]}), "fail", f"{GATE}={str(GATES[GATE]).lower()}"),
    "stale": (
        lambda metrics: metrics.store_age.labels("pods").set(91), "fail", "stale: pods (91 s)"
    ),
    "never": (
        lambda metrics: metrics.store_age.labels("nodes").set(float("inf")),
        "fail", "nodes (never filled)",
    ),
    "self-test": (lambda metrics: metrics.self_test.set(0), "fail", "does not deny"),
    "certificate": (
        lambda metrics: metrics.certificate_problem.set(1), "fail", "certificate cannot be served"
    ),
    "absent": (modes({"nodes/labels": "absent"}), "warn", "--rules lacks nodes/labels"),
}  # fmt: skip


def of_release(rules: str, api_server: int = 36) -> Callable[[Metrics], None]:
    """Return what lets a server run the rules of a release beside an API server."""

    def change(metrics: Metrics) -> None:
        release = parse_release(rules)
        metrics.policy.settings = Settings(features=GATES, release=release)
        metrics.kubernetes(api_server, release)

    return change


@pytest.mark.parametrize(
    ("rules", "version", "lacks"),
    [
        ("1.31", "v1.36.2", True),
        ("1.31", "v1.31.9", False),
        ("1.36", "v1.36.2", False),
        ("1.37", "v1.36.2", False),
        ("1.33.3", "v1.33.4", True),
        ("1.33.4", "v1.33.4", False),
        # Patch releases before it lack the rule as well.
        ("1.33.3", "v1.33.3", False),
    ],
)
def test_rules_older_than_the_api_server_are_told_with_what_they_lack(
    cluster: APIServer, doctor: Doctor, rules: str, version: str, lacks: bool
) -> None:
    minor = int(version.split(".")[1])
    cluster.version = version
    cluster.deploy()
    cluster.run("a", server(of_release(rules, minor)))
    found = doctor()[1:]
    if not lacks:
        assert [one.status for one in found] == ["pass"]
        return
    (one,) = found
    assert one.status == "warn"
    assert f"the release of its --rules ({rules}) lacks " in one.message
    assert one.message.endswith(f"the API server's own version, {version[1:]}, has")
    assert one.command.splitlines()[0].startswith("kubectl apply -k ")


def test_a_server_that_outlived_an_upgrade_of_the_api_server_is_told(
    cluster: APIServer, doctor: Doctor
) -> None:
    cluster.deploy()
    cluster.run("a", server(of_release("1.37", 33)))
    (one,) = doctor()[1:]
    assert (one.status, "as the API server had when it started" in one.message) == ("warn", True)
    assert one.command == "kubectl -n noderestrict rollout restart deployment/noderestrict"


def test_a_gate_is_added_to_the_workload_that_serves(cluster: APIServer, doctor: Doctor) -> None:
    value = daemon_set()
    value["status"] = {"observedGeneration": 1, "desiredNumberScheduled": 1,
                       "updatedNumberScheduled": 1, "numberReady": 1}  # fmt: skip
    args = value["spec"]["template"]["spec"]["containers"][0]["args"]
    args.append("--metrics-address=0.0.0.0:9090")
    cluster.lists[DAEMON_SETS] = [value]
    cluster.run("a", server(gates({GATE: not GATES[GATE]})), value=value)
    command = shlex.split(doctor()[1].command)
    assert command[:6] == [
        "kubectl",
        "-n",
        NAMESPACE,
        "patch",
        "daemonset",
        value["metadata"]["name"],
    ]
    patch = json.loads(command[-1].removeprefix("--patch="))
    patched = jsonpatch.apply_patch(value, patch)
    last = patched["spec"]["template"]["spec"]["containers"][0]["args"][-1]
    assert last == f"--feature-gates={GATE}={str(GATES[GATE]).lower()}"


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_server_with_a_fault_is_told_with_a_command(
    cluster: APIServer, doctor: Doctor, fault: tuple[Callable[[Metrics], None], str, str]
) -> None:
    change, status, says = fault
    cluster.deploy()
    cluster.run("a", server(change))
    _, found = doctor()
    assert found.status == status
    assert says in found.message
    assert found.command


def test_a_server_that_is_too_old_to_say_its_modes_leaves_them_unknown(
    cluster: APIServer, doctor: Doctor
) -> None:
    cluster.deploy()
    lines = server().splitlines(keepends=True)
    cluster.run("a", b"".join(one for one in lines if b"rule_mode" not in one))
    _, found = doctor()
    assert (found.status, bool(found.command)) == ("unknown", True)


def test_a_strict_rule_that_is_expected_must_run(cluster: APIServer, doctor: Doctor) -> None:
    cluster.deploy()
    cluster.run("a", server())
    extra = Extra.of(("nodes/pod-cidr",))
    _, found = doctor(extra=extra)
    assert (found.status, "nodes/pod-cidr" in found.message) == ("fail", True)
    cluster.exposed[f"{PODS}/a:9090/proxy/metrics"] = server(modes({"nodes/pod-cidr": "enforce"}))
    assert doctor(extra=extra)[1].status == "pass"


def test_audit_mode_is_well_where_it_is_expected(cluster: APIServer, doctor: Doctor) -> None:
    cluster.deploy()
    audited = {rule: "audit" for rule in RULE_IDS if rule not in STRICT_RULE_IDS}
    cluster.run("a", server(modes(audited)))
    assert doctor(expected_mode="audit")[1].status == "pass"
    assert doctor()[1].status == "fail"
    cluster.exposed[f"{PODS}/a:9090/proxy/metrics"] = server()
    assert doctor(expected_mode="audit")[1].status == "fail"


@pytest.mark.parametrize(
    ("counts", "status", "says"),
    [
        ((2, 2, 1), "fail", "1 of 2 replicas are ready"),
        ((2, 0, 0), "fail", "0 of 2 replicas are ready"),
        ((0, 0, 0), "fail", "0 of 0 replicas are ready"),
        ((2, 1, 2), "fail", "1 of them run an older pod template"),
        ((2, 2, 2, 7), "fail", "2 of them run an older pod template"),
        ((2, 2, 2), "pass", "2 of 2 replicas are ready"),
    ],
)
def test_missing_and_stale_replicas_are_told(
    cluster: APIServer, doctor: Doctor, counts: tuple[int, ...], status: str, says: str
) -> None:
    cluster.deploy(*counts)
    found = doctor()[0]
    assert found.status == status
    assert says in found.message
    assert bool(found.command) == (status == "fail")


def test_a_daemon_set_needs_a_server_on_each_of_its_nodes(
    cluster: APIServer, doctor: Doctor
) -> None:
    cluster.deploy_on_nodes(3, ready=2)
    complete = doctor()[0]
    assert (complete.status, "2 of 3" in complete.message) == ("fail", True)


@pytest.mark.parametrize(
    ("answer", "status", "says"),
    [
        (b"HTTP/1.0 200 OK\r\nA: b\r\n\r\n" + server(), "pass", "every rule runs in mode enforce"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "unknown", "answers 'HTTP/1.1 404 Not Found'"),
        (b"HTTP/1.0 200 OK\r\nA: b", "unknown", f"of {NAMESPACE}/a is cut off"),
        (b"HTTP/1.0 200 OK\r\nContent-length: 9999999\r\n\r\n" + server(), "unknown", "cut off"),
        (b"HTTP/1.0 200 OK\r\n\r\nnoderestrict_rule_mode{" + b"x" * 9999, "unknown", "not visible"),
        (ClusterError("connection refused"), "unknown", "connection refused"),
    ],
)
def test_metrics_on_loopback_are_read_through_the_kubelet(
    cluster: APIServer, doctor: Doctor, monkeypatch: pytest.MonkeyPatch,
    answer: bytes | ClusterError, status: str, says: str,
) -> None:  # fmt: skip
    asked = []

    async def exchange(_connection: Any, *to: Any, **_: Any) -> bytes:
        asked.append(to)
        if isinstance(answer, ClusterError):
            raise answer
        return answer

    monkeypatch.setattr(exposition, "exchange", exchange)
    cluster.run("a", None, value=cluster.deploy_on_nodes(1, ready=1))
    found = doctor()[1]
    assert (found.status, says in found.message) == (status, True), found
    assert len(found.message) < 500
    assert asked == [(NAMESPACE, "a", 9090, b"GET /metrics HTTP/1.0\r\n\r\n")]


def test_a_server_without_metrics_leaves_its_modes_unknown(
    cluster: APIServer, doctor: Doctor
) -> None:
    value = deployment()
    value["spec"]["template"]["spec"]["containers"][0]["args"].append("--metrics-address=")
    cluster.deploy()
    cluster.run("a", None, value=value)
    found = doctor()[1]
    assert (found.status, "exposes no metrics" in found.message) == ("unknown", True)


def test_a_server_that_cannot_be_seen_leaves_its_modes_unknown(
    cluster: APIServer, doctor: Doctor
) -> None:
    cluster.deploy()
    cluster.run("a", None)
    assert doctor()[1].status == "unknown"
    cluster.exposed[f"{PODS}/a:9090/proxy/metrics"] = b"noderestrict_rule_mode{a=\n"
    assert doctor()[1].status == "unknown"
    assert doctor(metrics=(("127.0.0.1", 1),))[1].status == "unknown"


def test_metrics_without_end_are_given_up(
    cluster: APIServer, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever took a node answers for the pods on it."""
    monkeypatch.setattr(exposition, "_MOST_BYTES", len(server()) - 1)
    cluster.deploy()
    cluster.run("a", server())
    assert "the answer has over" in doctor()[1].message


def test_servers_of_different_versions_are_told(cluster: APIServer, doctor: Doctor) -> None:
    cluster.deploy(2, 2, 2)
    cluster.run("a", server())
    cluster.run("b", server().replace(VERSION, b'version="9.9.9"'))
    assert "different versions" in doctor()[-1].message


@pytest.mark.usefixtures("cluster")
def test_a_running_server_says_what_it_runs_with(doctor: Doctor, tmp_path: Path) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    flags = ("--mode", "audit", "--rule-modes", "nodes/taints=enforce",
             "--feature-gates", f"{GATE}={str(not GATES[GATE]).lower()}",
             "--strict-rules", "nodes/pod-cidr")  # fmt: skip
    with serving(folder, *flags) as running:
        address = ("127.0.0.1", running.metrics_port)
        found = [one.message for one in doctor(metrics=(address,))]
    text = next(one for one in found if "in mode audit" in one)
    assert "nodes/labels" in text or "more" in text
    assert any(f"feature gates: {GATE}=" in one for one in found)
    assert any("strict rules are on: nodes/pod-cidr" in one for one in found)
