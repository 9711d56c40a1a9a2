"""Nodes, beyond the in-tree plugin: fields of its own Node that a kubelet need not change.

Each rule is off by default. They all apply to nodes/status too, which can change metadata.
"""

from collections.abc import Callable, Sequence

from noderestrict.api import corev1
from noderestrict.policy.attributes import Attributes
from noderestrict.policy.cel import (
    EMPTY_LIST,
    EMPTY_TEXT,
    NEVER,
    Context,
    Form,
    among,
    kept,
    list_of,
    only_changes,
)
from noderestrict.policy.compare import changed_keys, listed
from noderestrict.policy.decision import Denied, forbidden
from noderestrict.policy.extra import FORBIDDEN_LABELS
from noderestrict.policy.rule import rule
from noderestrict.policy.rules.nodes import CREATE_NODE, DELETE_NODE, UPDATE_NODE, labels_of

#: Annotations that kubelets write, and kubeadm with a kubelet's credential.
KUBELET_ANNOTATIONS = frozenset(
    {
        "alpha.kubernetes.io/provided-node-ip",
        "csi.volume.kubernetes.io/nodeid",
        "kubeadm.alpha.kubernetes.io/cri-socket",
        "volumes.kubernetes.io/controller-managed-attach-detach",
        "volumes.kubernetes.io/keep-terminated-pod-volumes",
    }
)


_STRICT = "a strict rule of this cluster does not let nodes change it"


def _existing(request: Attributes) -> corev1.Node | None:
    """Return the existing Node; on CREATE there is none, whatever the review contains."""
    return request.old if request.operation == "UPDATE" else None


def _spec(node: corev1.Node | None) -> corev1.NodeSpec:
    return (node.spec if node else None) or corev1.NodeSpec()


def _kept(
    request: Attributes, field: str, read: Callable[[corev1.Node | None], object]
) -> Denied | None:
    before, after = read(_existing(request)), read(request.new)
    if before == after:
        return None
    return forbidden(
        f"{request.where}: {field} changed to {_show(after)}; {_STRICT}",
        f"it was {_show(before)}",
    )


def _show(value: object) -> str:
    return f"[{listed(map(repr, value))}]" if isinstance(value, list) else repr(value)


def _keeps_forbidden_labels(context: Context) -> tuple[str, ...]:
    def is_open(key: str) -> list[str]:
        return [f"!({' || '.join(among(key, context.settings.extra.forbidden_labels))})"]

    return (only_changes("labels", is_open),)


@rule(
    FORBIDDEN_LABELS,
    CREATE_NODE,
    UPDATE_NODE,
    demands="no label that `--forbid-node-labels` forbids for the node",
    strict=True,
    fields=("metadata.labels",),
    cel=Form(
        _keeps_forbidden_labels,
        "metadata.labels changed where this cluster's policy forbids it for node {node}",
    ),
)
def forbidden_labels(request: Attributes) -> Denied | None:
    """Deny labels that the operator forbids for these nodes.

    Field: metadata.labels; keys added, changed or removed, on CREATE and UPDATE.
    """
    is_forbidden = request.settings.extra.forbidden_labels.of(request.node)
    offending = listed(
        repr(key)
        for key in changed_keys(labels_of(_existing(request)), labels_of(request.new))
        if is_forbidden(key)
    )
    if not offending:
        return None
    return forbidden(
        f"{request.where}: metadata.labels changed at {offending}; this cluster's policy forbids "
        f"these keys for node {request.node!r}",
    )


@rule(
    "nodes/unschedulable",
    UPDATE_NODE,
    demands="`spec.unschedulable` stays as it is",
    strict=True,
    fields=("spec.unschedulable",),
    cel=Form((kept("spec.unschedulable", "false"),), f"spec.unschedulable changed; {_STRICT}"),
)
def unschedulable(request: Attributes) -> Denied | None:
    """Deny a node that cordons or uncordons itself.

    Field: spec.unschedulable, on UPDATE; a node may register as unschedulable.
    """
    return _kept(
        request,
        "spec.unschedulable",
        lambda node: bool(_spec(node).unschedulable),
    )


def _pod_cidrs(node: corev1.Node | None) -> list[str]:
    spec = _spec(node)
    return list(dict.fromkeys([*([spec.podCIDR] if spec.podCIDR else []), *(spec.podCIDRs or ())]))


def _cidrs(one: str, all_: str) -> str:
    return f"({one} == '' ? {all_} : [{one}] + {all_}.filter(cidr, cidr != {one}))"


@rule(
    "nodes/pod-cidr",
    CREATE_NODE,
    UPDATE_NODE,
    demands="`spec.podCIDR` and `spec.podCIDRs` stay as they are",
    strict=True,
    fields=("spec.podCIDR", "spec.podCIDRs"),
    cel=Form(
        (
            f"{_cidrs('variables.oldPodCIDR', 'variables.oldPodCIDRs')} == "
            f"{_cidrs('variables.podCIDR', 'variables.podCIDRs')}",
        ),
        f"spec.podCIDRs changed; {_STRICT}",
    ),
)
def pod_cidr(request: Attributes) -> Denied | None:
    """Deny a node that chooses its pods' addresses, which could attract the traffic of others.

    Fields: spec.podCIDR, spec.podCIDRs, on CREATE and UPDATE.
    """
    return _kept(request, "spec.podCIDRs", _pod_cidrs)


@rule(
    "nodes/provider-id",
    UPDATE_NODE,
    demands="`spec.providerID` stays as it is",
    strict=True,
    fields=("spec.providerID",),
    cel=Form((kept("spec.providerID", EMPTY_TEXT),), f"spec.providerID changed; {_STRICT}"),
)
def provider_id(request: Attributes) -> Denied | None:
    """Deny a node that impersonates another machine of the cloud provider.

    Field: spec.providerID, on UPDATE; a kubelet may register with the value of its flag.
    """
    return _kept(request, "spec.providerID", lambda node: _spec(node).providerID or "")


def _keeps_annotations(context: Context) -> tuple[str, ...]:
    def is_open(key: str) -> list[str]:
        return [
            f"{key} in {list_of(sorted(KUBELET_ANNOTATIONS))}",
            *among(key, context.settings.extra.allowed_annotations),
        ]

    return (only_changes("annotations", is_open),)


@rule(
    "nodes/annotations",
    CREATE_NODE,
    UPDATE_NODE,
    demands="only the kubelet's annotations and those of `--allow-node-annotations` change",
    strict=True,
    fields=("metadata.annotations",),
    cel=Form(
        _keeps_annotations,
        "metadata.annotations changed; a strict rule of this cluster lets nodes change only the "
        "kubelet's own annotations",
    ),
)
def annotations(request: Attributes) -> Denied | None:
    """Deny annotations that are not the kubelet's: other components trust their own.

    Field: metadata.annotations; keys added, changed or removed, on CREATE and UPDATE.
    """
    is_open = request.settings.extra.allowed_annotations.of(request.node)
    offending = listed(
        repr(key)
        for key in changed_keys(_annotations(_existing(request)), _annotations(request.new))
        if key not in KUBELET_ANNOTATIONS and not is_open(key)
    )
    if not offending:
        return None
    return forbidden(
        f"{request.where}: metadata.annotations changed at {offending}; a strict rule of this "
        f"cluster lets nodes change only the kubelet's own annotations",
    )


@rule(
    "nodes/finalizers",
    CREATE_NODE,
    UPDATE_NODE,
    demands="`metadata.finalizers` stay as they are",
    strict=True,
    fields=("metadata.finalizers",),
    cel=Form((kept("metadata.finalizers", EMPTY_LIST),), f"metadata.finalizers changed; {_STRICT}"),
)
def finalizers(request: Attributes) -> Denied | None:
    """Deny a node that blocks the deletion of its Node, or unblocks it early.

    Field: metadata.finalizers, on CREATE and UPDATE.
    """

    def read(node: corev1.Node | None) -> Sequence[str]:
        return (node.metadata.finalizers if node and node.metadata else None) or []

    return _kept(request, "metadata.finalizers", read)


@rule(
    "nodes/delete-self",
    DELETE_NODE,
    demands="denied, even for its own Node",
    strict=True,
    by_name=True,
    cel=Form(NEVER, "a strict rule of this cluster does not let nodes delete their own Node"),
)
def delete_self(request: Attributes) -> Denied | None:
    """Deny a node that deletes its own Node: it could come back with other labels and taints."""
    return forbidden(
        f"{request.where}: a strict rule of this cluster does not let nodes delete their own Node",
    )


_Keys = dict[str, str | None]


def _annotations(node: corev1.Node | None) -> _Keys:
    return (node.metadata.annotations if node and node.metadata else None) or {}
