"""What Helm has rendered for the release that runs our servers."""

import base64
import json
import zlib
from typing import Any

import yaml

from noderestrict.cluster.connection import ClusterError
from noderestrict.doctor.cluster import Cluster
from noderestrict.render.load import Object, loaded

_LARGEST = 64 * 1024 * 1024
_GZIP = zlib.MAX_WBITS | 16
_TYPE = "helm.sh/release.v1"


async def released(cluster: Cluster, release: str) -> list[Object] | None:
    """Return the objects of a release as Helm has rendered them, without those of its hooks.

    Args:
        cluster: where Helm keeps releases in Secrets, as it does unless told otherwise.
        release: its name.

    Returns:
        None if Helm does not keep it there: another tool has applied what Helm rendered.

    Raises:
        ClusterError: the release could not be read.
    """
    path = f"/api/v1/namespaces/{cluster.options.namespace}/secrets"
    query = {"labelSelector": f"owner=helm,name={release},status=deployed"}
    for secret in await cluster.items(path, query):
        if secret.get("type") == _TYPE:
            try:
                return _objects(base64.b64decode(secret["data"]["release"]))
            except (KeyError, TypeError, ValueError, zlib.error, yaml.YAMLError) as error:
                name = secret["metadata"]["name"]
                raise ClusterError(f"Secret {name} holds no release: {error}") from None
    return None


def _objects(data: bytes) -> list[Object]:
    """Return the objects of a release, which Helm packs and encodes once more."""
    text = zlib.decompressobj(_GZIP).decompress(base64.b64decode(data), _LARGEST)
    manifest: Any = json.loads(text)["manifest"]
    return loaded(manifest)
