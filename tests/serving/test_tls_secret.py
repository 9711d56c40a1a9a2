"""The pair in a watched Secret: served as soon as it changes, whatever happens in between."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from noderestrict.cli import main
from noderestrict.cluster.reflector import Pace
from noderestrict.pki.issue import Authority, Leaf
from noderestrict.policy.settings import Settings
from noderestrict.replay.state import load_state
from noderestrict.serving.app import App
from noderestrict.serving.certificate_sources import CertificateFiles, Source
from noderestrict.serving.certificates import Certificates
from noderestrict.serving.local import LocalJudge
from noderestrict.serving.server import ServerOptions, StartError, run
from noderestrict.serving.stop import Stop
from noderestrict.serving.tls_context import TlsOptions
from noderestrict.serving.tls_secret import TlsSecret
from noderestrict.telemetry.metrics import Metrics
from tests.cluster.scripted import connected
from tests.serving.clients import EXAMPLES, Client, Tally
from tests.serving.secrets_api import NAME, NAMESPACE, SecretsApi
from tests.serving.tls import DAY, NOW, authority, leaf, write_pair

HOUR = DAY / 24
ROTATIONS = 50
CLIENTS = 20
#: Nothing is read because time has passed: what is served is served because of an event.
NEVER = 10**6


async def no_sleep(_seconds: float) -> None:
    await asyncio.sleep(0.02)


@dataclass
class Following:
    """Certificates that follow a Secret, and perhaps files."""

    api: SecretsApi
    metrics: Metrics
    certificates: Certificates

    @property
    def serial(self) -> str | None:
        return None if self.certificates.pair is None else self.certificates.pair.serial

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"noderestrict_{name}", labels)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110 (of another task)
                await asyncio.sleep(0.002)

    async def serves(self, pair: Leaf) -> None:
        await self.until(lambda: self.serial == serial(pair))


def serial(pair: Leaf) -> str:
    from cryptography import x509

    return f"{x509.load_pem_x509_certificate(pair.certificate).serial_number:x}"


@contextlib.asynccontextmanager
async def following(
    *files: Source, first: Leaf | None = None, options: TlsOptions | None = None
) -> AsyncIterator[Following]:
    api, metrics = SecretsApi(), Metrics()
    if first is not None:
        api.write(first)
    async with connected(api) as connection:
        secret = TlsSecret(connection, NAMESPACE, NAME, metrics, pace=Pace(sleep=no_sleep))
        certificates = Certificates([secret, *files], options or TlsOptions(), metrics)
        tasks = [
            asyncio.create_task(secret.follow(certificates.look_soon)),
            asyncio.create_task(certificates.follow(NEVER)),
        ]
        try:
            yield Following(api, metrics, certificates)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert api.refused == []


async def test_each_new_pair_is_served_because_of_its_event() -> None:
    ca = authority()
    async with following(first=leaf(ca)) as one:
        for _ in range(5):
            pair = leaf(ca)
            one.api.write(pair, ca.certificate)
            await one.serves(pair)
        assert one.certificates.trusted() == ca.certificate
        assert one.value("certificate_problem") == 0
        assert one.value("certificate_source", source="secret") == 1
        assert one.value("store_age_seconds", resource="secrets") is not None
        assert "from Secret ns/tls, valid until" in one.certificates.detail()


BAD: dict[str, Callable[[SecretsApi, Authority], None]] = {
    "another key": lambda api, ca: api.write(Leaf(leaf(ca).certificate, leaf(ca).key)),
    "expired": lambda api, ca: api.write(leaf(ca, lifetime=DAY, now=NOW - 2 * DAY)),
    "empty": lambda api, _: api.write(Leaf(b"", b"")),
    "no key": lambda api, ca: api.write_data({"tls.crt": leaf(ca).certificate}),
    "no certificate": lambda api, ca: api.write_data({"tls.key": leaf(ca).key}),
    "no data": lambda api, _: api.write_object({}),
    "not base64": lambda api, _: api.write_object({"data": {"tls.crt": "%", "tls.key": "%"}}),
    "other types": lambda api, _: api.write_object({"data": [1]}),
    "gone": lambda api, _: api.delete(),
}


@pytest.mark.parametrize("break_", BAD.values(), ids=BAD)
async def test_whatever_is_wrong_with_the_secret_the_last_good_pair_stays_until_it_is_mended(
    break_: Callable[[SecretsApi, Authority], None], caplog: pytest.LogCaptureFixture
) -> None:
    ca = authority()
    first, second = leaf(ca), leaf(ca)
    async with following(first=first) as one:
        await one.serves(first)
        context = one.certificates.context()
        break_(one.api, ca)
        await one.until(lambda: one.value("certificate_problem") == 1)
        assert one.certificates.context() is context
        assert one.serial == serial(first)
        assert "Secret ns/tls: " in (one.certificates.problem or "")
        assert not one.certificates.expired(NOW)
        assert one.value("certificate_reloads_total", result="refused") == 1
        assert "certificate rejected" in caplog.messages
        one.api.write(second)
        await one.serves(second)
        assert one.value("certificate_problem") == 0


async def test_an_outage_changes_nothing_and_what_was_missed_is_served_after_it() -> None:
    ca = authority()
    first, second = leaf(ca), leaf(ca)
    async with following(first=first) as one:
        await one.serves(first)
        await one.until(lambda: one.api.watches == 1)
        one.api.cut()
        one.api.write(second)
        failed = "store_errors_total"
        await one.until(lambda: (one.value(failed, resource="secrets", verb="watch") or 0) > 2)
        assert one.serial == serial(first)
        assert one.value("certificate_problem") == 0
        one.api.down = False
        await one.serves(second)


@pytest.mark.parametrize("newer", ["secret", "files"])
async def test_of_two_good_pairs_the_newer_one_is_served(tmp_path: Path, newer: str) -> None:
    ca = authority()
    old, new = leaf(ca, now=NOW - HOUR), leaf(ca)
    in_secret, in_files = (new, old) if newer == "secret" else (old, new)
    write_pair(tmp_path, in_files)
    async with following(CertificateFiles.in_directory(tmp_path), first=in_secret) as one:
        await one.until(lambda: one.api.watches == 1)
        one.certificates.look_soon()
        await one.serves(new)
        assert one.value("certificate_source", source=newer) == 1
        assert one.value("certificate_loaded_total") is None
        # A still newer one wins, wherever it comes from.
        newest = leaf(ca, now=NOW + HOUR / 4)
        write_pair(tmp_path, newest)
        one.certificates.look_soon()
        assert not one.certificates.reload(NOW)
        assert one.certificates.reload(NOW + HOUR)
        assert one.serial == serial(newest)


async def test_a_newer_pair_that_is_bad_does_not_win(tmp_path: Path) -> None:
    ca = authority()
    write_pair(tmp_path, leaf(ca, now=NOW - HOUR))
    good = CertificateFiles.in_directory(tmp_path)
    async with following(good, first=Leaf(leaf(ca).certificate, leaf(ca).key)) as one:
        await one.until(lambda: one.value("certificate_problem") == 1)
        assert one.value("certificate_source", source="files") == 1
        repaired = leaf(ca)
        one.api.write(repaired)
        await one.serves(repaired)


async def test_once_the_newest_pair_has_expired_another_good_one_is_served(tmp_path: Path) -> None:
    ca = authority()
    long, short = leaf(ca, now=NOW - HOUR), leaf(ca, lifetime=HOUR)
    write_pair(tmp_path, long)
    async with following(CertificateFiles.in_directory(tmp_path), first=short) as one:
        await one.serves(short)
        assert not one.certificates.reload(NOW)
        assert one.certificates.reload(NOW + 2 * HOUR)
        assert one.serial == serial(long)
        assert not one.certificates.expired(NOW + 2 * HOUR)


async def test_a_ca_of_clients_that_is_gone_is_not_trusted_because_the_secret_is_bad(
    tmp_path: Path,
) -> None:
    ca, clients, others = authority(), authority(), authority()
    bundle = tmp_path / "clients.crt"
    bundle.write_bytes(clients.certificate)
    async with following(first=leaf(ca), options=TlsOptions(bundle)) as one:
        await one.until(lambda: one.serial is not None)
        one.api.delete()
        await one.until(lambda: one.value("certificate_problem") == 1)
        bundle.write_bytes(others.certificate)
        one.certificates.look_soon()
        wanted = ssl.PEM_cert_to_DER_cert(others.certificate.decode())
        await one.until(
            lambda: one.certificates.context().get_ca_certs(binary_form=True) == [wanted]
        )


@contextlib.asynccontextmanager
async def running(api: SecretsApi, tls_wait: float = 60) -> AsyncIterator[int]:
    """Serve with the Secret alone; yields the port."""
    metrics = Metrics()
    async with connected(api) as connection:
        secret = TlsSecret(connection, NAMESPACE, NAME, metrics, pace=Pace(sleep=no_sleep))
        certificates = Certificates([secret], TlsOptions(), metrics)
        judge = LocalJudge(Settings.for_version(), load_state([str(EXAMPLES / "state.json")]))
        ports: asyncio.Queue[int] = asyncio.Queue()
        options = ServerOptions(
            "127.0.0.1", 0, tls_wait=tls_wait, shutdown_delay=0, poll_certificates=NEVER
        )
        stop = Stop()
        serving = asyncio.create_task(
            run(
                App(judge, metrics), metrics, certificates, options,
                stop=stop, started=ports.put_nowait,
                background={"TLS secret": lambda: secret.follow(certificates.look_soon)},
            )
        )  # fmt: skip
        port = asyncio.create_task(ports.get())
        await asyncio.wait((serving, port), return_when=asyncio.FIRST_COMPLETED)
        try:
            if serving.done():
                await serving
            yield port.result()
        finally:
            port.cancel()
            if not serving.done():
                stop.ask()
                stop.ask()
            await asyncio.gather(serving, return_exceptions=True)


async def served_at(port: int, context: ssl.SSLContext) -> bytes:
    """Return the certificate that a new connection sees."""
    _, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="localhost"
    )
    try:
        peer: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.close()
    return peer


async def test_no_request_and_no_handshake_fails_while_the_secret_is_updated() -> None:
    ca = authority()
    api, tally = SecretsApi(), Tally()
    api.write(leaf(ca))
    context = ssl.create_default_context(cadata=ca.certificate.decode())
    async with asyncio.timeout(120), running(api) as port:
        clients = [
            Client(port, context, tally, reconnect=5 if number % 2 else 10**9)
            for number in range(CLIENTS)
        ]
        tasks = [asyncio.create_task(client.run(pause=0.02)) for client in clients]
        for _ in range(ROTATIONS):
            pair = leaf(ca)
            api.write(pair, ca.certificate)
            wanted = ssl.PEM_cert_to_DER_cert(pair.certificate.decode())
            while await served_at(port, context) != wanted:  # noqa: ASYNC110 (of the server)
                await asyncio.sleep(0.002)
        for client in clients:
            client.stopping = True
        await asyncio.gather(*tasks)
    assert tally.failures == []
    assert tally.wrong == []
    assert tally.answers.keys() == {200}
    assert tally.answers[200] > CLIENTS


async def test_a_server_waits_for_a_secret_that_does_not_exist_yet() -> None:
    ca = authority()
    api = SecretsApi()

    async def create() -> None:
        while not api.watches:  # noqa: ASYNC110 (of the server)
            await asyncio.sleep(0.002)
        api.write(leaf(ca))

    created = asyncio.create_task(create())
    context = ssl.create_default_context(cadata=ca.certificate.decode())
    async with asyncio.timeout(60), running(api) as port:
        assert await served_at(port, context)
    await created


async def test_a_server_without_rights_on_the_secret_says_so_and_ends() -> None:
    api = SecretsApi()
    api.grants = False
    with pytest.raises(StartError, match=r"Secret ns/tls: GET /api/v1/namespaces/ns/secrets: 403"):
        async with running(api, tls_wait=0.2):
            pass


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--tls-secret", "a/b", "--state", "examples/state.json"), "not with --state"),
        (("--tls-secret", "a/b", "--dev"), "one certificate is needed"),
        (("--state", "examples/state.json"), "one certificate is needed"),
    ],
)
def test_a_source_that_cannot_be_used_is_refused_in_one_line(
    flags: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("text", ["b", "a/", "/b", "a/b/c", "A/b", "a/b?x=", "a/..", "a/b%2f", ""])
def test_what_names_no_secret_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--tls-secret", text])
    assert f"{text!r} is not NAMESPACE/NAME" in capsys.readouterr().err
