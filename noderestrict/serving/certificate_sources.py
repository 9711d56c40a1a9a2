"""Where the served pair comes from: files, or whatever else has the same three methods."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from noderestrict.pki.files import read_regular

#: A bundle of all public CAs has a quarter of this size.
LONGEST_FILE = 1024 * 1024
CERTIFICATE, KEY, CA = "tls.crt", "tls.key", "ca.crt"


@dataclass(frozen=True, slots=True)
class Pem:
    """A certificate chain, leaf first, and its key, as they were found."""

    chain: bytes
    key: bytes


class Source(Protocol):
    """A place where a pair may change at any time. Its text is how logs name it."""

    @property
    def kind(self) -> str:
        """The name of the source in metrics."""

    def read(self) -> Pem | None:
        """Return the pair that is there now; None if it is not known yet.

        Raises:
            KeyPairError: there is none.
            OSError: it cannot be read.
        """

    def ca(self) -> bytes | None:
        """Return the CA bundle beside the pair; None if there is none.

        Raises:
            OSError: it cannot be read.
        """


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """A pair in two files.

    Attributes:
        certificate: PEM chain, leaf first.
        key: PEM.
    """

    certificate: Path
    key: Path

    @classmethod
    def in_directory(cls, directory: Path) -> "CertificateFiles":
        """Return the files of a mounted Secret of type kubernetes.io/tls."""
        return cls(directory / CERTIFICATE, directory / KEY)

    def __str__(self) -> str:
        return str(self.certificate)

    @property
    def kind(self) -> str:
        """The name of the source in metrics."""
        return "files"

    def read(self) -> Pem:
        """Return the pair in the files.

        Raises:
            OSError: a file cannot be read.
        """
        # Resolved once, so that both files come from the same side of a swap of ``..data``.
        certificate, key = self.certificate, self.key
        if certificate.parent == key.parent:
            data = certificate.parent / "..data"
            resolved = (data if data.exists() else certificate.parent).resolve(strict=True)
            certificate, key = resolved / certificate.name, resolved / key.name
        return Pem(read_regular(certificate, LONGEST_FILE), read_regular(key, LONGEST_FILE))

    def ca(self) -> bytes | None:
        """Return what is in ``ca.crt`` beside the certificate; None if that does not exist.

        Raises:
            OSError: the file cannot be read.
        """
        try:
            return read_regular(self.certificate.parent / CA, LONGEST_FILE)
        except FileNotFoundError:
            return None
