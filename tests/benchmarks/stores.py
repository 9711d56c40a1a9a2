"""List the pods of a local server, each way in a process of its own: ``stores.py URL WAY``.

``large`` lists those that name as much as fits into them, for the worst case of memory.
"""

import asyncio
import gc
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kubernetes_asyncio import client

from tests.benchmarks.control_planes import cpu
from tests.benchmarks.pods import LARGE, NODES, REFERENCES, TOTAL, api_server, following
from tests.serving.tls import serving

#: Of a server with both halves in a cluster of 150,000 pods and 5,000 Nodes.
READY_CPU_SECONDS, READY_MIB = 6, 300

# Typed models are too slow and too large for all pods; their cost grows with the number.
TYPED = 5_000


def resident_mib() -> float:
    """Return what this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def peak_mib() -> float:
    """Return the most that this process has held."""
    status = Path("/proc/self/status").read_text()
    kib = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(kib.split()[1]) / 1024


async def ours(api: client.ApiClient, prefix: str = "") -> int:
    from noderestrict.api.resources import RESOURCES
    from noderestrict.cluster.connection import Connection
    from noderestrict.cluster.graph_sink import GraphSink
    from noderestrict.cluster.judge import ClusterJudge  # noqa: F401 (loaded as in production)
    from noderestrict.cluster.reflector import Reflector, Sink
    from noderestrict.cluster.store import Store
    from noderestrict.graph.graph import Graph

    store = Store("pods")
    graph = Graph()
    sinks: list[Sink] = [store, GraphSink(graph, "pods")] if prefix else [store]
    api.configuration.host = f"{api.configuration.host}{prefix}"
    reflector = Reflector(Connection(api), RESOURCES["pods"], sinks, streaming=False)
    gaps: list[float] = []

    async def watch_loop() -> None:
        while True:
            start = time.perf_counter()
            await asyncio.sleep(0.001)
            gaps.append(time.perf_counter() - start - 0.001)

    watcher = asyncio.create_task(watch_loop())
    # As the server does when it has started.
    gc.collect()
    gc.freeze()
    before, start, busy = resident_mib(), time.perf_counter(), time.process_time()
    await reflector.list_once()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - busy
    watcher.cancel()
    gc.collect()
    start = time.process_time()
    gc.collect()
    collection = time.process_time() - start
    report(len(store), before, seconds, cpu_seconds, max(gaps), collection)
    return len(store)


async def typed(api: client.ApiClient) -> int:
    core = client.CoreV1Api(api)
    before, start, busy = resident_mib(), time.perf_counter(), time.process_time()
    pods: list[object] = []
    token = ""
    while len(pods) < TYPED:
        page = await core.list_pod_for_all_namespaces(limit=500, _continue=token)
        pods += page.items
        token = page.metadata._continue
    report(len(pods), before, time.perf_counter() - start, time.process_time() - busy)
    return len(pods)


def report(
    pods: int,
    before: float,
    seconds: float,
    cpu_seconds: float,
    longest_block: float = 0,
    collection: float = 0,
) -> None:
    print(
        json.dumps(
            {
                "pods": pods,
                "seconds": seconds,
                "cpu_seconds": cpu_seconds,
                "collection_ms": collection * 1000,
                "resident_mib": resident_mib(),
                "peak_mib": peak_mib(),
                "bytes_a_pod": (resident_mib() - before) * 2**20 / pods,
                "longest_block_ms": longest_block * 1000,
            }
        )
    )


async def floor(api: client.ApiClient) -> int:
    """Read the same pages, and drop them."""
    from noderestrict.cluster.connection import Connection
    from noderestrict.cluster.pages import pages

    before, start, busy = resident_mib(), time.perf_counter(), time.process_time()
    count = 0
    async for part in pages(Connection(api), "/api/v1/pods", 250):
        count += len(part.items)
    report(count, before, time.perf_counter() - start, time.process_time() - busy)
    return count


def _both_halves(url: str, folder: Path) -> dict[str, float]:
    """Return what a server takes that follows the cluster for admission and authorization."""
    flags = (*following(url, folder), "--authorizer")
    with serving(folder, *flags, state=False) as server:
        pid = server.process.pid
        while server.request("/readyz")[0] != 200:
            time.sleep(0.1)
        seconds = cpu(pid)
        status = Path(f"/proc/{pid}/status").read_text()
    kib = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if "kB" in line}
    return {
        "cpu_seconds": seconds,
        "resident_mib": int(kib["VmRSS"]) / 1024,
        "peak_mib": int(kib["VmHWM"]) / 1024,
    }


async def main(url: str, way: str) -> None:
    configuration = client.Configuration()
    configuration.host = url
    async with client.ApiClient(configuration) as api:
        if way == "floor":
            await floor(api)
        elif way == "typed":
            await typed(api)
        else:
            await ours(api, "/large" if way == "large" else "")


def figures() -> dict[str, dict[str, float]]:
    """Return the figures of both ways, each from a fresh process, and print them."""
    found: dict[str, dict[str, float]] = {}
    with api_server() as url, tempfile.TemporaryDirectory() as name:
        for way in ("floor", "ours", "typed", "large"):
            output = subprocess.run(
                [sys.executable, "-m", "tests.benchmarks.stores", url, way],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            found[way] = json.loads(output)
        found["both halves"] = _both_halves(url, Path(name))
    own, other = found["ours"], found["typed"]
    print(f"\nlist of {TOTAL} pods on {NODES} nodes from a local server, in pages")
    print(
        f"  floor, pages read and dropped: {found['floor']['cpu_seconds']:.1f} s of CPU\n"
        f"  noderestrict: {own['cpu_seconds']:.1f} s of CPU, "
        f"×{own['cpu_seconds'] / found['floor']['cpu_seconds']:.2f}, "
        f"{own['seconds']:.1f} s in all, {own['bytes_a_pod']:.0f} bytes a pod, process "
        f"{own['resident_mib']:.0f} MiB (peak {own['peak_mib']:.0f}), event loop held up for at "
        f"most {own['longest_block_ms']:.1f} ms; then a full collection of garbage takes "
        f"{own['collection_ms']:.1f} ms"
    )
    both = found["both halves"]
    print(
        f"  a server with both halves, until it is ready: {both['cpu_seconds']:.1f} s of CPU "
        f"(target {READY_CPU_SECONDS}), {both['resident_mib']:.0f} MiB (target {READY_MIB}), peak "
        f"{both['peak_mib']:.0f}"
    )
    scale = TOTAL / other["pods"]
    print(
        f"  kubernetes_asyncio's typed models, {other['pods']:.0f} pods: {other['seconds']:.1f} s, "
        f"{other['bytes_a_pod']:.0f} bytes a pod; for {TOTAL} that is "
        f"{other['seconds'] * scale:.0f} s and {other['bytes_a_pod'] * TOTAL / 2**20:.0f} MiB"
    )
    large = found["large"]
    print(
        f"  the worst case, {LARGE} pods with {REFERENCES} references each, with the graph: "
        f"{large['seconds']:.1f} s, process {large['resident_mib']:.0f} MiB (peak "
        f"{large['peak_mib']:.0f}), event loop held up for at most "
        f"{large['longest_block_ms']:.1f} ms"
    )
    return found


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
