"""What the doctor finds of a server that verifies its clients, or does not."""

import asyncio
from pathlib import Path

import pytest

from noderestrict.doctor.checks.client_verification import check_clients, demands_certificate
from noderestrict.doctor.cluster import Options
from noderestrict.doctor.findings import Finding
from tests.serving.tls import authority, serving


def found(address: tuple[str, int], failure: str = "") -> Finding:
    (finding,) = asyncio.run(check_clients([address], failure, Options()))
    return finding


def test_a_server_that_answers_anyone_is_a_warning(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        finding = found(("127.0.0.1", server.port))
    assert finding.status == "warn"
    assert "answers any client" in finding.message
    assert "components/client-verification" in finding.remedy


def test_a_server_that_verifies_passes_unless_the_api_server_cannot_ask_it(tmp_path: Path) -> None:
    (tmp_path / "clients.crt").write_bytes(authority().certificate)
    with serving(tmp_path, "--client-ca-file", str(tmp_path / "clients.crt")) as server:
        at = ("127.0.0.1", server.port)
        assert found(at).status == "pass"
        for failure in (
            'failed calling webhook "leases.noderestrict.io": Post "https://x": EOF',
            'failed calling webhook "leases.noderestrict.io": remote error: tls: bad certificate',
        ):
            finding = found(at, failure)
            assert finding.status == "fail"
            assert failure in finding.message
            assert "client-verification/api-server" in finding.remedy
        assert found(at, "context deadline exceeded").status == "unknown"


def test_a_server_that_is_away_or_does_not_speak_tls_leaves_it_unknown(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        plain = ("127.0.0.1", server.metrics_port)
        assert asyncio.run(demands_certificate(plain)) is None
    assert asyncio.run(demands_certificate(plain)) is None
    assert found(plain).status == "unknown"


@pytest.mark.parametrize(
    ("failure", "findings"), [("remote error: tls: certificate required", 1), ("EOF", 0), ("", 0)]
)
def test_without_access_to_the_server_only_a_clear_rejection_is_reported(
    failure: str, findings: int
) -> None:
    assert len(asyncio.run(check_clients([], failure, Options()))) == findings
