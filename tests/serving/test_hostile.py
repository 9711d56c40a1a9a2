"""Bytes that no API server sends."""

import gzip
import json
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.clients import BAD, http
from tests.serving.tls import SECONDS, Server, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("hostile")) as running:
        yield running
        assert_unharmed(running)


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server that does not wait for clients; a busy machine may be too slow for it."""
    folder = tmp_path_factory.mktemp("impatient")
    with serving(folder, "--header-timeout", "3", "--body-timeout", "3") as running:
        yield running
        assert_unharmed(running)


def assert_unharmed(server: Server) -> None:
    assert not [line for line in server.log if "internal error" in line]
    assert server.process.poll() is None


def send(server: Server, *pieces: bytes, pause: float = 0) -> bytes:
    """Return all that comes back until the server closes, as it must."""
    answer = b""
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS) as plain,
        server.context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        try:
            for piece in pieces:
                tls.sendall(piece)
                time.sleep(pause)
            while data := tls.recv(65536):
                answer += data
        except TimeoutError:
            raise AssertionError(f"the connection stays open after {answer!r}") from None
        except OSError:
            pass  # closed
    return answer


def head(*lines: str, path: str = "/validate") -> bytes:
    return "\r\n".join((f"POST {path} HTTP/1.1", "Host: localhost", *lines, "", "")).encode()


JSON = "Content-Type: application/json"


def was_cut_off(tls: ssl.SSLSocket, request: bytes) -> bool:
    """Send requests until the server closes; before that, it may throw some away unread."""
    end = time.monotonic() + SECONDS
    try:
        while time.monotonic() < end:
            tls.sendall(request)
    except TimeoutError:
        return False
    except OSError:
        return True
    return False


def test_a_client_that_never_reads_its_answers_is_cut_off(tmp_path: Path) -> None:
    review = json.loads(BAD)
    review["request"]["uid"] = "u" * 1024
    request = http(json.dumps(review).encode())
    with serving(tmp_path) as server:
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS) as plain,
            server.context.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            assert was_cut_off(tls, request)
        assert server.request("/livez")[0] == 200
        assert server.process.poll() is None


def test_a_packed_body_is_refused(server: Server) -> None:
    body = gzip.compress(b" " * 1_000_000)
    length = f"Content-Length: {len(body)}"
    answer = send(server, head(JSON, "Content-Encoding: gzip", length, "Connection: close") + body)
    assert answer.startswith(b"HTTP/1.1 415 ")


KEYS = b"{" + b",".join(b'"k%d":1' % number for number in range(10_000)) + b"}"


@pytest.mark.parametrize(
    "body",
    [
        b"[" * (8 * 1024 * 1024),
        b'{"a":' * 100_000,
        KEYS,
        b'{"request": "\xff\xfe"}',
        b'{"request": {"uid": "1"}, "request": {"uid": "2"}}',
        b'{"request": NaN}',
        b'{"request": 1e999999}',
        b'{"request": ' + b"9" * 100_000 + b"}",
        b"null",
        b"",
        b"\x00" * 1000,
        b"\xef\xbb\xbf" + BAD,
        BAD.strip()[:-1],
        BAD + b"}",
    ],
    ids=[
        "8 MiB of [", "deep objects", "10,000 keys", "invalid UTF-8", "duplicate keys", "NaN",
        "huge exponent", "huge integer", "null", "empty", "zeros", "byte order mark", "cut off",
        "too long",
    ],
)  # fmt: skip
def test_a_body_that_is_no_review_is_a_client_error(server: Server, body: bytes) -> None:
    code, answer, _ = server.request("/validate", body)
    assert code in (400, 413)
    message = json.loads(answer)
    assert message["code"] == code
    assert message["message"]


@pytest.mark.parametrize(
    "request_",
    [
        head(JSON, "Content-Length: 5", "Content-Length: 6") + b"{}{}{}",
        head(JSON, "Content-Length: -1") + b"{}",
        head(JSON, "Content-Length: x") + b"{}",
        head(JSON, "Content-Length: 2", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        head(JSON, "Transfer-Encoding: chunked") + b"zz\r\n{}\r\n0\r\n\r\n",
        head(JSON, "Transfer-Encoding: gzip") + b"{}",
        head(JSON, "Content-Encoding: gzip", "Content-Length: 2") + b"{}",
        head("X: " + "y" * 100_000),
        head(*(f"X{number}: y" for number in range(50_000))),
        b"\x00\x01\x02\r\n\r\n",
        b"POST /validate HTTP/9.9\r\n\r\n",
        b"POST " + b"/" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        head(JSON, "Expect: nonsense", "Content-Length: 2") + b"{}",
    ],
    ids=lambda request_: repr(request_[:60]),
)
def test_broken_http_is_a_client_error_or_a_closed_connection(
    impatient: Server, request_: bytes
) -> None:
    answer = send(impatient, request_)
    assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))
    assert b'"allowed":true' not in answer


def test_a_request_behind_another_is_answered_by_itself(server: Server) -> None:
    answer = send(server, http(BAD) + http(b"{}") + head("Connection: close", path="/nowhere"))
    codes = [line[9:12] for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    assert codes[0] == b"200"
    assert all(code in (b"400", b"404") for code in codes[1:])
    assert b'"allowed":true' not in answer


def test_slow_headers_are_cut_off(impatient: Server) -> None:
    answer = send(impatient, *(bytes([byte]) for byte in head(JSON)[:20]), pause=0.1)
    assert not answer or answer.startswith(b"HTTP/1.1 4")


def test_a_slow_body_is_cut_off(tmp_path: Path) -> None:
    request = http(BAD)
    with serving(tmp_path, "--body-timeout", "0.5") as server:
        assert send(server, request[:-20]).startswith(b"HTTP/1.1 408")
        assert_unharmed(server)


@pytest.mark.parametrize(
    "bytes_", [b"\x16\x03\x01\xff\xff" + b"\x00" * 500, b"GET / HTTP/1.1\r\n\r\n", b"\x80" * 5000]
)
def test_what_is_no_tls_is_closed(server: Server, bytes_: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS) as plain:
        plain.sendall(bytes_)
        answer = b""
        try:
            while data := plain.recv(65536):
                answer += data
        except ConnectionResetError:
            pass
    assert b"HTTP/1.1 2" not in answer


def test_the_servers_still_answer(server: Server, impatient: Server) -> None:
    for one in (server, impatient):
        status, answer, _ = one.request("/validate", BAD)
        assert status == 200
        assert b'"allowed":false' in answer


def test_the_log_names_no_secret_of_a_refused_object(server: Server, tmp_path: Path) -> None:
    review = json.loads(BAD)
    review["request"]["object"]["metadata"]["annotations"]["password"] = "hunter2-in-clear"
    server.request("/validate", json.dumps(review).encode())
    assert server.wait_for_log('"refused"')
    assert not [line for line in server.log if "hunter2" in line]
