"""Small reviews while something large goes on: a list of all pods, reviews of several megabytes."""

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.load import Job
from tests.benchmarks.pods import TOTAL
from tests.benchmarks.server import SECONDS, bodies, load
from tests.serving.tls import Server, serving

#: Reviews a second: far below saturation, since the other side of what goes on needs a core, too.
RATE = 300
HUGE_BYTES = 6_000_000


def _url(server: Server) -> str:
    return f"https://127.0.0.1:{server.port}/validate"


@contextlib.contextmanager
def _listing(folder: Path) -> Iterator[Server]:
    """Run a server that is about to list all pods."""
    api = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.pods"], stdout=subprocess.PIPE, text=True
    )
    assert api.stdout is not None
    try:
        cluster = {"server": f"http://127.0.0.1:{api.stdout.readline().strip()}"}
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "c", "cluster": cluster}],
                    "users": [{"name": "u", "user": {}}],
                    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                    "current-context": "x",
                }
            )
        )
        flags = ("--kubeconfig", str(kubeconfig), "--api-audiences", "a")
        with serving(folder, *flags, state=False) as server:
            yield server
    finally:
        api.kill()
        api.wait()
        api.stdout.close()


def _huge(body: Path, folder: Path) -> Path:
    review: dict[str, Any] = json.loads(body.read_text())
    padding = {f"f:{number}": "v" * 50 for number in range(HUGE_BYTES // 70)}
    review["request"]["object"]["metadata"]["managedFields"] = [{"fieldsV1": padding}]
    file = folder / "huge"
    file.write_text(json.dumps(review))
    return file


def figures() -> dict[str, dict[str, float]]:
    """Return and print the latency of small reviews beside something large."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = bodies(folder)
        (folder / "served").mkdir()
        small = str(files["lease"])
        print(f"\nlease reviews, {RATE} a second")
        with _listing(folder / "served") as server:
            found["listing"] = load(Job(_url(server), small, SECONDS, rate=RATE))
            if server.request("/readyz")[0] == 200:
                raise SystemExit("the pods were listed before the end: no figure")
        with serving(folder / "served") as server:
            found["alone"] = load(Job(_url(server), small, SECONDS, rate=RATE))
            huge = _huge(files["node status"], folder)
            job = Job(_url(server), str(huge), SECONDS, connections=1, rate=5)
            beside = threading.Thread(target=load, args=(job,))
            beside.start()
            found["huge"] = load(Job(_url(server), small, SECONDS, rate=RATE))
            beside.join()
    for key, what in (
        ("alone", "nothing else"),
        ("listing", f"while {TOTAL} pods are listed"),
        ("huge", f"beside 5 reviews a second of {HUGE_BYTES / 1e6:.0f} MB"),
    ):
        print(f"  {what:<40} p50 {found[key]['p50_ms']:.2f} ms, p99 {found[key]['p99_ms']:.2f} ms")
    return found
