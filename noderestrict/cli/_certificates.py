"""Where certificates are kept, and the steps that create and replace them.

A kept CA has a place apart from the certificate that it signs: renewing replaces only the leaf, and
no caBundle changes. Its ``ca.crt`` holds what callers trust: the CA, and its predecessor until a
rotation has finished. A CA that is not kept is new with every leaf.
"""

import argparse
import asyncio
import datetime as dt
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.serialization import Encoding

from noderestrict.cli._errors import UsageError
from noderestrict.cli._said import Said
from noderestrict.cluster import planned
from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.endpoints import endpoints
from noderestrict.cluster.publish import (
    Secret,
    change_bundles,
    hosts_of,
    read_bundles,
    read_hosts,
    read_secret,
    write_registration,
    write_secret,
)
from noderestrict.cluster.served import why_not_served
from noderestrict.pki.bundle import certificates, issuer_of, joined, same, without
from noderestrict.pki.check import KeyPairError, check_chain, check_pair, trusted
from noderestrict.pki.files import write_atomically
from noderestrict.pki.issue import Authority, create_authority, load_authority
from noderestrict.pki.peer import served_chain
from noderestrict.pki.pem import certificate_blocks
from noderestrict.pki.system_roots import system_roots
from noderestrict.render.names import CERTIFICATE_NAMES, certificate_names

CERTIFICATE, KEY, CA = "tls.crt", "tls.key", "ca.crt"
# The CA must outlive a certificate of a year.
_CA_SOON = dt.timedelta(days=400)
_NOTHING_TO_DO = "all is well: nothing to do"
_KIND = "ValidatingWebhookConfiguration"
#: After a change of a CA bundle: API servers learn of it by a watch, which takes about a second.
_NOTICED_SECONDS = 5.0
_ANSWER_SECONDS = 5.0
#: A name by which a Service is called.
_SERVICE = re.compile(r"(?P<name>[^.]+)\.(?P<namespace>[^.]+)\.svc(\..+)?")


@dataclass(frozen=True, slots=True)
class Place:
    """A Secret or a directory that holds a certificate, its key, and what callers trust.

    Attributes:
        connection: to the cluster of the Secret, None for a directory.
        secret: namespace and name.
        directory: instead of a Secret.
        said: gets to know what is written.
    """

    connection: Connection | None
    secret: tuple[str, str] = ("", "")
    directory: Path | None = None
    said: Said = field(default_factory=Said, compare=False)

    def __str__(self) -> str:
        """Return how messages name it."""
        return f"Secret {'/'.join(self.secret)}" if self.directory is None else str(self.directory)

    async def read(self) -> Secret:
        """Return the files that exist, by name."""
        if self.directory is not None:
            files = {name: self.directory / name for name in (CERTIFICATE, KEY, CA)}
            return {name: file.read_bytes() for name, file in files.items() if file.exists()}
        assert self.connection is not None  # noqa: S101 (a Secret needs a cluster)
        return await read_secret(self.connection, *self.secret) or {}

    async def write(self, data: Secret) -> None:
        """Replace certificate, key and CA."""
        if self.directory is not None:
            for name in (CA, CERTIFICATE):
                write_atomically(self.directory / name, data[name], mode=0o644)
            write_atomically(self.directory / KEY, data[KEY])
        else:
            assert self.connection is not None  # noqa: S101 (a Secret needs a cluster)
            await write_secret(self.connection, *self.secret, data)
        self.said.did(f"{self}: written")


def place_of(
    connection: Connection | None,
    secret: tuple[str, str] | None,
    directory: Path | None,
    said: Said,
) -> Place | None:
    """Return the place that two flags name, None if neither does; it tells what is written."""
    if secret is not None:
        return Place(connection, secret, said=said)
    return Place(None, directory=directory, said=said) if directory is not None else None


class Certificates:
    """The certificate, CA and caBundles that one command works on.

    Args:
        options: the command's flags.
        connection: None if no flag names anything in a cluster.
        said: gets to know what is done and found.
    """

    def __init__(
        self, options: argparse.Namespace, connection: Connection | None, said: Said
    ) -> None:
        self._said = said
        self._options = options
        self._connection = connection
        self._now = dt.datetime.now(dt.UTC)
        place = place_of(connection, options.secret, options.directory, said)
        assert place is not None  # noqa: S101 (the parser wants one of them)
        self._place = place
        self._kept = place_of(connection, options.ca_secret, options.ca_directory, said)
        if self._kept == self._place:
            raise UsageError("the CA and the certificate that it signs need separate places")
        self._names: tuple[str, ...] = options.dns_names
        self._hosts: tuple[str, ...] = options.dns_names
        self._read: list[Any] | None = None

    async def find_names(self) -> None:
        """Find out which names the certificate needs, unless the command line says so."""
        if self._names:
            return
        hosts = [hosts_of(one) for one in self._registrations()]
        for configuration in self._options.webhook_configuration:
            assert self._connection is not None  # noqa: S101 (a configuration needs a cluster)
            hosts.append(await read_hosts(self._connection, configuration))
        self._hosts = tuple(dict.fromkeys(host for each in hosts for host in each))
        wanted = [name for host in self._hosts for name in _names_for(host)]
        # Somebody may have given it more names.
        wanted += _names_in(await self._place.read())
        secret = self._options.secret
        rendered = certificate_names(secret[0]) if secret else CERTIFICATE_NAMES
        if set(wanted) <= set(rendered):
            # A rendered registration, or none yet.
            wanted = list(rendered)
        self._names = tuple(dict.fromkeys(wanted))

    async def check(self) -> int:
        """Print what is wrong; return 1 if anything is."""
        said, problems = self._said, []
        trust = b""
        if self._kept is not None:
            authority, problem = await self._authority()
            problems += [f"{self._kept}: {problem}"] if problem else []
            trust = await self._trust() if authority is not None else b""
        held = await self._place.read()
        problems += self._leaf_problems(held, trust)
        for warning in self._warnings(held):
            said.warning(warning)
        if not problems:
            problems += await self._bundle_problems(held, trust)
        for problem in problems:
            said.problem(problem)
        said.note(_counted(problems) if problems else "all is well")
        return 1 if problems else 0

    async def bootstrap(self) -> None:
        """Create what is missing or bad."""
        if self._options.planned is not None:
            await self._prepare()
            return
        await self._bootstrap()

    async def _prepare(self) -> None:
        """Create what is missing or bad, so that what is planned can be applied without a CA.

        Raises:
            UsageError: nodes would be denied then.
        """
        assert self._connection is not None  # noqa: S101 (a registration needs a cluster)
        configurations = self._registrations()
        present = []
        for value in configurations:
            name = value["metadata"]["name"]
            found = await planned.installed(self._connection, name)
            if name != planned.NAME and (problem := planned.why_not_safe(value, found)):
                raise UsageError(
                    f"nodes would be denied: {problem}; first install or upgrade with mode=audit"
                )
            present += [value] if found is not None else []
        self._options.webhook_configuration += [one["metadata"]["name"] for one in present]
        await self._bootstrap()
        if any(
            planned.fails_closed(one) for one in present if one["metadata"]["name"] != planned.NAME
        ):
            await self._check_answered()
        trust = (await self._place.read())[CA]
        for value in present:
            name = value["metadata"]["name"]
            for webhook in await planned.complete(self._connection, value, trust):
                self._said.did(f"{name}: webhook {webhook} is there, with the CA")
            await planned.disown(self._connection, name)

    async def _check_answered(self) -> None:
        assert self._connection is not None  # noqa: S101 (a registration needs a cluster)
        namespace = self._options.secret[0]
        problem = await planned.why_not_answered(self._connection, namespace, self._options.wait)
        if problem:
            raise UsageError(
                f"nodes would be denied: {problem}; first install or upgrade with mode=audit"
            )

    async def _bootstrap(self) -> None:
        if self._kept is None:
            done = await self._bootstrap_without_authority()
        else:
            done = await self._bootstrap_authority(self._kept)
        if self._options.registration is not None:
            trust = (await self._place.read()).get(CA)
            if not trust:
                raise UsageError(
                    f"{self._place}: {CA} is missing: callers would have nothing to trust"
                )
            await self._write_registration(trust)
            done = True
        if not done:
            self._said.note(_NOTHING_TO_DO)

    async def renew(self) -> None:
        """Replace only the leaf, signed by the kept CA, if it is bad."""
        authority, problem = await self._authority()
        if authority is None:
            raise UsageError(f"{self._kept}: {problem}; run noderestrict certs bootstrap")
        if problem:
            self._said.problem(f"{self._kept}: {problem}; run noderestrict certs rotate")
        trust = await self._trust()
        if self._options.force:
            await self._write_leaf(authority, trust)
        elif not await self._renew_leaf(authority, trust):
            self._said.note(_NOTHING_TO_DO)

    async def rotate(self) -> None:
        """Create a new CA and certificate, or finish a rotation whose old CA is still trusted."""
        if self._kept is None:
            await self._rotate_without_authority()
            return
        authority, problem = await self._authority()
        if authority is None:
            self._said.problem(f"{self._kept}: {problem}")
            await self._bootstrap_authority(self._kept)
            return
        trust = await self._trust()
        if len(certificates(trust)) == 1:
            authority = self._new_authority(self._options.ca_lifetime)
            trust = joined(trust, authority.certificate, self._now)
            # Callers trust it before anything is signed with it.
            await self._introduce(lambda bundle: self._with(bundle, trust))
            await self._keep(authority, trust)
            await self._write_leaf(authority, trust)
            if not self._options.served_at:
                self._said.warning(
                    "the old CA is still trusted: rotate again when every server serves the new "
                    "certificate"
                )
                return
        elif not await self._is_by(authority):
            # An earlier rotation was interrupted before this.
            await self._write_leaf(authority, trust)
        if problem := await self._why_not_served(authority.certificate):
            self._said.problem(
                f"not served yet: {problem}: the old CA is still trusted; rotate again later"
            )
            return
        await self._keep(authority, authority.certificate)
        await self._place.write({**await self._place.read(), CA: authority.certificate})
        replaced = without(trust, authority.certificate)
        await self._change_bundles(lambda bundle: without(bundle, replaced))
        self._said.did("the old CA is dropped")

    async def _authority(self) -> tuple[Authority | None, str]:
        """Return the CA that is kept, and what is wrong with it; None if it cannot be used."""
        assert self._kept is not None  # noqa: S101 (the caller knows)
        held = await self._kept.read()
        if CERTIFICATE not in held or KEY not in held:
            return None, "there is no CA"
        try:
            authority = load_authority(held[CERTIFICATE], held[KEY], self._now)
        except KeyPairError as error:
            return None, str(error)
        end = certificates(authority.certificate)[0].not_valid_after_utc
        soon = end < self._now + _CA_SOON
        return authority, f"the CA expires at {end:%Y-%m-%dT%H:%M:%SZ}" if soon else ""

    async def _trust(self) -> bytes:
        assert self._kept is not None  # noqa: S101 (the caller knows)
        held = await self._kept.read()
        if CERTIFICATE not in held:
            # It was there a moment ago.
            raise UsageError(f"{self._kept}: {CERTIFICATE} is gone; try again")
        return joined(self._readable(held.get(CA, b"")), held[CERTIFICATE], self._now)

    async def _bootstrap_authority(self, kept: Place) -> bool:
        authority, problem = await self._authority()
        made = authority is None
        if authority is None:
            self._said.problem(f"{kept}: {problem}")
            authority = self._new_authority(self._options.ca_lifetime)
            await self._keep(authority, authority.certificate)
            # Callers trust it before anything that it has signed is served.
            await self._introduce(lambda bundle: self._with(bundle, authority.certificate))
        trust = await self._trust()
        signed = await self._renew_leaf(authority, trust)
        changed = False
        if self._options.registration is None:
            changed = await self._change_bundles(lambda _bundle: trust)
        return made or signed or changed

    async def _keep(self, authority: Authority, trust: bytes) -> None:
        assert self._kept is not None  # noqa: S101 (the caller knows)
        await self._kept.write({CERTIFICATE: authority.certificate, KEY: authority.key, CA: trust})

    async def _renew_leaf(self, authority: Authority, trust: bytes) -> bool:
        """Write a new leaf if the current one is bad; return whether anything was written."""
        held = await self._place.read()
        problems = self._leaf_problems(held, trust)
        for problem in problems:
            self._said.problem(problem, "renewing: ")
        if problems:
            await self._write_leaf(authority, trust)
            return True
        if same(held.get(CA, b""), trust):
            return False
        await self._place.write({**held, CA: trust})
        return True

    async def _write_leaf(self, authority: Authority, trust: bytes) -> None:
        leaf = authority.issue(self._names, lifetime=self._options.lifetime, now=self._now)
        await self._place.write({CERTIFICATE: leaf.certificate, KEY: leaf.key, CA: trust})

    def _new_authority(self, lifetime: dt.timedelta) -> Authority:
        return create_authority("noderestrict", lifetime=lifetime, now=self._now)

    def _leaf_problems(self, held: Secret, trust: bytes) -> list[str]:
        """Return what is wrong with the certificate that is held.

        Args:
            held: the files of the certificate.
            trust: certificates of the kept CA, b"" if none is kept.
        """
        if CERTIFICATE not in held or KEY not in held:
            return ["there is no certificate"]
        try:
            pair = check_pair(held[CERTIFICATE], held[KEY], now=self._now, dns_names=self._hosts)
        except KeyPairError as error:
            return [str(error)]
        problems = []
        if pair.chain_not_after - self._now < self._options.renew_before:
            problems.append(f"the certificate expires at {pair.chain_not_after.isoformat()}")
        if trust and (problem := self._trust_problem(held[CERTIFICATE], trust)):
            problems.append(f"the CA that is kept does not verify the certificate: {problem}")
        return problems

    def _warnings(self, held: Secret) -> tuple[str, ...]:
        """Return what is odd about the certificate that is held, though clients accept it."""
        try:
            pair = check_pair(held[CERTIFICATE], held[KEY], now=self._now)
        except (KeyError, KeyPairError):
            return ()
        return pair.warnings

    def _trust_problem(self, chain: bytes, bundle: bytes) -> str:
        """Return why clients that trust a bundle refuse a chain; "" if they accept it.

        Without a bundle they trust the CAs of their system.
        """
        links = [block.content for block in certificate_blocks(chain)]
        try:
            check_chain(links, now=self._now, roots=bundle if bundle.strip() else system_roots())
        except KeyPairError as error:
            return str(error)
        return ""

    async def _bundle_problems(self, held: Secret, trust: bytes) -> list[str]:
        problems = []
        for configuration in self._options.webhook_configuration:
            assert self._connection is not None  # noqa: S101 (a configuration needs a cluster)
            for webhook, bundle in (await read_bundles(self._connection, configuration)).items():
                where = f"{configuration}: the caBundle of webhook {webhook}"
                if problem := self._trust_problem(held[CERTIFICATE], bundle):
                    what = (
                        f"{where} is empty, and this system's CAs do not"
                        if not bundle
                        else (f"{where} does not")
                    )
                    problems.append(f"{what} verify the certificate: {problem}")
                elif trust and not same(bundle, trust):
                    problems.append(f"{where} is not the CA that is kept")
        return problems

    async def _bootstrap_without_authority(self) -> bool:
        held = await self._place.read()
        problems = self._leaf_problems(held, b"")
        if not problems and not self._has_own_ca(held):
            problems = await self._bundle_problems(held, b"")
        if problems:
            for problem in problems:
                self._said.problem(problem, "renewing: ")
            await self._rotate_without_authority()
            return True
        return await self._change_bundles(
            lambda bundle: (
                self._with(bundle, held[CA])
                if self._trust_problem(held[CERTIFICATE], bundle)
                else bundle
            )
        )

    def _has_own_ca(self, held: Secret) -> bool:
        ca = held.get(CA, b"")
        return bool(ca.strip()) and not self._trust_problem(held[CERTIFICATE], ca)

    def _with(self, bundle: bytes, added: bytes) -> bytes:
        return joined(bundle, added, self._now)

    async def _rotate_without_authority(self) -> None:
        held = await self._place.read()
        # The CA must outlive the leaf: a day longer.
        authority = self._new_authority(self._options.lifetime + dt.timedelta(days=1))
        await self._introduce(lambda bundle: self._with(bundle, authority.certificate))
        replaced = self._readable(held.get(CA, b""))
        await self._write_leaf(authority, self._with(replaced, authority.certificate))
        if not self._options.served_at or self._connection is None:
            return
        if problem := await self._why_not_served(authority.certificate):
            self._said.problem(
                f"not served yet: {problem}: the old CA stays in the caBundle until the next "
                "rotation"
            )
            return
        await self._change_bundles(
            lambda bundle: self._without_replaced(bundle, held.get(CERTIFICATE, b""), replaced)
        )
        await self._place.write({**await self._place.read(), CA: authority.certificate})
        self._said.did("the old CA is dropped")

    def _without_replaced(self, bundle: bytes, chain: bytes, replaced: bytes) -> bytes:
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

    def _readable(self, bundle: bytes) -> bytes:
        try:
            return joined(b"", bundle, self._now)
        except KeyPairError:
            return b""

    async def _change_bundles(self, change: Callable[[bytes], bytes]) -> bool:
        changed = False
        for configuration in self._options.webhook_configuration:
            assert self._connection is not None  # noqa: S101 (a configuration needs a cluster)
            if await change_bundles(self._connection, configuration, change):
                self._said.did(f"{configuration}: the CA is in every caBundle")
                changed = True
        return changed

    async def _write_registration(self, trust: bytes) -> None:
        assert self._connection is not None  # noqa: S101 (a registration needs a cluster)
        for value in self._registrations():
            keep = self._kept is None
            await write_registration(
                self._connection,
                value,
                lambda old, keep=keep: self._with(old, trust) if keep else trust,  # type: ignore[misc]
                None if self._options.unserved else self._check_served,
            )
            self._said.did(f"{_KIND} {value['metadata']['name']}: written")

    def _registrations(self) -> list[Any]:
        """Return the webhook configurations of --registration or --planned, read once."""
        if self._read is None:
            files = {
                "--registration": self._options.registration, "--planned": self._options.planned
            }  # fmt: skip
            self._read = [
                one
                for flag, file in files.items()
                if file is not None
                for one in _registrations(flag, file)
            ]
        return self._read

    async def _check_served(self, registration: Mapping[str, Any]) -> None:
        """Check that what a registration makes the API server call answers it.

        Raises:
            UsageError: it does not, and requests would be denied for that.
        """
        assert self._connection is not None  # noqa: S101 (a registration needs a cluster)
        if all(one.get("failurePolicy") == "Ignore" for one in registration["webhooks"]):
            return
        problem = await why_not_served(self._connection, registration, self._options.wait)
        if problem:
            raise UsageError(
                f"{_KIND} {registration['metadata']['name']}: not written, because nodes would be "
                f"denied: {problem}; pass --unserved to write it all the same"
            )

    async def _introduce(self, change: Callable[[bytes], bytes]) -> None:
        """Let callers trust a CA before anything that it has signed may be served."""
        if await self._change_bundles(change):
            # A server that watches its Secret serves a new certificate at once.
            await asyncio.sleep(_NOTICED_SECONDS)

    async def _is_by(self, authority: Authority) -> bool:
        held = await self._place.read()
        chain = held.get(CERTIFICATE, b"")
        return not self._leaf_problems(held, authority.certificate) if chain else False

    async def _why_not_served(self, ca: bytes) -> str:
        """Return who serves no certificate of a CA within --wait; "" if everybody does."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._options.wait
        while True:
            problems = [
                await self._problem_at(host, port, ca) for host, port in self._options.served_at
            ]
            problem = "; ".join(filter(None, problems))
            if not problem or loop.time() >= end:
                return problem
            await asyncio.sleep(1)

    async def _problem_at(self, host: str, port: int, ca: bytes) -> str:
        match = _SERVICE.fullmatch(host)
        if match is None or self._connection is None:
            return await self._answer_of(host, port, ca)
        # Through the Service, only one of them would answer.
        service = match["namespace"], match["name"]
        try:
            found = await endpoints(self._connection, *service)
        except ClusterError as error:
            return f"the endpoints of Service {'/'.join(service)} cannot be read: {error}"
        if not any(one.ready for one in found):
            return f"Service {'/'.join(service)} has no ready endpoint"
        answers = await asyncio.gather(
            *(self._answer_of(one.address, one.port, ca, ready=one.ready) for one in found)
        )
        return "; ".join(filter(None, answers))

    async def _answer_of(self, host: str, port: int, ca: bytes, *, ready: bool = True) -> str:
        """Return why what an address serves is not of a CA; "" if it is.

        An endpoint that is not ready need not answer, but may be ready in a moment.
        """
        try:
            chain = await served_chain(host, port, self._names[0], _ANSWER_SECONDS)
            check_chain(chain, now=self._now, dns_names=self._hosts[:1], roots=ca)
        except KeyPairError as error:
            return f"{host}:{port}: {error}"
        except (OSError, TimeoutError) as error:
            return f"{host}:{port}: {error or type(error).__name__}" if ready else ""
        return ""


def _names_for(host: str) -> tuple[str, ...]:
    """Return the names to give to a certificate for a host."""
    return (host, f"{host}.cluster.local") if _SERVICE.fullmatch(host) else (host,)


def _names_in(held: Secret) -> tuple[str, ...]:
    """Return the names of a certificate, none if it cannot be read."""
    links = trusted(held.get(CERTIFICATE, b""))
    return links[0].names if links else ()


def _counted(problems: Sequence[str]) -> str:
    return f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"


def _registrations(flag: str, file: Path) -> list[Any]:
    """Return the webhook configurations of a YAML file, ``-`` for standard input."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
        values = [value for value in yaml.safe_load_all(text) if isinstance(value, dict)]
    except OSError as error:
        raise UsageError(f"{flag} {file}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{flag} {file}: {' '.join(str(error).split())}") from None
    found = [value for value in values if value.get("kind") == _KIND]
    for value in found:
        name = (value.get("metadata") or {}).get("name")
        webhooks = value.get("webhooks")
        if not name or not isinstance(webhooks, list):
            raise UsageError(f"{flag} {file}: metadata.name or webhooks is missing")
        if any(not isinstance((one or {}).get("clientConfig"), dict) for one in webhooks):
            raise UsageError(f"{flag} {file}: a webhook has no clientConfig")
    if not found:
        raise UsageError(f"{flag} {file}: there is no {_KIND}")
    return found
