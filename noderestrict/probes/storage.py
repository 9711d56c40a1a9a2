"""Probes of the rules about PersistentVolumeClaims and CSINodes."""

from noderestrict.policy.rule import CREATE, UPDATE
from noderestrict.probes.observed import MADE_UP, MissingError, Observed
from noderestrict.probes.probe import passes, refused
from noderestrict.probes.request import API, Object, Request, user_of

_CLAIMS = API("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
_STATUS = API("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", "status")
_CSI_NODES = API("storage.k8s.io", "v1", "csinodes", "CSINode", namespaced=False)
_CSI_STATUS = "csinodes/status"
_NAMESPACE = "kube-system"


@refused("persistentvolumeclaims/closed-world")
def create_claim(seen: Observed) -> Request:
    """Create a PersistentVolumeClaim."""
    body = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": MADE_UP, "namespace": _NAMESPACE},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Mi"}},
            "storageClassName": "",
        },
    }
    return Request(user_of(seen.node), _CLAIMS, CREATE, _NAMESPACE, MADE_UP, body)


def _claim_of(seen: Observed) -> tuple[tuple[str, str], Object]:
    for key, claim in seen.claims.items():
        return key, claim
    raise MissingError(f"it takes a pod on node {seen.node} with a PersistentVolumeClaim")


@refused("persistentvolumeclaims/status-fields")
def label_claim(seen: Observed) -> Request:
    """Label a claim of a pod on the node while reporting its status."""
    (namespace, name), old = _claim_of(seen)
    patch = {"metadata": {"labels": {f"example.com/{MADE_UP}": "true"}}}
    return Request(user_of(seen.node), _STATUS, UPDATE, namespace, name, patch, old)


@passes("persistentvolumeclaims/closed-world", "persistentvolumeclaims/status-fields")
def report_capacity(seen: Observed) -> Request:
    """Report the capacity of a claim of a pod on the node."""
    (namespace, name), old = _claim_of(seen)
    requested = (old["spec"].get("resources") or {}).get("requests") or {}
    capacity = (old.get("status") or {}).get("capacity") or requested
    patch = {"status": {"capacity": dict(capacity)}}
    return Request(user_of(seen.node), _STATUS, UPDATE, namespace, name, patch, old)


def _csi_node(seen: Observed, name: str) -> Request:
    body = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSINode",
        "metadata": {"name": name},
        "spec": {"drivers": []},
    }
    return Request(user_of(seen.node), _CSI_NODES, CREATE, "", name, body)


@refused("csinodes/own-name")
def other_csi_node(seen: Observed) -> Request:
    """Create the CSINode of another node."""
    return _csi_node(seen, f"{MADE_UP}-other")


@passes("csinodes/own-name")
def own_csi_node(seen: Observed) -> Request:
    """Create its own CSINode."""
    return _csi_node(seen, seen.node)


def _report(seen: Observed, patch: Object) -> Request:
    version = seen.version_of(_CSI_STATUS)
    if seen.csi_node is None:
        raise MissingError(f"it takes the CSINode of node {seen.node}")
    api = API("storage.k8s.io", version, "csinodes", "CSINode", "status", namespaced=False)
    return Request(user_of(seen.node), api, UPDATE, "", seen.node, patch, seen.csi_node)


@refused("csinodes/status", kept="spec.drivers")
def change_drivers_by_status(seen: Observed) -> Request:
    """Change the drivers of its own CSINode while reporting its status."""
    driver = {"name": f"{MADE_UP}.example.com", "nodeID": MADE_UP, "topologyKeys": []}
    return _report(seen, {"spec": {"drivers": [driver]}})


@passes("csinodes/status")
def report_csi_node(seen: Observed) -> Request:
    """Report the status of its own CSINode."""
    return _report(seen, {})
