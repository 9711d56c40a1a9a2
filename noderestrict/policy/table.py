"""The rules in the order of evaluation, and what they cover.

One row per resource, subresource and operation; a resource with a closed world refuses what no
row names. Everything else is allowed. Strict rules, where they are on, come after the others.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import msgspec

from noderestrict.api import authenticationv1, certificatesv1, corev1, metav1, resourcev1
from noderestrict.policy.attributes import Attributes
from noderestrict.policy.decision import Decision
from noderestrict.policy.rules import (
    certificatesigningrequests,
    csinodes,
    events,
    leases,
    nodes,
    nodes_strict,
    persistentvolumeclaims,
    podcertificaterequests,
    pods,
    resourceslices,
    serviceaccounts,
)

Rule = Callable[[Attributes], Decision | None]

CREATE, UPDATE, DELETE = "CREATE", "UPDATE", "DELETE"
ANY = "*"

#: group, resource, subresource (``*`` any), operation (``*`` any)
Target = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Row:
    """Rules for one kind of request.

    Attributes:
        target: the requests it is for.
        rules: run in order; the first objection wins.
        kind: of the objects that the rules read.
        new: the Struct of the object, which must be there; None if no rule reads it.
        old: the Struct of the existing object, likewise.
        whole: the rules compare whole objects, as JSON.
    """

    target: Target
    rules: tuple[Rule, ...]
    kind: str = ""
    new: type[msgspec.Struct] | None = None
    old: type[msgspec.Struct] | None = None
    whole: bool = False


_PARTIAL = metav1.PartialObject

TABLE: tuple[Row, ...] = (
    Row(
        ("", "pods", "", CREATE),
        (
            pods.mirror_annotation,
            pods.mirror_node_name,
            pods.mirror_owner,
            pods.mirror_owner_uid,
            pods.mirror_references,
        ),
        kind="Pod",
        new=corev1.Pod,
    ),
    Row(("", "pods", "", DELETE), (pods.delete_own,)),
    Row(
        ("", "pods", "status", UPDATE),
        (
            pods.status_own,
            pods.status_labels,
            pods.status_resource_claims,
            pods.status_extended_resource_claim,
        ),
        kind="Pod",
        new=corev1.PodStatusObject,
        old=corev1.PodStatusObject,
    ),
    Row(("", "pods", "eviction", CREATE), (pods.evict_own,), kind="Eviction", new=_PARTIAL),
    Row(("", "pods", ANY, ANY), (pods.refuse_operation,)),
    Row(
        ("", "nodes", ANY, CREATE),
        (nodes.own_name, nodes.config_source, nodes.labels),
        kind="Node",
        new=corev1.Node,
    ),
    Row(
        ("", "nodes", ANY, UPDATE),
        (
            nodes.own_name,
            nodes.config_source,
            nodes.taints,
            nodes.owner_references,
            nodes.labels,
        ),
        kind="Node",
        new=corev1.Node,
        old=corev1.Node,
    ),
    Row(("", "nodes", ANY, DELETE), (nodes.own_name,)),
    Row(
        ("", "persistentvolumeclaims", "status", UPDATE),
        (persistentvolumeclaims.status_fields,),
        kind="PersistentVolumeClaim",
        new=_PARTIAL,
        old=_PARTIAL,
        whole=True,
    ),
    Row(("", "persistentvolumeclaims", ANY, ANY), (persistentvolumeclaims.only_status,)),
    Row(
        ("", "serviceaccounts", "token", CREATE),
        (serviceaccounts.token_bound_to_own_pod, serviceaccounts.token_audience),
        kind="TokenRequest",
        new=authenticationv1.TokenRequest,
    ),
    Row(
        ("coordination.k8s.io", "leases", ANY, CREATE),
        (leases.lease_namespace, leases.own_lease),
        kind="Lease",
        new=_PARTIAL,
    ),
    Row(("coordination.k8s.io", "leases", ANY, ANY), (leases.lease_namespace, leases.own_lease)),
    Row(
        ("storage.k8s.io", "csinodes", ANY, CREATE),
        (csinodes.own_csi_node,),
        kind="CSINode",
        new=_PARTIAL,
    ),
    Row(("storage.k8s.io", "csinodes", ANY, ANY), (csinodes.own_csi_node,)),
    Row(
        ("resource.k8s.io", "resourceslices", ANY, CREATE),
        (resourceslices.own_resource_slice,),
        kind="ResourceSlice",
        new=resourcev1.ResourceSlice,
    ),
    Row(
        ("resource.k8s.io", "resourceslices", ANY, DELETE),
        (resourceslices.own_resource_slice,),
        kind="ResourceSlice",
        old=resourcev1.ResourceSlice,
    ),
    Row(
        ("certificates.k8s.io", "certificatesigningrequests", ANY, CREATE),
        (certificatesigningrequests.common_name,),
        kind="CertificateSigningRequest",
        new=certificatesv1.CertificateSigningRequest,
    ),
    Row(
        ("certificates.k8s.io", "podcertificaterequests", "", CREATE),
        (
            podcertificaterequests.gate,
            podcertificaterequests.own_node,
            podcertificaterequests.own_pod,
            podcertificaterequests.own_service_account,
        ),
        kind="PodCertificateRequest",
        new=certificatesv1.PodCertificateRequest,
    ),
    Row(
        ("certificates.k8s.io", "podcertificaterequests", ANY, ANY),
        (podcertificaterequests.gate, podcertificaterequests.only_create),
    ),
)

_NODE_CREATE, _NODE_UPDATE = ("", "nodes", ANY, CREATE), ("", "nodes", ANY, UPDATE)
_EVENT_GROUPS = ("", "events.k8s.io")

#: By id, what a strict rule adds: to the row of the same target, if there is one.
STRICT: Mapping[str, tuple[Row, ...]] = {
    **{
        rule_id: tuple(Row(target, (rule,), "Node", corev1.Node) for target in targets)
        for rule_id, rule, targets in (
            ("nodes/forbidden-labels", nodes_strict.forbidden_labels, (_NODE_CREATE, _NODE_UPDATE)),
            ("nodes/unschedulable", nodes_strict.unschedulable, (_NODE_UPDATE,)),
            ("nodes/pod-cidr", nodes_strict.pod_cidr, (_NODE_CREATE, _NODE_UPDATE)),
            ("nodes/provider-id", nodes_strict.provider_id, (_NODE_UPDATE,)),
            ("nodes/annotations", nodes_strict.annotations, (_NODE_CREATE, _NODE_UPDATE)),
            ("nodes/finalizers", nodes_strict.finalizers, (_NODE_CREATE, _NODE_UPDATE)),
        )
    },
    "nodes/delete-self": (Row(("", "nodes", ANY, DELETE), (nodes_strict.delete_self,)),),
    "certificatesigningrequests/addresses": (
        Row(
            ("certificates.k8s.io", "certificatesigningrequests", ANY, CREATE),
            (certificatesigningrequests.addresses,),
            kind="CertificateSigningRequest",
            new=certificatesv1.CertificateSigningRequest,
        ),
    ),
    "events/about-own": tuple(
        Row(
            (group, "events", ANY, operation),
            (events.about_own,),
            kind="Event",
            new=None if operation == DELETE else corev1.Event,
            old=None if operation == CREATE else corev1.Event,
        )
        for group in _EVENT_GROUPS
        for operation in (CREATE, UPDATE, DELETE)
    ),
}

_BY_TARGET: Mapping[Target, Row] = {row.target: row for row in TABLE}


@cache
def table(strict: frozenset[str]) -> Mapping[Target, Row]:
    """Return all rows by their targets.

    Args:
        strict: ids of the strict rules that are on.
    """
    rows = dict(_BY_TARGET)
    for rule_id, added in STRICT.items():
        for row in added if rule_id in strict else ():
            base = rows.get(row.target)
            rows[row.target] = replace(base, rules=base.rules + row.rules) if base else row
    return rows


@lru_cache(maxsize=1000)
def row_for(
    group: str,
    resource: str,
    sub_resource: str,
    operation: str,
    strict: frozenset[str] = frozenset(),
) -> Row | None:
    """Return the row for a request, the most specific one; None if no rule judges it.

    Args:
        group: of the resource.
        resource: plural.
        sub_resource: "" for none.
        operation: of the request.
        strict: ids of the strict rules that are on.
    """
    rows = table(strict) if strict else _BY_TARGET
    for sub in (sub_resource, ANY):
        for op in (operation, ANY):
            row = rows.get((group, resource, sub, op))
            if row is not None:
                return row
    return None
