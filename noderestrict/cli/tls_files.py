"""The certificate files of a server, and the pair that ``--dev`` makes."""

import datetime as dt
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from noderestrict.cli._errors import UsageError
from noderestrict.cli.serve_config import DEV_DIRECTORY, TLS_VERSIONS, ServeConfig

if TYPE_CHECKING:
    from noderestrict.serving.certificates import CertificateFiles

_DEV_NAMES = ("localhost", "127.0.0.1", "::1")
_DEV_LIFETIME = dt.timedelta(days=30)


def certificate_files(config: ServeConfig) -> "CertificateFiles":
    """Return the files that a server presents and checks clients with; ``--dev`` makes its own.

    Raises:
        UsageError: no source of a certificate is chosen, or more than one, or a cipher suite is
            unknown, or the pair for development cannot be written.
    """
    from noderestrict.serving.certificates import CertificateFiles

    if config.client_allowed_names and config.client_ca_file is None:
        raise UsageError("--client-allowed-names needs --client-ca-file")
    certificate, key = _key_pair(config)
    return CertificateFiles(
        certificate,
        key,
        config.client_ca_file,
        config.expected_dns_names,
        TLS_VERSIONS[config.tls_min_version],
        openssl_names(config.tls_cipher_suites),
    )


def _key_pair(config: ServeConfig) -> tuple[Path, Path]:
    """Return the files of certificate and private key."""
    certificate, key, directory = config.tls_cert_file, config.tls_private_key_file, config.tls_dir
    if (certificate is None) != (key is None):
        raise UsageError("--tls-cert-file and --tls-private-key-file are needed together")
    if [certificate is not None, directory is not None, config.dev].count(True) != 1:
        raise UsageError(
            "one certificate is needed: --tls-dir DIR, or --tls-cert-file FILE with "
            "--tls-private-key-file FILE, or --dev"
        )
    if certificate is not None and key is not None:
        return certificate, key
    if directory is None:
        directory = DEV_DIRECTORY
        _make_dev_pair(directory)
    return directory / "tls.crt", directory / "tls.key"


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


def _make_dev_pair(directory: Path) -> None:
    from noderestrict.pki.files import make_own_directory, write_atomically
    from noderestrict.pki.issue import create_authority

    now = dt.datetime.now(dt.UTC)
    authority = create_authority("noderestrict --dev", lifetime=_DEV_LIFETIME, now=now)
    leaf = authority.issue(_DEV_NAMES, lifetime=_DEV_LIFETIME, now=now)
    try:
        make_own_directory(directory)
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
