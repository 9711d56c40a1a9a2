"""Reach API servers at given addresses instead of through the Service ``kubernetes``.

The Service needs kube-proxy, or whatever takes its place, which after an outage may wait for a
token that the API server does not issue without us.
"""

import ipaddress
import socket
from collections.abc import Sequence

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

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
