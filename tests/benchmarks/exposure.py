"""Rank the nodes of a large cluster, from a file, in a process of its own."""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from noderestrict.exposure.reports import NAMES
from tests.exposure.large import large

NODES, PODS, BINDINGS = 500, 15_000, 3_000


def figures() -> dict[str, float]:
    """Measure reading and ranking, for each report."""
    print(f"\nexposure of {NODES} nodes, {PODS} pods, {BINDINGS} bindings")
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state.json"
        state.write_text(json.dumps({"kind": "List", "items": list(large(NODES, PODS, BINDINGS))}))
        for output in NAMES:
            command = [sys.executable, "-m", "noderestrict", "exposure", "--state", str(state)]
            start, used = time.perf_counter(), _processor_seconds()
            done = subprocess.run(
                [*command, "--output", output], check=True, stdout=subprocess.PIPE
            )
            seconds, processor = time.perf_counter() - start, _processor_seconds() - used
            size = len(done.stdout) / 2**20
            # The most that any of them has taken.
            memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            print(
                f"  {output:<6} {seconds:.1f} s, {processor:.1f} s of a processor, "
                f"{memory:.0f} MiB, {size:.1f} MiB written"
            )
            found |= {
                f"{output}_seconds": seconds,
                f"{output}_processor_seconds": processor,
                f"{output}_mib": memory,
                f"{output}_written": size,
            }
    return found


def _processor_seconds() -> float:
    """Return what all processes that have ended took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
