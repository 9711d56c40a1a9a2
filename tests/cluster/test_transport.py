"""Servers are verified, and proxies are used, as Go does."""

import asyncio
import base64
import contextlib
import ipaddress
import ssl
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from aiohttp.client_proto import ResponseHandler
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from noderestrict.cluster.connection import ClusterError, Connection, ConnectionFailedError
from noderestrict.cluster.transport import environment_proxy, verifying_context
from noderestrict.pki.issue import Leaf
from tests.cluster.test_kubeconfig import config, no_other_configuration
from tests.serving.tls import DAY, NOW, PEM, authority, client_leaf, key_pem, leaf

Object = dict[str, Any]
__all__ = ["no_other_configuration"]


def issued(
    subject: str,
    issuer: tuple[Leaf, ec.EllipticCurvePrivateKey] | None = None,
    *,
    ca: bool = False,
    san: bool = True,
) -> tuple[Leaf, ec.EllipticCurvePrivateKey]:
    """Return a certificate without key identifiers and key usage, as old tools issue them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    signer, by = (key, name) if issuer is None else (
        issuer[1], x509.load_pem_x509_certificate(issuer[0].certificate).subject
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
    )
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
    elif san:
        names = [x509.DNSName(subject), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(signer, hashes.SHA256()).public_bytes(PEM)
    return Leaf(certificate, key_pem(key)), key


@contextlib.asynccontextmanager
async def served(
    folder: Path, pair: Leaf, *, client_ca: bytes | None = None
) -> AsyncIterator[tuple[int, list[Any]]]:
    """Serve TLS; yields the port, and the subject of each client.

    The answer to /slow ends after a request for /finish.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    file = folder / "pair.pem"
    file.write_bytes(pair.certificate + pair.key)
    context.load_cert_chain(file)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=client_ca.decode())
    seen: list[Any] = []
    finish = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        certificate = request.transport.get_extra_info("peercert") or {}
        names = {key: value for [(key, value)] in certificate.get("subject", ())}
        seen.append(names.get("commonName"))
        if request.path == "/words":
            response = web.StreamResponse()
            await response.prepare(request)
            for word in (b"one", b"two", b"three"):
                await response.write(word)
                await asyncio.sleep(0.05)
            return response
        if request.path == "/slow":
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"begun")
            await finish.wait()
            await response.write(b" done")
            return response
        if request.path == "/finish":
            finish.set()
        return web.json_response({})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield runner.addresses[0][1], seen
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def opened(
    folder: Path, port: int, user: Object | None = None, **cluster: Any
) -> AsyncIterator[Connection]:
    server = cluster.pop("server", f"https://127.0.0.1:{port}")
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(config(user, server=server, **cluster)))
    connection = await Connection.open(str(file), None)
    try:
        yield connection
    finally:
        await connection.close()


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_no_connection_is_stricter_than_go() -> None:
    context = verifying_context(None)
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


async def test_a_ca_without_key_identifiers_is_trusted(tmp_path: Path) -> None:
    ca = issued("old CA", ca=True)
    pair, _ = issued("localhost", ca)
    async with (
        served(tmp_path, pair) as (port, _),
        opened(tmp_path, port, certificate_authority_data=encoded(ca[0].certificate)) as connection,
    ):
        assert await connection.get("/x") == b"{}"


async def test_an_intermediate_ca_alone_is_trusted(tmp_path: Path) -> None:
    root = issued("root", ca=True)
    middle = issued("middle", root, ca=True)
    pair, _ = issued("localhost", middle)
    async with (
        served(tmp_path, pair) as (port, _),
        opened(
            tmp_path, port, certificate_authority_data=encoded(middle[0].certificate)
        ) as connection,
    ):
        assert await connection.get("/x") == b"{}"


async def test_a_bundle_may_hold_what_is_no_certificate(tmp_path: Path) -> None:
    ca = authority()
    bundle = "# Zürich\n".encode() + (
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" + ca.certificate
    )
    async with (
        served(tmp_path, leaf(ca)) as (port, _),
        opened(tmp_path, port, certificate_authority_data=encoded(bundle)) as connection,
    ):
        assert await connection.get("/x") == b"{}"


async def test_other_servers_are_not_trusted(tmp_path: Path) -> None:
    ca = authority()
    nameless, _ = issued("127.0.0.1", None, san=False)
    for pair, trusted in (
        (leaf(authority()), ca.certificate),
        (leaf(ca, "other"), ca.certificate),
        # Go looks for names in the SAN alone.
        (nameless, nameless.certificate),
    ):
        async with (
            served(tmp_path, pair) as (port, seen),
            opened(tmp_path, port, certificate_authority_data=encoded(trusted)) as connection,
        ):
            with pytest.raises(ClusterError, match="certificate verify failed"):
                await connection.get("/x")
            assert seen == []


async def test_a_certificate_may_have_the_name_that_is_given(tmp_path: Path) -> None:
    ca = authority()
    trusted: Object = {"certificate_authority_data": encoded(ca.certificate)}
    async with served(tmp_path, leaf(ca, "api.example")) as (port, _):
        async with opened(tmp_path, port, tls_server_name="api.example", **trusted) as connection:
            assert await connection.get("/x") == b"{}"
        async with opened(tmp_path, port, tls_server_name="127.0.0.1", **trusted) as connection:
            with pytest.raises(ClusterError, match="certificate verify failed"):
                await connection.get("/x")


async def test_insecure_skips_the_verification_and_nothing_else_does(tmp_path: Path) -> None:
    async with served(tmp_path, leaf(authority(), "other")) as (port, _):
        async with opened(tmp_path, port, insecure_skip_tls_verify=True) as connection:
            assert await connection.get("/x") == b"{}"
        async with opened(tmp_path, port, insecure_skip_tls_verify=False) as connection:
            with pytest.raises(ClusterError, match="certificate verify failed"):
                await connection.get("/x")


@pytest.mark.parametrize(
    ("cluster", "told"),
    [
        ({"certificate_authority": "none"}, "certificate-authority: {}/none: No such file"),
        ({"certificate_authority": "."}, "certificate-authority: {}: not a regular file"),
        ({"certificate_authority_data": encoded(b"x")}, "certificate-authority-data: no cert"),
    ],
)
async def test_a_ca_that_is_none_is_told(tmp_path: Path, cluster: Object, told: str) -> None:
    with pytest.raises(ConnectionFailedError) as error:
        async with opened(tmp_path, 1, **cluster):
            pass
    assert f"clusters[c].cluster.{told.format(tmp_path)}" in str(error.value)


def pair_in(folder: Path, pair: Leaf) -> Object:
    (folder / "client.crt").write_bytes(pair.certificate)
    (folder / "client.key").write_bytes(pair.key)
    return {"client-certificate": "client.crt", "client-key": "client.key"}


async def test_a_client_certificate_is_renewed_while_requests_go_on(tmp_path: Path) -> None:
    ca = authority()
    trusted: Object = {"certificate_authority_data": encoded(ca.certificate)}
    user = pair_in(tmp_path, client_leaf(ca, "one"))
    async with (
        served(tmp_path, leaf(ca), client_ca=ca.certificate) as (port, seen),
        opened(tmp_path, port, user, **trusted) as connection,
    ):
        access = connection.credentials._access
        assert access is not None
        await connection.get("/x")
        pieces = connection.stream("/slow", {}, inactivity=60)
        assert await anext(pieces) == b"begun"

        # Half of a pair is not used, and does no harm.
        other = client_leaf(ca, "two")
        (tmp_path / "client.crt").write_bytes(other.certificate)
        await connection.credentials._renew(access, demanded=False)
        assert "key values mismatch" in connection.credentials.problem
        assert "client-certificate" in connection.credentials.problem
        await connection.get("/x")

        (tmp_path / "client.key").write_bytes(other.key)
        await connection.credentials._renew(access, demanded=False)
        assert not connection.credentials.problem
        await connection.get("/finish")
        assert [piece async for piece in pieces] == [b" done"]
        await connection.get("/x")
    assert seen == ["one", "one", "one", "two", "two"]


async def test_what_arrives_while_a_stream_gathers_is_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = authority()
    trusted: Object = {"certificate_authority_data": encoded(ca.certificate)}
    read, receive = [], ResponseHandler.data_received

    def received(self: ResponseHandler, data: bytes) -> None:
        read.append(data)
        receive(self, data)

    monkeypatch.setattr(ResponseHandler, "data_received", received)
    async with (
        served(tmp_path, leaf(ca)) as (port, _seen),
        opened(tmp_path, port, **trusted) as connection,
    ):
        pieces = connection.stream("/words", {}, gather=partial(asyncio.sleep, 1))
        assert [piece async for piece in pieces] == [b"one", b"twothree"]
    assert any(b"two" in data and b"three" in data for data in read), read


@pytest.mark.parametrize("broken", ["certificate", "key", "both", "encrypted"])
async def test_a_client_certificate_that_is_none_is_told_without_the_key(
    tmp_path: Path, broken: str
) -> None:
    pair = client_leaf(authority(), "me")
    user = pair_in(tmp_path, pair)
    if broken in ("certificate", "both"):
        (tmp_path / "client.crt").write_text("no certificate")
    if broken in ("key", "both"):
        (tmp_path / "client.key").write_text("hush")
    if broken == "encrypted":
        key = serialization.load_pem_private_key(pair.key, None)
        (tmp_path / "client.key").write_bytes(
            key.private_bytes(
                PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"hush"),
            )
        )
    with pytest.raises(ConnectionFailedError) as error:
        async with opened(tmp_path, 1, user):
            pass
    assert "users[u].user.client-certificate: " in str(error.value)
    assert "OpenSSL refuses certificate and key" in str(error.value)
    assert "hush" not in str(error.value)


async def test_an_embedded_pair_needs_no_place_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a pod whose root is read-only.
    monkeypatch.setenv("TMPDIR", "/proc/none")
    monkeypatch.setattr("tempfile.tempdir", "/proc/none")
    ca = authority()
    pair = client_leaf(ca, "me")
    user = {
        "client-certificate-data": encoded(pair.certificate),
        "client-key-data": encoded(pair.key),
    }
    async with (
        served(tmp_path, leaf(ca), client_ca=ca.certificate) as (port, seen),
        opened(
            tmp_path, port, user, certificate_authority_data=encoded(ca.certificate)
        ) as connection,
    ):
        await connection.get("/x")
        assert seen == ["me"]
        assert connection.credentials.expiry() == (NOW + DAY).replace(microsecond=0).timestamp()


async def test_a_ca_is_read_again_and_again(tmp_path: Path) -> None:
    old, new = authority(), authority()
    file = tmp_path / "ca.crt"
    file.write_bytes(old.certificate)
    async with (
        served(tmp_path, leaf(new)) as (port, _),
        opened(tmp_path, port, certificate_authority="ca.crt") as connection,
    ):
        with pytest.raises(ClusterError, match="certificate verify failed"):
            await connection.get("/x")
        file.write_bytes(old.certificate + new.certificate)
        assert connection.credentials._access is not None
        await connection.credentials._renew(connection.credentials._access, demanded=False)
        assert await connection.get("/x") == b"{}"


# Proxies.


@contextlib.asynccontextmanager
async def proxy() -> AsyncIterator[tuple[int, list[str]]]:
    """Run an HTTP proxy that tunnels everything; yields the port, and the requests."""
    asked: list[str] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        asked.append(head)
        port = int(head.split()[1].rpartition(":")[2])
        far_reader, far = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(pump(reader, far), pump(far_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], asked
    finally:
        server.close()


async def test_a_proxy_is_used_with_its_password_and_the_name_of_the_server(
    tmp_path: Path,
) -> None:
    ca = authority()
    async with (
        proxy() as (at, asked),
        served(tmp_path, leaf(ca, "api.example")) as (port, _),
        opened(
            tmp_path,
            port,
            server=f"https://far.example:{port}",
            proxy_url=f"http://me:pw@127.0.0.1:{at}",
            tls_server_name="api.example",
            certificate_authority_data=encoded(ca.certificate),
        ) as connection,
    ):
        assert await connection.get("/x") == b"{}"
    assert len(asked) == 1
    assert asked[0].startswith(f"CONNECT far.example:{port} ")
    assert f"Proxy-Authorization: Basic {encoded(b'me:pw')}" in asked[0]


@pytest.mark.parametrize(
    ("url", "excluded", "used"),
    [
        ("https://h:6443", "", True),
        ("https://h:6443", "h", False),
        ("https://h:6443", "h:6443", False),
        ("https://h:6443", "h:443", True),
        ("https://a.h:6443", "h", False),
        ("https://a.h:6443", ".h", False),
        ("https://h:6443", ".h", True),
        ("https://a.h:6443", "*.h", False),
        ("https://ah:6443", "h", True),
        ("https://h:6443", "a, *", False),
        ("https://10.1.2.3:6443", "10.0.0.0/8", False),
        ("https://10.1.2.3:6443", "10.0.0.0/16,nonsense/8", True),
        ("https://10.1.2.3:6443", "10.1.2.3", False),
        ("https://10.1.2.3:6443", "10.1.2.3:6443", False),
        ("https://10.1.2.3:6443", "10.1.2", True),
        ("https://[fd00::1]:6443", "fd00::/8", False),
        ("https://[fd00::1]:6443", "fd00::1", False),
        ("https://[fd00::1]:6443", "10.0.0.0/8", True),
        ("https://127.0.0.1:6443", "", False),
        ("https://[::1]:6443", "", False),
        ("https://localhost:6443", "", False),
        ("http://h:80", "", False),
    ],
)
def test_the_environment_names_a_proxy_as_for_go(
    monkeypatch: pytest.MonkeyPatch, url: str, excluded: str, used: bool
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "proxy:3128")
    monkeypatch.setenv("NO_PROXY", excluded)
    assert environment_proxy(url) == ("http://proxy:3128" if used else None)


def test_lower_case_names_of_the_environment_count_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "https://p:1")
    monkeypatch.setenv("no_proxy", "h")
    assert environment_proxy("https://h") is None
    assert environment_proxy("https://g") == "https://p:1"


async def test_a_request_that_takes_too_long_says_so(tmp_path: Path) -> None:
    ca = authority()
    trusted: Object = {"certificate_authority_data": encoded(ca.certificate)}
    async with (
        served(tmp_path, leaf(ca)) as (port, _),
        opened(tmp_path, port, **trusted) as connection,
    ):
        with pytest.raises(ClusterError) as caught:
            await connection.get("/slow", seconds=0.1)
    assert str(caught.value) == "GET /slow: timed out"
