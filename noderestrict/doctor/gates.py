"""Feature gates of the API server, as its metrics tell them."""

from collections.abc import Mapping

from noderestrict.cluster.server_info import server_version
from noderestrict.doctor import exposition
from noderestrict.doctor.cluster import Cluster

#: Puts the node of the pod into a token.
NODE_IN_TOKENS = "ServiceAccountTokenPodNodeInfo"
#: Of each gate, the first minor version that has it, and the first with which it is always on.
_LIVES: Mapping[str, tuple[int, int]] = {
    NODE_IN_TOKENS: (29, 32),
    "AuthorizeWithSelectors": (31, 34),
}
_ENABLED = "kubernetes_feature_enabled"


async def exposed_gates(cluster: Cluster) -> Mapping[str, bool]:
    """Return the feature gates of the API server; none if it does not expose them.

    Raises:
        ClusterError: its metrics could not be read.
    """
    text = await exposition.of_api_server(cluster)
    return {
        sample.labels["name"]: sample.value == 1 for sample in exposition.samples(text, (_ENABLED,))
    }


async def is_on(cluster: Cluster, gate: str) -> bool | None:
    """Tell whether the API server has a feature, None if that is not visible.

    Args:
        cluster: where the API server is.
        gate: whose life is known here.

    Raises:
        ClusterError: the API server's version or metrics could not be read.
    """
    minor, _ = await server_version(cluster.connection)
    since, always = _LIVES[gate]
    if not since <= minor < always:
        return minor >= always
    return (await exposed_gates(cluster)).get(gate)
