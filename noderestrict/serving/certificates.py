"""The serving certificate: read, checked, reloaded when it changes.

Contents are compared, not file times: a mounted Secret is swapped by a symbolic link, which file
watchers miss. New handshakes use the newest good pair; open connections are not affected.
"""

import asyncio
import datetime as dt
import os
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from noderestrict.pki.check import KeyPair, KeyPairError, check_pair
from noderestrict.pki.files import read_regular
from noderestrict.policy.hostile import brief, is_failure, refused_as
from noderestrict.telemetry.logs import LOGGER
from noderestrict.telemetry.metrics import Metrics

_WARN_BEFORE = dt.timedelta(days=7)
_RETRY_SECONDS = 0.5
#: A bundle of all public CAs has a quarter of this size.
_LONGEST_FILE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where the pair is, and how it is served.

    Attributes:
        certificate: PEM chain, leaf first.
        key: PEM.
        client_ca: PEM bundle to verify clients with, or None for any client.
        dns_names: names that the certificate must cover.
        min_version: of TLS.
        ciphers: OpenSSL's names for TLS 1.2, "" for the default.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None
    dns_names: Sequence[str] = ()
    min_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    ciphers: str = ""

    @classmethod
    def in_directory(cls, directory: Path) -> "CertificateFiles":
        """Return the files of a mounted Secret of type kubernetes.io/tls."""
        return cls(directory / "tls.crt", directory / "tls.key")


Contents = tuple[bytes, bytes, bytes | None]


class Certificates:
    """A TLS context for each handshake, whose certificate follows its files."""

    def __init__(self, files: CertificateFiles, metrics: Metrics) -> None:
        self._files = files
        self._metrics = metrics
        self._seen: Contents | None = None
        self._problem: str | None = None
        self._current: ssl.SSLContext | None = None
        self.pair: KeyPair | None = None

    def context(self) -> ssl.SSLContext:
        """Return the context of the newest good pair, for the next handshake.

        Each has sessions of its own: who was verified by a CA that is gone cannot resume one.

        Raises:
            KeyPairError: there is none yet.
        """
        if self._current is None:
            raise KeyPairError("there is no good pair yet")
        return self._current

    def _empty_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self._files.min_version
        if self._files.ciphers:
            context.set_ciphers(self._files.ciphers)
        if self._files.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    @property
    def problem(self) -> str | None:
        """Why the current files are not served; None if they are."""
        return self._problem

    def expired(self, now: dt.datetime) -> bool:
        """Return whether the served certificate has expired, or there is none."""
        return self.pair is None or now >= self.pair.not_after

    def reload(self, now: dt.datetime) -> bool:
        """Read the files, and serve the pair in them if it is new and good.

        Args:
            now: an aware time.

        Returns:
            Whether a new pair is served.
        """
        try:
            contents = self._read()
            if contents == self._seen and self._problem is None:
                self._warn(now)
                return False
            pair = check_pair(contents[0], contents[1], now=now, dns_names=self._files.dns_names)
            current = self._build(contents)
        except KeyPairError as error:
            self._refuse(str(error))
            return False
        except OSError as error:
            self._refuse(f"{error.filename or 'the files'}: {error.strerror or error}")
            return False
        except BaseException as error:
            if not is_failure(error):
                raise
            # Whatever went wrong, keep serving the last good pair.
            self._refuse(f"the files cannot be used: {brief(error)}")
            return False
        self._seen, self._current, self.pair = contents, current, pair
        self._problem = None
        self._metrics.certificate_problem.set(0)
        self._metrics.certificate_loaded.inc()
        self._metrics.certificate_expiry.set(pair.not_after.timestamp())
        LOGGER.info(
            "serving certificate",
            extra={
                "file": str(self._files.certificate),
                "names": list(pair.names),
                "not_after": pair.not_after.isoformat(),
                "serial": pair.serial,
            },
        )
        self._warn(now)
        return True

    async def loaded_within(self, seconds: float) -> bool:
        """Load the first pair; return whether that worked within so many seconds."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not await asyncio.to_thread(self.reload, dt.datetime.now(dt.UTC)):
            left = end - loop.time()
            if left <= 0:
                return False
            await asyncio.sleep(min(_RETRY_SECONDS, left))
        return True

    async def follow(self, seconds: float) -> None:
        """Reload every so many seconds, until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            # In a thread: a check takes milliseconds, and a disk may take longer.
            await asyncio.to_thread(self.reload, dt.datetime.now(dt.UTC))

    def _warn(self, now: dt.datetime) -> None:
        if self.pair is not None and self.pair.not_after - now < _WARN_BEFORE:
            LOGGER.warning(
                "the served certificate expires soon",
                extra={"not_after": self.pair.not_after.isoformat()},
            )

    def _refuse(self, problem: str) -> None:
        # Once for each problem, not on every poll.
        if problem != self._problem:
            self._metrics.certificate_refused.inc()
            LOGGER.error(
                "certificate rejected",
                extra={
                    "file": str(self._files.certificate),
                    "problem": problem,
                    "serving": "the last good one" if self._current else "nothing",
                },
            )
        self._problem = problem
        self._metrics.certificate_problem.set(1)

    def _read(self) -> Contents:
        # Resolved once, so that both files come from the same side of a swap of ``..data``.
        certificate = self._files.certificate
        key = self._files.key
        if certificate.parent == key.parent:
            data = certificate.parent / "..data"
            resolved = (data if data.exists() else certificate.parent).resolve(strict=True)
            certificate, key = resolved / certificate.name, resolved / key.name
        client_ca = self._files.client_ca
        return (
            read_regular(certificate, _LONGEST_FILE),
            read_regular(key, _LONGEST_FILE),
            read_regular(client_ca, _LONGEST_FILE) if client_ca else None,
        )

    def _build(self, contents: Contents) -> ssl.SSLContext:
        chain, key, client_ca = contents
        context = self._empty_context()
        with tempfile.TemporaryDirectory(prefix="noderestrict-", dir=_private_directory()) as name:
            # Load copies of the bytes that were checked: the files may have changed since.
            pair = Path(name) / "pair.pem"
            descriptor = os.open(pair, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(key.strip() + b"\n" + chain)
            try:
                # Without a password, OpenSSL would ask the terminal for one.
                context.load_cert_chain(pair, password=b"")
            except ssl.SSLError as error:
                raise KeyPairError(f"OpenSSL refuses the pair: {error.reason}") from None
        if client_ca is not None:
            _trust(context, client_ca, self._files.client_ca)
        return context


def _trust(context: ssl.SSLContext, bundle: bytes, file: Path | None) -> None:
    """Make a context verify clients with the certificates of a bundle.

    Raises:
        KeyPairError: it has none, or one that cannot be read.
    """
    nothing = f"{file} holds no CA certificates"
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
