"""Pods: a node may create its own mirror pods, and delete, evict and report on its own pods.

Restricted fields and allowed values of a mirror pod:
    metadata.annotations["kubernetes.io/config.mirror"]   required
    spec.nodeName                                         the requesting node
    metadata.ownerReferences                              only its own Node, as controller
    every reference to another API object                 none
The source of every rule is plugin/pkg/admission/noderestriction of Kubernetes.
"""

from collections.abc import Hashable
from itertools import chain, islice

from noderestrict.api import corev1, metav1
from noderestrict.policy.attributes import Attributes
from noderestrict.policy.cel import (
    EMPTY_LIST,
    EMPTY_TEXT,
    NEVER,
    Form,
    Uncovered,
    kept,
    present,
    quoted,
    value,
)
from noderestrict.policy.compare import changed_keys, first_difference, listed
from noderestrict.policy.decision import Denied, forbidden, not_found
from noderestrict.policy.quantity import parse_quantity
from noderestrict.policy.records import MIRROR_POD_ANNOTATION
from noderestrict.policy.references import PARTS, no_references, references
from noderestrict.policy.releases import since
from noderestrict.policy.rule import ANY, CREATE, DELETE, UPDATE, Target, rule

CREATE_POD = Target("", "pods", "", CREATE, "Pod", new=corev1.Pod)
DELETE_POD = Target("", "pods", "", DELETE, "Pod", old=corev1.PodStatusObject, old_may_lack=True)
UPDATE_STATUS = Target(
    "", "pods", "status", UPDATE, "Pod", new=corev1.PodStatusObject, old=corev1.PodStatusObject
)
EVICT_POD = Target("", "pods", "eviction", CREATE, "Eviction", new=metav1.PartialObject)
ANYTHING_ELSE = Target("", "pods", ANY, ANY)

#: A pod with changed allocations that has more is denied unread: they take microseconds each.
_MOST_QUANTITIES = 1000


def _metadata(pod: corev1.Pod) -> metav1.ObjectMeta:
    return pod.metadata or metav1.ObjectMeta()


@rule(
    "pods/mirror-annotation",
    CREATE_POD,
    demands="only mirror pods: annotation `kubernetes.io/config.mirror`",
    cel=Form(
        (f"{quoted(MIRROR_POD_ANNOTATION)} in variables.annotations",),
        f"metadata.annotations[{MIRROR_POD_ANNOTATION!r}] is missing; "
        "node {node} may create only mirror pods of its static pods",
    ),
)
def mirror_annotation(request: Attributes) -> Denied | None:
    """Deny any pod but a mirror pod: a node could choose its own workload and identity.

    Field: metadata.annotations.
    """
    pod: corev1.Pod = request.new
    if MIRROR_POD_ANNOTATION in (_metadata(pod).annotations or {}):
        return None
    return forbidden(
        f"{request.where}: metadata.annotations[{MIRROR_POD_ANNOTATION!r}] is missing; "
        f"node {request.node!r} may create only mirror pods of its static pods",
    )


@rule(
    "pods/mirror-node-name",
    CREATE_POD,
    demands="`spec.nodeName` is the node",
    cel=Form(
        ("variables.nodeName == variables.node",),
        "spec.nodeName is {nodeName}; set it to {node}, the only node that may create this mirror "
        "pod",
    ),
)
def mirror_node_name(request: Attributes) -> Denied | None:
    """Deny a mirror pod for another node: a node could run its pod next to others' secrets.

    Field: spec.nodeName.
    """
    pod: corev1.Pod = request.new
    bound_to = (pod.spec.nodeName if pod.spec else None) or ""
    if bound_to == request.node:
        return None
    return forbidden(
        f"{request.where}: spec.nodeName is {bound_to!r}; set it to {request.node!r}, "
        f"the only node that may create this mirror pod",
    )


def _owner_has(field: str, wanted: str) -> str:
    path = f"variables.owners[0].{field}"
    return f"has({path}) && {path} == {wanted}"


@rule(
    "pods/mirror-owner",
    CREATE_POD,
    demands="exactly one owner: its Node, as controller",
    cel=Form(
        (
            "size(variables.owners) == 1",
            _owner_has("apiVersion", "'v1'"),
            _owner_has("kind", "'Node'"),
            _owner_has("name", "variables.node"),
            _owner_has("controller", "true"),
            f"!({_owner_has('blockOwnerDeletion', 'true')})",
        ),
        "metadata.ownerReferences is not as it must be; set exactly one: Node {node}, as "
        "controller, without blockOwnerDeletion",
    ),
)
def mirror_owner(request: Attributes) -> Denied | None:
    """Deny any owner but the Node itself, which could misuse garbage collection.

    Field: metadata.ownerReferences.
    """
    owners = _metadata(request.new).ownerReferences or []
    if len(owners) != 1:
        return forbidden(
            f"{request.where}: metadata.ownerReferences has {len(owners)} entries; "
            f"set exactly one: Node {request.node!r}, as controller",
        )
    owner = owners[0]
    path = "metadata.ownerReferences[0]"
    for field, given, wanted in (
        ("apiVersion", owner.apiVersion, "v1"),
        ("kind", owner.kind, "Node"),
        ("name", owner.name, request.node),
    ):
        if (given or "") != wanted:
            return forbidden(
                f"{request.where}: {path}.{field} is {given or ''!r}; it must be {wanted!r}"
            )
    if owner.controller is not True:
        return forbidden(f"{request.where}: {path}.controller must be true")
    if owner.blockOwnerDeletion:
        return forbidden(
            f"{request.where}: {path}.blockOwnerDeletion is true; leave it out, "
            f"a node may not block the deletion of its Node",
        )
    return None


@rule(
    "pods/mirror-owner-uid",
    CREATE_POD,
    demands="with the uid of the Node in the cluster",
    cel=Uncovered.LOOKUP,
)
def mirror_owner_uid(request: Attributes) -> Denied | None:
    """Deny a uid other than the live Node's: the pod could be collected or adopted wrongly.

    Field: metadata.ownerReferences[0].uid.
    """
    owners = _metadata(request.new).ownerReferences
    if not owners:
        return None  # pods/mirror-owner denies that, unless it is off
    owner = owners[0]
    node = request.listers.node(request.node)
    if node is None:
        return not_found(
            f"{request.where}: Node {request.node!r} in metadata.ownerReferences[0] is not found; "
            f"register it first",
        )
    if (owner.uid or "") != node.uid:
        return forbidden(
            f"{request.where}: metadata.ownerReferences[0].uid is {owner.uid or ''!r}, which is "
            f"not that of Node {request.node!r}; use the uid of the registered Node",
            f"the Node has uid {node.uid!r}",
        )
    return None


@rule(
    "pods/mirror-references",
    CREATE_POD,
    demands="no reference to a Secret, ConfigMap, service account, claim or other object; no "
    "volume of an unknown kind",
    parts=PARTS,
    cel=Form(
        lambda context: no_references(context.demands),
        "a mirror pod must not refer to other API objects; remove them from the static pod of node "
        "{node}",
    ),
)
def mirror_references(request: Attributes) -> Denied | None:
    """Deny a mirror pod that refers to another API object, which the node could then read.

    Fields: every reference that a pod can have (CVE-2025-4563, CVE-2024-3177).
    """
    pod: corev1.Pod = request.new
    denied = (
        reference
        for reference in (references(pod.spec) if pod.spec else ())
        if reference.part is None or request.demands(reference.part)
    )
    found = listed(map(str, denied))
    if not found:
        return None
    return forbidden(
        f"{request.where}: a mirror pod must not refer to other API objects; remove {found} from "
        f"the static pod of node {request.node!r}",
    )


@rule(
    "pods/delete-own",
    DELETE_POD,
    demands="the pod runs on the node",
    by_name=True,
    cel=Form(
        ("variables.name != ''", "variables.oldNodeName == variables.node"),
        "the request names no pod that is bound to node {node}, which may delete only its own "
        "pods, one by one",
    ),
)
def delete_own(request: Attributes) -> Denied | None:
    """Deny deleting a pod on another node.

    Field: spec.nodeName of the existing pod, which the API server sends with the request as it is
    stored. Without it, the pod is looked up. A deletecollection has no name.
    """
    if not request.name:
        return not_found(
            f"{request.where}: the request names no pod; node {request.node!r} may only delete "
            f"its pods one by one",
        )
    old: corev1.PodStatusObject | None = request.old
    if old is not None and old.spec is not None:
        return _bound_here(request, request.name, old.spec.nodeName or "", "delete")
    return _on_this_node(request, request.name, "delete")


@rule(
    "pods/evict-own",
    EVICT_POD,
    demands="the pod runs on the node",
    by_name=True,
    cel=Uncovered.LOOKUP,
)
def evict_own(request: Attributes) -> Denied | None:
    """Deny evicting a pod on another node.

    Field: spec.nodeName of the existing pod.
    """
    eviction: metav1.PartialObject = request.new
    name = request.name or (eviction.metadata.name if eviction.metadata else None)
    if not name:
        return forbidden(
            f"{request.where}: neither the request nor metadata.name names the pod to evict; name "
            f"it"
        )
    return _on_this_node(request, name, "evict")


def _on_this_node(request: Attributes, name: str, verb: str) -> Denied | None:
    pod = request.listers.pod(request.namespace, name)
    if pod is None:
        return not_found(f"pods {request.namespace}/{name} not found")
    return _bound_here(request, name, pod.node_name, verb)


def _bound_here(request: Attributes, name: str, node_name: str, verb: str) -> Denied | None:
    if node_name != request.node:
        return forbidden(
            f"pods {request.namespace}/{name} is not bound to node {request.node!r}, which may "
            f"{verb} only its own pods",
            _bound_to(node_name),
        )
    return None


def _bound_to(node_name: str) -> str:
    return f"the pod has spec.nodeName {node_name!r}"


@rule(
    "pods/status-own",
    UPDATE_STATUS,
    demands="the pod runs on the node",
    cel=Form(
        ("variables.oldNodeName == variables.node",),
        "the pod is not bound to node {node}, which may update only the status of its own pods",
    ),
)
def status_own(request: Attributes) -> Denied | None:
    """Deny reporting the status of a pod on another node.

    Field: spec.nodeName of the existing pod.
    """
    old: corev1.PodStatusObject = request.old
    bound_to = (old.spec.nodeName if old.spec else None) or ""
    if bound_to == request.node:
        return None
    return forbidden(
        f"{request.where}: the pod is not bound to node {request.node!r}, which may update only "
        f"the status of its own pods",
        _bound_to(bound_to),
    )


@rule(
    "pods/status-labels",
    UPDATE_STATUS,
    demands="labels stay as they are",
    fields=("metadata.labels",),
    cel=Form(
        ("variables.oldLabels == variables.labels",),
        "metadata.labels changed; node {node} may not change labels when it updates the status",
    ),
)
def status_labels(request: Attributes) -> Denied | None:
    """Deny changed labels, which could move a pod into a Service or out of a policy.

    Field: metadata.labels.
    """
    old: corev1.PodStatusObject = request.old
    new: corev1.PodStatusObject = request.new
    before = (old.metadata.labels if old.metadata else None) or {}
    after = (new.metadata.labels if new.metadata else None) or {}
    changed = listed(map(repr, changed_keys(before, after)))
    if not changed:
        return None
    return forbidden(
        f"{request.where}: metadata.labels changed at {changed}; "
        f"node {request.node!r} may not change labels when it updates the status",
    )


@rule(
    "pods/status-resource-claims",
    UPDATE_STATUS,
    demands="`status.resourceClaimStatuses` stays as it is",
    since=since(28),
    fields=("status.resourceClaimStatuses",),
    cel=Form(
        (kept("status.resourceClaimStatuses", EMPTY_LIST),),
        "status.resourceClaimStatuses changed; only the control plane may change it",
    ),
)
def status_resource_claims(request: Attributes) -> Denied | None:
    """Deny changed resource claim statuses, with which a node could read other claims.

    Field: status.resourceClaimStatuses; order, names and claim names (null differs from "").
    """
    old: corev1.PodStatusObject = request.old
    new: corev1.PodStatusObject = request.new
    before = old.status.resourceClaimStatuses if old.status else None
    after = new.status.resourceClaimStatuses if new.status else None
    index = first_difference(before, after, _claim)
    if index is None:
        return None
    return forbidden(
        f"{request.where}: status.resourceClaimStatuses changed to {_claims(after, index)} from "
        f"index {index} on; only the control plane may change it",
        f"it was {_claims(before, index)}",
    )


def _claim(claim: corev1.PodResourceClaimStatus) -> tuple[str, str | None]:
    return claim.name or "", claim.resourceClaimName


def _claims(claims: list[corev1.PodResourceClaimStatus] | None, start: int) -> str:
    shown = (f"{name}={claim!r}" for name, claim in map(_claim, islice(claims or (), start, None)))
    return f"[{listed(shown)}]"


_OLD_CLAIM, _NEW_CLAIM = (
    f"variables.{section}.extendedResourceClaimStatus" for section in ("oldStatus", "status")
)


def _same_claim(field: str, empty: str) -> str:
    old, new = (value(f"{claim}.{field}", empty) for claim in (_OLD_CLAIM, _NEW_CLAIM))
    return f"{old} == {new}"


@rule(
    "pods/status-extended-resource-claim",
    UPDATE_STATUS,
    demands="`status.extendedResourceClaimStatus` stays as it is",
    since=since(34),
    fields=("status.extendedResourceClaimStatus",),
    cel=Form(
        (
            f"({present(_OLD_CLAIM)}) == ({present(_NEW_CLAIM)})",
            _same_claim("resourceClaimName", EMPTY_TEXT),
            _same_claim("requestMappings", EMPTY_LIST),
        ),
        "status.extendedResourceClaimStatus changed; only the scheduler may set it",
    ),
)
def status_extended_resource_claim(request: Attributes) -> Denied | None:
    """Deny a changed extended resource claim, with which a node could read another claim.

    Field: status.extendedResourceClaimStatus; claim name and mappings in order.
    """
    old: corev1.PodStatusObject = request.old
    new: corev1.PodStatusObject = request.new
    before = old.status.extendedResourceClaimStatus if old.status else None
    after = new.status.extendedResourceClaimStatus if new.status else None
    if before == after or _extended(before) == _extended(after):
        return None
    return forbidden(
        f"{request.where}: status.extendedResourceClaimStatus changed; "
        f"only the scheduler may set it",
    )


_Extended = tuple[str, list[tuple[str, str, str]]]


def _extended(status: corev1.PodExtendedResourceClaimStatus | None) -> _Extended | None:
    if status is None:
        return None
    return status.resourceClaimName or "", [
        (mapping.containerName or "", mapping.resourceName or "", mapping.requestName or "")
        for mapping in status.requestMappings or ()
    ]


@rule(
    "pods/status-node-allocatable-claims",
    UPDATE_STATUS,
    demands="`status.nodeAllocatableResourceClaimStatuses` stays as it is",
    since=since(37),
    fields=("status.nodeAllocatableResourceClaimStatuses",),
    cel=Form(
        (kept("status.nodeAllocatableResourceClaimStatuses", EMPTY_LIST),),
        "status.nodeAllocatableResourceClaimStatuses changed; only the scheduler may set it",
    ),
)
def status_node_allocatable_claims(request: Attributes) -> Denied | None:
    """Deny changed claims on the node's own resources, which the scheduler counts.

    Field: status.nodeAllocatableResourceClaimStatuses; order matters, quantities by value.
    """
    old: corev1.PodStatusObject = request.old
    new: corev1.PodStatusObject = request.new
    before = old.status.nodeAllocatableResourceClaimStatuses if old.status else None
    after = new.status.nodeAllocatableResourceClaimStatuses if new.status else None
    if before == after:
        return None
    path = f"{request.where}: status.nodeAllocatableResourceClaimStatuses"
    if sum(map(_quantities, chain(before or (), after or ()))) > _MOST_QUANTITIES:
        return forbidden(f"{path} changed, and has over {_MOST_QUANTITIES} quantities to compare")
    index = first_difference(before, after, _allocation)
    if index is None:
        return None
    return forbidden(f"{path} changed from index {index} on; only the scheduler may set it")


def _quantities(claim: corev1.NodeAllocatableResourceClaimStatus) -> int:
    return len(claim.mapping or ()) + 2 * len(claim.overhead or ())


def _allocation(claim: corev1.NodeAllocatableResourceClaimStatus) -> Hashable:
    return (
        claim.resourceClaimName or "",
        tuple(claim.containers or ()),
        tuple((one.name or "", _amount(one.quantity)) for one in claim.mapping or ()),
        tuple(
            (one.name or "", _amount(one.perPod), _amount(one.perContainer))
            for one in claim.overhead or ()
        ),
    )


def _amount(quantity: str | None) -> int | str | None:
    try:
        return None if quantity is None else parse_quantity(quantity)
    except ValueError:
        return quantity


@rule(
    "pods/closed-world",
    ANYTHING_ELSE,
    demands="denied",
    by_name=True,
    cel=Form(
        NEVER,
        "node {node} may only create mirror pods, and delete, evict and update the status of its "
        "own pods",
    ),
)
def refuse_operation(request: Attributes) -> Denied:
    """Deny everything that no other rule covers: pods are default deny (CVE-2023-2727)."""
    return forbidden(
        f"{request.where}: {request.operation} is not allowed for nodes; node {request.node!r} "
        f"may only create mirror pods, and delete, evict and update the status of its own pods",
    )
