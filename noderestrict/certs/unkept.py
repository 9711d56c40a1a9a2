"""A CA that is not kept: each certificate has a new one, and its key is thrown away."""

import datetime as dt
from dataclasses import dataclass

from cryptography.hazmat.primitives.serialization import Encoding

from noderestrict.certs.authority import Parts
from noderestrict.certs.place import CA, CERTIFICATE
from noderestrict.certs.secret import Secret
from noderestrict.pki.bundle import issuer_of, without
from noderestrict.pki.check import KeyPairError

#: The CA must outlive the certificate.
_LONGER = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class UnkeptAuthority:
    """A CA for one certificate.

    Attributes:
        parts: what it works on.
    """

    parts: Parts

    async def problems(self) -> list[str]:
        """Return what is wrong with certificate and bundles."""
        held = await self.parts.leaf.place.read()
        return self.parts.leaf.problems(held) or await self.parts.bundles.problems(
            self.parts.leaf, held
        )

    async def bootstrap(self) -> bool:
        """Create what is missing or bad; return whether anything was."""
        leaf = self.parts.leaf
        held = await leaf.place.read()
        problems = leaf.problems(held)
        if not problems and not self._has_own_ca(held):
            problems = await self.parts.bundles.problems(leaf, held)
        for problem in problems:
            self.parts.journal.problem(problem, "renewing: ")
        if problems:
            await self.rotate()
        return bool(problems)

    async def settle(self) -> bool:
        """Add the CA to every bundle that does not verify the certificate; return whether any."""
        held = await self.parts.leaf.place.read()
        chain, trust = held.get(CERTIFICATE, b""), held.get(CA, b"")

        def completed(bundle: bytes) -> bytes:
            refused = self.parts.leaf.trust_problem(chain, bundle)
            return self.parts.joined(bundle, trust) if refused else bundle

        return await self.parts.bundles.change(completed)

    async def rotate(self) -> None:
        """Create a new CA and certificate; drop the old CA once the certificate is served."""
        parts = self.parts
        held = await parts.leaf.place.read()
        authority = parts.create(parts.leaf.lifetime + _LONGER)
        await parts.bundles.introduce(lambda bundle: parts.joined(bundle, authority.certificate))
        replaced = parts.readable(held.get(CA, b""))
        await parts.leaf.issue(authority, parts.joined(replaced, authority.certificate))
        if not parts.servers.addresses or parts.servers.connection is None:
            return
        if problem := await parts.servers.why_not_served(authority.certificate):
            parts.journal.problem(
                f"not served yet: {problem}: the old CA stays in the caBundle until the next "
                "rotation"
            )
            return
        await parts.bundles.change(
            lambda bundle: _without_replaced(bundle, held.get(CERTIFICATE, b""), replaced)
        )
        await parts.drop_old(authority.certificate)

    def bundle(self, old: bytes, trust: bytes) -> bytes:
        """Return the bundle of a webhook that is written anew, with the CAs of other servers."""
        return self.parts.joined(old, trust)

    def _has_own_ca(self, held: Secret) -> bool:
        ca = held.get(CA, b"")
        return bool(ca.strip()) and not self.parts.leaf.trust_problem(held[CERTIFICATE], ca)


def _without_replaced(bundle: bytes, chain: bytes, replaced: bytes) -> bytes:
    """Return a bundle without what the old certificate was verified by, and all else in it.

    Other servers may share the registration, with CAs of their own.
    """
    if replaced:
        return without(bundle, replaced)
    try:
        issuer = issuer_of(chain, bundle) if chain else None
    except KeyPairError:
        issuer = None
    if issuer is None:
        return bundle
    return without(bundle, issuer.public_bytes(Encoding.PEM))
