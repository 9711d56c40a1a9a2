"""Does the API server answer?"""

from collections.abc import AsyncIterator

from noderestrict.cluster.connection import ClusterError
from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import Finding, passed


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield one finding if it answers, be it an error.

    Raises:
        ClusterError: it does not answer, or cannot be trusted.
    """
    try:
        await cluster.connection.get("/version")
    except ClusterError as error:
        if not error.code:
            raise
    yield passed("it answers")


CHECK = Check("API server", "Does the API server answer?", check)
