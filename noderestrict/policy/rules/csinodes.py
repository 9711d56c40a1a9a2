"""CSINodes: a node may describe its own CSI drivers.

The source is admitCSINode in plugin/pkg/admission/noderestriction of Kubernetes.
"""

from noderestrict.api import metav1
from noderestrict.policy.attributes import Attributes
from noderestrict.policy.decision import Denied
from noderestrict.policy.rule import ANY, CREATE, Target, rule
from noderestrict.policy.rules.names import named_as_node

_GROUP = "storage.k8s.io"
CREATE_CSI_NODE = Target(_GROUP, "csinodes", ANY, CREATE, "CSINode", new=metav1.PartialObject)
ANY_CSI_NODE = Target(_GROUP, "csinodes", ANY, ANY)


@rule(
    "csinodes/own-name",
    CREATE_CSI_NODE,
    ANY_CSI_NODE,
    demands="named after the node",
    by_name=True,
)
def own_csi_node(request: Attributes) -> Denied | None:
    """Deny writes to another node's CSINode, which could misdirect that node's volumes."""
    return named_as_node(request)
