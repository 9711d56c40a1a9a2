"""How the two kinds of CAs sign a certificate, and are replaced."""

import datetime as dt
from dataclasses import dataclass
from typing import Protocol

from noderestrict.certs.bundles import Bundles
from noderestrict.certs.journal import Journal
from noderestrict.certs.leaf import Leaf
from noderestrict.certs.servers import Servers
from noderestrict.pki.bundle import joined
from noderestrict.pki.check import KeyPairError
from noderestrict.pki.issue import Authority, create_authority

_NAME = "noderestrict"


@dataclass(frozen=True, slots=True)
class Parts:
    """What both kinds work on.

    Attributes:
        leaf: the certificate.
        bundles: by which it is verified.
        servers: that serve it.
        journal: gets to know what is done and found.
        now: an aware time.
    """

    leaf: Leaf
    bundles: Bundles
    servers: Servers
    journal: Journal
    now: dt.datetime

    def create(self, lifetime: dt.timedelta) -> Authority:
        """Return a new CA."""
        return create_authority(_NAME, lifetime=lifetime, now=self.now)

    def joined(self, bundle: bytes, added: bytes) -> bytes:
        """Return the certificates of both that have not expired; the bundle may be unreadable."""
        return joined(self.readable(bundle), added, self.now)

    def readable(self, bundle: bytes) -> bytes:
        """Return the certificates of a bundle that have not expired; b"" if it cannot be read."""
        try:
            return joined(b"", bundle, self.now)
        except KeyPairError:
            return b""

    async def drop_old(self, authority: bytes) -> None:
        """Keep nothing but the new CA beside the certificate."""
        await self.leaf.write_trust(authority)
        self.journal.did("the old CA is dropped")


class Signer(Protocol):
    """A CA: kept, or not."""

    async def problems(self) -> list[str]:
        """Return what is wrong with CA, certificate and bundles."""

    async def bootstrap(self) -> bool:
        """Create what is missing or bad; return whether anything was."""

    async def settle(self) -> bool:
        """Put the CA into every bundle; return whether it was missing in any."""

    async def rotate(self) -> None:
        """Create a new CA and certificate, or finish a rotation whose old CA is still trusted."""

    def bundle(self, old: bytes, trust: bytes) -> bytes:
        """Return the bundle of a webhook that is written anew.

        Args:
            old: its bundle.
            trust: what callers are to trust.
        """
