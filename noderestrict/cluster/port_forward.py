"""Reach a port of a pod as ``kubectl port-forward`` does: its kubelet connects, inside the pod.

The kubelet's side is k8s.io/kubelet/pkg/cri/streaming/portforward, protocol ``v4.channel.k8s.io``.
"""

import contextlib

import aiohttp

from noderestrict.api.resources import RESOURCES
from noderestrict.cluster.connection import Connection
from noderestrict.cluster.errors import ClusterError

_PROTOCOL = "v4.channel.k8s.io"
#: Of the first port, by the first byte of each message.
_DATA, _ERROR = 0, 1
#: A channel begins with its port.
_PORT_BYTES = 2


async def exchange(
    connection: Connection, namespace: str, name: str, port: int, sent: bytes, *, seconds: float
) -> bytes:
    """Return all that a pod answers until it ends the connection.

    Args:
        connection: to the API server.
        namespace: of the pod.
        name: of the pod.
        port: on which the pod listens, if only on loopback.
        sent: to the pod.
        seconds: how long to wait.

    Raises:
        ClusterError: the port could not be reached, did not answer, or did not end in time.
    """
    path = f"{RESOURCES['pods'].path(namespace, name)}/portforward"
    received = {_DATA: bytearray(), _ERROR: bytearray()}
    async with connection.websocket(path, {"ports": str(port)}, _PROTOCOL, seconds) as socket:
        with contextlib.suppress(ConnectionResetError):
            # If nobody listens there, it is closed already, and what it received says so.
            await socket.send_bytes(bytes((_DATA,)) + sent)
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY and message.data:
                received.setdefault(message.data[0], bytearray()).extend(message.data[1:])
    if problem := received[_ERROR][_PORT_BYTES:]:
        raise ClusterError(f"{path}: {problem.decode(errors='replace').strip()}")
    if not (answer := received[_DATA][_PORT_BYTES:]):
        raise ClusterError(f"{path}: nothing answers on port {port}")
    return bytes(answer)
