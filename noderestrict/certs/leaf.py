"""The certificate that is served: what is wrong with it, and how a new one is made."""

import datetime as dt
from dataclasses import dataclass

from noderestrict.certs.names import Names
from noderestrict.certs.place import CA, CERTIFICATE, KEY, Place
from noderestrict.certs.secret import Secret
from noderestrict.pki.check import KeyPairError, check_chain, check_pair
from noderestrict.pki.issue import Authority
from noderestrict.pki.pem import certificate_blocks
from noderestrict.pki.system_roots import system_roots


@dataclass(frozen=True, slots=True)
class Leaf:
    """The certificate that a command works on.

    Attributes:
        place: where it is kept.
        names: that it needs.
        renew_before: remaining time under which it counts as expiring soon.
        lifetime: of a new one.
        now: an aware time.
    """

    place: Place
    names: Names
    renew_before: dt.timedelta
    lifetime: dt.timedelta
    now: dt.datetime

    def problems(self, held: Secret, trust: bytes = b"") -> list[str]:
        """Return what is wrong with a certificate.

        Args:
            held: its files.
            trust: certificates of the kept CA, b"" if none is kept.
        """
        if CERTIFICATE not in held or KEY not in held:
            return ["there is no certificate"]
        certificate, key = held[CERTIFICATE], held[KEY]
        try:
            pair = check_pair(certificate, key, now=self.now, dns_names=self.names.called)
        except KeyPairError as error:
            return [str(error)]
        problems = []
        if pair.chain_not_after - self.now < self.renew_before:
            problems.append(f"the certificate expires at {pair.chain_not_after.isoformat()}")
        if trust and (problem := self.trust_problem(certificate, trust)):
            problems.append(f"the CA that is kept does not verify the certificate: {problem}")
        return problems

    def warnings(self, held: Secret) -> tuple[str, ...]:
        """Return what is odd about a certificate, though clients accept it."""
        try:
            return check_pair(held[CERTIFICATE], held[KEY], now=self.now).warnings
        except (KeyError, KeyPairError):
            return ()

    def trust_problem(self, chain: bytes, bundle: bytes) -> str:
        """Return why clients that trust a bundle refuse a chain; "" if they accept it.

        Without a bundle they trust the CAs of their system.
        """
        links = [block.content for block in certificate_blocks(chain)]
        try:
            check_chain(links, now=self.now, roots=bundle if bundle.strip() else system_roots())
        except KeyPairError as error:
            return str(error)
        return ""

    def refused_from(self, authority: Authority) -> str:
        """Return why clients that trust a CA would refuse what it signs; "" if they would not."""
        tried = authority.issue(self.names.given, lifetime=self.lifetime, now=self.now)
        return self.trust_problem(tried.certificate, authority.certificate)

    async def issue(self, authority: Authority, trust: bytes) -> None:
        """Write a new certificate.

        Args:
            authority: signs it.
            trust: what callers trust.
        """
        new = authority.issue(self.names.given, lifetime=self.lifetime, now=self.now)
        await self.place.write({CERTIFICATE: new.certificate, KEY: new.key, CA: trust})

    async def write_trust(self, trust: bytes) -> None:
        """Write what callers trust beside the certificate as it is."""
        await self.place.write({**await self.place.read(), CA: trust})
