"""Metrics of API servers and of our own, in Prometheus' text format."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from noderestrict.cluster.connection import ClusterError, limited
from noderestrict.cluster.port_forward import exchange
from noderestrict.doctor.cluster import Address, Cluster
from noderestrict.errors import said

_SECONDS = 10
#: Ours have a hundredth of it, and whoever took a node answers for the pods on it.
_MOST_BYTES = 8 * 2**20
#: Which ends with the answer.
_REQUEST = b"GET /metrics HTTP/1.0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Sample:
    """One value.

    Attributes:
        name: of the metric.
        labels: of the series.
        value: as it is exposed.
    """

    name: str
    labels: Mapping[str, str]
    value: float


def samples(text: bytes, names: Collection[str]) -> Iterator[Sample]:
    """Yield the values of some metrics.

    Args:
        text: everything that is exposed.
        names: of the metrics.

    Raises:
        ValueError: a value cannot be read.
    """
    wanted = tuple(name.encode() for name in names)
    # The parser takes a second for each MiB, and nearly all lines are about something else.
    lines = [line for line in text.splitlines() if line.startswith(wanted)]
    for family in text_string_to_metric_families(b"\n".join(lines).decode() + "\n"):
        for one in family.samples:
            if one.name in names:
                yield Sample(one.name, one.labels, one.value)


async def of_address(address: Address) -> bytes:
    """Return what is exposed at an address.

    Raises:
        ClusterError: there was no answer, or another one.
    """
    at = f"http://{address[0]}:{address[1]}/metrics"
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(at) as response:
            response.raise_for_status()
            return await limited(response, _MOST_BYTES, at)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise ClusterError(f"{at}: {said(error)}") from None


async def of_pod(cluster: Cluster, namespace: str, name: str, port: int) -> bytes:
    """Return what a pod exposes, by way of the API server.

    Raises:
        ClusterError: there was no answer, or another one.
    """
    path = f"/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy/metrics"
    return await cluster.connection.get(path, seconds=_SECONDS, most=_MOST_BYTES)


async def of_loopback(cluster: Cluster, namespace: str, name: str, port: int) -> bytes:
    """Return what a pod exposes on loopback, by way of its kubelet.

    Raises:
        ClusterError: there was no answer, or another one.
    """
    answer = await exchange(
        cluster.connection,
        namespace,
        name,
        port,
        _REQUEST,
        seconds=_SECONDS,
        most=_MOST_BYTES,
    )
    head, end, body = answer.partition(b"\r\n\r\n")
    what = f"port {port} of {namespace}/{name}"
    if not re.match(rb"HTTP/1\.[01] 200 ", head):
        shown = head.partition(b"\r\n")[0][:80].decode(errors="replace")
        raise ClusterError(f"{what} answers {shown!r}")
    length = re.search(rb"\r\ncontent-length: *([0-9]{1,9})(?:\r\n|\Z)", head, re.IGNORECASE)
    if not end or (length is not None and len(body) < int(length[1])):
        raise ClusterError(f"the answer of {what} is cut off")
    return body


async def of_api_server(cluster: Cluster) -> bytes:
    """Return what the API server exposes.

    Raises:
        ClusterError: there was no answer, or another one.
    """
    return await cluster.connection.get("/metrics")
