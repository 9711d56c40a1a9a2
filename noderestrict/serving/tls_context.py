"""TLS contexts of the server, made of checked bytes."""

import os
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from noderestrict.pki.check import KeyPair, KeyPairError
from noderestrict.policy.hostile import refused_as

#: Why OpenSSL refuses RSA keys of less than 2,048 bits.
_TOO_SMALL = ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL")


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """What handshakes depend on besides the pair.

    Attributes:
        client_ca: file with the PEM bundle to verify clients with, or None for any client.
        dns_names: names that the certificate must cover.
        min_version: of TLS.
        ciphers: OpenSSL's names for TLS 1.2, "" for the default.
    """

    client_ca: Path | None = None
    dns_names: Sequence[str] = ()
    min_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    ciphers: str = ""


def context_of(pair: KeyPair, client_ca: bytes | None, options: TlsOptions) -> ssl.SSLContext:
    """Return a context that serves a pair.

    Args:
        pair: a checked one.
        client_ca: PEM bundle that must have signed a client's certificate; None for any client.
        options: of the server.

    Raises:
        KeyPairError: OpenSSL refuses the pair, or the bundle has no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = options.min_version
    if options.ciphers:
        context.set_ciphers(options.ciphers)
    with tempfile.TemporaryDirectory(prefix="noderestrict-", dir=_private_directory()) as name:
        # Copies of the bytes that were checked: files may have changed since.
        file = Path(name) / "pair.pem"
        descriptor = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(pair.key + pair.chain)
        try:
            _load(context, file)
        except ssl.SSLError as error:
            if error.reason not in _TOO_SMALL:
                raise KeyPairError(f"OpenSSL refuses the pair: {error.reason}") from None
            # Go clients accept such keys, and nobody else is meant to connect.
            ciphers = ":".join(cipher["name"] for cipher in context.get_ciphers())
            context.set_ciphers(f"{ciphers}:@SECLEVEL=1")
            _load(context, file)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        trust(context, client_ca)
    return context


def _load(context: ssl.SSLContext, file: Path) -> None:
    # Without a password, OpenSSL would ask the terminal for one.
    context.load_cert_chain(file, password=b"")


def trust(context: ssl.SSLContext, bundle: bytes) -> None:
    """Make a context verify its peers with the certificates of a bundle.

    Raises:
        KeyPairError: it has none, or one that cannot be read.
    """
    nothing = "it holds no CA certificates"
    if not bundle.strip():
        raise KeyPairError(f"{nothing}: it is empty")
    with refused_as(KeyPairError, nothing):
        try:
            context.load_verify_locations(cadata=bundle.decode("ascii", "replace"))
        except ssl.SSLError as error:
            raise KeyPairError(f"{nothing}: {error.reason}") from None
    if not context.cert_store_stats()["x509"]:
        raise KeyPairError(nothing)


def _private_directory() -> str | None:
    # In memory if possible, so that keys do not reach a disk and a read-only root works.
    shared = "/dev/shm"  # noqa: S108 (a fresh private directory is made in it)
    return shared if os.access(shared, os.W_OK) else None
