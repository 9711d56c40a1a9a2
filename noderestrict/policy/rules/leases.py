"""Leases: a node may write only its own heartbeat.

The source is admitLease in plugin/pkg/admission/noderestriction of Kubernetes.
"""

from noderestrict.api import metav1
from noderestrict.policy.attributes import Attributes
from noderestrict.policy.cel import Form, quoted
from noderestrict.policy.decision import Denied, forbidden
from noderestrict.policy.rule import ANY, CREATE, Target, rule
from noderestrict.policy.rules.names import NAMED_AS_NODE, named_as_node

_GROUP = "coordination.k8s.io"
CREATE_LEASE = Target(_GROUP, "leases", ANY, CREATE, "Lease", new=metav1.PartialObject)
ANY_LEASE = Target(_GROUP, "leases", ANY, ANY)

NODE_LEASE_NAMESPACE = "kube-node-lease"


@rule(
    "leases/namespace",
    CREATE_LEASE,
    ANY_LEASE,
    demands="in `kube-node-lease`",
    by_name=True,
    cel=Form(
        (f"variables.requestNamespace == {quoted(NODE_LEASE_NAMESPACE)}",),
        "the namespace is {requestNamespace}; node {node} may write leases only in "
        f"{NODE_LEASE_NAMESPACE!r}",
    ),
)
def lease_namespace(request: Attributes) -> Denied | None:
    """Deny leases in other namespaces, which controllers use for leader election."""
    if request.namespace == NODE_LEASE_NAMESPACE:
        return None
    return forbidden(
        f"{request.where}: the namespace is {request.namespace!r}; node {request.node!r} may "
        f"write leases only in {NODE_LEASE_NAMESPACE!r}",
    )


@rule(
    "leases/own-name",
    CREATE_LEASE,
    ANY_LEASE,
    demands="named after the node",
    by_name=True,
    cel=NAMED_AS_NODE,
)
def own_lease(request: Attributes) -> Denied | None:
    """Deny writes to another node's lease, which could make that node look alive or dead."""
    return named_as_node(request)
