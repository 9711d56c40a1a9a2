"""Small reviews while something long goes on: a list of all pods, huge reviews, new certificates.

Beside the clients' latency stands what the server itself counted: how often its event loop was late
by over 5 ms.
"""

import contextlib
import json
import re
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from noderestrict.pki.issue import Leaf
from tests.benchmarks.load import Job
from tests.benchmarks.pods import TOTAL, api_server, following
from tests.benchmarks.server import SECONDS, bodies, load
from tests.serving.tls import Server, key_pem, self_signed, serving, write_pair

#: Reviews a second: far below saturation, since the other side of what goes on needs a core, too.
RATE = 300
HUGE_BYTES = 6_000_000


def _url(server: Server) -> str:
    return f"https://127.0.0.1:{server.port}/validate"


@contextlib.contextmanager
def _listing(folder: Path) -> Iterator[Server]:
    """Run a server that lists pods for ever."""
    with api_server() as url:
        flags = following(f"{url}/endless", folder)
        with serving(folder, *flags, state=False) as server:
            yield server


def _huge(body: Path, folder: Path) -> Path:
    review: dict[str, Any] = json.loads(body.read_text())
    padding = {f"f:{number}": "v" * 50 for number in range(HUGE_BYTES // 70)}
    review["request"]["object"]["metadata"]["managedFields"] = [{"fieldsV1": padding}]
    file = folder / "huge"
    file.write_text(json.dumps(review))
    return file


def _rsa_pair() -> Leaf:
    """Return a pair such as cert-manager makes by default: its check takes longest."""
    key = rsa.generate_private_key(65537, 2048)
    return Leaf(self_signed(key), key_pem(key))


@contextlib.contextmanager
def _rotating(folder: Path) -> Iterator[None]:
    """Put another pair into a folder, five times a second."""
    pairs = [_rsa_pair(), _rsa_pair()]
    done = threading.Event()

    def rotate() -> None:
        number = 0
        while not done.wait(0.2):
            number += 1
            write_pair(folder, pairs[number % 2])

    thread = threading.Thread(target=rotate)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _metrics(server: Server, *series: str) -> list[float]:
    """Return some series, as they were at one moment."""
    text = server.metrics()
    found = [
        re.search(rf"^noderestrict_{re.escape(one)} (\S+)", text, re.MULTILINE) for one in series
    ]
    return [float(one[1]) for one in found if one is not None]


def _looks(server: Server) -> tuple[float, float]:
    """Return how often the server looked at its loop, and found it late by over 5 ms."""
    lag = "event_loop_lag_seconds"
    total, in_time = _metrics(server, f"{lag}_count", f'{lag}_bucket{{le="0.005"}}')
    return total, total - in_time


def _measured(server: Server, body: str) -> dict[str, float]:
    before = _looks(server)
    found = load(Job(_url(server), body, SECONDS, rate=RATE))
    looks, late = (now - then for now, then in zip(_looks(server), before, strict=True))
    return {**found, "looks": looks, "late_looks": late}


def figures() -> dict[str, dict[str, float]]:
    """Return and print the latency of small reviews beside something long."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = bodies(folder)
        (folder / "served").mkdir()
        small = str(files["lease"])
        print(f"\nlease reviews, {RATE} a second")
        with _listing(folder / "served") as server:
            found["listing"] = _measured(server, small)
            assert server.request("/readyz")[0] != 200, "it does not list pods any more"
        with serving(folder / "served", "--tls-poll", "0.1") as server:
            found["alone"] = _measured(server, small)
            huge = _huge(files["node status"], folder)
            job = Job(_url(server), str(huge), SECONDS, connections=1, rate=5)
            beside = threading.Thread(target=load, args=(job,))
            beside.start()
            found["huge"] = _measured(server, small)
            beside.join()
            with _rotating(folder / "served"):
                found["rotation"] = _measured(server, small)
            assert _metrics(server, 'certificate_reloads_total{result="loaded"}')[0] > 5
    for key, what in (
        ("alone", "nothing else"),
        ("listing", f"while {TOTAL} pods are listed"),
        ("huge", f"beside 5 reviews a second of {HUGE_BYTES / 1e6:.0f} MB"),
        ("rotation", "while the certificate changes 5 times a second"),
    ):
        one = found[key]
        print(
            f"  {what:<48} p50 {one['p50_ms']:.2f} ms, p99 {one['p99_ms']:.2f} ms; "
            f"loop late by over 5 ms: {one['late_looks']:.0f} of {one['looks']:.0f} looks"
        )
    return found
