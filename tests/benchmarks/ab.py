"""``make bench-ab AGAINST=CHECKOUT``: what a change costs, beside another checkout, in turns.

Both servers run with this Python and these libraries. What else the machine does falls on both of a
pair alike, so that the median of the pairs' ratios says more than two runs of ``make bench``.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from tests.benchmarks.load import Job
from tests.benchmarks.server import CAPTURED, KINDS, Target, bodies, load
from tests.serving.tls import serving

HERE = Path(__file__).parents[2]
STATE = ("--state", str(CAPTURED / "state.json"))
#: More CPU a review than this is a loss of speed.
LIMIT = 1.05


def measure(target: Target, body: Path, seconds: float) -> dict[str, float]:
    before = target.cpu()
    found = load(Job(target.url, str(body), seconds))
    return {"CPU": (target.cpu() - before) / found["requests"], "p50": found["p50_ms"]}


def compare(old: Target, new: Target, body: Path, pairs: int, seconds: float) -> dict[str, float]:
    """Print and return the median ratio, new to old, of each figure."""
    for target in (old, new):
        load(Job(target.url, str(body), 0.5))
    ratios = defaultdict(list)
    for number in range(pairs):
        # Each goes first as often.
        order = (old, new) if number % 2 else (new, old)
        found = {target.name: measure(target, body, seconds) for target in order}
        for figure, value in found["new"].items():
            ratios[figure].append(value / found["old"][figure])
    medians = {figure: statistics.median(all_) for figure, all_ in ratios.items()}
    cells = (
        f"{figure} ×{medians[figure]:.3f} ({min(all_):.2f} to {max(all_):.2f})"
        for figure, all_ in ratios.items()
    )
    print(f"  {body.name:<14}  {',  '.join(cells)}", flush=True)
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-ab")
    parser.add_argument("against", type=Path, metavar="CHECKOUT", help="the older one")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    options = parser.parse_args()
    checkouts = {"old": options.against.resolve(), "new": HERE}
    for checkout in checkouts.values():
        where = "import noderestrict; print(noderestrict.__file__)"
        command = [sys.executable, "-c", where]
        found = subprocess.run(command, cwd=checkout, stdout=subprocess.PIPE, text=True, check=True)
        if not Path(found.stdout.strip()).is_relative_to(checkout):
            raise SystemExit(f"{checkout}: no checkout of noderestrict")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = bodies(folder)
        for checkout in checkouts:
            (folder / checkout).mkdir()
        with (
            serving(folder / "old", *STATE, state=False, cwd=checkouts["old"]) as old,
            serving(folder / "new", *STATE, state=False, cwd=checkouts["new"]) as new,
        ):
            before, after = (
                Target(name, f"https://127.0.0.1:{server.port}/validate", server.process.pid)
                for name, server in (("old", old), ("new", new))
            )
            print(f"{HERE} to {checkouts['old']}, median of {options.pairs} pairs (and extremes)")
            medians = {
                kind: compare(before, after, files[kind], options.pairs, options.seconds)
                for kind in KINDS
            }
    slower = [kind for kind, figures in medians.items() if figures["CPU"] > LIMIT]
    if slower:
        raise SystemExit(f"more than ×{LIMIT} of the CPU: {', '.join(slower)}")


if __name__ == "__main__":
    main()
