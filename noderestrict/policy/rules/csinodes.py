"""CSINodes: a node may describe its own CSI drivers.

The source is admitCSINode in plugin/pkg/admission/noderestriction of Kubernetes.
"""

from noderestrict.api import metav1
from noderestrict.policy import features
from noderestrict.policy.attributes import Attributes
from noderestrict.policy.cel import NEVER, Context, Form, quoted, sections_kept
from noderestrict.policy.compare import listed
from noderestrict.policy.decision import Denied, forbidden
from noderestrict.policy.releases import since
from noderestrict.policy.rule import ANY, CREATE, UPDATE, Target, rule
from noderestrict.policy.rules.names import NAMED_AS_NODE, named_as_node
from noderestrict.policy.semantic import Comparison, Fields, IncomparableError

_GROUP = "storage.k8s.io"
CREATE_CSI_NODE = Target(_GROUP, "csinodes", ANY, CREATE, "CSINode", new=metav1.PartialObject)
ANY_CSI_NODE = Target(_GROUP, "csinodes", ANY, ANY)
UPDATE_STATUS = Target(
    _GROUP,
    "csinodes",
    "status",
    UPDATE,
    "CSINode",
    new=metav1.PartialObject,
    old=metav1.PartialObject,
    whole=True,
)
CREATE_STATUS = Target(_GROUP, "csinodes", "status", CREATE, "CSINode", new=metav1.PartialObject)
ANY_STATUS = Target(_GROUP, "csinodes", "status", ANY)

_FIELDS = Fields(
    pointers=frozenset(
        {
            ("spec", "drivers", "*", "allocatable"),
            ("spec", "drivers", "*", "allocatable", "count"),
        }
    )
)
_NOT_SPEC = frozenset({("apiVersion",), ("kind",), ("metadata",), ("status",)})


@rule(
    "csinodes/own-name",
    CREATE_CSI_NODE,
    ANY_CSI_NODE,
    CREATE_STATUS,
    UPDATE_STATUS,
    ANY_STATUS,
    demands="named after the node",
    by_name=True,
    cel=NAMED_AS_NODE,
)
def own_csi_node(request: Attributes) -> Denied | None:
    """Deny writes to another node's CSINode, which could misdirect that node's volumes."""
    return named_as_node(request)


def _only_reports_health(context: Context) -> tuple[str, ...]:
    if not context.settings.features[features.CSI_VOLUME_HEALTH]:
        return NEVER
    kept = sections_kept(_FIELDS.pointers, (), {"spec": ("spec",)})
    return (f"request.operation == {quoted(UPDATE)}", *kept)


@rule(
    "csinodes/status",
    CREATE_STATUS,
    UPDATE_STATUS,
    ANY_STATUS,
    demands="feature gate `CSIVolumeHealth`; only update, and `spec` stays as it is",
    since=since(37),
    gate=features.CSI_VOLUME_HEALTH,
    cel=Form(
        _only_reports_health,
        f"nodes may only update csinodes/status, with feature gate {features.CSI_VOLUME_HEALTH}, "
        "and an update of status must keep the spec",
    ),
)
def csi_node_status(request: Attributes) -> Denied | None:
    """Deny everything but reports of the health of volumes.

    Raises:
        msgspec.MsgspecError: a value that differs is undecodable.
        UnicodeDecodeError: likewise.
    """
    if not request.settings.features[features.CSI_VOLUME_HEALTH]:
        return forbidden(
            f"{request.where}: feature gate {features.CSI_VOLUME_HEALTH} is off; turn it on to "
            f"allow them"
        )
    if request.operation != UPDATE:
        return forbidden(
            f"{request.where}: {request.operation} is not allowed for nodes, which may only "
            f"update csinodes/status"
        )
    comparison = Comparison(_FIELDS, _NOT_SPEC)
    try:
        changed = listed(comparison.differences(request.old_raw, request.new_raw))
    except IncomparableError as error:
        return forbidden(f"{request.where}: {error}")
    if not changed:
        return None
    return forbidden(f"{request.where}: changed {changed}; an update of status must keep the spec")
