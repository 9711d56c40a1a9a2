"""``make soak``: an hour of mixed load, attacks and restarts, beside the in-tree plugins.

Ends with 1 unless every verdict was that of the in-tree plugins within 5 s of the end of an attack,
nothing that they refuse was allowed for longer than ``--max-staleness``, no internal error came up,
no attack kept a new replica from getting ready, and the server's memory stayed where it was.
"""

import argparse
import contextlib
import itertools
import re
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.benchmarks.server import Target
from tests.e2e.attacks import (
    LARGE,
    bodiless,
    chunked,
    connections,
    deletion,
    heavy_pods,
    others,
    poisoned,
    silent,
    slow_header,
    stolen_node,
    tenants_claim,
    tenants_pod,
    wide_claim,
)
from tests.e2e.control_plane import APIError
from tests.e2e.twins import FLAGS, GRACE, NAMES, Twins, Verdicts
from tests.serving.tls import leaf, odd_certificates, write_pair

STALENESS = 3.0
#: How long the API server remembers our authorizer's answers, with time to hear of a change.
LAG = 2.0
#: How long a pod of the load stays on a node, seconds.
ROUND = 12.0
#: The pod that moves in each attack.
VICTIM = "victim"
Attack = Callable[[], contextlib.AbstractContextManager[object]]
PODS = tuple(f"load-{number}" for number in range(6))
#: The last third of the samples may lie so much above the second.
GROWTH = 1.10
ERRORS = re.compile(
    r"^noderestrict_(?:internal_errors|background_failures)_total(?:\{.*\})? (\S+)", re.MULTILINE
)


class Soak:
    """The load, and what was found wrong."""

    def __init__(self, twins: Twins) -> None:
        self._twins = twins
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.resident: list[float] = []
        self._done = threading.Event()
        self._begun = time.monotonic()
        #: When a pod moved last: verdicts may lag behind that.
        self._moved = dict.fromkeys(PODS, 0.0)
        #: While our server or its API server is cut off: verdicts may be missing, but not wrong.
        self.outage = threading.Event()
        #: While an attack goes on, and until all is well after it.
        self._attacked = threading.Event()

    def minutes(self) -> float:
        return (time.monotonic() - self._begun) / 60

    def fail(self, what: str) -> None:
        self.wrong.append(what)
        print(f"{self.minutes():7.1f}  WRONG: {what}", flush=True)

    @contextlib.contextmanager
    def load(self) -> Iterator[None]:
        """Ask both API servers all the time, and move pods in between."""
        threads = [
            threading.Thread(target=self._ask, args=(number, name))
            for number, name in enumerate(PODS, start=100)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._done.set()
            for thread in threads:
                thread.join()

    def _ask(self, number: int, name: str) -> None:
        """Ask about one pod, which moves after each round."""
        for turn in itertools.count():
            if self._done.is_set():
                return
            try:
                self._twins.move(name, NAMES[turn % 2])
                self._moved[name] = time.monotonic()
                questions = itertools.cycle(self._twins.questions(name))
                while time.monotonic() < self._moved[name] + ROUND and not self._done.is_set():
                    asked = time.monotonic() - self._moved[name]
                    self._judge(asked, self._twins.ask(next(questions), number))
                    time.sleep(0.05)
            except (APIError, OSError, HTTPException):
                # The API server restarts.
                self.counts["no answer"] += 1
                time.sleep(0.5)

    def _judge(self, seconds: float, found: Verdicts) -> None:
        """Judge verdicts on a question that was asked some seconds after its pod moved."""
        self.counts["questions"] += 1
        if found.ours == found.in_tree:
            return
        self.counts["other verdicts"] += 1
        if found.ours == "allowed":
            if seconds > STALENESS + LAG:
                self.fail(f"allowed {seconds:.1f} s after a move: {found}")
        elif seconds > LAG and not self.outage.is_set() and not self._attacked.is_set():
            self.fail(f"refused {seconds:.1f} s after a move: {found}")

    def attack(self, name: str, run: Attack, seconds: float) -> None:
        """Run one attack for a time; see that all is well right after it."""
        twins = self._twins
        begun = time.monotonic()
        self._attacked.set()
        with run():
            twins.move(VICTIM, NAMES[self.counts["attacks"] % 2])
            time.sleep(seconds)
        ended = time.monotonic()
        settled = float("nan")
        try:
            twins.settles(VICTIM)
            settled = time.monotonic() - ended
            with twins.replica(*FLAGS) as replica:
                twins.until_ready(replica)
        except AssertionError as error:
            self.fail(f"after {name}: {error}")
        self._attacked.clear()
        self.counts["attacks"] += 1
        self._look(name)
        print(
            f"{self.minutes():7.1f}  {name:<27} {ended - begun:5.1f} s, settled in {settled:.1f} s;"
            f" {self.counts['questions']} questions, {self.resident[-1]:.0f} MiB,"
            f" {len(twins.server.log)} log lines",
            flush=True,
        )

    def _look(self, name: str) -> None:
        """Look at the server's process and metrics."""
        server = self._twins.server
        if server.process.poll() is not None:
            raise SystemExit(f"the server ended in {name}: {server.log[-5:]}")
        errors = sum(float(value) for value in ERRORS.findall(server.metrics()))
        if errors > self.counts["internal errors"]:
            self.counts["internal errors"] = int(errors)
            self.fail(f"internal errors in {name}: {server.log[-5:]}")
        self.resident.append(Target("", "", server.process.pid).resident_mib())

    def memory(self, kinds: int) -> None:
        """Judge the samples: the last third beside the second, in each all kinds of attacks."""
        third = len(self.resident) // 3
        if third < kinds:
            print("too few attacks to judge the memory")
            return
        middle, last = max(self.resident[third : 2 * third]), max(self.resident[2 * third :])
        print(f"memory: {middle:.0f} MiB in the second third, {last:.0f} MiB in the last")
        if last > middle * GROWTH:
            self.fail(f"memory grew from {middle:.0f} to {last:.0f} MiB")


def attacks(twins: Twins, soak: Soak) -> dict[str, Attack]:
    @contextlib.contextmanager
    def cut(how: str) -> Iterator[None]:
        soak.outage.set()
        getattr(twins.network, how)()
        try:
            yield
        finally:
            twins.network.heal(reset=how == "part")
            time.sleep(GRACE)
            soak.outage.clear()

    @contextlib.contextmanager
    def restart() -> Iterator[None]:
        soak.outage.set()
        try:
            twins.control_plane.kill_api_server()
            twins.control_plane.start_api_server()
            twins.control_plane.wait_ready()
            twins.control_plane.compact()
            yield
        finally:
            time.sleep(GRACE)
            soak.outage.clear()

    @contextlib.contextmanager
    def hostile_reviews() -> Iterator[None]:
        for number in range(500):
            twins.server.request("/validate", deletion("load-0", f"made-up-{number}"))
            twins.server.request("/validate", b"[" * 100_000)
        yield

    @contextlib.contextmanager
    def certificates() -> Iterator[None]:
        for _, certificate, key in odd_certificates():
            for name, data in (("tls.crt", certificate), ("tls.key", key)):
                (folder / name).write_bytes(data)
            time.sleep(0.2)
        write_pair(folder, leaf(twins.control_plane.ca))
        yield

    folder = twins.replica_folder
    return {
        "pod too deep": lambda: poisoned(twins, tenants_pod, 0),
        "large claim too deep": lambda: poisoned(twins, tenants_claim, LARGE),
        "node too deep": lambda: poisoned(twins, stolen_node, 0),
        "others too deep": lambda: poisoned(twins, others, LARGE),
        "all connections cut": lambda: cut("part"),
        "watches frozen": lambda: cut("freeze"),
        "claim with many quantities": lambda: wide_claim(twins),
        "chunked without a body": lambda: connections(twins.port, 16, chunked),
        "bodies that do not come": lambda: connections(twins.port, 512, bodiless),
        "silent connections": lambda: connections(twins.port, 1100, silent),
        "slow headers": lambda: connections(twins.port, 300, slow_header),
        "silent metrics connections": lambda: connections(
            twins.server.metrics_port, 1100, silent, tls=False
        ),
        "hostile reviews": hostile_reviews,
        "bad certificates": certificates,
        "pods with many references": lambda: heavy_pods(twins, 8),
        "the API server restarts": restart,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="make soak")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--attack-seconds", type=float, default=8, help="that each attack lasts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, Twins.running(
        Path(folder), *FLAGS, "--max-staleness", str(STALENESS), "--tls-poll", "0.1"
    ) as twins:  # fmt: skip
        for number, name in enumerate(PODS):
            twins.start(name, NAMES[number % 2])
        twins.start(VICTIM, NAMES[0])
        soak = Soak(twins)
        all_attacks = attacks(twins, soak)
        with soak.load():
            for name, run in itertools.cycle(all_attacks.items()):
                soak.attack(name, run, options.attack_seconds)
                if soak.minutes() > options.minutes:
                    break
        soak.memory(len(all_attacks))
        for what, count in soak.counts.items():
            print(f"{what}: {count}")
        if soak.wrong:
            raise SystemExit(f"{len(soak.wrong)} wrong")


if __name__ == "__main__":
    try:
        main()
    except pytest.skip.Exception as error:
        raise SystemExit(str(error)) from None
