"""Every kind of pair has one verdict: that of a Go client."""

import asyncio
import contextlib
import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from noderestrict.cli import main
from noderestrict.doctor.checks.certificate import verdict
from noderestrict.doctor.cluster import Options
from noderestrict.pki import path, system_roots
from noderestrict.pki.check import KeyPair, KeyPairError, check_pair
from noderestrict.pki.parsed import Parsed
from noderestrict.serving.certificate_sources import CertificateFiles
from noderestrict.serving.certificates import Certificates
from noderestrict.serving.tls_context import TlsOptions, context_of
from noderestrict.telemetry.metrics import Metrics
from tests.pki.pairs import (
    CA_EXTENSIONS,
    RECORDED,
    Case,
    Pair,
    asked,
    authority,
    cases,
    has_go,
    system_roots_of_go,
)
from tests.serving.tls import NOW

CASES = list(cases())
GO = json.loads(RECORDED.read_text())


def named(case: Case) -> str:
    return case.name


def checked(case: Case, roots: bytes | None = None) -> KeyPair | None:
    """Return the pair, None if it is refused."""
    hosts = () if roots is None else (case.host,)
    try:
        return check_pair(case.chain, case.key, now=NOW, dns_names=hosts, roots=roots)
    except KeyPairError:
        return None


def test_cases_have_names_of_their_own() -> None:
    assert sorted(case.name for case in CASES) == sorted(GO)


@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_pair_is_served_unless_no_go_client_could_accept_it(case: Case) -> None:
    pair = checked(case)
    if pair is None:
        assert case.pair is Pair.BAD
    else:
        assert case.pair is (Pair.ODD if pair.warnings else Pair.GOOD), pair.warnings
        # OpenSSL serves whatever the verdict lets through.
        context_of(pair, None, TlsOptions())


@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_call_is_accepted_as_go_does(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in system_roots_of_go().items():
        monkeypatch.setenv(name, value)
    roots = case.roots or system_roots.system_roots()
    assert (checked(case, roots) is not None) == case.accepted
    assert (GO[case.name] == "") == (case.accepted and not case.mended), GO[case.name]
    if case.pair is Pair.BAD:
        assert GO[case.name]


@pytest.mark.parametrize("case", CASES, ids=named)
def test_serve_certs_check_and_doctor_have_the_same_verdict(
    case: Case,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in system_roots_of_go().items():
        monkeypatch.setenv(name, value)
    (tmp_path / "tls.crt").write_bytes(case.chain)
    (tmp_path / "tls.key").write_bytes(case.key)
    metrics = Metrics()
    certificates = Certificates([CertificateFiles.in_directory(tmp_path)], TlsOptions(), metrics)
    assert certificates.reload(NOW) == (case.pair is not Pair.BAD)
    served_with = metrics.registry.get_sample_value("noderestrict_certificate_warnings")
    assert bool(served_with) == (case.pair is Pair.ODD)
    names = ("--dns-names", case.host) if case.accepted else ()
    code = main(["certs", "check", "--directory", str(tmp_path), *names])
    output = capsys.readouterr().out
    if case.pair is Pair.BAD:
        assert code == 1
        return
    if case.accepted:
        assert code == 0, output
    assert ("warning: " in output) == (case.pair is Pair.ODD)
    assert certificates.pair is not None
    with served({"": certificates.pair}) as addresses:
        host, _, port = addresses[""].rpartition(":")
        finding = asyncio.run(
            verdict("webhook", case.roots, case.host, (host, int(port)), Options())
        )
    # What was left out or repeated is no longer seen.
    fine = ("pass", "warn") if case.pair is Pair.ODD else ("pass",)
    assert finding.status in (fine if case.accepted else ("fail",)), finding.message


@contextlib.contextmanager
def served(pairs: Mapping[str, KeyPair]) -> Iterator[dict[str, str]]:
    """Serve pairs as the server does; yields the address of each by its name."""
    listeners = {name: socket.create_server(("127.0.0.1", 0)) for name in pairs}
    ports = {name: listener.getsockname()[1] for name, listener in listeners.items()}

    def serve(listener: socket.socket, context: ssl.SSLContext) -> None:
        with contextlib.suppress(OSError), listener:
            connection, _ = listener.accept()
            with connection, context.wrap_socket(connection, server_side=True) as tls:
                tls.recv(1)

    threads = [
        threading.Thread(
            target=serve, args=(listener, context_of(pairs[name], None, TlsOptions())), daemon=True
        )
        for name, listener in listeners.items()
    ]
    for thread in threads:
        thread.start()
    try:
        yield {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    finally:
        for listener in listeners.values():
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(30)


@pytest.mark.skipif(not has_go(), reason="there is no go on the PATH")
def test_a_go_client_says_what_is_recorded() -> None:
    again = asked(CASES)
    assert {name for name, error in again.items() if not error} == {
        name for name, error in GO.items() if not error
    }


@pytest.mark.skipif(not has_go(), reason="there is no go on the PATH")
def test_a_go_client_accepts_what_is_served_as_the_verdict_says() -> None:
    pairs = {case.name: pair for case in CASES if (pair := checked(case)) is not None}
    assert len(pairs) > len(CASES) / 2
    with served(pairs) as addresses:
        found = asked([case for case in CASES if case.name in pairs], addresses)
    assert {name for name, error in found.items() if not error} == {
        case.name for case in CASES if case.name in pairs and case.accepted
    }


def test_a_chain_made_to_take_long_is_judged_with_few_signatures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Each of them may have issued any other, and the leaf.
    ca = authority("loop")
    loops = [ca.issue("loop", kind="p384", extensions=CA_EXTENSIONS).pem for _ in range(300)]
    others = [authority("loop").pem for _ in range(3)]
    leaf = ca.issue()
    verified = 0

    def count(issued: Parsed, issuer: Parsed) -> str:
        nonlocal verified
        verified += 1
        return "no"

    monkeypatch.setattr(path, "_signature_problem", count)
    chain = leaf.pem + b"".join((*loops, *others))
    for roots in (None, b"".join((*loops, *others))):
        with contextlib.suppress(KeyPairError):
            check_pair(chain, leaf.key, now=NOW, roots=roots)
    assert verified <= 200


def test_what_is_wrong_is_said_in_words() -> None:
    said = {}
    for case in CASES:
        try:
            check_pair(case.chain, case.key, now=NOW, dns_names=[case.host], roots=case.roots)
        except KeyPairError as error:
            said[case.name] = str(error)
    assert not any("PRIVATE" in text or "\n" in text for text in said.values())
    for name, pattern in {
        "key p224": r"has a key on secp224r1, which TLS clients in Go do not support",
        "key secp256k1": r"its key is on secp256k1, a curve that Go does not know",
        "no SAN": r"no DNS name and no IP address .* ignore its common name",
        "expired intermediate": r"intermediate' expired at ",
        "intermediate missing": r"nothing that is trusted issued 'CN=leaf'",
        "root for clients": r"the extended key usage of 'CN=for clients' lacks serverAuth",
        "constraint: excluded": r"'CN=constrained' may not sign for a.example",
        "path length 0": r"'CN=root of 0' allows 0 intermediates",
        "signed with SHA-1": r"the certificate is signed with SHA-1",
        "host b.a.svc": r"the certificate is for a.svc, 127.0.0.1, ::1; it does not cover b.a.svc",
    }.items():
        assert re.search(pattern, said[name]), said[name]
