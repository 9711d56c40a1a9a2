"""Certificates and a server process for tests."""

import base64
import datetime as dt
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from noderestrict.pki.files import write_atomically
from noderestrict.pki.issue import Authority, Leaf, create_authority

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
#: After which what should come soon is given up; no machine is so slow.
SECONDS = 120
PEM = serialization.Encoding.PEM
FORMATS = serialization.PrivateFormat
PLAIN = serialization.NoEncryption()
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | dsa.DSAPrivateKey


def authority() -> Authority:
    return create_authority("test CA", lifetime=30 * DAY, now=NOW)


def leaf(ca: Authority, *names: str, lifetime: dt.timedelta = DAY, now: dt.datetime = NOW) -> Leaf:
    return ca.issue(names or ("localhost", "127.0.0.1"), lifetime=lifetime, now=now)


def client_leaf(
    ca: Authority,
    common_name: str,
    organization: str = "",
    *more_names: str,
    not_after: dt.datetime = NOW + DAY,
) -> Leaf:
    """Return a client certificate, such as a kubelet's."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.load_pem_x509_certificate(ca.certificate)
    ca_key = serialization.load_pem_private_key(ca.key, None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization:
        subject.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    subject += [x509.NameAttribute(NameOID.COMMON_NAME, name) for name in more_names]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(not_after)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return Leaf(certificate.public_bytes(serialization.Encoding.PEM), pem)


def self_signed(
    key: Key,
    names: Sequence[str] = ("localhost",),
    usage: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.SERVER_AUTH,
) -> bytes:
    """Return a self-signed certificate."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
    )
    if names:
        general = [x509.DNSName(name) for name in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(PEM)


def odd_certificates() -> Iterator[tuple[str, bytes, bytes]]:
    """Yield certificates that libraries choke on, each with its key and what is odd about it."""
    key = ec.generate_private_key(ec.SECP256R1())
    good = self_signed(key)
    der = x509.load_pem_x509_certificate(good).public_bytes(serialization.Encoding.DER)

    def changed(old: bytes, new: bytes) -> bytes:
        assert old in der
        body = base64.encodebytes(der.replace(old, new))
        return b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n"

    pem = key_pem(key)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    twice: list[x509.Extension[x509.ExtensionType]] = [x509.Extension(names.oid, False, names)] * 2
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW - DAY, NOW + DAY, twice)
    yield "two SANs", builder.sign(key, hashes.SHA256()).public_bytes(PEM), pem
    yield "unknown kind of key", changed(b"\x2a\x86\x48\xce\x3d\x02\x01", b"\x2a" * 7), pem
    yield "unknown curve", changed(b"\x2a\x86\x48\xce\x3d\x03\x01\x07", b"\x2a" * 8), pem
    yield "point that is on no curve", changed(der[200:220], b"\x01" * 20), pem
    for tag in (b"\xa3", b"\xa5", b"\xa0", b"\x84", b"\x87", b"\x9f"):
        yield f"SAN of type {tag.hex()}", changed(b"\x82\tlocalhost", tag + b"\tlocalhost"), pem
    yield "version 9", changed(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x08"), pem
    body = good.split(b"\n", 1)[0] + b"\n" + b"AAAA\n" * 20 + good.rsplit(b"\n", 2)[1] + b"\n"
    yield "DER that is none", body, pem
    yield "a key that is none", good, good


def key_pem(key: Key, form: serialization.PrivateFormat = FORMATS.PKCS8) -> bytes:
    return key.private_bytes(PEM, form, PLAIN)


def write_pair(directory: Path, pair: Leaf) -> None:
    write_atomically(directory / "tls.crt", pair.certificate)
    write_atomically(directory / "tls.key", pair.key)


@dataclass
class Server:
    """A running server process."""

    process: subprocess.Popen[str]
    port: int
    context: ssl.SSLContext
    log: list[str]
    metrics_port: int = 0

    def request(
        self,
        path: str,
        body: bytes | None = None,
        content_type: str = "application/json",
        method: str | None = None,
    ) -> tuple[int, bytes, dict[str, str]]:
        """Return status, body and headers."""
        request = urllib.request.Request(
            f"https://127.0.0.1:{self.port}{path}",
            body,
            {"Content-Type": content_type},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, context=self.context, timeout=SECONDS) as response:
                return response.status, response.read(), dict(response.headers)
        except urllib.error.HTTPError as error:
            return error.code, error.read(), dict(error.headers)

    def metrics(self) -> str:
        """Return what the server exposes."""
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=SECONDS) as response:
            text: str = response.read().decode()
            return text

    def wait_for_log(self, text: str) -> list[str]:
        """Return the log lines with a text, once there is one."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            found = [line for line in self.log if text in line]
            if found:
                return found
            time.sleep(0.01)
        raise AssertionError(f"{text!r} is not in the log: {self.log}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(SECONDS)


@contextmanager
def serving(
    directory: Path,
    *flags: str,
    ca: Authority | None = None,
    state: bool = True,
    pair: bool = True,
    files: int = 0,
    on_line: Callable[[str], None] = lambda _line: None,
    cwd: Path | None = None,
) -> Iterator[Server]:
    """Run ``noderestrict serve`` with a pair in a directory (made if there is none).

    With ``files`` it may open no more than so many.
    ``on_line`` is called with each line of the log as it comes; ``cwd`` is another checkout.
    """
    ca = ca or authority()
    if pair and not (directory / "tls.crt").exists():
        write_pair(directory, leaf(ca))
    empty = directory / "state.json"
    empty.write_text('{"kind": "List", "items": []}')
    if state:
        flags = ("--state", str(empty), *flags)
    limited = ("sh", "-c", 'ulimit -n "$0" && exec "$@"', str(files)) if files else ()
    process = subprocess.Popen(
        [
            *limited, sys.executable, "-m", "noderestrict", "serve", "--tls-dir", str(directory),
            "--bind-address", "127.0.0.1", "--port", "0", "--metrics-address", "127.0.0.1:0",
            "--shutdown-delay", "0.2",
            # A slow machine is not a slow client.
            "--header-timeout", "60", "--body-timeout", "60", *flags,
        ],
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={
            **{key: value for key, value in os.environ.items() if "NODERESTRICT" not in key},
            # The cluster client leaves the keys of a kubeconfig there when it is killed.
            "TMPDIR": str(directory),
        },
    )  # fmt: skip
    assert process.stderr is not None
    log: list[str] = []
    ready = threading.Event()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            log.append(line)
            on_line(line)
            if '"listening"' in line:
                ready.set()
        ready.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert ready.wait(SECONDS), log
        text = "".join(log)
        port = re.search(r'"listening".*"port":(\d+)', text)
        metrics = re.search(r'"metrics".*"port":(\d+)', text)
        assert port, text
        assert metrics, text
        context = ssl.create_default_context(cadata=ca.certificate.decode())
        yield Server(process, int(port[1]), context, log, int(metrics[1]))
    finally:
        process.kill()
        process.wait()
        reader.join(10)
        process.stderr.close()
