"""A Secret with a certificate."""

import base64
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from noderestrict.certs.typed import read_typed
from noderestrict.cluster.connection import MANAGED, ClusterError, Connection
from noderestrict.cluster.objects import version_of

#: Its data, by key.
Secret = dict[str, bytes]


class _Metadata(msgspec.Struct):
    resourceVersion: str  # noqa: N815 (the API's name)


class _Secret(msgspec.Struct):
    metadata: _Metadata
    data: dict[str, bytes] | None = None


async def read_secret(connection: Connection, namespace: str, name: str) -> dict[str, Any] | None:
    """Return a Secret as plain values; None if it does not exist.

    Raises:
        ClusterError: the Secret could not be read.
    """
    try:
        found: dict[str, Any] = await read_typed(
            connection, f"/api/v1/namespaces/{namespace}/secrets/{name}", _Secret
        )
    except ClusterError as error:
        if error.code == HTTPStatus.NOT_FOUND:
            return None
        raise
    return found


def data_of(found: Mapping[str, Any] | None) -> Secret:
    """Return what a Secret holds, by key."""
    data = (found or {}).get("data") or {}
    return {key: base64.b64decode(content) for key, content in data.items()}


async def write_secret(
    connection: Connection,
    namespace: str,
    name: str,
    data: Secret,
    found: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Create a Secret of type kubernetes.io/tls, or replace some of what one holds.

    Args:
        connection: to its cluster.
        namespace: of the Secret.
        name: of the Secret.
        data: what to write; other keys stay as they are.
        found: the Secret as it was read, None if it did not exist.

    Returns:
        The Secret as it is now.

    Raises:
        ClusterError: the Secret could not be written, or is no longer what was read.
    """
    path = f"/api/v1/namespaces/{namespace}/secrets"
    encoded = {key: base64.b64encode(content).decode() for key, content in data.items()}
    value = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": name, "namespace": namespace},
        **(found or {}),
        "data": {**((found or {}).get("data") or {}), **encoded},
    }
    try:
        if found is None:
            written = await connection.post(path, value, query=MANAGED)
        else:
            written = await connection.put(f"{path}/{name}", value)
    except ClusterError as error:
        if error.code != HTTPStatus.CONFLICT:
            raise
        raise ClusterError(
            f"Secret {namespace}/{name}: somebody else has written it meanwhile; run the command "
            f"again",
            error.code,
        ) from None
    metadata = {**value["metadata"], "resourceVersion": version_of(written)}
    return {**value, "metadata": metadata}
