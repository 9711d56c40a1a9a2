"""Whether every server serves a certificate of a CA."""

import asyncio
import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from noderestrict.certs.names import SERVICE, Names
from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.endpoints import endpoints
from noderestrict.errors import said
from noderestrict.pki.check import KeyPairError, check_chain
from noderestrict.pki.peer import served_chain

_ANSWER_SECONDS = 5.0
_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers that a rotation asks.

    Attributes:
        addresses: hosts and ports; a host may be the name of a Service.
        connection: to the cluster, to find the endpoints of a Service; None outside of one.
        names: of the certificate.
        wait: how long to wait for all of them, in seconds.
        now: an aware time.
    """

    addresses: Sequence[tuple[str, int]]
    connection: Connection | None
    names: Names
    wait: float
    now: dt.datetime

    async def why_not_served(self, ca: bytes) -> str:
        """Return who serves no certificate of a CA in time; "" if everybody does."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.wait
        while True:
            problems = [await self._problem_at(host, port, ca) for host, port in self.addresses]
            problem = "; ".join(filter(None, problems))
            if not problem or loop.time() >= end:
                return problem
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _problem_at(self, host: str, port: int, ca: bytes) -> str:
        match = SERVICE.fullmatch(host)
        if match is None or self.connection is None:
            return await self._answer_of(host, port, ca)
        # Through the Service, only one of them would answer.
        service = match["namespace"], match["name"]
        try:
            found = await endpoints(self.connection, *service)
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
            chain = await served_chain(host, port, self.names.given[0], _ANSWER_SECONDS)
            check_chain(chain, now=self.now, dns_names=self.names.called[:1], roots=ca)
        except KeyPairError as error:
            return f"{host}:{port}: {error}"
        except (OSError, TimeoutError) as error:
            return f"{host}:{port}: {said(error)}" if ready else ""
        return ""
