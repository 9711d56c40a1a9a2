"""What the API server puts into the tokens of pods."""

from noderestrict.cluster.server_info import server_version
from noderestrict.doctor import exposition
from noderestrict.doctor.cluster import Cluster

#: Puts the node of the pod into a token.
GATE = "ServiceAccountTokenPodNodeInfo"
#: The first minor versions with the gate, with it on by default, and with it always on.
_ALPHA, BETA, _STABLE = 29, 30, 32
_ENABLED = "kubernetes_feature_enabled"


async def tokens_tell_nodes(cluster: Cluster) -> bool | None:
    """Tell whether the API server puts a pod's node into its token; None if that is not visible.

    Raises:
        ClusterError: the API server's version or metrics could not be read.
    """
    minor, _ = await server_version(cluster.connection)
    if not _ALPHA <= minor < _STABLE:
        return minor >= _STABLE
    text = await exposition.of_api_server(cluster)
    for one in exposition.samples(text, (_ENABLED,)):
        if one.labels.get("name") == GATE:
            return one.value == 1
    return None
