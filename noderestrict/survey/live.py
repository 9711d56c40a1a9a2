"""Read a live cluster for a survey."""

from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.load import load
from noderestrict.cluster.server_info import server_version
from noderestrict.survey.objects import HIDDEN, STRUCTS, NotSeen, Objects


async def from_cluster(connection: Connection) -> Objects:
    """Return the objects of a live cluster, as far as they may be read.

    Raises:
        ClusterError: no API server answered.
    """
    loaded = await load(connection, STRUCTS)
    found = Objects({plural: loaded.objects[plural] for plural in STRUCTS})
    found.not_seen = [
        NotSeen(plural, why, HIDDEN[plural]) for plural, why in loaded.problems.items()
    ]
    try:
        found.minor, _ = await server_version(connection)
    except ClusterError as error:
        hidden = "whether the API server has constrained impersonation"
        found.not_seen.append(NotSeen("version", str(error), hidden))
    return found
