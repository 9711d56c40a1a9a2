"""Read objects to change them: whole, and of the expected shape."""

from typing import Any

import msgspec

from noderestrict.api.scanner import ScanError
from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.objects import tree


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
