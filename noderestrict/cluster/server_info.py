"""The version of the API server."""

import msgspec

from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.objects import DECODE_ERRORS

# CVE-2021-25735: before these patch releases an update of a Node could pass webhooks unseen.
_FIXED_PATCH = {18: 18, 19: 10, 20: 6}


class _Version(msgspec.Struct):
    gitVersion: str  # noqa: N815 (the API's name)


async def server_version(connection: Connection) -> tuple[int, int]:
    """Return the minor version and patch level of a Kubernetes 1 API server.

    Raises:
        ClusterError: the version could not be read.
    """
    body = await connection.get("/version", seconds=5)
    try:
        text = msgspec.json.decode(body, type=_Version).gitVersion
        major, minor, patch = text.removeprefix("v").split("-")[0].split("+")[0].split(".")[:3]
        if major != "1":
            raise ClusterError(f"/version: {text!r} is not a version of Kubernetes 1")
        return int(minor), int(patch)
    except (*DECODE_ERRORS, ValueError) as error:
        raise ClusterError(f"/version: {error}") from None


def is_open_to_cve_2021_25735(minor: int, patch: int) -> bool:
    """Return whether updates of Nodes can bypass this API server's webhooks."""
    return minor < min(_FIXED_PATCH) or patch < _FIXED_PATCH.get(minor, 0)
