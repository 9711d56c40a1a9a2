"""Whoever reads the log, or makes it long, does not hold up the server."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from noderestrict.pki.issue import Authority
from tests.serving.clients import BAD, http
from tests.serving.test_hostile import send
from tests.serving.tls import SECONDS, Server, authority, leaf, serving, write_pair

BROKEN = b"GET /livez HTTP/1.1\r\nno header\r\n\r\n"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def unread(directory: Path, ca: Authority, *, closed: bool) -> Iterator[Server]:
    """Run a server whose standard error is a pipe that nobody reads, or is closed."""
    write_pair(directory, leaf(ca))
    (directory / "state.json").write_text('{"kind": "List", "items": []}')
    port, metrics_port = free_port(), free_port()
    reader, writer = os.pipe()
    shell = 'exec "$@" 2>&-' if closed else 'exec "$@"'
    process = subprocess.Popen(
        [
            "sh", "-c", shell, "sh", sys.executable, "-m", "noderestrict", "serve",
            "--tls-dir", str(directory), "--state", str(directory / "state.json"),
            "--bind-address", "127.0.0.1", "--port", str(port),
            "--metrics-address", f"127.0.0.1:{metrics_port}", "--shutdown-delay", "0",
        ],
        stderr=writer,
        text=True,
        env={key: value for key, value in os.environ.items() if "NODERESTRICT" not in key},
    )  # fmt: skip
    os.close(writer)
    context = ssl.create_default_context(cadata=ca.certificate.decode())
    try:
        server = Server(process, port, context, [], metrics_port)
        end = time.monotonic() + SECONDS
        while True:
            try:
                server.request("/livez")
                break
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.05)
        yield server
    finally:
        process.kill()
        process.wait()
        os.close(reader)


@pytest.mark.parametrize("closed", [False, True], ids=["stopped", "closed"])
def test_a_log_that_nobody_reads_holds_up_no_answer_and_no_end(
    tmp_path: Path, closed: bool
) -> None:
    review = json.loads(BAD)
    with unread(tmp_path, authority(), closed=closed) as server:
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=20) as plain,
            server.context.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            for number in range(600):
                # Of many nodes, since each has a bound of its own; their lines fill the pipe.
                review["request"]["userInfo"]["username"] = f"system:node:n{number}-{'x' * 200}"
                tls.sendall(http(json.dumps(review).encode()))
                answer = b""
                while b"}}}" not in answer and b"}}" not in answer:
                    piece = tls.recv(65536)
                    assert piece
                    answer += piece
                assert answer.startswith(b"HTTP/1.1 200 ")
        assert server.request("/livez")[0] == 200
        if closed:
            assert 'log_lines_total{reason="reader"} 0.0' not in server.metrics()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(15) == 0


def test_broken_requests_make_few_lines_and_no_traceback(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        for _ in range(300):
            assert send(server, BROKEN).startswith(b"HTTP/1.0 400")
        told = [line for line in server.log if "aiohttp" in line or "asyncio" in line]
        assert len(told) < 200
        for line in server.log:
            assert "Traceback" not in json.dumps(json.loads(line))
        assert sum(map(len, server.log)) < 100_000
        assert server.request("/livez")[0] == 200


def test_a_library_that_complains_does_so_as_we_do(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        send(server, BROKEN)
        (line,) = server.wait_for_log("aiohttp.server")
        record = json.loads(line)
        assert record["level"] == "error"
        assert record["error"].startswith("BadHttpMessage")
