"""CSINodes: a node may describe its own CSI drivers.

The source is admitCSINode in plugin/pkg/admission/noderestriction of Kubernetes.
"""

from noderestrict.policy.attributes import Attributes
from noderestrict.policy.decision import Denied
from noderestrict.policy.rules.names import named_as_node


def own_csi_node(request: Attributes) -> Denied | None:
    """Refuse the CSINode of another node: its volumes could be misdirected. Since 1.12."""
    return named_as_node(request, "csinodes/own-name")
