"""A Secret of type kubernetes.io/tls."""

import base64
from http import HTTPStatus

import msgspec

from noderestrict.certs.typed import read_typed
from noderestrict.cluster.connection import MANAGED, ClusterError, Connection

#: Its data, by key.
Secret = dict[str, bytes]


class _Secret(msgspec.Struct):
    data: dict[str, bytes] | None = None


async def read_secret(connection: Connection, namespace: str, name: str) -> Secret | None:
    """Return the data of a Secret; None if it does not exist.

    Raises:
        ClusterError: the Secret could not be read.
    """
    try:
        path = f"/api/v1/namespaces/{namespace}/secrets/{name}"
        value = await read_typed(connection, path, _Secret)
    except ClusterError as error:
        if error.code == HTTPStatus.NOT_FOUND:
            return None
        raise
    return {key: base64.b64decode(data) for key, data in (value.get("data") or {}).items()}


async def write_secret(connection: Connection, namespace: str, name: str, data: Secret) -> None:
    """Create or replace a Secret of type kubernetes.io/tls.

    Raises:
        ClusterError: the Secret could not be written.
    """
    path = f"/api/v1/namespaces/{namespace}/secrets"
    value = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": name, "namespace": namespace},
        "data": {key: base64.b64encode(content).decode() for key, content in data.items()},
    }
    try:
        await connection.put(f"{path}/{name}", value)
    except ClusterError as error:
        if error.code != HTTPStatus.NOT_FOUND:
            raise
        await connection.post(path, value, query=MANAGED)
