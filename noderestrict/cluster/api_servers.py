"""Reach API servers at given addresses instead of through the Service ``kubernetes``.

The Service needs kube-proxy, or whatever takes its place, which after an outage may wait for a
token that the API server does not issue without us.
"""

import ipaddress
import socket
import ssl
from collections.abc import Sequence

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from kubernetes_asyncio import client

Address = tuple[str, int]
#: The name that the certificate of every API server has.
NAME = "kubernetes.default.svc"


class GivenAddresses(AbstractResolver):
    """Resolves every name to the given addresses, in their order.

    Args:
        addresses: hosts, by name or IP address, and their ports.
    """

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = tuple(addresses)
        self._names = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses; those whose names cannot be resolved are left out.

        Raises:
            OSError: none is left.
        """
        del host, port
        found: list[ResolveResult] = []
        problem = OSError("there is no address")
        for name, at in self._addresses:
            try:
                found += _literal(name, at) or await self._names.resolve(name, at, family)
            except OSError as error:
                problem = error
        if not found:
            raise problem
        return found

    async def close(self) -> None:
        """Release the resolver of names."""
        await self._names.close()


def _literal(host: str, port: int) -> list[ResolveResult]:
    """Return an IP address as it is, without a look-up; nothing for a name."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return []
    return [
        ResolveResult(
            hostname=NAME,
            host=host,
            port=port,
            family=socket.AF_INET6 if version == 6 else socket.AF_INET,
            proto=0,
            flags=socket.AI_NUMERICHOST,
        )
    ]


async def use_addresses(api: client.ApiClient, addresses: Sequence[Address]) -> None:
    """Send the requests of a client to the first address that takes the connection.

    The certificate is verified under the name ``kubernetes.default.svc``.

    Args:
        api: whose configuration has the CA; its requests need no proxy.
        addresses: of API servers of one cluster; all are equal.
    """
    configuration = api.configuration
    configuration.host = f"https://{NAME}"
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if configuration.disable_strict_ssl_verification:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    replaced: aiohttp.ClientSession = api.rest_client.pool_manager
    api.rest_client.pool_manager = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=configuration.connection_pool_maxsize,
            ssl=context,
            resolver=GivenAddresses(addresses),
            use_dns_cache=False,
        ),
        read_bufsize=replaced._read_bufsize,  # noqa: SLF001 (its size has no other name)
    )
    await replaced.close()
