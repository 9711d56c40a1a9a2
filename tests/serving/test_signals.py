"""Signals, at every moment of a process's life."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.serving.tls import SECONDS, authority, leaf, serving, write_pair

HARMLESS = (signal.SIGHUP, signal.SIGUSR1)


def until(what: str, true: object) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if true():  # type: ignore[operator]
            return
        time.sleep(0.01)
    raise AssertionError(what)


def handled(process: subprocess.Popen[bytes]) -> set[int]:
    """Return the signals that a process has a handler for."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    mask = int(status.split("SigCgt:")[1].split()[0], 16)
    return {number for number in range(1, 64) if mask >> (number - 1) & 1}


@contextmanager
def started(directory: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run a server that need not get ready; yield it with the file of its log."""
    log = directory / "log"
    environment = {key: value for key, value in os.environ.items() if "NODERESTRICT" not in key}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "noderestrict", "serve", "--bind-address", "127.0.0.1",
                "--port", "0", "--metrics-address", "", "--shutdown-delay", "0.2", *flags,
            ],
            stderr=file,
            env={**environment, "TMPDIR": str(directory)},
        )  # fmt: skip
        try:
            yield process, log
        finally:
            process.kill()
            process.wait()


def survives_and_stops(process: subprocess.Popen[bytes]) -> None:
    for number in HARMLESS:
        process.send_signal(number)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) == 0


def test_before_anything_is_read(tmp_path: Path) -> None:
    write_pair(tmp_path, leaf(authority()))
    os.mkfifo(tmp_path / "state.json")
    flags = ("--tls-dir", str(tmp_path), "--state", str(tmp_path / "state.json"))
    with started(tmp_path, *flags) as (process, _):
        until("handlers", lambda: {*HARMLESS, signal.SIGTERM} <= handled(process))
        survives_and_stops(process)


def test_while_a_certificate_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"kind": "List", "items": []}')
    flags = ("--tls-dir", str(tmp_path), "--state", str(tmp_path / "state.json"))
    with started(tmp_path, *flags) as (process, log):
        until("waiting", lambda: b"certificate rejected" in log.read_bytes())
        survives_and_stops(process)


def kubeconfig(path: Path, port: int) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {}}],
    }
    path.write_text(json.dumps(config))


def test_while_the_cluster_is_waited_for(tmp_path: Path) -> None:
    write_pair(tmp_path, leaf(authority()))
    kubeconfig(tmp_path / "kubeconfig", 1)
    flags = ("--tls-dir", str(tmp_path), "--kubeconfig", str(tmp_path / "kubeconfig"))
    with started(tmp_path, *flags) as (process, log):
        until("waiting", lambda: b"the API server does not answer" in log.read_bytes())
        survives_and_stops(process)


class OldAPIServer(BaseHTTPRequestHandler):
    """Knows its version, and nothing else."""

    def do_GET(self) -> None:
        found = self.path == "/version"
        body = b'{"gitVersion": "v1.36.2"}' if found else b"{}"
        self.send_response(200 if found else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def api_server() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), OldAPIServer) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(10)


def test_a_kubeconfig_that_changes_while_the_cluster_is_waited_for_is_read(tmp_path: Path) -> None:
    write_pair(tmp_path, leaf(authority()))
    file = tmp_path / "kubeconfig"
    kubeconfig(file, 1)
    flags = ("--tls-dir", str(tmp_path), "--kubeconfig", str(file))
    with started(tmp_path, *flags) as (process, log), api_server() as port:
        until("waiting", lambda: b"the API server does not answer" in log.read_bytes())
        # Half of a file on the way is waited out like no answer.
        file.write_text("{")
        until("told", lambda: log.read_bytes().count(b"the API server does not answer") > 1)
        kubeconfig(file, port)
        until("listening", lambda: b'"listening"' in log.read_bytes())
        survives_and_stops(process)


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.write_text("a: b: c")])
def test_a_kubeconfig_that_cannot_be_used_ends_the_start_in_one_line(
    tmp_path: Path, make: object
) -> None:
    write_pair(tmp_path, leaf(authority()))
    file = tmp_path / "kubeconfig"
    make(file)  # type: ignore[operator]
    flags = ("--tls-dir", str(tmp_path), "--kubeconfig", str(file))
    with started(tmp_path, *flags) as (process, log):
        assert process.wait(SECONDS) == 2
        (line,) = log.read_text().splitlines()
        assert re.match(
            rf"noderestrict serve: --kubeconfig {re.escape(str(file))}(, line 1)?: ", line
        )


def test_while_serving_and_while_draining(tmp_path: Path) -> None:
    with serving(tmp_path, "--shutdown-delay", "1") as server:
        for number in HARMLESS:
            server.process.send_signal(number)
        server.wait_for_log("log level is now debug")
        assert server.request("/livez")[0] == 200
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log('"stopping"')
        for number in HARMLESS:
            server.process.send_signal(number)
        assert server.process.wait(SECONDS) == 0


WAITING = """
import asyncio, atexit, time
from noderestrict.serving.signals import SIGNALS
from noderestrict.serving.stop import run_event_loop
SIGNALS.install()
atexit.register(print, "cleaned up", flush=True)
async def main(stop):
    print("waiting", flush=True)
    await asyncio.to_thread(time.sleep, 120)
run_event_loop(main, "info")
"""


def test_what_waits_in_a_thread_is_not_waited_for() -> None:
    with subprocess.Popen([sys.executable, "-c", WAITING], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"waiting\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 0
            assert process.stdout.read() == b"cleaned up\n"
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_once_python_has_ended_changes_no_exit_code(number: signal.Signals) -> None:
    program = """
import ctypes, sys
from noderestrict.serving.signals import SIGNALS

SIGNALS.install()
library = ctypes.CDLL(None)
# The C library calls it with the exit code, when nothing is left of Python.
library.on_exit(ctypes.cast(getattr(library, "raise"), ctypes.c_void_p), None)
raise SystemExit(int(sys.argv[1]))
"""
    ended = subprocess.run([sys.executable, "-c", program, str(int(number))], check=False)
    assert ended.returncode == number
