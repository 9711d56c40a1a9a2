"""A real server process over real TLS."""

import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from noderestrict import __version__
from tests.admission.test_review import body, hostile
from tests.serving.tls import (
    DAY,
    NOW,
    SECONDS,
    Server,
    authority,
    client_leaf,
    leaf,
    serving,
    write_pair,
)
from tests.telemetry.test_metrics import PROMETHEUS


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("tls")) as running:
        yield running


def test_a_hostile_review_is_refused_with_http_200(server: Server) -> None:
    status, answer, headers = server.request("/validate?timeout=5s", body())
    response = json.loads(answer)["response"]
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    assert response["uid"] == "u1"
    assert response["allowed"] is False
    assert response["status"]["code"] == 403


def test_who_is_no_node_is_allowed(server: Server) -> None:
    _, answer, _ = server.request("/validate", body(userInfo={"username": "admin"}))
    assert json.loads(answer)["response"]["allowed"] is True


@pytest.mark.parametrize(
    ("data", "code", "says"),
    [
        (b"", 400, "not an AdmissionReview"),
        (b"{", 400, "not an AdmissionReview"),
        (b"[" * 4_000_000, 400, "not an AdmissionReview"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400, "not an AdmissionReview"),
        (b"\xff\xfe", 400, "not an AdmissionReview"),
        (b'{"request": NaN}', 400, "not an AdmissionReview"),
        (json.dumps({**hostile(), "kind": "Pod"}).encode(), 400, "'Pod'"),
        (b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}', 400, "request"),
        (b" " * (8 * 1024 * 1024 + 1), 413, "limit is 8388608 bytes"),
    ],
)
def test_what_is_no_review_is_an_http_error(
    server: Server, data: bytes, code: int, says: str
) -> None:
    status, answer, _ = server.request("/validate", data)
    assert status == code
    assert says in json.loads(answer)["message"]


@pytest.mark.parametrize(
    "change",
    [
        {"object": {str(key): key for key in range(10_000)}},
        {"object": json.loads("[" * 800 + "]" * 800)},
        {"object": 10**400},
    ],
)
def test_a_strange_object_never_becomes_allowed(server: Server, change: dict[str, object]) -> None:
    status, answer, _ = server.request("/validate", body(name="n1", **change))
    assert status == 400 or json.loads(answer)["response"]["allowed"] is False


def test_paths_methods_and_content_types_are_checked(server: Server) -> None:
    assert server.request("/validate", body(), "text/plain")[0] == 400
    assert server.request("/validate")[0] == 405
    assert server.request("/validate", body(), method="PUT")[0] == 405
    assert server.request("/livez", b"x")[0] == 405
    assert server.request("/", body())[0] == 404
    assert server.request("/validate/", body())[0] == 404


def test_health_endpoints_answer(server: Server) -> None:
    assert server.request("/livez")[:2] == (200, b"ok")
    assert server.request("/readyz")[:2] == (200, b"ok")
    verbose = server.request("/readyz?verbose")[1].decode()
    assert "[+] self-test" in verbose
    assert "[+] certificate" in verbose


def test_metrics_are_on_their_own_port(server: Server) -> None:
    server.request("/validate", body())
    text = server.metrics()
    assert 'decision="denied",mode="enforce",operation="UPDATE",resource="nodes"' in text
    assert "noderestrict_self_test_ok 1.0" in text
    assert "n1" not in text.replace("process_", "")


def test_metrics_are_openmetrics_for_who_asks_for_that(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.metrics_port, timeout=SECONDS)
    connection.request("GET", "/metrics", headers={"Accept": PROMETHEUS})
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    assert response.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0")
    assert "# TYPE noderestrict_admission_decisions counter\n" in text
    assert "noderestrict_rule_mode{" in text
    assert text.endswith("# EOF\n")
    assert "# EOF" not in server.metrics()


def test_one_line_says_what_the_server_runs_with(tmp_path: Path) -> None:
    flags = (
        "--mode=audit", "--rule-modes=nodes/labels=enforce", "--rules=1.33.4", "--authorizer",
        "--strict-rules=nodes/finalizers", "--feature-gates=ClusterTrustBundle=true",
    )  # fmt: skip
    with serving(tmp_path, *flags) as running:
        (line,) = running.wait_for_log('"starting"')
        (listening,) = running.wait_for_log('"listening"')
        assert running.log.index(line) < running.log.index(listening)
    said = json.loads(line)
    assert {"AuthorizeWithSelectors", "ClusterTrustBundle"} < set(said.pop("feature_gates"))
    assert said.pop("stores") == [str(tmp_path / "state.json")]
    del said["time"]
    assert said == {
        "level": "info",
        "message": "starting",
        "version": __version__,
        "api_server": "",
        "rules": "1.33.4",
        "mode": "audit",
        "rule_modes": {"nodes/labels": "enforce"},
        "strict_rules": ["nodes/finalizers"],
        "authorizer": True,
        "agents": [],
    }


def test_a_refusal_is_one_log_line_without_the_object(server: Server) -> None:
    server.request("/validate", body(uid="find-me", name="n2"))
    lines = [json.loads(line) for line in server.wait_for_log("find-me")]
    assert [line["message"] for line in lines] == ["refused"]
    assert lines[0]["node"] == "n1"
    assert lines[0]["resource"] == "nodes"
    assert lines[0]["code"] == 403


def test_plain_http_and_garbage_on_the_tls_port_close_the_connection(server: Server) -> None:
    for data in (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x00" * 100, b"\x16\x03\x01"):
        with socket.create_connection(("127.0.0.1", server.port), SECONDS) as plain:
            plain.sendall(data)
            plain.shutdown(socket.SHUT_WR)
            plain.settimeout(SECONDS)
            received = b""
            try:
                while chunk := plain.recv(4096):
                    received += chunk
            except ConnectionResetError:
                pass
            assert b"allowed" not in received
    assert server.request("/livez")[0] == 200


def test_connections_are_kept_alive_and_pipelined_requests_answered(server: Server) -> None:
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=server.context)
    for _ in range(3):
        connection.request("POST", "/validate", body(), {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200
        assert response.getheader("Connection") != "close"
        response.read()
    connection.close()
    raw = socket.create_connection(("127.0.0.1", server.port), 5)
    with server.context.wrap_socket(raw, server_hostname="127.0.0.1") as tls:
        tls.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
        data = b""
        while data.count(b"200 OK") < 2:
            data += tls.recv(4096)


def test_sigterm_stops_with_exit_code_0(tmp_path: Path) -> None:
    with serving(tmp_path) as running:
        assert running.stop() == 0


def test_a_changed_pair_is_served_and_a_bad_one_is_not(tmp_path: Path) -> None:
    import datetime as dt

    from noderestrict.serving.certificate_sources import CertificateFiles
    from noderestrict.serving.certificates import Certificates
    from noderestrict.serving.tls_context import TlsOptions
    from noderestrict.telemetry.metrics import Metrics

    ca = authority()
    first = leaf(ca)
    write_pair(tmp_path, first)
    certificates = Certificates([CertificateFiles.in_directory(tmp_path)], TlsOptions(), Metrics())
    now = dt.datetime.now(dt.UTC)
    assert certificates.reload(now)
    served = certificates.pair
    assert not certificates.reload(now)
    other = leaf(ca)
    expired = leaf(ca, lifetime=DAY, now=NOW - 3 * DAY)
    for certificate, key, problem in (
        (other.certificate, first.key, "does not belong"),
        (expired.certificate, expired.key, "expired"),
        (b"", b"", "empty"),
        (first.certificate[:100], first.key, "PEM"),
        (first.certificate, b"nonsense", "key"),
    ):
        (tmp_path / "tls.crt").write_bytes(certificate)
        (tmp_path / "tls.key").write_bytes(key)
        assert not certificates.reload(now)
        assert certificates.pair is served
        assert problem in (certificates.problem or "")
    (tmp_path / "tls.key").unlink()
    assert not certificates.reload(now)
    assert "tls.key" in (certificates.problem or "")
    write_pair(tmp_path, other)
    assert certificates.reload(now)
    assert certificates.pair is not served
    assert certificates.problem is None


def test_a_nodes_certificate_is_no_api_servers_whoever_signed_it(tmp_path: Path) -> None:
    ca = authority()
    (tmp_path / "clients.crt").write_bytes(ca.certificate)
    for name, organization in (("system:node:n1", "system:nodes"), ("kube-apiserver", "")):
        pair = client_leaf(ca, name, organization)
        (tmp_path / f"{name}.pem").write_bytes(pair.certificate + pair.key)
    with serving(tmp_path, "--client-ca-file", str(tmp_path / "clients.crt"), ca=ca) as running:
        running.context.load_cert_chain(tmp_path / "system:node:n1.pem")
        with pytest.raises(OSError):  # noqa: PT011 (which one depends on timing)
            running.request("/livez")
        running.wait_for_log("client rejected")
        running.context = ssl.create_default_context(cadata=ca.certificate.decode())
        running.context.load_cert_chain(tmp_path / "kube-apiserver.pem")
        assert running.request("/livez")[0] == 200


def test_clients_without_a_certificate_are_refused_where_one_is_needed(tmp_path: Path) -> None:
    ca = authority()
    (tmp_path / "clients.crt").write_bytes(ca.certificate)
    flags = ("--client-ca-file", str(tmp_path / "clients.crt"), "--client-allowed-names", "api")
    client = client_leaf(ca, "api")
    other = client_leaf(ca, "other")
    for name, pair in (("api", client), ("other", other)):
        (tmp_path / f"{name}.pem").write_bytes(pair.certificate + pair.key)
    with serving(tmp_path, *flags, ca=ca) as running:
        with pytest.raises(OSError):  # noqa: PT011 (which one depends on timing)
            running.request("/livez")
        running.context.load_cert_chain(tmp_path / "other.pem")
        with pytest.raises(OSError):  # noqa: PT011 (which one depends on timing)
            running.request("/livez")
        running.context = ssl.create_default_context(cadata=ca.certificate.decode())
        running.context.load_cert_chain(tmp_path / "api.pem")
        assert running.request("/livez")[0] == 200
