"""The CA bundles of webhook configurations, by which API servers verify the certificate."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from noderestrict.certs.configurations import change_bundles, read_bundles
from noderestrict.certs.journal import Journal
from noderestrict.certs.leaf import Leaf
from noderestrict.certs.place import CERTIFICATE
from noderestrict.certs.secret import Secret
from noderestrict.cluster.connection import Connection
from noderestrict.pki.bundle import same

#: After a change of a CA bundle: API servers learn of it by a watch, which takes about a second.
NOTICED_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Installed:
    """An installed webhook configuration.

    Attributes:
        connection: to its cluster.
        name: of the configuration.
    """

    connection: Connection
    name: str


@dataclass(frozen=True, slots=True)
class Bundles:
    """The bundles that a command keeps up to date.

    Attributes:
        configurations: whose bundles they are.
        journal: gets to know what is changed.
    """

    configurations: Sequence[Installed]
    journal: Journal

    async def problems(self, leaf: Leaf, held: Secret, trust: bytes = b"") -> list[str]:
        """Return why API servers refuse a certificate.

        Args:
            leaf: judges it.
            held: its files.
            trust: certificates of the kept CA, b"" if none is kept.

        Raises:
            ClusterError: a configuration could not be read.
        """
        problems = []
        for one in self.configurations:
            for webhook, bundle in (await read_bundles(one.connection, one.name)).items():
                where = f"{one.name}: the caBundle of webhook {webhook}"
                if problem := leaf.trust_problem(held[CERTIFICATE], bundle):
                    what = "does not" if bundle else "is empty, and this system's CAs do not"
                    problems.append(f"{where} {what} verify the certificate: {problem}")
                elif trust and not same(bundle, trust):
                    problems.append(f"{where} is not the CA that is kept")
        return problems

    async def change(self, change: Callable[[bytes], bytes]) -> bool:
        """Change every bundle; return whether any was not so already.

        Raises:
            ClusterError: a configuration could not be changed.
        """
        changed = False
        for one in self.configurations:
            if await change_bundles(one.connection, one.name, change):
                self.journal.did(f"{one.name}: the CA is in every caBundle")
                changed = True
        return changed

    async def introduce(self, change: Callable[[bytes], bytes]) -> None:
        """Let API servers trust a CA before anything that it has signed may be served.

        Raises:
            ClusterError: a configuration could not be changed.
        """
        if await self.change(change):
            # A server that watches its Secret serves a new certificate at once.
            await asyncio.sleep(NOTICED_SECONDS)
