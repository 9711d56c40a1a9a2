"""The certificate files of a server, and the pair that ``--dev`` makes."""

import asyncio
import datetime as dt
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from noderestrict.cli._errors import UsageError
from noderestrict.cli.argument_types import plain_address
from noderestrict.cli.serve_config import DEV_DIRECTORY, TLS_VERSIONS, ServeConfig

if TYPE_CHECKING:
    from noderestrict.serving.certificate_sources import CertificateFiles
    from noderestrict.serving.tls_context import TlsOptions

_DEV_NAMES = ("localhost", "127.0.0.1", "::1")
_DEV_DAYS = 30
_LONGEST_DEV_FILE = 64 * 1024


def tls_options(config: ServeConfig) -> "TlsOptions":
    """Return what handshakes depend on besides the certificate.

    Raises:
        UsageError: a cipher suite is unknown, or clients' names are given without their CA.
    """
    from noderestrict.serving.tls_context import TlsOptions

    if config.client_allowed_names and config.client_ca_file is None:
        raise UsageError("--client-allowed-names needs --client-ca-file")
    return TlsOptions(
        config.client_ca_file,
        config.expected_dns_names,
        TLS_VERSIONS[config.tls_min_version],
        openssl_names(config.tls_cipher_suites),
    )


def certificate_files(config: ServeConfig) -> "CertificateFiles | None":
    """Return the files of the certificate; None if only a Secret is given. ``--dev`` makes its own.

    Raises:
        UsageError: no certificate is given, or more than one besides a Secret, or the pair for
            development cannot be written.
    """
    from noderestrict.serving.certificate_sources import CertificateFiles

    certificate, key, directory = config.tls_cert_file, config.tls_private_key_file, config.tls_dir
    if (certificate is None) != (key is None):
        raise UsageError("--tls-cert-file and --tls-private-key-file are needed together")
    files = [certificate is not None, directory is not None, config.dev].count(True)
    if files > 1 or (config.dev and config.tls_secret) or not (files or config.tls_secret):
        raise UsageError(
            "one certificate is needed: --tls-dir DIR, or --tls-cert-file FILE with "
            "--tls-private-key-file FILE, or --dev; --tls-secret NAMESPACE/NAME may replace or "
            "accompany the files"
        )
    if certificate is not None and key is not None:
        return CertificateFiles(certificate, key)
    if config.dev:
        # Another server may serve the pair that is there. We listen at the other address already.
        if config.metrics_address is not None:
            _check_free(*config.metrics_address, shared=config.share_port)
        _make_dev_pair(DEV_DIRECTORY)
        directory = DEV_DIRECTORY
    return None if directory is None else CertificateFiles.in_directory(directory)


def openssl_names(suites: Sequence[str]) -> str:
    """Return OpenSSL's list of ciphers for Kubernetes' names of TLS 1.2 cipher suites.

    Raises:
        UsageError: a name is not that of a suite, or OpenSSL knows none of them.
    """
    ciphers = ":".join(map(_openssl_name, suites))
    if ciphers:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(ciphers)
        except ssl.SSLError:
            raise UsageError(f"--tls-cipher-suites {','.join(suites)}: none is known") from None
    return ciphers


def _openssl_name(suite: str) -> str:
    exchange, with_, cipher = suite.removeprefix("TLS_").partition("_WITH_")
    if not with_:
        raise UsageError(f"--tls-cipher-suites: {suite!r} is not a TLS 1.2 cipher suite")
    cipher = cipher.removesuffix("_SHA256") if "CHACHA20" in cipher else cipher
    cipher = cipher.replace("AES_128", "AES128").replace("AES_256", "AES256")
    return f"{exchange}_{cipher}".replace("_", "-").removeprefix("RSA-")


def _check_free(host: str, port: int, *, shared: bool) -> None:
    from noderestrict.serving.listener import listening_sockets

    try:
        for one in asyncio.run(listening_sockets(host, port, shared=shared)):
            one.close()
    except OSError as error:
        at = plain_address((host, port))
        raise UsageError(f"--dev: cannot listen on {at}: {error.strerror or error}") from None


def _has_dev_pair(directory: Path, now: dt.datetime) -> bool:
    """Return whether a directory of ours has a pair that is good for a day, in files of its own."""
    from noderestrict.pki.check import KeyPairError, check_pair
    from noderestrict.pki.files import read_regular

    files = [directory / name for name in ("tls.crt", "tls.key", "ca.crt")]
    if any(file.is_symlink() for file in files):
        return False
    try:
        chain, key, ca = (read_regular(file, _LONGEST_DEV_FILE) for file in files)
        check_pair(chain, key, now=now + dt.timedelta(days=1), dns_names=_DEV_NAMES, roots=ca)
    except (OSError, KeyPairError):
        return False
    return True


def _make_dev_pair(directory: Path, lifetime_days: int = _DEV_DAYS) -> None:
    from noderestrict.pki.files import make_own_directory, write_atomically
    from noderestrict.pki.issue import create_authority

    now = dt.datetime.now(dt.UTC)
    try:
        make_own_directory(directory)
        if _has_dev_pair(directory, now):
            return
    except OSError as error:
        raise UsageError(f"--dev: {directory}: {error.strerror or error}") from None
    lifetime = dt.timedelta(days=lifetime_days)
    authority = create_authority("noderestrict --dev", lifetime=lifetime, now=now)
    leaf = authority.issue(_DEV_NAMES, lifetime=lifetime, now=now)
    try:
        # Files that are there are replaced; links are not followed.
        write_atomically(directory / "ca.crt", authority.certificate, mode=0o644)
        write_atomically(directory / "tls.crt", leaf.certificate, mode=0o644)
        write_atomically(directory / "tls.key", leaf.key)
    except OSError as error:
        raise UsageError(f"--dev: {directory}: {error.strerror or error}") from None


def how_to_call(port: int) -> str:
    """Return the commands that send the examples to a server with the pair for development."""
    ca = DEV_DIRECTORY / "ca.crt"
    reviews = sorted(Path("examples").glob("*-review.json")) or [Path("review.json")]
    calls = (
        f"  curl --cacert {ca} -H 'Content-Type: application/json' \\\n"
        f"    --data-binary @{review} https://127.0.0.1:{port}/validate"
        for review in reviews
    )
    return "\n".join(("Call it:", *calls))
