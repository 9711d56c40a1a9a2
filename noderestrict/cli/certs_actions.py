"""What the actions of ``noderestrict certs`` do, as their flags ask for."""

import argparse
import datetime as dt
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from noderestrict.certs.authority import Parts, Signer
from noderestrict.certs.bundles import Bundles, Installed
from noderestrict.certs.configurations import checked, hosts_of, read_hosts
from noderestrict.certs.journal import Journal
from noderestrict.certs.kept import KeptAuthority
from noderestrict.certs.leaf import Leaf
from noderestrict.certs.names import Names, names_for
from noderestrict.certs.place import DirectoryPlace, Place, SecretPlace
from noderestrict.certs.planned import complete, installed_of
from noderestrict.certs.register import register
from noderestrict.certs.servers import Servers
from noderestrict.certs.unkept import UnkeptAuthority
from noderestrict.cli._errors import UsageError
from noderestrict.cli._files import read_documents
from noderestrict.cluster.connection import Connection

_KIND = "ValidatingWebhookConfiguration"
_LISTS = ("List", f"{_KIND}List")


class Actions:
    """The actions that work on one certificate.

    Args:
        options: the command's flags.
        connection: None if no flag names anything in a cluster.
        journal: gets to know what is done and found.
    """

    def __init__(
        self, options: argparse.Namespace, connection: Connection | None, journal: Journal
    ) -> None:
        self._options = options
        self._connection = connection
        self._journal = journal
        self._now = dt.datetime.now(dt.UTC)
        place = self._place_of(options.secret, options.directory)
        assert place is not None  # noqa: S101 (the parser wants one of them)
        self._place = place
        self._kept = self._place_of(options.ca_secret, options.ca_directory)
        directories = [one.resolve() for one in (options.directory, options.ca_directory) if one]
        if self._kept == self._place or len(set(directories)) < len(directories):
            raise UsageError("the CA and the certificate that it signs need separate places")

    async def check(self) -> int:
        """Tell what is wrong; return 1 if anything is."""
        parts = await self._parts()
        problems = await self._signer(parts).problems()
        for warning in parts.leaf.warnings(await self._place.read()):
            self._journal.warning(warning)
        for problem in problems:
            self._journal.problem(problem)
        count = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"
        self._journal.note(count if problems else "all is well")
        return 1 if problems else 0

    async def renew(self) -> int:
        """Replace only the certificate, if it is bad or ``--force`` is given."""
        assert self._kept is not None  # noqa: S101 (the parser wants it)
        parts = await self._parts()
        # It makes no CA, so that none has a lifetime.
        authority = KeptAuthority(self._kept, dt.timedelta(), parts)
        self._end(done=await authority.renew(force=self._options.force))
        return 0

    async def rotate(self) -> int:
        """Create a new CA and certificate."""
        await self._signer(await self._parts()).rotate()
        return 0

    async def bootstrap(self) -> int:
        """Create what is missing or bad, and write or complete registrations."""
        options = self._options
        if options.planned is not None:
            file = options.planned
            await self._prepare(read_documents("--planned", file, webhook_configurations))
        elif options.registration is not None:
            file = options.registration
            await self._register(read_documents("--registration", file, webhook_configurations))
        else:
            signer = self._signer(await self._parts())
            made = await signer.bootstrap()
            self._end(done=await signer.settle() or made)
        return 0

    async def _register(self, registrations: Sequence[Any]) -> None:
        assert self._connection is not None  # noqa: S101 (a registration needs a cluster)
        signer = self._signer(await self._parts(registrations))
        await signer.bootstrap()
        wait = None if self._options.unserved else self._options.wait
        await register(self._connection, registrations, signer, self._place, self._journal, wait)

    async def _prepare(self, planned: Sequence[Any]) -> None:
        assert self._connection is not None  # noqa: S101 (a registration needs a cluster)
        present = await installed_of(self._connection, planned)
        names = [one["metadata"]["name"] for one in present]
        signer = self._signer(await self._parts(planned, names))
        made = await signer.bootstrap()
        made = await signer.settle() or made
        namespace, wait = self._options.secret[0], self._options.wait
        done = await complete(
            self._connection, present, self._place, namespace, self._journal, wait
        )
        self._end(done=done or made)

    def _end(self, *, done: bool) -> None:
        if not done:
            self._journal.note("all is well: nothing to do")

    def _place_of(self, secret: tuple[str, str] | None, directory: Path | None) -> Place | None:
        """Return the place that two flags name, None if neither does."""
        if secret is not None:
            assert self._connection is not None  # noqa: S101 (a Secret needs a cluster)
            return SecretPlace(self._connection, *secret, self._journal)
        return DirectoryPlace(directory, self._journal) if directory is not None else None

    def _signer(self, parts: Parts) -> Signer:
        if self._kept is None:
            return UnkeptAuthority(parts)
        return KeptAuthority(self._kept, self._options.ca_lifetime, parts)

    async def _parts(
        self, registrations: Iterable[Any] = (), installed: Iterable[str] = ()
    ) -> Parts:
        """Return what a CA works on.

        Args:
            registrations: what is about to be installed.
            installed: configurations whose bundles are kept up to date, besides those of the flags.
        """
        options, connection, journal = self._options, self._connection, self._journal
        names = await self._names(registrations)
        leaf = Leaf(self._place, names, options.renew_before, options.lifetime, self._now)
        configurations = [
            Installed(connection, one)
            for one in (*options.webhook_configuration, *installed)
            if connection is not None
        ]
        bundles = Bundles(configurations, journal)
        servers = Servers(options.served_at, connection, names, options.wait, self._now)
        return Parts(leaf, bundles, servers, journal, self._now)

    async def _names(self, registrations: Iterable[Any]) -> Names:
        """Return the names of the command line, or those that registrations ask for."""
        options = self._options
        if options.dns_names:
            return Names(options.dns_names, options.dns_names)
        called = [host for one in registrations for host in hosts_of(one)]
        for configuration in options.webhook_configuration:
            assert self._connection is not None  # noqa: S101 (a configuration needs a cluster)
            called += await read_hosts(self._connection, configuration)
        namespace = options.secret[0] if options.secret else None
        return names_for(called, await self._place.read(), namespace)


def webhook_configurations(documents: Iterable[Any]) -> list[Any]:
    """Return the ValidatingWebhookConfigurations among the documents of a file, and in its Lists.

    Raises:
        ValueError: there is none, or one lacks what every one has.
    """
    maps = [one for one in documents if isinstance(one, dict)]
    lists = [one["items"] for one in maps if one.get("kind") in _LISTS and one.get("items")]
    items = [one for each in lists for one in each if isinstance(one, dict)]
    found = [checked(one) for one in (*maps, *items) if one.get("kind") == _KIND]
    if not found:
        raise ValueError(f"there is no {_KIND}")
    return found
