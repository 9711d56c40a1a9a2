"""Connect to the API server at start-up."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

from noderestrict.cluster.api_servers import Address
from noderestrict.cluster.connection import ClusterError, Connection, ConnectionFailedError
from noderestrict.cluster.server_info import is_open_to_cve_2021_25735, server_version
from noderestrict.policy.releases import LATEST_MINOR
from noderestrict.telemetry.logs import LOGGER

_PAUSE_SECONDS = 1.0


@contextlib.asynccontextmanager
async def reached(
    kubeconfig: str | None,
    context: str | None,
    wait: float,
    api_servers: Sequence[Address] = (),
    counted: Callable[[str], None] | None = None,
) -> AsyncIterator[tuple[Connection, int]]:
    """Yield a connection to an API server that answers, and its minor version.

    The kubeconfig is read again before each retry, because it may have been replaced.

    Args:
        kubeconfig: one or more files; None means what the environment says.
        context: of the kubeconfig; None means its current one.
        wait: seconds to wait for an answer.
        api_servers: where a pod reaches API servers; none for the Service of the cluster.
        counted: called with the result of each renewal of the credential.

    Raises:
        ConnectionFailedError: the first configuration is unusable.
        ClusterError: there was no answer in time.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + wait
    tried = False
    while True:
        try:
            connection, minor, patch = await _try(kubeconfig, context, api_servers, counted)
            break
        except ClusterError as error:
            unusable = isinstance(error, ConnectionFailedError) and not tried
            if unusable or loop.time() >= end:
                raise
            LOGGER.warning("the API server does not answer", extra={"error": str(error)[:500]})
        tried = True
        await asyncio.sleep(_PAUSE_SECONDS)
    try:
        if is_open_to_cve_2021_25735(minor, patch):
            LOGGER.critical(
                "CVE-2021-25735: this API server lets some Node updates pass webhooks unseen; "
                "upgrade",
                extra={"server_version": f"1.{minor}.{patch}"},
            )
        if minor > LATEST_MINOR:
            LOGGER.error(
                "the API server is newer than the rules and feature gates known here: upgrade "
                "noderestrict",
                extra={"server_version": f"1.{minor}.{patch}", "newest": f"1.{LATEST_MINOR}"},
            )
        yield connection, minor
    finally:
        await connection.close()


async def _try(
    kubeconfig: str | None,
    context: str | None,
    api_servers: Sequence[Address],
    counted: Callable[[str], None] | None,
) -> tuple[Connection, int, int]:
    connection = await Connection.open(kubeconfig, context, api_servers, counted)
    try:
        return connection, *await server_version(connection)
    except BaseException:
        await connection.close()
        raise
