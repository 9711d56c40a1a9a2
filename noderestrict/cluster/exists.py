"""Whether the cluster has an object, whatever is in it."""

from dataclasses import replace

from noderestrict.api.resources import RESOURCES, ObjectKey
from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.live import CALL_SECONDS, NOT_FOUND, is_path_segment

#: A Secret is asked for as well, so nothing but metadata is read.
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


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
            await connection.get(path, seconds=CALL_SECONDS, accept=_METADATA)
        except ClusterError as error:
            if error.code != NOT_FOUND:
                raise
        else:
            return True
    return False
