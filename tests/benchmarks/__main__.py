"""``make bench``: figures of this machine, in one run.

Decisions are measured in process, per kind of review, as captured from an API server; the graph is
that of 5,000 nodes with 30 pods each.
"""

import gc
import resource
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import msgspec

from noderestrict import admission, authorization
from noderestrict.api import corev1
from noderestrict.graph.graph import Graph
from noderestrict.policy.features import LATEST_MINOR, defaults
from noderestrict.policy.settings import Settings
from noderestrict.replay.cases import Case, cases
from noderestrict.replay.state import load_state
from tests.benchmarks import stores

CAPTURED = Path(__file__).parent.parent / "conformance" / "captured"
NODES, PODS = 5_000, 30
SECONDS = 0.5


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


def admission_figures() -> None:
    listers = load_state([str(CAPTURED / "state.json")])
    settings = Settings.for_version()
    kinds: dict[str, list[bytes]] = defaultdict(list)
    for case in cases(str(CAPTURED / "captured.jsonl")):
        assert isinstance(case, Case)
        request = admission.decode(case.review)
        kinds[f"{request.operation} {admission.resource_path(request)}"].append(case.review)
    print(f"{'review':<44}{'bytes':>8}{'µs':>8}")
    for kind, bodies in sorted(kinds.items()):
        if len(bodies) < 5:
            continue
        body = max(bodies, key=len)

        def answer(body: bytes = body) -> bytes:
            request = admission.decode(body)
            return admission.encode(request, admission.judge(request, settings, listers))

        print(f"{kind:<44}{len(body):>8}{1e6 / rate(answer):>8.1f}")


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


def graph_figures() -> None:
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
    features = defaults(LATEST_MINOR)
    secret = {"verb": "get", "resource": "secrets"}
    selector = {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["node-1"]}]}
    questions = {
        "own secret": review(**secret, namespace="ns-0", name="pod-1-0"),
        "shared secret": review(**secret, namespace="ns-1", name="shared"),
        "shared secret refused": review(**secret, namespace="ns-31", name="shared"),
        "unknown secret": review(**secret, namespace="ns-1", name="none"),
        "own pods by selector": review(verb="list", resource="pods", fieldSelector=selector),
    }
    print(f"  {'question':<24}{'decisions/s':>14}{'with JSON/s':>14}")
    for name, body in questions.items():
        decoded = authorization.decode(body)

        def with_json(body: bytes = body) -> bytes:
            asked = authorization.decode(body)
            return authorization.encode(asked, authorization.judge(asked, graph, features))

        plain = rate(lambda decoded=decoded: authorization.judge(decoded, graph, features))  # type: ignore[misc]
        print(f"  {name:<24}{plain:>14,.0f}{rate(with_json):>14,.0f}")
    changing = pod(1, 0)
    changing_back = pod(2, 0)
    changing_back.metadata = changing.metadata

    def move() -> None:
        graph.upsert("pods", changing_back)
        graph.upsert("pods", changing)

    print(f"  one update of a pod that shares a Secret: {1e6 / rate(move) / 2:.1f} µs")


if __name__ == "__main__":
    admission_figures()
    graph_figures()
    stores.figures()
