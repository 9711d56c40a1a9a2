"""Prometheus and promtool, as ``make prometheus-assets`` builds them."""

import contextlib
import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.control_plane import BUILT, free_port

SECONDS = 60


def command(name: str) -> str:
    """Return the path of a command; skips the test if it was not built."""
    path = BUILT / "prometheus" / name
    if not path.exists():
        pytest.skip(f"no {name}: make prometheus-assets")
    return str(path)


@dataclass
class Prometheus:
    """A running Prometheus."""

    port: int

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an instant query; fails if Prometheus refuses the expression."""
        query = urllib.parse.urlencode({"query": expression})
        url = f"http://127.0.0.1:{self.port}/api/v1/query?{query}"
        with urllib.request.urlopen(url, timeout=SECONDS) as response:
            answer = json.load(response)
        assert answer["status"] == "success", answer
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found


@contextlib.contextmanager
def running(folder: Path, configuration: dict[str, Any]) -> Iterator[Prometheus]:
    """Run Prometheus with a configuration."""
    file = folder / "prometheus.yaml"
    file.write_text(yaml.safe_dump(configuration))
    port = free_port()
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [
                command("prometheus"), f"--config.file={file}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )  # fmt: skip
    try:
        end = time.monotonic() + SECONDS
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5).close()
                break
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            assert time.monotonic() < end
            time.sleep(0.1)
        yield Prometheus(port)
    finally:
        process.terminate()
        process.wait(SECONDS)
