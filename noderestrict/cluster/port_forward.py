"""Reach a port of a pod as ``kubectl port-forward`` does: its kubelet connects, inside the pod.

The kubelet's side is k8s.io/kubelet/pkg/cri/streaming/portforward, protocol ``v4.channel.k8s.io``.
"""

import contextlib

import aiohttp

from noderestrict.api.resources import RESOURCES
from noderestrict.cluster.connection import Connection
from noderestrict.cluster.errors import ClusterError
from noderestrict.errors import said

_PROTOCOL = "v4.channel.k8s.io"
#: Of the first port, by the first byte of each message.
_DATA, _ERROR = 0, 1
#: A channel begins with its port.
_PORT_BYTES = 2
_LONGEST_PROBLEM = 500


async def exchange(
    connection: Connection,
    namespace: str,
    name: str,
    port: int,
    sent: bytes,
    *,
    seconds: float,
    most: int,
) -> bytes:
    """Return all that a pod answers until it ends the connection.

    Args:
        connection: to the API server.
        namespace: of the pod.
        name: of the pod.
        port: on which the pod listens, if only on loopback.
        sent: to the pod.
        seconds: how long to wait.
        most: how many bytes to take.

    Raises:
        ClusterError: the port could not be reached, did not answer, or did not end in time or
            within so many bytes.
    """
    path = f"{RESOURCES['pods'].path(namespace, name)}/portforward"
    received = {_DATA: bytearray(), _ERROR: bytearray()}
    async with connection.websocket(path, {"ports": str(port)}, _PROTOCOL, seconds) as socket:
        with contextlib.suppress(ConnectionResetError):
            # If nobody listens there, it is closed already, and what it received says so.
            await socket.send_bytes(bytes((_DATA,)) + sent)
        async for message in socket:
            if message.type is aiohttp.WSMsgType.ERROR:
                raise ClusterError(f"{path}: {said(message.data)}")
            if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                continue
            channel = received.get(message.data[0])
            if channel is not None:
                channel += message.data[1:]
                if len(channel) > most:
                    raise ClusterError(f"{path}: port {port} answers with over {most} bytes")
    if problem := received[_ERROR][_PORT_BYTES:]:
        said_there = problem[:_LONGEST_PROBLEM].decode(errors="replace")
        raise ClusterError(f"{path}: {' '.join(said_there.split())}")
    if not (answer := received[_DATA][_PORT_BYTES:]):
        raise ClusterError(f"{path}: nothing answers on port {port}")
    return bytes(answer)
