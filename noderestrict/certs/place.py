"""Where a certificate, its key, and what callers trust are kept."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from noderestrict.certs.errors import CertsError
from noderestrict.certs.journal import Journal
from noderestrict.certs.secret import Secret, data_of, read_secret, write_secret
from noderestrict.cluster.connection import Connection
from noderestrict.pki.bundle import certificates
from noderestrict.pki.check import KeyPairError
from noderestrict.pki.files import write_atomically

#: ``ca.crt`` holds what callers trust: the CA, and its predecessor until a rotation has finished.
CERTIFICATE, KEY, CA = "tls.crt", "tls.key", "ca.crt"


class Place(Protocol):
    """Holds a certificate; as text, how messages name it."""

    async def read(self) -> Secret:
        """Return the files that exist, by name."""

    async def write(self, data: Secret) -> None:
        """Replace certificate, key and CA, and tell that."""


async def trust_of(place: Place) -> bytes:
    """Return what callers trust.

    Raises:
        CertsError: there is nothing.
        ClusterError, OSError: it cannot be read.
    """
    trust = (await place.read()).get(CA, b"")
    try:
        if certificates(trust):
            return trust
        problem = "is missing"
    except KeyPairError:
        problem = "has no certificate that can be read"
    raise CertsError(f"{place}: {CA} {problem}: callers would have nothing to trust")


@dataclass(slots=True)
class SecretPlace:
    """A Secret of type kubernetes.io/tls; what is written replaces only what was read last.

    Attributes:
        connection: to its cluster.
        namespace: of the Secret.
        name: of the Secret.
        journal: gets to know what is written.
    """

    connection: Connection
    namespace: str
    name: str
    journal: Journal
    _found: dict[str, Any] | None = field(default=None, init=False, repr=False, compare=False)
    _was_read: bool = field(default=False, init=False, repr=False, compare=False)

    def __str__(self) -> str:
        return f"Secret {self.namespace}/{self.name}"

    async def read(self) -> Secret:
        """Return the files that exist, by name.

        Raises:
            ClusterError: the Secret could not be read.
        """
        self._found = await read_secret(self.connection, self.namespace, self.name)
        self._was_read = True
        return data_of(self._found)

    async def write(self, data: Secret) -> None:
        """Replace certificate, key and CA, and tell that.

        Raises:
            ClusterError: the Secret could not be written, or is no longer what was read.
        """
        if not self._was_read:
            await self.read()
        self._found = await write_secret(
            self.connection, self.namespace, self.name, data, self._found
        )
        self.journal.did(f"{self}: written")


@dataclass(frozen=True, slots=True)
class DirectoryPlace:
    """Three files of a directory.

    Attributes:
        directory: that has the files.
        journal: gets to know what is written.
    """

    directory: Path
    journal: Journal

    def __str__(self) -> str:
        return str(self.directory)

    async def read(self) -> Secret:
        """Return the files that exist, by name.

        Raises:
            OSError: a file cannot be read.
        """
        files = {name: self.directory / name for name in (CERTIFICATE, KEY, CA)}
        return {name: file.read_bytes() for name, file in files.items() if file.exists()}

    async def write(self, data: Secret) -> None:
        """Replace certificate, key and CA, and tell that.

        Raises:
            OSError: a file cannot be written.
        """
        for name in (CA, CERTIFICATE):
            write_atomically(self.directory / name, data[name], mode=0o644)
        write_atomically(self.directory / KEY, data[KEY])
        self.journal.did(f"{self}: written")
