"""PersistentVolumeClaims: a node may only report the outcome of an expansion.

It may change status.capacity, status.conditions and, with the feature gate
RecoverVolumeExpansionFailure, status.allocatedResources and status.allocatedResourceStatuses.
The source is admitPVCStatus in plugin/pkg/admission/noderestriction of Kubernetes.
"""

from collections.abc import Mapping

from noderestrict.api import metav1
from noderestrict.policy import features
from noderestrict.policy.attributes import Attributes
from noderestrict.policy.cel import NEVER, Context, Form, sections_kept
from noderestrict.policy.compare import listed
from noderestrict.policy.decision import Denied, forbidden
from noderestrict.policy.releases import Part, since
from noderestrict.policy.rule import ANY, UPDATE, Target, rule
from noderestrict.policy.semantic import Comparison, Fields, IncomparableError, Path
from noderestrict.policy.settings import Settings

UPDATE_STATUS = Target(
    "",
    "persistentvolumeclaims",
    "status",
    UPDATE,
    "PersistentVolumeClaim",
    new=metav1.PartialObject,
    old=metav1.PartialObject,
    whole=True,
)
ANYTHING_ELSE = Target("", "persistentvolumeclaims", ANY, ANY)

_FIELDS = Fields(
    pointers=frozenset(
        {
            ("metadata", "deletionGracePeriodSeconds"),
            ("metadata", "deletionTimestamp"),
            ("metadata", "ownerReferences", "*", "blockOwnerDeletion"),
            ("metadata", "ownerReferences", "*", "controller"),
            ("spec", "dataSource"),
            ("spec", "dataSource", "apiGroup"),
            ("spec", "dataSourceRef"),
            ("spec", "dataSourceRef", "apiGroup"),
            ("spec", "dataSourceRef", "namespace"),
            ("spec", "selector"),
            ("spec", "storageClassName"),
            ("spec", "volumeAttributesClassName"),
            ("spec", "volumeMode"),
            ("status", "currentVolumeAttributesClassName"),
            ("status", "modifyVolumeStatus"),
        }
    ),
    quantities=frozenset(
        {
            ("spec", "resources", "limits"),
            ("spec", "resources", "requests"),
            ("status", "allocatedResources"),
            ("status", "capacity"),
        }
    ),
    maps=frozenset(
        {
            ("metadata", "annotations"),
            ("metadata", "labels"),
            ("spec", "selector", "matchLabels"),
            ("status", "allocatedResourceStatuses"),
        }
    ),
)
_IGNORED = frozenset(
    {
        ("metadata", "managedFields"),
        ("metadata", "resourceVersion"),
        ("status", "capacity"),
        ("status", "conditions"),
    }
)
_RECOVERY = frozenset({("status", "allocatedResources"), ("status", "allocatedResourceStatuses")})
# The name of the latter up to 1.27.
_OLD_RECOVERY = frozenset({("status", "allocatedResources"), ("status", "resizeStatus")})
_RENAMED = Part("`status.allocatedResourceStatuses` instead of `status.resizeStatus`", since(28))


#: What an API server compares key by key.
_SECTIONS: Mapping[str, Path] = {
    "metadata": ("metadata",),
    "spec": ("spec",),
    "resources": ("spec", "resources"),
    "status": ("status",),
}


def _ignored(settings: Settings) -> frozenset[Path]:
    """Return the paths at which a node may change a claim."""
    if not settings.features[features.RECOVER_EXPANSION]:
        return _IGNORED
    return _IGNORED | (_RECOVERY if _RENAMED.since.includes(settings.release) else _OLD_RECOVERY)


def _reports_expansion(context: Context) -> tuple[str, ...]:
    ignored = _ignored(context.settings)
    return sections_kept(_FIELDS.pointers, ignored, _SECTIONS)


@rule(
    "persistentvolumeclaims/closed-world",
    ANYTHING_ELSE,
    demands="denied",
    by_name=True,
    cel=Form(NEVER, "node {node} may only update persistentvolumeclaims/status"),
)
def only_status(request: Attributes) -> Denied:
    """Deny every request but an UPDATE of status: claims are default deny."""
    return forbidden(
        f"{request.where}: {request.operation} is not allowed for nodes; node {request.node!r} "
        f"may only update persistentvolumeclaims/status",
    )


@rule(
    "persistentvolumeclaims/status-fields",
    UPDATE_STATUS,
    demands="only capacity, conditions and resize state change",
    parts=(_RENAMED,),
    cel=Form(
        _reports_expansion,
        "something changed besides what a node may change: the status's capacity and conditions, "
        "and the state of an expansion",
    ),
)
def status_fields(request: Attributes) -> Denied | None:
    """Deny any change except the outcome of an expansion.

    Raises:
        msgspec.MsgspecError: a value that differs is undecodable.
        UnicodeDecodeError: likewise.
    """
    ignored = _ignored(request.settings)
    try:
        changed = listed(Comparison(_FIELDS, ignored).differences(request.old_raw, request.new_raw))
    except IncomparableError as error:
        return forbidden(f"{request.where}: {error}")
    if not changed:
        return None
    allowed = ", ".join(sorted(".".join(path) for path in ignored if path[0] == "status"))
    return forbidden(
        f"{request.where}: changed {changed}; node {request.node!r} may change only {allowed}",
    )
