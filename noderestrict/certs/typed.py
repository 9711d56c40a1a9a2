"""Read objects to change them, whole and of the expected shape, and patch what was read."""

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from noderestrict.api.scanner import ScanError
from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.objects import tree

_ATTEMPTS = 5
_CHANGED_MEANWHILE = (HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY)


async def read_typed(connection: Connection, path: str, shape: type[msgspec.Struct]) -> Any:
    """Return an object as plain values, of which those that are looked at have their types.

    Args:
        connection: to the cluster.
        path: of the object.
        shape: the fields that are looked at.

    Raises:
        ClusterError: it could not be read, or a field has another type.
    """
    try:
        value = tree(await connection.get(path))
        msgspec.convert(value, shape)
    except (ScanError, msgspec.ValidationError) as error:
        raise ClusterError(f"GET {path}: {error}") from None
    return value


async def patch_typed(
    connection: Connection,
    path: str,
    shape: type[msgspec.Struct],
    operations_for: Callable[[Any], Sequence[dict[str, Any]]],
) -> Sequence[dict[str, Any]]:
    """Patch an object as it is now; retries on conflicts.

    Args:
        connection: to the cluster.
        path: of the object.
        shape: the fields that are looked at.
        operations_for: returns the JSON patch for the object as it is, empty if it is well; with
            ``at_version``, no concurrent change is lost.

    Returns:
        The operations that were sent.

    Raises:
        ClusterError: the change failed.
    """
    for attempt in range(_ATTEMPTS):
        value = await read_typed(connection, path, shape)
        operations = operations_for(value)
        if not operations:
            return operations
        try:
            await connection.json_patch(path, operations)
        except ClusterError as error:
            if error.code not in _CHANGED_MEANWHILE or attempt == _ATTEMPTS - 1:
                raise
        else:
            return operations
    return ()


def at_version(value: Any, operations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a JSON patch that fails once the object is not what was read; no test alone."""
    if not operations:
        return []
    version = value["metadata"]["resourceVersion"]
    return [{"op": "test", "path": "/metadata/resourceVersion", "value": version}, *operations]
