"""The API server's audiences, as far as they can be seen."""

from collections.abc import Mapping, Sequence

from noderestrict.cluster.audiences import learn_audiences
from noderestrict.cluster.connection import ClusterError
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.workloads import api_servers, elements, values


async def known_audiences(cluster: Cluster) -> Mapping[str, Sequence[str]]:
    """Return the API server's audiences by source: its flags, or else our own token.

    Raises:
        ClusterError: the pods of API servers could not be read.
    """
    known: dict[str, Sequence[str]] = {}
    for name, command in (await api_servers(cluster)).items():
        # The audiences default to the issuers, of which there may be several.
        audiences = elements(values(command, "--api-audiences")) or values(
            command, "--service-account-issuer"
        )
        if audiences:
            known[name] = audiences
    if not known:
        try:
            known["the API server"] = await learn_audiences(cluster.connection)
        except ClusterError:
            # Our token may not show them. That is not a fault of the cluster.
            return {}
    return known
