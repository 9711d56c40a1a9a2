"""``make bench-scale``: one process in a large cluster, by what kubelets do and by simulation.

A model says how many requests and watch events each situation brings, from the periods of kubelets
and the sizes of the cluster. Generators send what a steady cluster brings to one process that
follows 150,000 pods; each kind's own CPU time, measured there, gives the cores of every situation.
"""

import argparse
import contextlib
import json
import ssl
import statistics
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path

from noderestrict.render.authorizer import ALLOWED_SECONDS
from tests.benchmarks.control_planes import cpu, resident_mib
from tests.benchmarks.load import Job
from tests.benchmarks.pods import NODES, TOTAL, api_server, following, pod_json
from tests.benchmarks.server import load
from tests.builders import obj, review
from tests.serving.tls import Server, serving

#: Of a core, that a process should use at most: its answers wait for each other.
BUSY = 0.7
QUESTION, TOKEN, EVENT = "SubjectAccessReview", "token review", "watch event"
#: Seconds: a kubelet's periods for its lease and a look at its Node, for its status, for a watch of
#: a Secret or ConfigMap (5 to 10 minutes), and for a token (80 % of 3,607 s).
_LEASE, _STATUS, _WATCH, _TOKEN = 10, 300, 450, 2886
#: How many answers an API server remembers.
_REMEMBERED = 8192
#: Secrets and ConfigMaps that a node watches for each of its pods, and changes of a pod from its
#: creation to its end, of which the kubelet reports half.
_WATCHED, _CHANGES = 2, 8


@dataclass(frozen=True)
class Cluster:
    """The size of a cluster."""

    nodes: int = 15_000
    pods_a_node: int = 30
    api_servers: int = 3

    @property
    def pods(self) -> int:
        """All of them."""
        return self.nodes * self.pods_a_node


Rates = Mapping[str, float]


def _renewals(of: Cluster) -> float:
    """Return how often API servers ask about leases and looks at Nodes.

    A cache that holds fewer answers than are wanted in turn never has the one that is wanted.
    """
    wanted = 2 * of.nodes
    remembered = wanted / of.api_servers <= _REMEMBERED
    return wanted / (ALLOWED_SECONDS if remembered else _LEASE)


def steady(of: Cluster) -> Rates:
    """Return what happens in a second while nothing is deployed."""
    tokens = of.pods / _TOKEN
    watches = of.pods * _WATCHED / _WATCH
    reports = of.nodes / _STATUS
    return {QUESTION: _renewals(of) + reports + watches + tokens, TOKEN: tokens, EVENT: reports}


def _replaced(of: Cluster, pods_a_second: float) -> Rates:
    """Return what is added by pods that are replaced."""
    return {
        # Status, a token, and for each watched object a list and a watch.
        QUESTION: pods_a_second * (_CHANGES / 2 + 1 + 2 * _WATCHED),
        TOKEN: pods_a_second,
        EVENT: pods_a_second * _CHANGES,
    }


def daemon_sets(of: Cluster) -> Rates:
    """Return a restart of five DaemonSets within ten minutes."""
    return _sum(steady(of), _replaced(of, 5 * of.nodes / 600))


def node_pool(of: Cluster) -> Rates:
    """Return an upgrade that replaces a tenth of the nodes within an hour."""
    return _sum(steady(of), _replaced(of, of.pods / 10 / 3600))


def fail_over(of: Cluster) -> Rates:
    """Return all watches coming back within a minute after an API server has gone."""
    back = of.nodes * (of.pods_a_node * _WATCHED + 8) / 60
    return _sum(steady(of), {QUESTION: back, TOKEN: 0, EVENT: 0})


def _sum(one: Rates, other: Rates) -> Rates:
    return {kind: one[kind] + other[kind] for kind in one}


SITUATIONS: dict[str, Callable[[Cluster], Rates]] = {
    "steady": steady,
    "restart of 5 DaemonSets in 10 min": daemon_sets,
    "a tenth of the nodes in 1 h": node_pool,
    "failover of an API server in 1 min": fail_over,
}


def cores(rates: Rates, micros: Mapping[str, float]) -> float:
    """Return the cores that rates take, by the microseconds of each kind."""
    return sum(rate * micros[kind] for kind, rate in rates.items()) / 1e6


def question(node: str, verb: str, resource: str, namespace: str, name: str) -> bytes:
    """Return what an API server asks about a kubelet."""
    group = "coordination.k8s.io" if resource == "leases" else ""
    asked = {"verb": verb, "version": "v1", "resource": resource, "namespace": namespace}
    spec = {
        "user": f"system:node:{node}",
        "groups": ["system:nodes", "system:authenticated"],
        "resourceAttributes": {**asked, "group": group, "name": name},
    }
    kind = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
    return json.dumps({**kind, "spec": spec}).encode()


def renewal(node: int) -> bytes:
    """Return what an API server asks when a kubelet renews its lease."""
    name = f"node-{node}"
    return question(name, "update", "leases", "kube-node-lease", name)


def claim_of(number: int) -> bytes:
    """Return what an API server asks when a kubelet reads the claim of a pod."""
    pod = json.loads(pod_json(number))
    meta, node = pod["metadata"], pod["spec"]["nodeName"]
    return question(node, "get", "persistentvolumeclaims", meta["namespace"], meta["name"])


def token_review(number: int) -> bytes:
    """Return what an API server asks when a kubelet wants the token of a listed pod."""
    pod = json.loads(pod_json(number))
    meta, node = pod["metadata"], pod["spec"]["nodeName"]
    reference = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
    value = obj("serviceaccounts", spec={"audiences": ["vault"], "boundObjectRef": reference})
    return review(
        "serviceaccounts", "CREATE", sub="token", name="web", namespace=meta["namespace"],
        new=value, user=f"system:node:{node}",
    )  # fmt: skip


def _request_micros(server: Server, url: str, body: Path, seconds: float) -> float:
    """Return what one request takes at saturation, after some that warm up."""
    to = f"https://127.0.0.1:{server.port}{url}"
    load(Job(to, str(body), 0.5))
    before = cpu(server.process.pid)
    found = load(Job(to, str(body), seconds))
    return (cpu(server.process.pid) - before) * 1e6 / found["requests"]


def figures(of: Cluster, seconds: float) -> dict[str, object]:
    """Print and return the sizing table."""
    with tempfile.TemporaryDirectory() as name, api_server() as url:
        folder = Path(name)
        asked = folder / "question"
        asked.write_bytes(renewal(1))
        token = folder / "token"
        token.write_bytes(token_review(1))
        (folder / "served").mkdir()
        flags = (*following(url, folder / "served"), "--authorizer")
        with serving(folder / "served", *flags, state=False) as server:
            while server.request("/readyz")[0] != 200:
                time.sleep(0.2)
            memory = resident_mib(server.process.pid)
            micros = {EVENT: _event_micros(server, url)}
            for kind, path, body in ((QUESTION, "/authorize", asked), (TOKEN, "/validate", token)):
                micros[kind] = _request_micros(server, path, body, seconds)
            mixed = _simulated(server, url, steady(of), asked, token, seconds)
    print(f"{of.nodes} nodes, {of.pods_a_node} pods each, {of.api_servers} API servers")
    print("µs of CPU: "
          + ", ".join(f"{kind} {value:.0f}" for kind, value in micros.items()))  # fmt: skip
    print(f"a process that follows 150,000 pods on {NODES} nodes has {memory:.0f} MiB")
    titles = "".join(f"{kind + '/s':>23}" for kind in (QUESTION, TOKEN, EVENT))
    print(f"{'':<36}{titles}{'cores':>8}{'processes':>11}")
    table = {}
    for what, rates_of in SITUATIONS.items():
        rates = rates_of(of)
        table[what] = {**rates, "cores": (taken := cores(rates, micros))}
        cells = "".join(f"{rates[kind]:>23,.0f}" for kind in (QUESTION, TOKEN, EVENT))
        print(f"{what:<36}{cells}{taken:>8.2f}{-int(-taken // BUSY):>11}")
    print(
        f"simulated, steady: {mixed['per_second']:.0f} requests/s of {mixed['wanted']:.0f} wanted, "
        f"{mixed['cores']:.2f} cores, p99 {mixed['p99_ms']:.1f} ms; a pod counts after "
        f"{mixed['lag_p50_ms']:.1f} ms, at most {mixed['lag_max_ms']:.1f} ms"
    )
    return {"micros": micros, "resident_mib": memory, "situations": table, "simulated": mixed}


def _emit(url: str, count: int, rate: float, first: int = 0) -> float:
    """Let the API server change so many pods; return when it sent the last one, monotonic."""
    with urllib.request.urlopen(f"{url}/emit?count={count}&rate={rate}&first={first}") as answer:
        return float(answer.read())


def _event_micros(server: Server, url: str) -> float:
    """Return what a changed pod takes."""
    pid, count = server.process.pid, 1000
    before = cpu(pid)
    _emit(url, count, 500)
    time.sleep(1)
    return (cpu(pid) - before) * 1e6 / count


def _lag(server: Server, url: str, number: int) -> float:
    """Return the seconds from when a new pod is sent until its node may read its claim."""
    asked = claim_of(number)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with contextlib.closing(
        HTTPSConnection("127.0.0.1", server.port, context=context)
    ) as connection:
        connection.connect()
        sent = _emit(url, 1, 1e9, number)
        while True:
            connection.request("POST", "/authorize", asked, {"Content-Type": "application/json"})
            status = json.loads(connection.getresponse().read())["status"]
            if status["allowed"]:
                return time.monotonic() - sent


def _simulated(
    server: Server, url: str, rates: Rates, asked: Path, token: Path, seconds: float
) -> dict[str, float]:
    """Return what one process makes of a steady cluster."""
    found: list[dict[str, float]] = []
    lags: list[float] = []
    pid = server.process.pid
    before, began = cpu(pid), time.monotonic()
    end = began + seconds

    def send(path: str, body: Path, rate: float) -> None:
        job = Job(f"https://127.0.0.1:{server.port}{path}", str(body), seconds, 16, rate)
        found.append(load(job))

    def look() -> None:
        while time.monotonic() < end:
            lags.append(_lag(server, url, TOTAL + len(lags)))
            time.sleep(0.1)

    threads = [
        threading.Thread(target=send, args=("/authorize", asked, rates[QUESTION])),
        threading.Thread(target=send, args=("/validate", token, rates[TOKEN])),
        threading.Thread(target=_emit, args=(url, int(rates[EVENT] * seconds), rates[EVENT])),
        threading.Thread(target=look),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The generators start up meanwhile.
    busy = (cpu(pid) - before) / min(seconds, time.monotonic() - began)
    return {
        "wanted": rates[QUESTION] + rates[TOKEN],
        "per_second": sum(one["per_second"] for one in found),
        "p99_ms": max(one["p99_ms"] for one in found),
        "cores": busy,
        "lag_p50_ms": statistics.median(lags) * 1000,
        "lag_max_ms": max(lags) * 1000,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-scale")
    parser.add_argument("--nodes", type=int, default=15_000)
    parser.add_argument("--pods", type=int, default=30, help="on each node")
    parser.add_argument("--api-servers", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    options = parser.parse_args()
    found = figures(Cluster(options.nodes, options.pods, options.api_servers), options.seconds)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
