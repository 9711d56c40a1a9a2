"""Nodes and all their subresources: a node may change its own Node, within limits.

Restricted fields: metadata.name, metadata.labels, metadata.ownerReferences, spec.taints,
spec.configSource. The same rules apply to nodes/status, which can change metadata too.
The source of every rule is plugin/pkg/admission/noderestriction of Kubernetes.
"""

from itertools import islice

from noderestrict.api import corev1, metav1
from noderestrict.policy.attributes import Attributes
from noderestrict.policy.cel import (
    EMPTY_LIST,
    Context,
    Form,
    absent,
    among,
    if_present,
    kept,
    list_of,
    only_changes,
    present,
    value,
)
from noderestrict.policy.compare import SHOWN, changed_keys, first_difference, listed
from noderestrict.policy.decision import Denied, forbidden
from noderestrict.policy.releases import since
from noderestrict.policy.rule import ANY, CREATE, DELETE, UPDATE, Target, rule

CREATE_NODE = Target("", "nodes", ANY, CREATE, "Node", new=corev1.Node)
UPDATE_NODE = Target("", "nodes", ANY, UPDATE, "Node", new=corev1.Node, old=corev1.Node)
DELETE_NODE = Target("", "nodes", ANY, DELETE)

KUBELET_LABELS = frozenset(
    {
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
    }
)


_RESERVED = (".node-restriction.kubernetes.io",)
_KUBERNETES = (".kubernetes.io", ".k8s.io")
_FREE = (".kubelet.kubernetes.io", ".node.kubernetes.io")


def label_is_forbidden(key: str) -> bool:
    """Return whether a node may not set this label on its own Node.

    The source is getForbiddenLabels of the in-tree plugin and IsKubeletLabel of
    k8s.io/kubelet/pkg/apis. Case matters.
    """
    # A fast path for nearly all labels: a node may have tens of thousands.
    if "kubernetes.io" not in key and "k8s.io" not in key:
        return False
    namespace, slash, _ = key.partition("/")
    if not slash:
        return False
    # Keep this cheap: a node may have tens of thousands of these labels, too.
    domain = f".{namespace}"
    if domain.endswith(_RESERVED):
        return True
    return domain.endswith(_KUBERNETES) and not (domain.endswith(_FREE) or key in KUBELET_LABELS)


@rule(
    "nodes/own-name",
    CREATE_NODE,
    UPDATE_NODE,
    DELETE_NODE,
    demands="only its own Node",
    by_name=True,
    cel=Form(("variables.name == variables.node",), "node {node} may change only Node {node}"),
)
def own_name(request: Attributes) -> Denied | None:
    """Deny writes to another Node.

    Field: the request's name; a deletecollection has none.
    """
    if request.name == request.node:
        return None
    return forbidden(
        f"{request.where}: node {request.node!r} may change only Node {request.node!r}"
        + ("" if request.name else ", but the request names no object"),
    )


def _keeps_config_source(context: Context) -> tuple[str, ...]:
    old, new = "variables.oldSpec.configSource", "variables.spec.configSource"
    if context.operation == CREATE:
        return (absent(new),)
    old_map, new_map = f"{old}.configMap", f"{new}.configMap"
    fields = (
        f"{value(f'{old_map}.{field}', known=old)} == {value(f'{new_map}.{field}', known=new)}"
        for field in corev1.ConfigMapNodeConfigSource.__struct_fields__
    )
    same = f"({present(old_map, old)}) == ({present(new_map, new)})"
    return (if_present(new, " && ".join((present(old), same, *fields))),)


_Labels = dict[str, str | None]


def labels_of(node: corev1.Node | None) -> _Labels:
    """Return the labels of a Node, none for no Node."""
    return (node.metadata.labels if node and node.metadata else None) or {}


@rule(
    "nodes/config-source",
    CREATE_NODE,
    UPDATE_NODE,
    demands="`spec.configSource` is not added or changed",
    fields=("spec.configSource",),
    cel=Form(
        _keeps_config_source,
        "spec.configSource was set or changed; a node may only keep or remove it",
    ),
)
def config_source(request: Attributes) -> Denied | None:
    """Deny a new configSource, with which a node could read any ConfigMap.

    Field: spec.configSource; an UPDATE may keep or remove it.
    """
    new: corev1.Node = request.new
    wanted = new.spec.configSource if new.spec else None
    if wanted is None:
        return None
    if request.operation == "CREATE":
        return forbidden(
            f"{request.where}: spec.configSource is set; leave it out, a node may not choose its "
            f"own configuration"
        )
    old: corev1.Node = request.old
    current = old.spec.configSource if old.spec else None
    if current is not None and _config(wanted) == _config(current):
        return None
    return forbidden(
        f"{request.where}: spec.configSource was changed; a node may only keep or remove it",
    )


def _config(source: corev1.NodeConfigSource) -> tuple[str, ...] | None:
    config_map = source.configMap
    if config_map is None:
        return None
    return tuple(getattr(config_map, field) or "" for field in config_map.__struct_fields__)


@rule(
    "nodes/taints",
    UPDATE_NODE,
    demands="taints stay as they are",
    fields=("spec.taints",),
    cel=Form(
        (kept("spec.taints", EMPTY_LIST),),
        "spec.taints changed; a node may set taints only when it registers",
    ),
)
def taints(request: Attributes) -> Denied | None:
    """Deny changed taints, with which a node could attract pods and their Secrets.

    Field: spec.taints; order matters, and null equals empty.
    """
    before, after = _taints(request.old), _taints(request.new)
    index = first_difference(before, after, _taint)
    if index is None:
        return None
    return forbidden(
        f"{request.where}: spec.taints changed to {_show(after, index)} from index {index} on; "
        f"a node may set taints only when it registers",
        f"they were {_show(before, index)}",
    )


def _taints(node: corev1.Node) -> list[corev1.Taint]:
    return (node.spec.taints if node.spec else None) or []


def _taint(taint: corev1.Taint) -> tuple[str, str, str, object]:
    return taint.key or "", taint.value or "", taint.effect or "", taint.timeAdded


def _show(taint_list: list[corev1.Taint], start: int) -> str:
    shown = (
        f"{key}={value}:{effect}"
        for key, value, effect, _ in map(_taint, islice(taint_list, start, None))
    )
    return f"[{listed(shown)}]"


@rule(
    "nodes/owner-references",
    UPDATE_NODE,
    demands="ownerReferences stay as they are",
    since=since(34, (31, 12), (32, 8), (33, 4)),
    fields=("metadata.ownerReferences",),
    cel=Form(
        (kept("metadata.ownerReferences", EMPTY_LIST),),
        "metadata.ownerReferences changed; a node may not change its owners",
    ),
)
def owner_references(request: Attributes) -> Denied | None:
    """Deny changed owners: a node could get itself deleted and register anew (CVE-2025-5187).

    Field: metadata.ownerReferences, also through nodes/status.
    """
    before, after = _owners(request.old), _owners(request.new)
    index = first_difference(before, after, _owner)
    if index is None:
        return None
    return forbidden(
        f"{request.where}: metadata.ownerReferences changed from index {index} on "
        f"({len(before)} entries before, {len(after)} after); a node may not change its owners",
    )


def _owners(node: corev1.Node) -> list[metav1.OwnerReference]:
    return (node.metadata.ownerReferences if node.metadata else None) or []


def _owner(owner: metav1.OwnerReference) -> tuple[str, str, str, str, bool | None, bool | None]:
    return (
        owner.apiVersion or "",
        owner.kind or "",
        owner.name or "",
        owner.uid or "",
        owner.controller,
        owner.blockOwnerDeletion,
    )


def _keeps_labels(context: Context) -> tuple[str, ...]:
    def is_open(key: str) -> list[str]:
        return [
            # Part of every name of a domain that is not open.
            f"!{key}.contains('s.io/')",
            f"!{key}.matches('^([^/]*[.])?(kubernetes[.]io|k8s[.]io)/')",
            f"({key}.matches('^([^/]*[.])?(kubelet|node)[.]kubernetes[.]io/') || "
            f"{key} in {list_of(sorted(KUBELET_LABELS))})",
            *among(key, context.settings.extra.allowed_labels),
        ]

    return (only_changes("labels", is_open),)


@rule(
    "nodes/labels",
    CREATE_NODE,
    UPDATE_NODE,
    demands="no `node-restriction.kubernetes.io` label, and only kubelet labels in "
    "`kubernetes.io` and `k8s.io`",
    fields=("metadata.labels",),
    cel=Form(
        _keeps_labels,
        "metadata.labels has changes that nodes may not make; let an administrator make them, or "
        "use a prefix outside kubernetes.io and k8s.io",
    ),
)
def labels(request: Attributes) -> Denied | None:
    """Deny labels used for scheduling, with which a node could attract workloads.

    Field: metadata.labels; keys added, changed or removed, except those that the operator allows.
    """
    before, after = labels_of(request.old), labels_of(request.new)
    is_open = request.settings.extra.allowed_labels.of(request.node)
    forbidden_keys = (
        key for key in changed_keys(before, after) if label_is_forbidden(key) and not is_open(key)
    )
    changed = list(islice(forbidden_keys, SHOWN + 1))
    if not changed:
        return None
    changes = listed(f"{key!r} ({_change(key, before, after)})" for key in changed)
    return forbidden(
        f"{request.where}: metadata.labels has changes that nodes may not make: {changes}; "
        f"let an administrator make them, or use a prefix outside kubernetes.io and k8s.io",
        listed(f"{key!r} was {before[key] or ''!r}" for key in changed if key in before),
    )


def _change(key: str, before: _Labels, after: _Labels) -> str:
    if key not in after:
        return "removed"
    return f"{'changed to' if key in before else 'added as'} {after[key] or ''!r}"
