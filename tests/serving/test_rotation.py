"""Certificates change under load, and nobody notices."""

import asyncio
import datetime as dt
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from noderestrict.pki.issue import Authority, Leaf
from noderestrict.serving import certificates as module
from noderestrict.serving.certificate_sources import CertificateFiles
from noderestrict.serving.certificates import Certificates
from noderestrict.serving.tls_context import TlsOptions
from noderestrict.telemetry.metrics import Metrics
from tests.serving.clients import EXAMPLES, GOOD, Client, Tally, http
from tests.serving.tls import (
    DAY,
    NOW,
    SECONDS,
    Server,
    authority,
    client_leaf,
    leaf,
    odd_certificates,
    serving,
    write_pair,
)  # fmt: skip

ROTATIONS = 100
CLIENTS = 50
SERVED = '"serving certificate"'
STATE = ("--state", str(EXAMPLES / "state.json"))


def swap(directory: Path, number: int, certificate: bytes, key: bytes) -> None:
    """Change a mounted Secret as the kubelet does."""
    data = directory / f"..{number}"
    data.mkdir()
    (data / "tls.crt").write_bytes(certificate)
    (data / "tls.key").write_bytes(key)
    link = directory / "..data_tmp"
    link.symlink_to(data.name)
    link.replace(directory / "..data")
    for name in ("tls.crt", "tls.key"):
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")


@pytest.fixture
def ca() -> Authority:
    return authority()


@pytest.fixture
def mounted(tmp_path: Path, ca: Authority) -> Path:
    pair = leaf(ca)
    swap(tmp_path, 0, pair.certificate, pair.key)
    return tmp_path


@pytest.fixture
def server(mounted: Path, ca: Authority) -> Iterator[Server]:
    with serving(mounted, *STATE, "--tls-poll", "0.02", ca=ca, state=False) as running:
        yield running


async def until_served(server: Server, times: int) -> None:
    async with asyncio.timeout(SECONDS):
        while sum(SERVED in line for line in server.log) < times:  # noqa: ASYNC110 (another process)
            await asyncio.sleep(0.01)


async def test_no_request_and_no_handshake_fails_while_certificates_rotate(
    server: Server, mounted: Path, ca: Authority
) -> None:
    tally = Tally()
    clients = [
        # Half of them connect often, the others keep one connection over many rotations.
        Client(server.port, server.context, tally, reconnect=20 if number % 2 else 10**9)
        for number in range(CLIENTS)
    ]
    tasks = [asyncio.create_task(client.run(pause=0.05)) for client in clients]
    for number in range(1, ROTATIONS + 1):
        pair = leaf(ca)
        swap(mounted, number, pair.certificate, pair.key)
        await until_served(server, number + 1)
    for client in clients:
        client.stopping = True
    await asyncio.gather(*tasks)
    assert tally.failures == []
    assert tally.wrong == []
    assert tally.answers.keys() == {200}
    assert tally.answers[200] > CLIENTS


def bad_pairs(ca: Authority) -> Iterator[tuple[str, Leaf]]:
    good, other = leaf(ca), leaf(ca)
    yield "is empty", Leaf(b"", good.key)
    yield "", Leaf(good.certificate[: len(good.certificate) // 2], good.key)
    yield "", Leaf(good.certificate, good.key[: len(good.key) // 2])
    yield "", Leaf(good.certificate, other.key)
    yield "expired", leaf(ca, lifetime=DAY, now=NOW - dt.timedelta(days=3))
    yield "", Leaf(good.key, good.certificate)


async def test_a_bad_pair_is_told_once_and_the_good_one_stays(
    server: Server, mounted: Path, ca: Authority
) -> None:
    serial = server.log[0]
    for number, (_, pair) in enumerate(bad_pairs(ca), start=1):
        swap(mounted, number, pair.certificate, pair.key)
        async with asyncio.timeout(SECONDS):
            while True:
                told = [line for line in server.log if "certificate rejected" in line]
                if len(told) >= number:
                    break
                await asyncio.sleep(0.01)
        assert len(told) == number
        assert server.request("/livez")[0] == 200
    assert "expired" in "".join(told)
    assert sum(SERVED in line for line in server.log) == 1, serial
    pair = leaf(ca)
    swap(mounted, 99, pair.certificate, pair.key)
    await until_served(server, 2)


def test_an_unreadable_key_is_told_and_the_good_one_stays(server: Server, mounted: Path) -> None:
    (mounted / "..data" / "tls.key").unlink()
    assert "tls.key" in server.wait_for_log("certificate rejected")[0]
    assert server.request("/livez")[0] == 200


def test_a_missing_certificate_is_waited_for(tmp_path: Path, ca: Authority) -> None:
    pair = leaf(ca)
    refusals: list[str] = []

    def appear(line: str) -> None:
        if "certificate rejected" in line and not refusals:
            refusals.append(line)
            swap(tmp_path, 0, pair.certificate, pair.key)

    (tmp_path / "tls.crt").symlink_to("..data/tls.crt")
    (tmp_path / "tls.key").symlink_to("..data/tls.key")
    with serving(tmp_path, ca=ca, pair=False, on_line=appear) as server:
        assert server.request("/livez")[0] == 200
    assert refusals


def no_file(path: Path) -> None:
    path.unlink()


def empty_file(path: Path) -> None:
    path.write_bytes(b"")


def white_space(path: Path) -> None:
    path.write_bytes(b" \n\n")


def no_pem(path: Path) -> None:
    path.write_bytes(b"\x00\xff" * 1000)


def half_a_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def garbage_der(path: Path) -> None:
    path.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def a_huge_file(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n" * 2**21)


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def a_link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


BREAKING = [
    no_file, empty_file, white_space, no_pem, half_a_file, garbage_der, a_huge_file, a_directory,
    a_fifo, a_device, a_link_to_itself,
]  # fmt: skip


def followed(directory: Path) -> tuple[Certificates, Metrics]:
    """Return certificates that serve a good pair and verify clients."""
    ca = authority()
    write_pair(directory, leaf(ca))
    (directory / "clients.crt").write_bytes(ca.certificate)
    metrics = Metrics()
    files = CertificateFiles.in_directory(directory)
    certificates = Certificates([files], TlsOptions(directory / "clients.crt"), metrics)
    assert certificates.reload(NOW)
    return certificates, metrics


def refused(certificates: Certificates, metrics: Metrics, times: int = 1) -> None:
    """Look at the files twice: they are refused, told once, and what was served still is."""
    pair, current = certificates.pair, certificates.context()
    for _ in range(2):
        assert not certificates.reload(NOW)
    assert certificates.problem
    assert certificates.pair is pair
    assert certificates.context() is current
    assert not certificates.expired(NOW)
    name, result = "noderestrict_certificate_reloads_total", {"result": "refused"}
    assert metrics.registry.get_sample_value(name, result) == times
    assert metrics.registry.get_sample_value("noderestrict_certificate_problem") == 1


@pytest.mark.parametrize("name", ["tls.crt", "tls.key", "clients.crt"])
@pytest.mark.parametrize("break_", BREAKING)
def test_a_file_that_cannot_be_used_is_refused_and_the_last_good_one_stays(
    tmp_path: Path, name: str, break_: Callable[[Path], None]
) -> None:
    certificates, metrics = followed(tmp_path)
    break_(tmp_path / name)
    refused(certificates, metrics)


def test_a_certificate_that_a_library_chokes_on_is_refused_and_the_last_good_one_stays(
    tmp_path: Path,
) -> None:
    certificates, _ = followed(tmp_path)
    for _, chain, key in odd_certificates():
        write_pair(tmp_path, Leaf(chain, key))
        assert not certificates.reload(NOW)
        assert certificates.problem
        assert not certificates.expired(NOW)
    write_pair(tmp_path, leaf(authority()))
    assert certificates.reload(NOW)
    assert certificates.problem is None


@pytest.mark.parametrize("function", ["check_pair", "context_of"])
def test_an_error_that_nobody_thought_of_is_a_refusal_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    certificates, metrics = followed(tmp_path)
    write_pair(tmp_path, leaf(authority()))

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("nobody thought of it")

    monkeypatch.setattr(module, function, broken)
    refused(certificates, metrics)
    assert "ZeroDivisionError: nobody thought of it" in (certificates.problem or "")


async def test_a_running_server_survives_a_client_ca_file_without_content(
    tmp_path: Path, ca: Authority
) -> None:
    bundle = tmp_path / "clients.crt"
    bundle.write_bytes(ca.certificate)
    flags = ("--client-ca-file", str(bundle), "--tls-poll", "0.02")
    with serving(tmp_path, *flags, ca=ca) as server:
        bundle.write_bytes(b"")
        assert "clients.crt" in server.wait_for_log("certificate rejected")[0]
        assert 'certificate_reloads_total{result="refused"} 1.0' in server.metrics()
        bundle.write_bytes(ca.certificate + leaf(ca).certificate)
        await until_served(server, 2)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_who_was_verified_by_a_ca_that_is_gone_resumes_no_session(
    tmp_path: Path, ca: Authority, version: ssl.TLSVersion
) -> None:
    bundle, credential = tmp_path / "clients.crt", tmp_path / "api.pem"
    bundle.write_bytes(ca.certificate)
    pair = client_leaf(ca, "kube-apiserver")
    credential.write_bytes(pair.certificate + pair.key)
    flags = ("--client-ca-file", str(bundle), "--tls-poll", "0.02")
    with serving(tmp_path, *flags, ca=ca) as server:
        context = ssl.create_default_context(cadata=ca.certificate.decode())
        context.load_cert_chain(credential)
        context.maximum_version = version

        def answer(session: ssl.SSLSession | None = None) -> tuple[bytes, ssl.SSLSession | None]:
            with (
                socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS) as plain,
                context.wrap_socket(plain, server_hostname="localhost", session=session) as tls,
            ):
                tls.sendall(http(GOOD))
                return tls.recv(4096), tls.session

        first, session = answer()
        assert b'"allowed":true' in first
        bundle.write_bytes(authority().certificate)
        end = time.monotonic() + SECONDS
        while sum(SERVED in line for line in server.log) < 2:
            assert time.monotonic() < end
            time.sleep(0.01)
        # Which way it is refused depends on timing.
        refused_with: type[Exception] | bytes
        try:
            refused_with, _ = answer(session)
        except OSError as error:
            refused_with = type(error)
        assert refused_with == b"" or isinstance(refused_with, type)
