"""Reviews and cluster objects for tests, each with the least that makes it valid."""

import json
from typing import Any

from noderestrict import admission
from noderestrict.policy.decision import Allowed, Decision, Denied
from noderestrict.policy.listers import MemoryListers
from noderestrict.policy.records import (
    ClaimRecord,
    CSIDriverRecord,
    NodeRecord,
    PodRecord,
    ServiceAccountRecord,
    VolumeRecord,
)
from noderestrict.policy.settings import Settings

Object = dict[str, Any]

KINDS = {
    "pods": ("", "v1", "Pod"),
    "nodes": ("", "v1", "Node"),
    "persistentvolumeclaims": ("", "v1", "PersistentVolumeClaim"),
    "serviceaccounts": ("authentication.k8s.io", "v1", "TokenRequest"),
    "leases": ("coordination.k8s.io", "v1", "Lease"),
    "csinodes": ("storage.k8s.io", "v1", "CSINode"),
    "resourceslices": ("resource.k8s.io", "v1", "ResourceSlice"),
    "certificatesigningrequests": ("certificates.k8s.io", "v1", "CertificateSigningRequest"),
    "podcertificaterequests": ("certificates.k8s.io", "v1beta1", "PodCertificateRequest"),
    "secrets": ("", "v1", "Secret"),
    "events": ("", "v1", "Event"),
}

LISTERS = MemoryListers(
    [
        NodeRecord("n1", "n1-uid"),
        NodeRecord("n2", "n2-uid"),
        PodRecord(
            "ns",
            "p1",
            "p1-uid",
            "n1",
            "sa1",
            audiences=("vault",),
            signers=("example.com/mesh",),
            claims=("data",),
        ),
        PodRecord("ns", "p2", "p2-uid", "n2", "sa1"),
        PodRecord("ns", "bare", "bare-uid", "n1", "sa1", audiences=("",)),
        PodRecord("ns", "lost", "lost-uid", "n1", "sa1", claims=("gone",)),
        PodRecord("ns", "mirror", "mirror-uid", "n1", mirror=True),
        ServiceAccountRecord("ns", "sa1", "sa1-uid"),
        ClaimRecord("ns", "data", "pv1"),
        VolumeRecord("pv1", "csi.example.com"),
        CSIDriverRecord("csi.example.com", ("storage",)),
    ]
)


def obj(resource: str, *, eviction: bool = False, **fields: Any) -> Object:
    group, version, kind = ("policy", "v1", "Eviction") if eviction else KINDS[resource]
    api_version = f"{group}/{version}" if group else version
    return {"apiVersion": api_version, "kind": kind, **fields}


def review(
    resource: str,
    operation: str,
    *,
    sub: str = "",
    name: str = "",
    namespace: str = "",
    new: Object | None = None,
    old: Object | None = None,
    user: str = "system:node:n1",
    groups: tuple[str, ...] = ("system:nodes", "system:authenticated"),
) -> bytes:
    sample = new or old
    group, version, kind = KINDS[resource]
    if sample is not None and "kind" in sample:
        kind = sample["kind"]
        group, _, version = str(sample["apiVersion"]).rpartition("/")
    resource_group = "" if resource == "serviceaccounts" else KINDS[resource][0]
    request: Object = {
        "uid": "review-uid",
        "kind": {"group": group, "version": version, "kind": kind},
        "resource": {"group": resource_group, "version": "v1", "resource": resource},
        "operation": operation,
        "userInfo": {"username": user, "groups": list(groups)},
        "object": new,
        "oldObject": old,
    }
    for key, value in (("subResource", sub), ("name", name), ("namespace", namespace)):
        if value:
            request[key] = value
    return json.dumps(
        {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    ).encode()


def judge(body: bytes, settings: Settings | None = None) -> Decision:
    return admission.evaluate(admission.decode(body), settings or Settings.for_version(), LISTERS)


def assert_allowed(decision: Decision) -> None:
    assert isinstance(decision, Allowed), decision


def assert_denied(decision: Decision, rule: str, *parts: str, code: int = 403) -> None:
    assert isinstance(decision, Denied), decision
    assert (decision.rule, decision.code) == (rule, code), decision
    for part in parts:
        assert part in decision.explanation


def mirror_pod(**spec: Any) -> Object:
    owner = {
        "apiVersion": "v1",
        "kind": "Node",
        "name": "n1",
        "uid": "n1-uid",
        "controller": True,
    }
    return obj(
        "pods",
        metadata={
            "name": "static",
            "namespace": "ns",
            "annotations": {"kubernetes.io/config.mirror": ""},
            "ownerReferences": [owner],
        },
        spec={"nodeName": "n1", "containers": [{"name": "c"}], **spec},
    )


def create_mirror(pod: Object) -> bytes:
    return review("pods", "CREATE", name="static", namespace="ns", new=pod)


def node(labels: dict[str, str] | None = None, **fields: Any) -> Object:
    metadata = {"name": "n1", "uid": "n1-uid", "labels": labels or {}, **fields.pop("metadata", {})}
    return obj("nodes", metadata=metadata, **fields)


def update_node(old: Object, new: Object, sub: str = "") -> bytes:
    return review("nodes", "UPDATE", sub=sub, name="n1", new=new, old=old)


def token_request(pod: str, uid: str, *audiences: str) -> bytes:
    reference = {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}
    spec = {"audiences": list(audiences), "boundObjectRef": reference}
    new = obj("serviceaccounts", spec=spec)
    return review("serviceaccounts", "CREATE", sub="token", name="sa1", namespace="ns", new=new)


def pod_status(old: Object, new: Object) -> bytes:
    return review("pods", "UPDATE", sub="status", name="p1", namespace="ns", new=new, old=old)


def claim(**status: Any) -> Object:
    return obj(
        "persistentvolumeclaims",
        metadata={"name": "data", "namespace": "ns", "resourceVersion": "1"},
        spec={"resources": {"requests": {"storage": "1Gi"}}, "volumeName": "pv1"},
        status=status,
    )


def update_claim(old: Object, new: Object) -> bytes:
    return review(
        "persistentvolumeclaims",
        "UPDATE",
        sub="status",
        name="data",
        namespace="ns",
        new=new,
        old=old,
    )
