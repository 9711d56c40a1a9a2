"""A CA that is kept: renewing replaces only the certificate, and no caBundle changes."""

import datetime as dt
from dataclasses import dataclass

from noderestrict.certs.authority import Parts
from noderestrict.certs.errors import CertsError
from noderestrict.certs.place import CA, CERTIFICATE, KEY, Place
from noderestrict.pki.bundle import certificates, same, without
from noderestrict.pki.check import KeyPairError
from noderestrict.pki.issue import Authority, load_authority

#: The CA must outlive a certificate of a year.
_SOON = dt.timedelta(days=400)


@dataclass(frozen=True, slots=True)
class KeptAuthority:
    """A CA in a place of its own.

    Attributes:
        place: where it is kept.
        lifetime: of a new one.
        parts: what it works on.
    """

    place: Place
    lifetime: dt.timedelta
    parts: Parts

    async def problems(self) -> list[str]:
        """Return what is wrong with CA, certificate and bundles."""
        authority, problem = await self._load()
        problems = [f"{self.place}: {problem}"] if problem else []
        trust = await self._trust() if authority is not None else b""
        held = await self.parts.leaf.place.read()
        problems += self.parts.leaf.problems(held, trust)
        return problems or await self.parts.bundles.problems(self.parts.leaf, held, trust)

    async def bootstrap(self) -> bool:
        """Create what is missing or bad; return whether anything was."""
        authority, problem = await self._load()
        made = authority is None
        if authority is None:
            self.parts.journal.problem(f"{self.place}: {problem}")
            authority = new = self.parts.create(self.lifetime)
            await self._keep(new, new.certificate)
            # Callers trust it before anything that it has signed is served.
            await self.parts.bundles.introduce(
                lambda bundle: self.parts.joined(bundle, new.certificate)
            )
        return await self._renew_leaf(authority, await self._trust()) or made

    async def settle(self) -> bool:
        """Let every bundle be what is kept; return whether any was not."""
        trust = await self._trust()
        return await self.parts.bundles.change(lambda _: trust)

    async def renew(self, *, force: bool) -> bool:
        """Replace only the certificate; return whether it was.

        Args:
            force: replace one that is not bad, too.

        Raises:
            CertsError: there is no CA that could sign.
        """
        authority, problem = await self._load()
        if authority is None:
            raise CertsError(f"{self.place}: {problem}; run noderestrict certs bootstrap")
        if problem:
            self.parts.journal.problem(f"{self.place}: {problem}; run noderestrict certs rotate")
        trust = await self._trust()
        if not force:
            return await self._renew_leaf(authority, trust)
        await self.parts.leaf.issue(authority, trust)
        return True

    async def rotate(self) -> None:
        """Create a new CA and certificate, or finish a rotation whose old CA is still trusted."""
        parts = self.parts
        authority, problem = await self._load()
        if authority is None:
            parts.journal.problem(f"{self.place}: {problem}")
            await self.bootstrap()
            await self.settle()
            return
        trust = await self._trust()
        if len(certificates(trust)) == 1:
            authority = parts.create(self.lifetime)
            trust = both = parts.joined(trust, authority.certificate)
            # Callers trust it before anything is signed with it.
            await parts.bundles.introduce(lambda bundle: parts.joined(bundle, both))
            await self._keep(authority, trust)
            await parts.leaf.issue(authority, trust)
            if not parts.servers.addresses:
                parts.journal.warning(
                    "the old CA is still trusted: rotate again when every server serves the new "
                    "certificate"
                )
                return
        elif parts.leaf.problems(await parts.leaf.place.read(), authority.certificate):
            # An earlier rotation was interrupted before this.
            await parts.leaf.issue(authority, trust)
        if problem := await parts.servers.why_not_served(authority.certificate):
            parts.journal.problem(
                f"not served yet: {problem}: the old CA is still trusted; rotate again later"
            )
            return
        await self._keep(authority, authority.certificate)
        replaced = without(trust, authority.certificate)
        await parts.bundles.change(lambda bundle: without(bundle, replaced))
        await parts.drop_old(authority.certificate)

    def bundle(self, old: bytes, trust: bytes) -> bytes:  # noqa: ARG002 (the other kind keeps it)
        """Return the bundle of a webhook that is written anew: what is kept, and nothing else."""
        return trust

    async def _load(self) -> tuple[Authority | None, str]:
        """Return the CA, and what is wrong with it; None if it cannot be used.

        Raises:
            CertsError: the CA is somebody's who keeps its key under a password.
        """
        held = await self.place.read()
        if CERTIFICATE not in held or KEY not in held:
            return None, "there is no CA"
        if b"ENCRYPTED" in held[KEY]:
            # Nothing of ours writes such a key, and a new CA would overwrite it.
            raise CertsError(f"{self.place}: {KEY} is encrypted: give the key without a password")
        try:
            authority = load_authority(held[CERTIFICATE], held[KEY], self.parts.now)
        except KeyPairError as error:
            return None, str(error)
        if problem := self.parts.leaf.refused_from(authority):
            return None, f"callers would refuse what it signs: {problem}"
        end = certificates(authority.certificate)[0].not_valid_after_utc
        soon = end < self.parts.now + _SOON
        return authority, f"the CA expires at {end:%Y-%m-%dT%H:%M:%SZ}" if soon else ""

    async def _trust(self) -> bytes:
        """Return what callers trust: the CA, and its predecessor while a rotation goes on."""
        held = await self.place.read()
        if CERTIFICATE not in held:
            # It was there a moment ago.
            raise CertsError(f"{self.place}: {CERTIFICATE} is gone; try again")
        return self.parts.joined(held.get(CA, b""), held[CERTIFICATE])

    async def _keep(self, authority: Authority, trust: bytes) -> None:
        await self.place.write({CERTIFICATE: authority.certificate, KEY: authority.key, CA: trust})

    async def _renew_leaf(self, authority: Authority, trust: bytes) -> bool:
        """Replace a bad certificate; return whether anything was written."""
        leaf = self.parts.leaf
        held = await leaf.place.read()
        problems = leaf.problems(held, trust)
        for problem in problems:
            self.parts.journal.problem(problem, "renewing: ")
        if problems:
            await leaf.issue(authority, trust)
            return True
        if same(self.parts.readable(held.get(CA, b"")), trust):
            return False
        await leaf.write_trust(trust)
        return True
