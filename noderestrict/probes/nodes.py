"""Probes of the rules about Nodes."""

from typing import Any

from noderestrict.policy.extra import FORBIDDEN_LABELS
from noderestrict.policy.rule import CREATE, DELETE, UPDATE
from noderestrict.probes.observed import MADE_UP, NO_UID, InapplicableError, MissingError, Observed
from noderestrict.probes.probe import passes, refused
from noderestrict.probes.request import API, Object, Request, user_of

_NODES = API("", "v1", "nodes", "Node", namespaced=False)
_STATUS = API("", "v1", "nodes", "Node", "status", namespaced=False)


def _patch(seen: Observed, patch: Object, api: API = _NODES) -> Request:
    old = seen.existing_node()
    return Request(user_of(seen.node), api, UPDATE, "", seen.node, patch, old)


@passes(
    "identity/node-name",
    "nodes/own-name",
    "nodes/config-source",
    "nodes/taints",
    "nodes/owner-references",
    "nodes/unschedulable",
    "nodes/pod-cidr",
    "nodes/provider-id",
    "nodes/annotations",
    "nodes/finalizers",
    "nodes/delete-self",
)
def own_status(seen: Observed) -> Request:
    """Report the status of its own Node."""
    return _patch(seen, {"status": {"phase": "Running"}}, _STATUS)


@refused("nodes/own-name")
def other_node(seen: Observed) -> Request:
    """Create another Node."""
    name = f"{MADE_UP}-other"
    body = {"metadata": {"name": name}}
    return Request(user_of(seen.node), _NODES, CREATE, "", name, _with_kind(body))


def _with_kind(body: dict[str, Any]) -> Object:
    return {"apiVersion": "v1", "kind": "Node", **body}


@refused("request/object", invalid="cannot be handled as a Node")
def lease_as_node(seen: Observed) -> Request:
    """Create a Node that is a Lease."""
    body = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": seen.node},
    }
    return Request(user_of(seen.node), _NODES, CREATE, "", seen.node, body)


@refused("nodes/config-source", kept="spec.configSource")
def config_source(seen: Observed) -> Request:
    """Choose the ConfigMap that configures its kubelet."""
    source = {"namespace": "kube-system", "name": MADE_UP, "kubeletConfigKey": "kubelet"}
    return _patch(seen, {"spec": {"configSource": {"configMap": source}}})


@refused("nodes/taints")
def taint(seen: Observed) -> Request:
    """Add a taint to its own Node."""
    taints = (seen.existing_node().get("spec") or {}).get("taints") or []
    added = {"key": f"example.com/{MADE_UP}", "effect": "NoSchedule"}
    return _patch(seen, {"spec": {"taints": [*taints, added]}})


@refused("nodes/owner-references")
def owner_reference(seen: Observed) -> Request:
    """Add an owner to its own Node through nodes/status."""
    owners = seen.existing_node()["metadata"].get("ownerReferences") or []
    added = {"apiVersion": "v1", "kind": "Namespace", "name": MADE_UP, "uid": NO_UID}
    return _patch(seen, {"metadata": {"ownerReferences": [*owners, added]}}, _STATUS)


@refused("nodes/labels")
def reserved_label(seen: Observed) -> Request:
    """Give its own Node a label of node-restriction.kubernetes.io."""
    return _label(seen, f"node-restriction.kubernetes.io/{MADE_UP}")


@passes("nodes/labels", FORBIDDEN_LABELS)
def kubelet_label(seen: Observed) -> Request:
    """Give its own Node a label of node.kubernetes.io."""
    return _label(seen, f"node.kubernetes.io/{MADE_UP}")


def _label(seen: Observed, key: str) -> Request:
    return _patch(seen, {"metadata": {"labels": {key: "true"}}})


@refused(FORBIDDEN_LABELS)
def forbidden_label(seen: Observed) -> Request:
    """Change a label that --forbid-node-labels forbids."""
    is_forbidden = seen.extra.forbidden_labels.of(seen.node)
    for key in seen.extra.forbidden_labels.keys():  # noqa: SIM118 (no mapping)
        name = f"{key[:-1]}{MADE_UP}" if key.endswith("*") else key
        if is_forbidden(name):
            labels = seen.existing_node()["metadata"].get("labels") or {}
            value = "false" if labels.get(name) == "true" else "true"
            return _patch(seen, {"metadata": {"labels": {name: value}}})
    raise InapplicableError(f"no label is forbidden for node {seen.node}")


@refused("nodes/unschedulable")
def cordon(seen: Observed) -> Request:
    """Cordon or uncordon itself."""
    now = bool((seen.existing_node().get("spec") or {}).get("unschedulable"))
    return _patch(seen, {"spec": {"unschedulable": not now}})


@refused("nodes/pod-cidr")
def pod_cidr(seen: Observed) -> Request:
    """Choose the addresses of its pods."""
    _must_be_unset(seen, "podCIDR")
    return _patch(seen, {"spec": {"podCIDR": "192.0.2.0/24", "podCIDRs": ["192.0.2.0/24"]}})


@refused("nodes/provider-id")
def provider_id(seen: Observed) -> Request:
    """Choose the machine that it is."""
    _must_be_unset(seen, "providerID")
    return _patch(seen, {"spec": {"providerID": f"example://{MADE_UP}"}})


def _must_be_unset(seen: Observed, field: str) -> None:
    if (seen.existing_node().get("spec") or {}).get(field):
        raise MissingError(f"Node {seen.node} has spec.{field}, which nobody can change")


@refused("nodes/annotations")
def annotation(seen: Observed) -> Request:
    """Annotate its own Node."""
    return _patch(seen, {"metadata": {"annotations": {f"example.com/{MADE_UP}": "true"}}})


@refused("nodes/finalizers")
def finalizer(seen: Observed) -> Request:
    """Add a finalizer to its own Node."""
    finalizers = seen.existing_node()["metadata"].get("finalizers") or []
    return _patch(seen, {"metadata": {"finalizers": [*finalizers, f"example.com/{MADE_UP}"]}})


@refused("nodes/delete-self")
def delete_self(seen: Observed) -> Request:
    """Delete its own Node."""
    old = seen.existing_node()
    return Request(user_of(seen.node), _NODES, DELETE, "", seen.node, old=old)
