"""List the pods of a local server, in a process of its own: ``stores.py PORT ours|typed|large``.

``large`` lists those that name as much as fits into them, for the worst case of memory.
"""

import asyncio
import gc
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from kubernetes_asyncio import client

from tests.benchmarks.pods import LARGE, NODES, REFERENCES, TOTAL

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
    before, start = resident_mib(), time.perf_counter()
    await reflector.list_once()
    seconds = time.perf_counter() - start
    watcher.cancel()
    gc.collect()
    report(len(store), before, seconds, longest_block=max(gaps))
    return len(store)


async def typed(api: client.ApiClient) -> int:
    core = client.CoreV1Api(api)
    before, start = resident_mib(), time.perf_counter()
    pods: list[object] = []
    token = ""
    while len(pods) < TYPED:
        page = await core.list_pod_for_all_namespaces(limit=500, _continue=token)
        pods += page.items
        token = page.metadata._continue
    report(len(pods), before, time.perf_counter() - start)
    return len(pods)


def report(pods: int, before: float, seconds: float, longest_block: float = 0) -> None:
    print(
        json.dumps(
            {
                "pods": pods,
                "seconds": seconds,
                "resident_mib": resident_mib(),
                "peak_mib": peak_mib(),
                "bytes_a_pod": (resident_mib() - before) * 2**20 / pods,
                "longest_block_ms": longest_block * 1000,
            }
        )
    )


async def main(port: str, way: str) -> None:
    configuration = client.Configuration()
    configuration.host = f"http://127.0.0.1:{port}"
    async with client.ApiClient(configuration) as api:
        if way == "typed":
            await typed(api)
        else:
            await ours(api, "/large" if way == "large" else "")


def figures() -> dict[str, dict[str, float]]:
    """Return the figures of both ways, each from a fresh process, and print them."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.pods"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        port = server.stdout.readline().strip()
        found: dict[str, dict[str, float]] = {}
        for way in ("ours", "typed", "large"):
            output = subprocess.run(
                [sys.executable, "-m", "tests.benchmarks.stores", port, way],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            found[way] = json.loads(output)
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
    own, other = found["ours"], found["typed"]
    print(f"\nlist of {TOTAL} pods on {NODES} nodes from a local server, in pages")
    print(
        f"  noderestrict: {own['seconds']:.1f} s, {own['bytes_a_pod']:.0f} bytes a pod, process "
        f"{own['resident_mib']:.0f} MiB (peak {own['peak_mib']:.0f}), event loop held up for at "
        f"most {own['longest_block_ms']:.1f} ms"
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
