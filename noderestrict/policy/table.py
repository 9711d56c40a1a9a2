"""The rules in the order of evaluation, and what they cover.

One row per resource, subresource and operation; a resource with a closed world refuses what no
row names. Everything else is allowed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from noderestrict.api import authenticationv1, certificatesv1, corev1, metav1, resourcev1
from noderestrict.policy.attributes import Attributes
from noderestrict.policy.decision import Decision
from noderestrict.policy.rules import (
    certificatesigningrequests,
    csinodes,
    leases,
    nodes,
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
        new: the Struct of the object, which must be there; None if no rule reads it.
        old: the Struct of the existing object, likewise.
        trees: the rules compare whole objects, as plain values.
    """

    target: Target
    rules: tuple[Rule, ...]
    new: type[msgspec.Struct] | None = None
    old: type[msgspec.Struct] | None = None
    trees: bool = False


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
        new=corev1.PodStatusObject,
        old=corev1.PodStatusObject,
    ),
    Row(("", "pods", "eviction", CREATE), (pods.evict_own,), new=_PARTIAL),
    Row(("", "pods", ANY, ANY), (pods.refuse_operation,)),
    Row(
        ("", "nodes", ANY, CREATE),
        (nodes.own_name, nodes.config_source, nodes.labels),
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
        new=corev1.Node,
        old=corev1.Node,
    ),
    Row(("", "nodes", ANY, DELETE), (nodes.own_name,)),
    Row(
        ("", "persistentvolumeclaims", "status", UPDATE),
        (persistentvolumeclaims.status_fields,),
        new=_PARTIAL,
        old=_PARTIAL,
        trees=True,
    ),
    Row(("", "persistentvolumeclaims", ANY, ANY), (persistentvolumeclaims.only_status,)),
    Row(
        ("", "serviceaccounts", "token", CREATE),
        (serviceaccounts.token_bound_to_own_pod, serviceaccounts.token_audience),
        new=authenticationv1.TokenRequest,
    ),
    Row(
        ("coordination.k8s.io", "leases", ANY, CREATE),
        (leases.lease_namespace, leases.own_lease),
        new=_PARTIAL,
    ),
    Row(("coordination.k8s.io", "leases", ANY, ANY), (leases.lease_namespace, leases.own_lease)),
    Row(("storage.k8s.io", "csinodes", ANY, CREATE), (csinodes.own_csi_node,), new=_PARTIAL),
    Row(("storage.k8s.io", "csinodes", ANY, ANY), (csinodes.own_csi_node,)),
    Row(
        ("resource.k8s.io", "resourceslices", ANY, CREATE),
        (resourceslices.own_resource_slice,),
        new=resourcev1.ResourceSlice,
    ),
    Row(
        ("resource.k8s.io", "resourceslices", ANY, DELETE),
        (resourceslices.own_resource_slice,),
        old=resourcev1.ResourceSlice,
    ),
    Row(
        ("certificates.k8s.io", "certificatesigningrequests", ANY, CREATE),
        (certificatesigningrequests.common_name,),
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
        new=certificatesv1.PodCertificateRequest,
    ),
    Row(
        ("certificates.k8s.io", "podcertificaterequests", ANY, ANY),
        (podcertificaterequests.gate, podcertificaterequests.only_create),
    ),
)

_BY_TARGET = {row.target: row for row in TABLE}


def row_for(group: str, resource: str, sub_resource: str, operation: str) -> Row | None:
    """Return the row for a request, the most specific one; None if no rule judges it."""
    for sub in (sub_resource, ANY):
        for op in (operation, ANY):
            row = _BY_TARGET.get((group, resource, sub, op))
            if row is not None:
                return row
    return None
