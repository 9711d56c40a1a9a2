"""The endpoints of a Service."""

from dataclasses import dataclass

import msgspec

from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.objects import DECODE_ERRORS

#: Of several ports, the one with this name is meant.
_HTTPS = "https"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a Service sends connections to.

    Attributes:
        address: IP address.
        port: of the pod.
        ready: whether it gets any now.
    """

    address: str
    port: int
    ready: bool


class _Conditions(msgspec.Struct):
    ready: bool | None = None
    terminating: bool | None = None


class _Endpoint(msgspec.Struct):
    addresses: list[str]
    conditions: _Conditions | None = None


class _Port(msgspec.Struct):
    port: int | None = None
    name: str | None = None


class _Slice(msgspec.Struct):
    endpoints: list[_Endpoint] | None = None
    ports: list[_Port] | None = None


class _Slices(msgspec.Struct):
    items: list[_Slice] | None = None


async def endpoints(connection: Connection, namespace: str, service: str) -> list[Endpoint]:
    """Return the endpoints of a Service, without those that are about to end.

    Raises:
        ClusterError: they cannot be read.
    """
    path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
    query = {"labelSelector": f"kubernetes.io/service-name={service}"}
    try:
        slices = msgspec.json.decode(await connection.get(path, query), type=_Slices)
    except DECODE_ERRORS as error:
        raise ClusterError(f"GET {path}: {error}") from None
    return sorted(
        {
            Endpoint(address, port, ready=conditions.ready is not False)
            for one in slices.items or ()
            for port in _ports(one)
            for endpoint in one.endpoints or ()
            for conditions in (endpoint.conditions or _Conditions(),)
            for address in endpoint.addresses
            if not conditions.terminating
        },
        key=lambda found: (found.address, found.port),
    )


def _ports(one: _Slice) -> list[int]:
    named = [port for port in one.ports or () if port.name == _HTTPS] or one.ports or ()
    return [port.port for port in named if port.port is not None]
