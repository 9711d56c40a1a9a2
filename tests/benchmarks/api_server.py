"""``make bench-apiserver``: what node isolation costs an API server.

Control planes with nothing, the in-tree plugin and authorizer, our webhooks with and without match
conditions, and our policies alone get the same requests in turns: whatever else the machine does
falls on all of them alike, so that the ratios say more than the times. What an API server takes
while nothing happens is taken off. A profile of each says where the time goes.
"""

import argparse
import contextlib
import json
import math
import os
import statistics
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.benchmarks import profile
from tests.benchmarks.control_planes import (
    ACCOUNTS_PATH,
    NODE,
    POD,
    SECRETS,
    SECRETS_PATH,
    SETUPS,
    Object,
    Running,
    container,
    control_plane,
    cpu,
    follow,
    grant,
    populate,
    resident_mib,
)
from tests.benchmarks.ratios import Ratio, ratio
from tests.e2e.test_registration import LEASES, NODES, PODS

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
_SLICES = "/apis/resource.k8s.io/v1/resourceslices"
#: Of the upper end of the ratio to the in-tree plugin and authorizer, and of p99's ratio.
TARGETS = {
    "node status": 1.10, "pod status": 1.10, "lease": 1.10, "token": 1.20, "own Secret": 1.10,
    "foreign Secret": 1.10, "own Secret again": 1.10, "foreign Secret again": 1.10,
}  # fmt: skip
P99_TARGET = 1.5
_FEWEST_ROUNDS = 2
#: Seconds for which an API server remembers what its authorizer said, and some more.
_REMEMBERED = 1.2
#: Seconds of a profile, after which it is another API server's turn.
_SLICE = 10
_BASE = "in-tree"


@dataclass(frozen=True)
class Request:
    """What is sent, with the status that must answer it.

    Attributes:
        new: whether the API server must not remember what its authorizer said of it.
    """

    method: str
    path: str
    body: Object | None = None
    content_type: str = "application/json"
    expected: int = 200
    by_node: bool = True
    new: bool = False

    def send(self, running: Running) -> float:
        """Send it, and return how long the answer took, in seconds."""
        if self.new:
            again = running.asked.get(self.path, -math.inf) + _REMEMBERED
            time.sleep(max(0.0, again - time.monotonic()))
            running.asked[self.path] = time.monotonic()
        client = running.node if self.by_node else running.control_plane.admin
        data = None if self.body is None else json.dumps(self.body).encode()
        start = time.perf_counter()
        code, answer = client.send(self.method, self.path, data, self.content_type)
        took = time.perf_counter() - start
        if code != self.expected:
            raise SystemExit(f"{self.method} {self.path}: {code}, not {self.expected}: {answer!r}")
        return took


def node_status(_running: Running, number: int) -> Request:
    condition = {"type": "Ready", "status": "True", "reason": f"r{number}"}
    patch = {"status": {"conditions": [condition]}}
    return Request("PATCH", f"{NODES}/{NODE}/status", patch, STRATEGIC)


def pod_status(_running: Running, number: int) -> Request:
    patch = {"status": {"message": f"m{number}"}}
    return Request("PATCH", f"{PODS}/{POD}/status", patch, STRATEGIC)


def lease_renewal(_running: Running, number: int) -> Request:
    patch = {"spec": {"leaseDurationSeconds": 40 + number}}
    return Request("PATCH", f"{LEASES}/{NODE}", patch, MERGE)


def token(running: Running, _number: int) -> Request:
    reference = {"apiVersion": "v1", "kind": "Pod", "name": POD, "uid": running.pod_uid}
    body = {"spec": {"boundObjectRef": reference}}
    return Request("POST", f"{ACCOUNTS_PATH}/web/token", body, expected=201)


def own_secret(_running: Running, number: int) -> Request:
    return Request("GET", f"{SECRETS_PATH}/own-{number % SECRETS}", new=True)


def own_secret_again(running: Running, _number: int) -> Request:
    return replace(own_secret(running, 0), new=False)


def foreign_secret_again(running: Running, _number: int) -> Request:
    return replace(foreign_secret(running, 0), new=False)


def foreign_secret(running: Running, number: int) -> Request:
    refused = running.setup.plugin or running.setup.webhooks
    path = f"{SECRETS_PATH}/foreign-{number % SECRETS}"
    return Request("GET", path, expected=403 if refused else 200, new=True)


def slice_(_running: Running, number: int) -> Request:
    spec = {
        "nodeName": NODE, "driver": "example.com",
        "pool": {"name": NODE, "generation": 1, "resourceSliceCount": 1},
        "devices": [{"name": f"d{device}"} for device in range(8)],
    }  # fmt: skip
    body = {"metadata": {"name": f"s{number}"}, "spec": spec}
    return Request("POST", f"{_SLICES}?dryRun=All", body, expected=201)


def others_create(_running: Running, number: int) -> Request:
    body = {"metadata": {"name": f"p{number}"}, "spec": container()}
    return Request("POST", f"{PODS}?dryRun=All", body, expected=201, by_node=False)


def others_update(_running: Running, number: int) -> Request:
    body = {"metadata": {"annotations": {"example.com/a": str(number)}}}
    return Request("PATCH", f"{PODS}/{POD}", body, MERGE, by_node=False)


KINDS: dict[str, Callable[[Running, int], Request]] = {
    "node status": node_status,
    "pod status": pod_status,
    "lease": lease_renewal,
    "token": token,
    "own Secret": own_secret,
    "foreign Secret": foreign_secret,
    "own Secret again": own_secret_again,
    "foreign Secret again": foreign_secret_again,
    "slice": slice_,
    "others' pod create": others_create,
    "others' pod update": others_update,
}


@dataclass
class Figures:
    """Of one kind of request in one set-up, by round: microseconds of CPU time for one request.

    Attributes:
        api_server: of the API server.
        ours: of all our servers.
        latencies: of each request, in seconds.
    """

    api_server: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        """Return a latency in milliseconds."""
        return sorted(self.latencies)[int(len(self.latencies) * share)] * 1000


@dataclass
class Burst:
    """What some requests took."""

    api_server: float
    ours: float
    latencies: list[float]


def burst(running: Running, make: Callable[[Running, int], Request], numbers: range) -> Burst:
    """Send requests one after the other; CPU times are those of all of them, in seconds."""
    requests = [make(running, number) for number in numbers]
    before, before_ours = cpu(running.pid), running.cpu_of_ours()
    latencies = [request.send(running) for request in requests]
    return Burst(cpu(running.pid) - before, running.cpu_of_ours() - before_ours, latencies)


def idle(running: Mapping[str, Running], seconds: float) -> dict[str, tuple[float, float]]:
    """Return the shares of a CPU that API server and ours take while nothing happens."""
    before = {name: (cpu(one.pid), one.cpu_of_ours()) for name, one in running.items()}
    time.sleep(seconds)
    return {
        name: (
            (cpu(one.pid) - before[name][0]) / seconds,
            (one.cpu_of_ours() - before[name][1]) / seconds,
        )
        for name, one in running.items()
    }


def measure(
    running: Mapping[str, Running], kinds: Sequence[str], rounds: int, requests: int, minutes: float
) -> dict[str, dict[str, Figures]]:
    """Return the figures of each kind and set-up, after a round that warms up.

    Args:
        running: the set-ups.
        kinds: of requests.
        rounds: at most so many.
        requests: of a kind, in each round.
        minutes: after which no round begins, but for the first two.
    """
    end = time.monotonic() + 60 * minutes
    for kind in kinds:
        for one in running.values():
            burst(one, KINDS[kind], range(requests))
    rest = idle(running, 5)
    found = {kind: {name: Figures() for name in running} for kind in kinds}
    for number in range(rounds):
        if number >= _FEWEST_ROUNDS and time.monotonic() > end:
            break
        numbers = range(number * requests, (number + 1) * requests)
        # Each goes first as often.
        names = list(running)[number % len(running) :] + list(running)[: number % len(running)]
        for kind in kinds:
            for name in names:
                start = time.monotonic()
                done = burst(running[name], KINDS[kind], numbers)
                seconds = time.monotonic() - start
                figures = found[kind][name]
                api_server, ours = rest[name]
                taken = done.api_server - api_server * seconds
                figures.api_server.append(taken / requests * 1e6)
                figures.ours.append(max(0.0, done.ours - ours * seconds) / requests * 1e6)
                figures.latencies += done.latencies
    return found


def profiled(running: Running, kind: str | None, seconds: int) -> tuple[dict[str, float], int]:
    """Return an API server's seconds of CPU time by part, and how many requests it got meanwhile.

    Args:
        running: the set-up.
        kind: of requests, one after the other; None for none at all.
        seconds: how long.
    """
    answers: list[tuple[int, bytes]] = []
    admin = running.control_plane.user("profiler", "system:masters")
    path = f"/debug/pprof/profile?seconds={seconds}"
    thread = threading.Thread(target=lambda: answers.append(admin.send("GET", path)))
    thread.start()
    count = 0
    while kind is not None and thread.is_alive():
        KINDS[kind](running, count).send(running)
        count += 1
    thread.join()
    ((code, answer),) = answers
    if code != 200:
        raise SystemExit(f"{path}: {code} {answer!r}")
    return profile.parts(answer), count


@contextlib.contextmanager
def started(folder: Path, names: Sequence[str], replicas: int) -> Iterator[dict[str, Running]]:
    """Run the control planes of some set-ups."""
    with contextlib.ExitStack() as stack:
        found = {}
        for name in names:
            (folder / name).mkdir()
            found[name] = stack.enter_context(control_plane(folder / name, SETUPS[name], replicas))
            populate(found[name])
        yield found


def show(found: Mapping[str, Mapping[str, Figures]]) -> dict[str, Any]:
    """Print a table for each kind, and return all figures."""
    rounds = {len(one.api_server) for by_setup in found.values() for one in by_setup.values()}
    print(f"{min(rounds)} rounds, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print("For one request: µs of CPU time (median of the rounds), of the API server and of ours;")
    print("its ratio to the in-tree plugin and authorizer, with the interval that has it at 95 %;")
    print("latency. A target is for the upper end of that interval.")
    results: dict[str, Any] = {}
    for kind, by_setup in found.items():
        print(f"\n{kind:<20}{'API server':>12}{'ours':>8}{'ratio':>22}{'p50 ms':>9}{'p99 ms':>9}")
        results[kind] = {}
        base = by_setup.get(_BASE)
        for name, one in by_setup.items():
            to_base = ratio(one.api_server, base.api_server) if base is not None else None
            results[kind][name] = row = {
                "api_server_us": statistics.median(one.api_server),
                "ours_us": statistics.median(one.ours),
                "p50_ms": one.percentile(0.5),
                "p99_ms": one.percentile(0.99),
                **({"ratio": asdict(to_base)} if to_base is not None else {}),
                "rounds_us": one.api_server,
            }
            verdict = _verdict(kind, name, to_base, one, base)
            print(
                f"  {name:<18}{row['api_server_us']:>12.0f}{row['ours_us']:>8.0f}"
                f"{'' if to_base is None else str(to_base):>22}"
                f"{row['p50_ms']:>9.1f}{row['p99_ms']:>9.1f}{verdict}"
            )
    return results


def _verdict(
    kind: str, name: str, to_base: Ratio | None, one: Figures, base: Figures | None
) -> str:
    """Say whether our targets are met."""
    if name != "ours" or to_base is None or base is None or kind not in TARGETS:
        return ""
    said = [f"{'met' if to_base.high <= TARGETS[kind] else 'MISSED'} ≤ {TARGETS[kind]:.2f}"]
    late = one.percentile(0.99) / base.percentile(0.99)
    said.append(f"p99 ×{late:.2f} {'met' if late <= P99_TARGET else 'MISSED'} ≤ {P99_TARGET}")
    return "  " + ", ".join(said)


def show_profiles(running: Mapping[str, Running], kinds: Sequence[str], seconds: int) -> Object:
    """Print where API servers spend their time, and return it.

    They are profiled in turns. What they do while nothing happens is taken off.
    """
    results: Object = {}
    idle = {name: profiled(one, None, _SLICE)[0] for name, one in running.items()}
    for kind in kinds:
        taken: dict[str, dict[str, float]] = {name: defaultdict(float) for name in running}
        counts: Counter[str] = Counter()
        slices = max(1, seconds // _SLICE)
        for _ in range(slices):
            for name, one in running.items():
                found, count = profiled(one, kind, _SLICE)
                counts[name] += count
                for part, busy in found.items():
                    taken[name][part] += busy - idle[name][part]
        micros = {
            name: {part: busy / counts[name] * 1e6 for part, busy in parts.items()}
            for name, parts in taken.items()
        }
        sent = ", ".join(f"{count} requests {name}" for name, count in counts.items())
        print(f"\n{kind}, by profiles of {slices * _SLICE} s: {sent}")
        profile.table(micros, print)
        results[kind] = micros
    return results


def start_with_pods(pods: int, replicas: int) -> Object:
    """Print and return what it takes an API server to start our servers in a large cluster."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        running = stack.enter_context(control_plane(folder, SETUPS["none"]))
        grant(running.control_plane)
        _make_pods(running, pods)
        time.sleep(5)
        memory = peak = resident_mib(running.pid)
        rest = idle({"": running}, 3)[""][0]
        before = cpu(running.pid)
        began = time.monotonic()
        servers = []
        for number in range(replicas):
            servers.append(stack.enter_context(follow(running.control_plane, folder, number)))
            peak = max(peak, resident_mib(running.pid))
        took = time.monotonic() - began
        found = {
            "pods": pods,
            "replicas": replicas,
            "api_server_cpu_seconds": cpu(running.pid) - before - rest * took,
            "api_server_mib_before": memory,
            "api_server_mib_at_most": peak,
            "ours_cpu_seconds": [cpu(one.process.pid) for one in servers],
            "ours_mib": [resident_mib(one.process.pid) for one in servers],
        }
    print(json.dumps(found, indent=2))
    return found


def _make_pods(running: Running, pods: int) -> None:
    """Create pods, 30 to a node, with a Secret of their own each."""
    users = [f"maker-{number}" for number in range(4)]
    clients = [running.control_plane.user(user, "system:masters") for user in users]

    def make(maker: int) -> None:
        for number in range(maker, pods, len(clients)):
            volumes = [{"name": "v", "secret": {"secretName": f"s{number}"}}]
            spec = {"nodeName": f"n{number // 30}", "volumes": volumes, **container()}
            clients[maker].create(PODS, {"metadata": {"name": f"p{number}"}, "spec": spec})

    with ThreadPoolExecutor(len(clients)) as pool:
        list(pool.map(make, range(len(clients))))


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-apiserver")
    parser.add_argument("--rounds", type=int, default=12, help="at most")
    parser.add_argument("--minutes", type=float, default=3, help="after which no round begins")
    parser.add_argument("--requests", type=int, default=50, help="of a kind, in each round")
    parser.add_argument("--only", choices=SETUPS, action="append", help="may be given again")
    parser.add_argument("--kind", choices=KINDS, action="append", help="may be given again")
    parser.add_argument("--replicas", type=int, default=1, help="of our server")
    parser.add_argument("--profile", choices=KINDS, action="append", help="may be given again")
    parser.add_argument("--profile-seconds", type=int, default=60)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument(
        "--start-with-pods", type=int, metavar="N", help="measure only the start of our servers"
    )
    options = parser.parse_args()
    if options.start_with_pods:
        results = start_with_pods(options.start_with_pods, options.replicas)
    else:
        with tempfile.TemporaryDirectory() as folder:
            names = options.only or list(SETUPS)
            with started(Path(folder), names, options.replicas) as running:
                kinds = options.kind or list(KINDS)
                figures = measure(running, kinds, options.rounds, options.requests, options.minutes)
                results = show(figures)
                if options.profile:
                    compared = {name: running[name] for name in (_BASE, "ours") if name in running}
                    results["profiles"] = show_profiles(
                        compared, options.profile, options.profile_seconds
                    )
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
