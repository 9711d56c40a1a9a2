"""A request that the webhook must deny."""

from noderestrict.cluster.connection import ClusterError
from noderestrict.doctor.cluster import Cluster
from noderestrict.policy.identity import NODE_USER_PREFIX, NODES_GROUP

_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_NODE = "noderestrict-doctor"


async def probe(cluster: Cluster) -> ClusterError | None:
    """Create another node's Lease as a node, in a dry run.

    Returns:
        The refusal, None if the request was allowed.
    """
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": f"{_NODE}-other", "namespace": "kube-node-lease"},
    }
    headers = {"Impersonate-User": f"{NODE_USER_PREFIX}{_NODE}", "Impersonate-Group": NODES_GROUP}
    try:
        await cluster.connection.post(_LEASES, lease, query={"dryRun": "All"}, headers=headers)
    except ClusterError as error:
        return error
    return None


def is_from_webhook(refusal: ClusterError) -> bool:
    """Tell whether a refusal names one of our webhooks."""
    return ".noderestrict.io" in str(refusal)
