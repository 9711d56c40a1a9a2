"""The whole server, in its own process, next to the floor: CPU, latency, throughput, memory."""

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from noderestrict import admission
from noderestrict.policy.decision import Allowed
from noderestrict.policy.settings import Settings
from noderestrict.replay.cases import Case, cases
from noderestrict.replay.state import load_state
from tests.benchmarks.load import Job
from tests.serving.tls import authority, leaf, serving, write_pair

CAPTURED = Path(__file__).parents[1] / "conformance" / "captured"
SECONDS = 3.0
#: name: operation and resource, and the size to which the object is filled up with what a larger
#: cluster has there (managed fields, containers, images), as those of the first measurements were.
KINDS = {
    "pod status": ("UPDATE", "pods", "status", 16_500),
    "node status": ("UPDATE", "nodes", "status", 7_300),
    "lease": ("UPDATE", "leases", "", 2_400),
    "token request": ("CREATE", "serviceaccounts", "token", 0),
}
#: What is printed of each server: figure, title, digits.
COLUMNS = (
    ("cpu_us", "CPU µs", 0),
    ("per_second", "req/s", 0),
    ("p50_ms", "p50 ms", 2),
    ("p99_ms", "p99 ms", 2),
    ("p99_half_ms", "p99 at half", 2),
)
#: CPU per review, over the floor's, that must not be exceeded.
TARGETS = {"pod status": 1.5, "node status": 1.3, "lease": 1.2, "token request": 1.2}


@dataclass
class Target:
    """A server under test; ``pid`` is None if its CPU cannot be seen."""

    name: str
    url: str
    pid: int | None

    def cpu(self) -> float:
        """Return the CPU seconds used so far."""
        if self.pid is None:
            return 0.0
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mib(self) -> float:
        if self.pid is None:
            return 0.0
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20


def bodies(folder: Path) -> dict[str, Path]:
    """Write one captured, allowed review of each kind, filled up to its size."""
    settings, listers = Settings.for_version(), load_state([str(CAPTURED / "state.json")])
    found: dict[str, Path] = {}
    for case in cases(str(CAPTURED / "captured.jsonl")):
        assert isinstance(case, Case)
        # As the server under test judges it: a refusal would be logged.
        decision = admission.evaluate(admission.decode(case.review), settings, listers)
        if not isinstance(decision, Allowed):
            continue
        review = json.loads(bytes(case.review))
        request = review["request"]
        if "system:nodes" not in (request["userInfo"].get("groups") or ()):
            continue
        if request.get("subResource") == "status" and _labels(request, "object") != _labels(
            request, "oldObject"
        ):
            continue  # kubelets report status without
        key = (request["operation"], request["resource"]["resource"],
               request.get("subResource") or "")  # fmt: skip
        for name, (*wanted, size) in KINDS.items():
            if tuple(wanted) == key and name not in found:
                found[name] = folder / name.replace(" ", "-")
                found[name].write_bytes(_filled(review, size))
    assert found.keys() == KINDS.keys(), found.keys()
    return found


def _labels(request: dict[str, Any], place: str) -> Any:
    return request[place]["metadata"].get("labels")


def _filled(review: dict[str, Any], size: int) -> bytes:
    """Grow both objects alike, as large ones are: by managed fields and conditions."""
    number = 0
    while len(body := json.dumps(review, separators=(",", ":")).encode()) < size:
        fields: dict[str, Any] = {
            f"f:field-{number}-{one}": {".": {}, "f:type": {}} for one in range(4)
        }
        for place in ("object", "oldObject"):
            value = review["request"].get(place)
            if value:
                managed = value["metadata"].setdefault("managedFields", [])
                managed.append({"manager": "kubelet", "operation": "Update", "fieldsV1": fields})
        number += 1
    return body


def load(job: Job) -> dict[str, float]:
    """Run the load generator in its own process."""
    output = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.load"],
        input=json.dumps(asdict(job)),
        capture_output=True,
        text=True,
        check=False,
    )
    if output.returncode:
        raise SystemExit(output.stderr)
    figures: dict[str, float] = json.loads(output.stdout)
    return figures


def measure(target: Target, body: Path) -> dict[str, float]:
    """Return CPU per review and latency at saturation."""
    load(Job(target.url, str(body), 0.5))
    before = target.cpu()
    figures = load(Job(target.url, str(body), SECONDS))
    figures["cpu_us"] = (target.cpu() - before) * 1e6 / figures["requests"]
    return figures


@contextlib.contextmanager
def targets(folder: Path, peers: list[str]) -> Iterator[list[Target]]:
    """Run the floor and our server as in production: metrics, logs and limits on."""
    ca = authority()
    write_pair(folder, leaf(ca))
    floor = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.floor", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert floor.stdout is not None
    try:
        port = floor.stdout.readline().strip()
        state = ("--state", str(CAPTURED / "state.json"))
        with serving(folder, *state, ca=ca, state=False) as server:
            yield [
                Target("floor", f"https://127.0.0.1:{port}/validate", floor.pid),
                Target(
                    "noderestrict",
                    f"https://127.0.0.1:{server.port}/validate",
                    server.process.pid,
                ),
                *(Target(f"peer {urlsplit(url).port}", url, _listener(url)) for url in peers),
            ]
    finally:
        floor.kill()
        floor.wait()
        floor.stdout.close()


def _listener(url: str) -> int | None:
    """Return the process on this machine that listens at a URL, None for one that is not seen."""
    listening = "0A"
    port = urlsplit(url).port or 443
    sockets = {
        f"socket:[{fields[9]}]"
        for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
        if table.exists()
        for fields in (line.split() for line in table.read_text().splitlines()[1:])
        if fields[3] == listening and int(fields[1].rpartition(":")[2], 16) == port
    }
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if str(descriptor.readlink()) in sockets:
                return int(descriptor.parts[2])
    return None


def start_up(folder: Path) -> tuple[float, float]:
    """Return the seconds from the start of a process to its first answer, and its memory."""
    state = folder / "empty.json"
    state.write_text('{"kind": "List", "items": []}')
    best = 9e9
    for _ in range(3):
        begun = time.perf_counter()
        ca = authority()
        write_pair(folder, leaf(ca))
        begun = time.perf_counter()
        with serving(folder, ca=ca) as server:
            assert server.request("/livez")[0] == 200
            best = min(best, time.perf_counter() - begun)
            memory = Target("", "", server.process.pid).resident_mib()
    return best, memory


def figures(peers: list[str]) -> dict[str, Any]:
    """Print and return the figures of all kinds and servers."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = bodies(folder)
        (folder / "served").mkdir()
        with targets(folder / "served", peers) as servers:
            print("\nserver in its own process, TLS, 8 keep-alive connections, metrics and logs on")
            print("each figure with its ratio to the floor's; p99 at half is that of half the load")
            print(f"  {'review':<14}{'bytes':>7}  {'server':<13}"
                  + "".join(f"{title:>16}" for _, title, _ in COLUMNS))  # fmt: skip
            for kind, body in files.items():
                results[kind] = _kind(kind, body, servers)
            results["resident_mib"] = memory = {t.name: t.resident_mib() for t in servers}
            for name_, mib in memory.items():
                print(f"  resident: {name_} {mib:.0f} MiB, {_ratio(mib, memory['floor'])}")
        (folder / "start").mkdir()
        seconds, resident = start_up(folder / "start")
        print(f"  start to first answer: {seconds * 1000:.0f} ms, then {resident:.0f} MiB")
        results["start"] = {"seconds": seconds, "resident_mib": resident}
    return results


def _kind(kind: str, body: Path, servers: list[Target]) -> dict[str, Any]:
    # In turns, three times, so that what else the machine does falls on all alike.
    rounds = [[measure(target, body) for target in servers] for _ in range(3)]
    found = {}
    for index, target in enumerate(servers):
        best = min((one[index] for one in rounds), key=lambda figure: figure["cpu_us"])
        at_half = Job(target.url, str(body), SECONDS, rate=best["per_second"] / 2)
        # The best of some: while one virtual machine waits for another, nobody answers.
        p99 = min(load(at_half)["p99_ms"] for _ in range(3))
        found[target.name] = {**best, "p99_half_ms": p99}
    floor = found["floor"]
    for name, figure in found.items():
        cells = "".join(
            f"{figure[key]:>8.{digits}f}{_ratio(figure[key], floor[key]):>8}"
            for key, _, digits in COLUMNS
        )
        target_ratio = f"  (target {TARGETS[kind]})" if name == "noderestrict" else ""
        print(f"  {kind:<14}{body.stat().st_size:>7}  {name:<13}{cells}{target_ratio}")
        figure["ratio"] = figure["cpu_us"] / floor["cpu_us"]
    return found


def _ratio(figure: float, floor: float) -> str:
    return f"×{figure / floor:.2f}" if floor else ""
