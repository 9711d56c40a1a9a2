"""Whether the cluster has an object, whatever is in it."""

from dataclasses import replace
from http import HTTPStatus

from noderestrict.api.resources import RESOURCES, ObjectKey
from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.live import CALL_SECONDS, is_path_segment
from noderestrict.cluster.metadata import metadata_only


async def exists(connection: Connection, key: ObjectKey) -> bool:
    """Return whether the cluster has an object, of which only the metadata is read.

    Raises:
        ClusterError: the API server did not answer, or does not say.
    """
    resource = RESOURCES[key.resource]
    if not is_path_segment(key.name) or (key.namespace and not is_path_segment(key.namespace)):
        return False
    for version in (resource.version, *resource.older_versions):
        path = replace(resource, version=version).path(key.namespace, key.name)
        try:
            # A Secret is asked for as well, so nothing but metadata is read.
            await connection.get(path, seconds=CALL_SECONDS, accept=metadata_only())
        except ClusterError as error:
            if error.code != HTTPStatus.NOT_FOUND:
                raise
        else:
            return True
    return False
