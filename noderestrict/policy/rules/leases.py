"""Leases: a node may write its own heartbeat, and nothing else.

The source is admitLease in plugin/pkg/admission/noderestriction of Kubernetes.
"""

from noderestrict.policy.attributes import Attributes
from noderestrict.policy.decision import Denied, forbidden
from noderestrict.policy.rules.names import named_as_node

NODE_LEASE_NAMESPACE = "kube-node-lease"


def lease_namespace(request: Attributes) -> Denied | None:
    """Refuse other namespaces: leader election of controllers lives there. Since 1.13."""
    if request.namespace == NODE_LEASE_NAMESPACE:
        return None
    return forbidden(
        "leases/namespace",
        f"{request.where}: the namespace is {request.namespace!r}; node {request.node!r} may "
        f"write leases only in {NODE_LEASE_NAMESPACE!r}",
    )


def own_lease(request: Attributes) -> Denied | None:
    """Refuse the lease of another node: it would look alive or dead. Since 1.13."""
    return named_as_node(request, "leases/own-name")
