"""The objects that a command reports on: those of files, or of the live cluster."""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from noderestrict.cli._errors import UsageError
from noderestrict.cli.argument_types import KUBERNETES_VERSION, checked
from noderestrict.cli.fields import from_flags
from noderestrict.cli.shared_flags import KubectlAccess

if TYPE_CHECKING:
    from noderestrict.cluster.connection import Connection

_Read = TypeVar("_Read")


def add_version_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag for the version of the cluster that files come from."""
    parser.add_argument(
        "--kubernetes-version",
        type=checked(KUBERNETES_VERSION.parse),
        metavar=KUBERNETES_VERSION.metavar,
        help="Kubernetes version of the API server that the files come from",
    )


def check_version_flag(options: argparse.Namespace) -> None:
    """Check that the version is not given for a live cluster.

    Raises:
        UsageError: it is.
    """
    if options.kubernetes_version is not None and not options.state:
        raise UsageError("--kubernetes-version is for --state; a live cluster tells its version")


def from_files(read: Callable[[int], _Read], options: argparse.Namespace) -> _Read:
    """Return what is read of files.

    Args:
        read: gets the limit for each file, in bytes, unpacked.
        options: with ``--max-file-mib``.

    Raises:
        UsageError: a file cannot be read.
    """
    from noderestrict.replay.sources import MIB
    from noderestrict.replay.state import StateError

    try:
        return read(options.max_file_mib * MIB)
    except StateError as error:
        raise UsageError(str(error)) from None


def from_cluster(
    read: Callable[["Connection"], Awaitable[_Read]], options: argparse.Namespace
) -> _Read:
    """Return what is read of the live cluster.

    Args:
        read: gets the connection.
        options: with the flags of ``KubectlAccess``.

    Raises:
        UsageError: no cluster can be reached.
    """
    from noderestrict.cluster.connection import ClusterError

    access = from_flags(KubectlAccess, options)

    async def connect() -> _Read:
        async with access.connected() as connection:
            return await read(connection)

    try:
        return asyncio.run(connect())
    except ClusterError as error:
        raise UsageError(str(error)) from None
