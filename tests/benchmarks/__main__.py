"""``make bench``: figures of this machine, in one run.

Decisions are measured in process, per kind of review, as captured from an API server; the graph is
that of 5,000 nodes with 30 pods each; stores list as many pods; the largest objects are those that
an API server stores; exposure ranks 500 nodes with 15,000 pods and 3,000 bindings; the server runs
in its own process.
"""

import argparse
import contextlib
import gc
import io
import json
import os
import platform
import resource
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from noderestrict import admission, authorization
from noderestrict.api import corev1
from noderestrict.cli import main
from noderestrict.graph.graph import Graph
from noderestrict.policy.features import OFFLINE_MINOR, defaults
from noderestrict.policy.settings import Settings
from noderestrict.replay.cases import Case, cases
from noderestrict.replay.state import load_state
from tests.benchmarks import agents, exposure, fairness, largest, server, stores

CAPTURED = Path(__file__).parent.parent / "conformance" / "captured"
NODES, PODS = 5_000, 30
SECONDS = 0.3


def rate(call: Callable[[], object]) -> float:
    """Return calls per second."""
    calls = 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < SECONDS:
        for _ in range(100):
            call()
        calls += 100
    return calls / elapsed


def resident_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def admission_figures() -> dict[str, dict[str, float]]:
    """Measure the steps of one review, each as the server takes it."""
    listers = load_state([str(CAPTURED / "state.json")])
    settings = Settings.for_version()
    decoder = admission.TypedDecoder()
    kinds: dict[str, list[bytes]] = defaultdict(list)
    for case in cases(str(CAPTURED / "captured.jsonl")):
        assert isinstance(case, Case)
        request = admission.decode(case.review)
        kinds[f"{request.operation} {admission.resource_path(request)}"].append(case.review)
    steps = ("decode", "evaluate", "encode")
    print(f"{'review':<44}{'bytes':>8}{''.join(f'{step:>10}' for step in steps)}{'sum µs':>10}")
    figures = {}
    for kind, bodies in sorted(kinds.items()):
        if len(bodies) < 5:
            continue
        body = max(bodies, key=len)
        # The first of a kind is remembered.
        decoder.decode(body)
        request = decoder.decode(body)
        decision = admission.evaluate(request, settings, listers)
        calls: tuple[Callable[[], object], ...] = (
            partial(decoder.decode, body),
            partial(admission.evaluate, request, settings, listers),
            partial(admission.encode, request, decision),
        )
        found = {step: 1e6 / rate(call) for step, call in zip(steps, calls, strict=True)}
        figures[kind] = {**found, "sum": sum(found.values())}
        row = "".join(f"{microseconds:>10.1f}" for microseconds in figures[kind].values())
        print(f"{kind:<44}{len(body):>8}{row}")
    return figures


def pod(node: int, number: int) -> corev1.Pod:
    namespace, name = f"ns-{number % 50}", f"pod-{node}-{number}"
    own = {"name": "own", "secret": {"secretName": name}}
    shared = {"name": "shared", "secret": {"secretName": "shared"}}
    config = {"name": "config", "configMap": {"name": f"config-{node}-{number}"}}
    claim = {"name": "data", "persistentVolumeClaim": {"claimName": name}}
    return msgspec.convert(
        {
            "metadata": {"namespace": namespace, "name": name, "uid": name},
            "spec": {
                "nodeName": f"node-{node}",
                "serviceAccountName": "app",
                "volumes": [own, shared, config, claim],
            },
        },
        corev1.Pod,
    )


def review(**attributes: object) -> bytes:
    return msgspec.json.encode(
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": "system:node:node-1",
                "groups": ["system:nodes"],
                "resourceAttributes": {"version": "v1", **attributes},
            },
        }
    )


def graph_figures() -> dict[str, float]:
    gc.collect()
    before = resident_mib()
    graph = Graph()
    building = 0.0
    for node in range(NODES):
        pods = [pod(node, number) for number in range(PODS)]
        start = time.perf_counter()
        for value in pods:
            graph.upsert("pods", value)
        building += time.perf_counter() - start
    grown = (resident_mib() - before) * 2**20 / (NODES * PODS)
    print(f"\ngraph of {NODES} nodes, {NODES * PODS} pods")
    print(f"  built in {building:.1f} s, {grown:.0f} bytes a pod, process {resident_mib():.0f} MiB")
    features = defaults(OFFLINE_MINOR)
    secret = {"verb": "get", "resource": "secrets"}
    selector = {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["node-1"]}]}
    questions = {
        "own secret": review(**secret, namespace="ns-0", name="pod-1-0"),
        "shared secret": review(**secret, namespace="ns-1", name="shared"),
        "shared secret refused": review(**secret, namespace="ns-31", name="shared"),
        "unknown secret": review(**secret, namespace="ns-1", name="none"),
        "own pods by selector": review(verb="list", resource="pods", fieldSelector=selector),
    }
    figures = {"build_seconds": building, "bytes_a_pod": grown, "process_mib": resident_mib()}
    print(f"  {'question':<24}{'decisions/s':>14}{'with JSON/s':>14}")
    for name, body in questions.items():
        decoded = authorization.decode(body)

        def with_json(body: bytes = body) -> bytes:
            asked = authorization.decode(body)
            return authorization.encode(asked, authorization.evaluate(asked, graph, features))

        plain = rate(lambda decoded=decoded: authorization.evaluate(decoded, graph, features))  # type: ignore[misc]
        figures[name], figures[f"{name} with JSON"] = plain, rate(with_json)
        print(f"  {name:<24}{plain:>14,.0f}{figures[f'{name} with JSON']:>14,.0f}")
    changing = pod(1, 0)
    changing_back = pod(2, 0)
    changing_back.metadata = changing.metadata

    def move() -> None:
        graph.upsert("pods", changing_back)
        graph.upsert("pods", changing)

    figures["update_us"] = 1e6 / rate(move) / 2
    print(f"  one update of a pod that shares a Secret: {figures['update_us']:.1f} µs")
    return figures


def replay_figures() -> dict[str, float]:
    """Replay the conformance cases in process, after a first run."""
    folder = CAPTURED.parent / "admission"
    command = ["replay", "--state", str(folder / "state.json"), str(folder / "generated.jsonl")]
    seconds = 9e9
    for _ in range(3):
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()) as output:
            assert main(command) == 0
        seconds = min(seconds, time.perf_counter() - start)
    count = int(output.getvalue().splitlines()[-1].split()[0])
    print(f"\nreplay: {count / seconds:,.0f} cases/s")
    return {"cases_per_second": count / seconds}


SECTIONS: dict[str, Callable[[list[str]], object]] = {
    "decisions": lambda _peers: admission_figures(),
    "graph": lambda _peers: graph_figures(),
    "replay": lambda _peers: replay_figures(),
    "stores": lambda _peers: stores.figures(),
    "exposure": lambda _peers: exposure.figures(),
    "largest": lambda _peers: largest.figures(),
    "fairness": lambda _peers: fairness.figures(),
    "server": server.figures,
    "agents": lambda _peers: agents.figures(),
}


def bench() -> None:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="may be given again")
    parser.add_argument("--peer", action="append", default=[], metavar="URL", help="of a server")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    options = parser.parse_args()
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    print(f"{os.cpu_count()} cores, {model}, Python {platform.python_version()}\n")
    results = {name: SECTIONS[name](options.peer) for name in options.only or SECTIONS}
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    bench()
