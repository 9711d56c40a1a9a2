"""Probes of the rules about pods."""

from collections.abc import Iterator
from typing import Any

from noderestrict.policy.records import MIRROR_POD_ANNOTATION
from noderestrict.policy.references import CLOSED_LIST, RESOURCE_CLAIMS
from noderestrict.policy.rule import CREATE, DELETE, UPDATE
from noderestrict.probes.observed import (
    MADE_UP,
    NO_UID,
    MissingError,
    Observed,
    named,
    uid_of,
)
from noderestrict.probes.probe import passes, refused
from noderestrict.probes.request import API, Object, Request, user_of

_PODS = API("", "v1", "pods", "Pod")
_STATUS = API("", "v1", "pods", "Pod", "status")
_EVICTION = API("", "v1", "pods", "Eviction", "eviction", "policy/v1")
#: It always exists.
_NAMESPACE = "kube-system"
_LONGEST_NAME = 253


def _mirror_pod(seen: Observed) -> dict[str, Any]:
    """Return a mirror pod that meets the restricted Pod Security Standard, and has limits."""
    owner = {"apiVersion": "v1", "kind": "Node", "name": seen.node, "controller": True}
    small = {"cpu": "1m", "memory": "1Mi"}
    container = {
        "name": "verify",
        "image": "registry.k8s.io/pause",
        "resources": {"requests": small, "limits": small},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{MADE_UP}-{seen.node}"[:_LONGEST_NAME].rstrip(".-"),
            "namespace": _NAMESPACE,
            "annotations": {MIRROR_POD_ANNOTATION: MADE_UP},
            "ownerReferences": [{**owner, "uid": uid_of(seen.existing_node())}],
        },
        "spec": {
            "nodeName": seen.node,
            "automountServiceAccountToken": False,
            "containers": [container],
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65534,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "tolerations": [{"operator": "Exists"}],
        },
    }


def _create(seen: Observed, pod: dict[str, Any]) -> Request:
    name = pod["metadata"]["name"]
    return Request(user_of(seen.node), _PODS, CREATE, _NAMESPACE, name, pod)


@passes(
    "request/object",
    "pods/mirror-annotation",
    "pods/mirror-node-name",
    "pods/mirror-owner",
    "pods/mirror-owner-uid",
    "pods/mirror-references",
)
def mirror_pod(seen: Observed) -> Request:
    """Create a mirror pod of its own."""
    return _create(seen, _mirror_pod(seen))


@refused("pods/mirror-annotation")
def plain_pod(seen: Observed) -> Request:
    """Create a pod that is no mirror pod."""
    pod = _mirror_pod(seen)
    del pod["metadata"]["annotations"]
    return _create(seen, pod)


@refused("pods/mirror-node-name")
def mirror_pod_elsewhere(seen: Observed) -> Request:
    """Create a mirror pod on another node."""
    pod = _mirror_pod(seen)
    pod["spec"]["nodeName"] = seen.other_node
    return _create(seen, pod)


@refused("pods/mirror-owner")
def mirror_pod_without_owner(seen: Observed) -> Request:
    """Create a mirror pod that no Node owns."""
    pod = _mirror_pod(seen)
    del pod["metadata"]["ownerReferences"]
    return _create(seen, pod)


@refused("pods/mirror-owner-uid")
def mirror_pod_of_another_uid(seen: Observed) -> Request:
    """Create a mirror pod that a Node of another uid owns."""
    pod = _mirror_pod(seen)
    pod["metadata"]["ownerReferences"][0]["uid"] = NO_UID
    return _create(seen, pod)


# Not a Secret or a service account: another admission plugin refuses those too.
@refused("pods/mirror-references")
def mirror_pod_with_config_map(seen: Observed) -> Request:
    """Create a mirror pod that mounts a ConfigMap."""
    return _with_volume(seen, {"configMap": {"name": MADE_UP}})


@refused("pods/mirror-references", part=CLOSED_LIST)
def mirror_pod_with_csi_volume(seen: Observed) -> Request:
    """Create a mirror pod that mounts a CSI volume."""
    return _with_volume(seen, {"csi": {"driver": f"{MADE_UP}.example.com"}})


@refused(
    "pods/mirror-references",
    part=RESOURCE_CLAIMS,
    kept="spec.resourceClaims",
    # Of Kubernetes 1.34 and the patch releases that fix CVE-2025-4563.
    invalid="static pods do not support resource claims",
)
def mirror_pod_with_resource_claim(seen: Observed) -> Request:
    """Create a mirror pod that uses a ResourceClaim."""
    pod = _mirror_pod(seen)
    pod["spec"]["resourceClaims"] = [{"name": "verify", "resourceClaimName": MADE_UP}]
    return _create(seen, pod)


def _with_volume(seen: Observed, source: Object) -> Request:
    pod = _mirror_pod(seen)
    pod["spec"]["volumes"] = [{"name": "verify", **source}]
    return _create(seen, pod)


def _delete(seen: Observed, pod: Object) -> Request:
    options = {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "dryRun": ["All"],
        "preconditions": {"uid": uid_of(pod)},
    }
    return Request(user_of(seen.node), _PODS, DELETE, *named(pod), options, pod)


@refused("pods/delete-own")
def delete_elsewhere(seen: Observed) -> Request:
    """Delete a pod on another node."""
    return _delete(seen, seen.foreign_pod())


@passes("pods/delete-own")
def delete_own(seen: Observed) -> Request:
    """Delete a pod on the node."""
    return _delete(seen, seen.own_pod())


def _evict(seen: Observed, pod: Object) -> Request:
    namespace, name = named(pod)
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": namespace},
        "deleteOptions": {"dryRun": ["All"], "preconditions": {"uid": uid_of(pod)}},
    }
    return Request(user_of(seen.node), _EVICTION, CREATE, namespace, name, body)


@refused("pods/evict-own")
def evict_elsewhere(seen: Observed) -> Request:
    """Evict a pod on another node."""
    return _evict(seen, seen.foreign_pod())


@passes("pods/evict-own")
def evict_own(seen: Observed) -> Request:
    """Evict a pod on the node."""
    return _evict(seen, seen.own_pod())


def _report(seen: Observed, pod: Object, patch: Object, api: API = _STATUS) -> Request:
    return Request(user_of(seen.node), api, UPDATE, *named(pod), patch, pod)


_STATUS_PATCH = {"status": {"message": MADE_UP}}


@refused("pods/status-own")
def report_elsewhere(seen: Observed) -> Request:
    """Report the status of a pod on another node."""
    return _report(seen, seen.foreign_pod(), _STATUS_PATCH)


@passes(
    "pods/status-own",
    "pods/status-labels",
    "pods/status-resource-claims",
    "pods/status-extended-resource-claim",
    "pods/status-node-allocatable-claims",
    "pods/closed-world",
)
def report_own(seen: Observed) -> Request:
    """Report the status of a pod on the node."""
    return _report(seen, seen.own_pod(), _STATUS_PATCH)


_LABEL = {"metadata": {"labels": {f"example.com/{MADE_UP}": "true"}}}


@refused("pods/status-labels")
def label_by_status(seen: Observed) -> Request:
    """Label a pod on the node while reporting its status."""
    return _report(seen, seen.own_pod(), _LABEL)


@refused("pods/status-resource-claims", kept="status.resourceClaimStatuses")
def exchange_claim(seen: Observed) -> Request:
    """Exchange the ResourceClaim of a pod on the node."""
    for pod in seen.own_pods:
        for claim in pod["spec"].get("resourceClaims") or ():
            status = {"name": claim["name"], "resourceClaimName": MADE_UP}
            return _report(seen, pod, {"status": {"resourceClaimStatuses": [status]}})
    raise MissingError(f"it takes a pod on node {seen.node} that uses resource claims")


@refused("pods/status-extended-resource-claim", kept="status.extendedResourceClaimStatus")
def claim_extended_resource(seen: Observed) -> Request:
    """Give a pod on the node another claim of extended resources."""
    # The API server takes only a mapping of a resource that a container requests.
    for pod in seen.own_pods:
        for container in pod["spec"].get("containers") or ():
            for resource in (container.get("resources") or {}).get("requests") or ():
                mapping = {
                    "containerName": container["name"],
                    "resourceName": resource,
                    "requestName": "verify",
                }
                status = {"resourceClaimName": MADE_UP, "requestMappings": [mapping]}
                return _report(seen, pod, {"status": {"extendedResourceClaimStatus": status}})
    raise MissingError(f"it takes a pod on node {seen.node} with requests for resources")


@refused("pods/status-node-allocatable-claims", kept="status.nodeAllocatableResourceClaimStatuses")
def claim_node_resources(seen: Observed) -> Request:
    """Let a claim of a pod on the node count for the node's own resources."""
    # The API server takes only claims that the pod has.
    for pod in seen.own_pods:
        for claim in _claims(pod):
            status = {
                "resourceClaimName": claim,
                "containers": [MADE_UP],
                "mapping": [{"name": "cpu", "quantity": "1m"}],
            }
            patch = {"status": {"nodeAllocatableResourceClaimStatuses": [status]}}
            return _report(seen, pod, patch)
    raise MissingError(f"it takes a pod on node {seen.node} that uses resource claims")


def _claims(pod: Object) -> Iterator[str]:
    """Yield the names of a pod's ResourceClaims."""
    for claim in pod["spec"].get("resourceClaims") or ():
        if claim.get("resourceClaimName"):
            yield claim["resourceClaimName"]
    for status in (pod.get("status") or {}).get("resourceClaimStatuses") or ():
        if status.get("resourceClaimName"):
            yield status["resourceClaimName"]


@refused("pods/closed-world")
def label_pod(seen: Observed) -> Request:
    """Label a pod on the node."""
    return _report(seen, seen.own_pod(), _LABEL, _PODS)
