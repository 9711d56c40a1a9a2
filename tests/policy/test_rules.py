"""Each rule: what it lets pass, what it refuses, and that its message names field and value."""

import base64
import copy
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.name import _ASN1Type

from noderestrict.policy.decision import Decision, Denied, Question
from noderestrict.policy.releases import Release
from noderestrict.policy.settings import Settings
from tests.builders import (
    Object,
    assert_allowed,
    assert_denied,
    claim,
    create_mirror,
    judge,
    mirror_pod,
    node,
    obj,
    pod_status,
    review,
    token_request,
    update_claim,
    update_node,
)


def test_a_mirror_pod_without_references_is_allowed() -> None:
    assert_allowed(judge(create_mirror(mirror_pod(volumes=[{"name": "v", "emptyDir": {}}]))))


def test_a_pod_without_the_mirror_annotation_is_refused() -> None:
    pod = mirror_pod()
    pod["metadata"]["annotations"] = {}
    assert_denied(judge(create_mirror(pod)), "pods/mirror-annotation", "config.mirror")


def test_a_mirror_pod_on_another_node_is_refused() -> None:
    assert_denied(
        judge(create_mirror(mirror_pod(nodeName="n2"))),
        "pods/mirror-node-name",
        "spec.nodeName is 'n2'",
    )


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"apiVersion": "v2"}, "apiVersion is 'v2'"),
        ({"kind": "Pod"}, "kind is 'Pod'"),
        ({"name": "n2"}, "name is 'n2'"),
        ({"controller": None}, "controller must be true"),
        ({"controller": False}, "controller must be true"),
        ({"blockOwnerDeletion": True}, "blockOwnerDeletion is true"),
    ],
)
def test_a_mirror_pod_with_another_owner_is_refused(change: dict[str, Any], part: str) -> None:
    pod = mirror_pod()
    pod["metadata"]["ownerReferences"][0].update(change)
    assert_denied(judge(create_mirror(pod)), "pods/mirror-owner", part)


@pytest.mark.parametrize("count", [0, 2])
def test_a_mirror_pod_needs_exactly_one_owner(count: int) -> None:
    pod = mirror_pod()
    pod["metadata"]["ownerReferences"] *= count
    assert_denied(judge(create_mirror(pod)), "pods/mirror-owner", f"{count} entries")


def test_a_mirror_pod_with_the_uid_of_an_earlier_node_is_refused() -> None:
    pod = mirror_pod()
    pod["metadata"]["ownerReferences"][0]["uid"] = "old"
    assert_denied(judge(create_mirror(pod)), "pods/mirror-owner-uid", "'old'", "'n1-uid'")


REFERENCES: list[tuple[dict[str, Any], str]] = [
    ({"serviceAccountName": "sa"}, "spec.serviceAccountName (ServiceAccount 'sa')"),
    ({"serviceAccount": "sa"}, "spec.serviceAccount (ServiceAccount 'sa')"),
    ({"imagePullSecrets": [{"name": "s"}]}, "spec.imagePullSecrets[0] (Secret 's')"),
    ({"resourceClaims": [{"name": "gpu"}]}, "spec.resourceClaims[0] (ResourceClaim 'gpu')"),
]
for _field in ("containers", "initContainers", "ephemeralContainers"):
    REFERENCES += [
        (
            {_field: [{"name": "c", "envFrom": [{}, {"secretRef": {"name": "s"}}]}]},
            f"spec.{_field}[0].envFrom[1].secretRef",
        ),
        (
            {_field: [{"name": "c", "envFrom": [{"configMapRef": {"name": "s"}}]}]},
            f"spec.{_field}[0].envFrom[0].configMapRef",
        ),
        (
            {_field: [{"env": [{"valueFrom": {"secretKeyRef": {"name": "s"}}}]}]},
            f"spec.{_field}[0].env[0].valueFrom.secretKeyRef",
        ),
        (
            {_field: [{"env": [{"valueFrom": {"configMapKeyRef": {"name": "s"}}}]}]},
            f"spec.{_field}[0].env[0].valueFrom.configMapKeyRef",
        ),
    ]
VOLUMES: list[tuple[dict[str, Any], str]] = [
    ({"secret": {"secretName": "s"}}, ".secret (Secret 's')"),
    ({"secret": {}}, ".secret (Secret)"),
    ({"configMap": {"name": "c"}}, ".configMap"),
    ({"csi": {"driver": "d"}}, ".csi (CSIDriver 'd')"),
    ({"csi": {"nodePublishSecretRef": {"name": "s"}}}, ".csi.nodePublishSecretRef"),
    ({"glusterfs": {"endpoints": "e"}}, ".glusterfs"),
    ({"persistentVolumeClaim": {"claimName": "c"}}, ".persistentVolumeClaim"),
    ({"ephemeral": {"volumeClaimTemplate": {}}}, ".ephemeral"),
    ({"azureFile": {"secretName": "s"}}, ".azureFile"),
    ({"projected": {"sources": [{"secret": {"name": "s"}}]}}, ".projected.sources[0].secret"),
    ({"projected": {"sources": [{"configMap": {}}]}}, ".projected.sources[0].configMap"),
    ({"projected": {"sources": [{"serviceAccountToken": {}}]}}, "sources[0].serviceAccountToken"),
    ({"projected": {"sources": [{"clusterTrustBundle": {}}]}}, "sources[0].clusterTrustBundle"),
    ({"projected": {"sources": [{"podCertificate": {}}]}}, "sources[0].podCertificate"),
    ({"projected": {"sources": [{"downwardAPI": {}}, {"new": {}}]}}, ".projected.sources[1]"),
    ({"somethingNew": {}}, "spec.volumes[1] (an unknown source"),
    *(
        ({field: {"secretRef": {"name": "s"}}}, f".{field}.secretRef (Secret 's')")
        for field in ("cephfs", "cinder", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos")
    ),
]


@pytest.mark.parametrize(("spec", "part"), REFERENCES)
def test_a_mirror_pod_that_names_another_object_is_refused_with_the_path(
    spec: dict[str, Any], part: str
) -> None:
    assert_denied(judge(create_mirror(mirror_pod(**spec))), "pods/mirror-references", part)


@pytest.mark.parametrize(("source", "part"), VOLUMES)
def test_a_mirror_pod_with_a_volume_that_reaches_the_api_is_refused_with_the_path(
    source: dict[str, Any], part: str
) -> None:
    volumes = [{"name": "ok", "hostPath": {"path": "/"}}, {"name": "v", **source}]
    assert_denied(
        judge(create_mirror(mirror_pod(volumes=volumes))),
        "pods/mirror-references",
        "spec.volumes[1]",
        part,
    )


def test_all_references_of_a_mirror_pod_are_named_at_once() -> None:
    pod = mirror_pod(
        serviceAccountName="sa", volumes=[{"name": "v", "secret": {"secretName": "s"}}]
    )
    assert_denied(
        judge(create_mirror(pod)),
        "pods/mirror-references",
        "spec.serviceAccountName",
        "spec.volumes[0].secret",
    )


def test_empty_names_of_references_do_not_count() -> None:
    container = {"name": "c", "envFrom": [{"secretRef": {"name": ""}}]}
    pod = mirror_pod(
        containers=[container],
        imagePullSecrets=[{"name": ""}],
        volumes=[{"name": "v", "rbd": {"secretRef": {"name": ""}}}],
    )
    assert_allowed(judge(create_mirror(pod)))


@pytest.mark.parametrize(
    ("name", "outcome"),
    [("p1", None), ("p2", ("pods/delete-own", 403)), ("none", ("pods/delete-own", 404))],
)
def test_a_node_deletes_only_its_own_pods(name: str, outcome: tuple[str, int] | None) -> None:
    decision = judge(review("pods", "DELETE", name=name, namespace="ns", old=obj("pods")))
    if outcome is None:
        assert_allowed(decision)
    else:
        assert_denied(decision, outcome[0], code=outcome[1])


def test_a_deletecollection_of_pods_is_refused_as_not_found() -> None:
    decision = judge(review("pods", "DELETE", namespace="ns", old=obj("pods")))
    assert_denied(decision, "pods/delete-own", "names no pod", code=404)


@pytest.mark.parametrize("sub", ["", "ephemeralcontainers", "resize", "binding", "unheard-of"])
def test_what_no_pod_rule_names_is_refused(sub: str) -> None:
    decision = judge(review("pods", "UPDATE", sub=sub, name="p1", namespace="ns", new=obj("pods")))
    assert_denied(decision, "pods/closed-world", "UPDATE")


def test_an_eviction_takes_its_pod_from_the_object_when_the_request_names_none() -> None:
    def evict(name: str, inner: str) -> bytes:
        new = obj("pods", eviction=True, metadata={"name": inner})
        return review("pods", "CREATE", sub="eviction", name=name, namespace="ns", new=new)

    assert_allowed(judge(evict("", "p1")))
    assert_denied(judge(evict("", "p2")), "pods/evict-own", "'n2'")
    assert_denied(judge(evict("", "")), "pods/evict-own", "names the pod")
    assert_allowed(judge(evict("p1", "p2")))


def _own_pod(**fields: Any) -> dict[str, Any]:
    metadata = {"name": "p1", "namespace": "ns", "labels": {"app": "web"}}
    return obj("pods", metadata=metadata, spec={"nodeName": "n1"}, status=fields)


def test_an_own_pod_status_is_allowed_and_anothers_is_not() -> None:
    assert_allowed(judge(pod_status(_own_pod(), _own_pod(phase="Running"))))
    other = _own_pod()
    other["spec"]["nodeName"] = "n2"
    assert_denied(judge(pod_status(other, _own_pod())), "pods/status-own", "'n2'")


def test_labels_changed_through_status_are_named() -> None:
    new = _own_pod()
    new["metadata"]["labels"] = {"app": "db", "extra": "x"}
    assert_denied(judge(pod_status(_own_pod(), new)), "pods/status-labels", "'app'", "'extra'")


def test_a_null_claim_name_differs_from_an_empty_one() -> None:
    old = _own_pod(resourceClaimStatuses=[{"name": "a"}])
    new = _own_pod(resourceClaimStatuses=[{"name": "a", "resourceClaimName": ""}])
    assert_denied(judge(pod_status(old, new)), "pods/status-resource-claims")
    assert_allowed(judge(pod_status(old, copy.deepcopy(old))))


def test_the_order_of_extended_resource_mappings_counts() -> None:
    first, second = ({"containerName": name} for name in "ab")
    old = _own_pod(extendedResourceClaimStatus={"requestMappings": [first, second]})
    new = _own_pod(extendedResourceClaimStatus={"requestMappings": [second, first]})
    assert_denied(judge(pod_status(old, new)), "pods/status-extended-resource-claim")


def test_another_node_may_not_be_changed() -> None:
    for operation in ("CREATE", "UPDATE", "DELETE"):
        decision = judge(review("nodes", operation, name="n2", new=node(), old=node()))
        assert_denied(decision, "nodes/own-name", "'n1'")


@pytest.mark.parametrize("sub", ["", "status"])
def test_every_forbidden_label_is_named_with_its_change(sub: str) -> None:
    old = node({"node-restriction.kubernetes.io/a": "1", "x.k8s.io/b": "1", "free": "1"})
    new = node({"node-restriction.kubernetes.io/a": "2", "kubernetes.io/c": "3"})
    assert_denied(
        judge(update_node(old, new, sub)),
        "nodes/labels",
        "'node-restriction.kubernetes.io/a' (changed to '2')",
        "'x.k8s.io/b' (removed)",
        "'kubernetes.io/c' (added as '3')",
    )


def test_taints_may_be_set_at_registration_and_not_later() -> None:
    taint = {"key": "k", "effect": "NoSchedule"}
    assert_allowed(judge(review("nodes", "CREATE", name="n1", new=node(spec={"taints": [taint]}))))
    assert_denied(judge(update_node(node(), node(spec={"taints": [taint]}))), "nodes/taints", "k=:")
    assert_allowed(judge(update_node(node(spec={"taints": []}), node(spec={"taints": None}))))


def test_owner_references_stay_as_they_are() -> None:
    owned = node(metadata={"ownerReferences": [{"kind": "X", "name": "y"}]})
    assert_denied(judge(update_node(node(), owned)), "nodes/owner-references", "0 entries before")
    assert_allowed(judge(update_node(owned, copy.deepcopy(owned))))


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("apiVersion", "v2"),
        ("kind", "Y"),
        ("name", "z"),
        ("uid", "v"),
        ("controller", False),
        ("controller", None),
        ("blockOwnerDeletion", False),
        ("blockOwnerDeletion", None),
    ],
)
def test_no_member_of_an_owner_reference_changes(member: str, value: object) -> None:
    owner: dict[str, object] = {"apiVersion": "v1", "kind": "X", "name": "y", "uid": "u"}
    owner |= {"controller": True, "blockOwnerDeletion": True}
    before, after = (
        node(metadata={"ownerReferences": [one]}) for one in (owner, {**owner, member: value})
    )
    assert_allowed(judge(update_node(before, before)))
    assert_denied(judge(update_node(before, after)), "nodes/owner-references", "from index 0")


def test_a_config_source_may_be_kept_or_removed_but_not_set() -> None:
    source = node(spec={"configSource": {"configMap": {"name": "c"}}})
    created = judge(review("nodes", "CREATE", name="n1", new=source))
    assert_denied(created, "nodes/config-source")
    assert_denied(judge(update_node(node(), source)), "nodes/config-source")
    assert_allowed(judge(update_node(source, node())))
    assert_allowed(judge(update_node(source, copy.deepcopy(source))))


def test_a_claim_status_may_report_capacity_and_nothing_else() -> None:
    assert_allowed(judge(update_claim(claim(), claim(capacity={"storage": "2Gi"}))))
    assert_denied(
        judge(update_claim(claim(), claim(phase="Lost"))),
        "persistentvolumeclaims/status-fields",
        "status.phase",
    )


def test_quantities_of_a_claim_compare_by_value() -> None:
    same = claim()
    same["spec"]["resources"]["requests"]["storage"] = "1024Mi"
    assert_allowed(judge(update_claim(claim(), same)))
    same["spec"]["resources"]["requests"]["storage"] = "1025Mi"
    assert_denied(
        judge(update_claim(claim(), same)),
        "persistentvolumeclaims/status-fields",
        "spec.resources.requests.storage",
    )


def test_allocated_resources_need_the_expansion_gate() -> None:
    change = update_claim(claim(), claim(allocatedResources={"storage": "2Gi"}))
    off = Settings.for_version(overrides={"RecoverVolumeExpansionFailure": False})
    assert_allowed(judge(change))
    assert_denied(judge(change, off), "persistentvolumeclaims/status-fields", "allocatedResources")


def test_anything_but_the_status_of_a_claim_is_refused() -> None:
    for operation, sub in (("CREATE", ""), ("UPDATE", ""), ("DELETE", ""), ("CREATE", "status")):
        body = review(
            "persistentvolumeclaims", operation, sub=sub, name="c", namespace="ns", new=claim()
        )
        assert_denied(judge(body), "persistentvolumeclaims/closed-world", operation)


def test_a_token_is_bound_to_a_pod_on_this_node() -> None:
    rule = "serviceaccounts-token/bound-pod"
    assert_allowed(judge(token_request("p1", "p1-uid", "vault")))
    assert_denied(judge(token_request("p2", "p2-uid")), rule, "'n2'")
    assert_denied(judge(token_request("p1", "other")), rule, "'other'")
    assert_denied(judge(token_request("none", "u")), rule, code=404)
    assert_denied(judge(token_request("", "u")), rule, "name is empty")


def test_an_audience_of_a_csi_driver_behind_a_claim_is_allowed() -> None:
    assert_allowed(judge(token_request("p1", "p1-uid", "storage")))


def test_an_unknown_audience_is_a_question_for_the_authorizer() -> None:
    decision = judge(token_request("p1", "p1-uid", "bank"))
    assert isinstance(decision, Question)
    assert decision.resources == ("bank",)
    assert (decision.namespace, decision.name) == ("ns", "sa1")
    assert "'bank'" in decision.otherwise.message


def test_a_failed_lookup_refuses_without_asking_the_authorizer() -> None:
    assert_denied(
        judge(token_request("lost", "lost-uid", "bank")),
        "serviceaccounts-token/audience",
        "ns/gone is not found",
    )


def test_two_audiences_are_refused_unless_they_are_the_api_servers_own() -> None:
    body = token_request("bare", "bare-uid", "a", "b")
    assert_denied(judge(body), "serviceaccounts-token/audience", "2 entries")
    assert_allowed(judge(body, Settings.for_version(api_audiences=("b", "a"))))


def test_while_api_audiences_are_unknown_a_refusal_is_retriable() -> None:
    pending = Settings.for_version(audiences_pending=True)
    decision = judge(token_request("bare", "bare-uid", "https://issuer"), pending)
    assert isinstance(decision, Question)
    assert decision.otherwise.code == 500


def test_the_audience_gate_switches_the_rule_off() -> None:
    off = Settings.for_version(overrides={"ServiceAccountNodeAudienceRestriction": False})
    assert_allowed(judge(token_request("p1", "p1-uid", "bank", "other"), off))


@pytest.mark.parametrize(("namespace", "name"), [("default", "n1"), ("kube-node-lease", "n2")])
def test_a_node_writes_only_its_own_heartbeat(namespace: str, name: str) -> None:
    new = obj("leases", metadata={"name": name})
    decision = judge(review("leases", "CREATE", name=name, namespace=namespace, new=new))
    expected = "leases/namespace" if namespace == "default" else "leases/own-name"
    assert_denied(decision, expected)


def test_a_node_writes_only_its_own_csi_node() -> None:
    new = obj("csinodes", metadata={"name": "n2"})
    assert_denied(judge(review("csinodes", "CREATE", name="n2", new=new)), "csinodes/own-name")
    assert_denied(judge(review("csinodes", "DELETE", old=new)), "csinodes/own-name")
    assert_allowed(judge(review("csinodes", "UPDATE", name="n1", new=new)))


@pytest.mark.parametrize("name", [None, "", "n2"])
def test_a_slice_of_another_node_or_of_none_is_refused(name: str | None) -> None:
    slice_ = obj("resourceslices", metadata={"name": "s"}, spec={"nodeName": name})
    rule = "resourceslices/own-node-name"
    assert_denied(judge(review("resourceslices", "CREATE", name="s", new=slice_)), rule)
    assert_denied(judge(review("resourceslices", "DELETE", name="s", old=slice_)), rule)


def _csr(*names: str, prefix: bytes = b"") -> dict[str, Any]:
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(x509.NameOID.COMMON_NAME, name) for name in names]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    request = base64.b64encode(prefix + pem).decode()
    spec = {"signerName": "kubernetes.io/kubelet-serving", "request": request}
    return obj("certificatesigningrequests", spec=spec)


def _create_csr(csr: dict[str, Any]) -> bytes:
    return review("certificatesigningrequests", "CREATE", name="csr", new=csr)


def test_a_kubelet_certificate_is_asked_for_in_the_nodes_own_name() -> None:
    rule = "certificatesigningrequests/common-name"
    assert_allowed(judge(_create_csr(_csr("system:node:n1", prefix=b"a note\n"))))
    assert_denied(judge(_create_csr(_csr("system:node:n2"))), rule, "'system:node:n2'")
    assert_denied(judge(_create_csr(_csr())), rule)


def test_the_last_common_name_decides() -> None:
    assert_allowed(judge(_create_csr(_csr("x", "system:node:n1"))))
    assert_denied(
        judge(_create_csr(_csr("system:node:n1", "x"))), "certificatesigningrequests/common-name"
    )


def _typed(*names: tuple[str, _ASN1Type]) -> dict[str, Any]:
    attributes = [
        x509.NameAttribute(x509.NameOID.COMMON_NAME, name, _type=kind) for name, kind in names
    ]
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    csr = _csr()
    csr["spec"]["request"] = base64.b64encode(pem).decode()
    return csr


@pytest.mark.parametrize(
    "kind", [_ASN1Type.VisibleString, _ASN1Type.UniversalString, _ASN1Type.OctetString]
)
def test_a_common_name_that_the_signer_does_not_see_is_not_seen(kind: _ASN1Type) -> None:
    victim = ("system:node:n2", _ASN1Type.UTF8String)
    hidden = ("system:node:n1", kind)
    rule = "certificatesigningrequests/common-name"
    assert_denied(judge(_create_csr(_typed(victim, hidden))), rule, "'system:node:n2'")
    assert_denied(judge(_create_csr(_typed(hidden))), rule, "is ''")


def test_a_common_name_that_its_type_cannot_hold_is_unreadable() -> None:
    wrong = ("system:node:n1", _ASN1Type.NumericString)
    decision = judge(_create_csr(_typed(wrong)))
    assert_denied(decision, "certificatesigningrequests/common-name", "cannot be read")


def test_an_unreadable_signing_request_is_refused_without_showing_it() -> None:
    csr = _csr("system:node:n1")
    csr["spec"]["request"] = base64.b64encode(b"secret stuff").decode()
    decision = judge(_create_csr(csr))
    assert_denied(decision, "certificatesigningrequests/common-name")
    assert "secret stuff" not in str(decision)


def test_other_signers_are_not_judged() -> None:
    csr = _csr("anything")
    csr["spec"]["signerName"] = "example.com/signer"
    assert_allowed(judge(_create_csr(csr)))


PCR = {
    "nodeName": "n1",
    "nodeUID": "n1-uid",
    "podName": "p1",
    "podUID": "p1-uid",
    "serviceAccountName": "sa1",
    "serviceAccountUID": "sa1-uid",
    "signerName": "example.com/mesh",
}
GATE = Settings.for_version(overrides={"PodCertificateRequest": True})


def _pcr(**change: str) -> bytes:
    new = obj("podcertificaterequests", spec={**PCR, **change})
    return review("podcertificaterequests", "CREATE", name="r", namespace="ns", new=new)


@pytest.mark.parametrize(
    ("change", "rule", "code"),
    [
        ({"nodeName": "n2"}, "node", 403),
        ({"nodeUID": "x"}, "node", 500),
        ({"podName": "none"}, "pod", 500),
        ({"podUID": "x"}, "pod", 500),
        ({"podName": "p2", "podUID": "p2-uid"}, "pod", 403),
        ({"podName": "mirror", "podUID": "mirror-uid"}, "pod", 403),
        ({"serviceAccountName": "x"}, "service-account", 403),
        ({"serviceAccountUID": "x"}, "service-account", 500),
    ],
)
def test_a_pod_certificate_request_names_what_really_runs(
    change: dict[str, str], rule: str, code: int
) -> None:
    assert_denied(judge(_pcr(**change), GATE), f"podcertificaterequests/{rule}", code=code)


def test_a_signer_that_the_pod_does_not_mount_is_a_question_for_the_authorizer() -> None:
    decision = judge(_pcr(signerName="example.com/bank"), GATE)
    assert isinstance(decision, Question)
    # Roles cannot name resources with slashes.
    assert decision.resources == ("example.com:bank",)
    assert (decision.group, decision.namespace, decision.name) == (
        "certificates.k8s.io",
        "ns",
        "sa1",
    )
    assert decision.otherwise.rule == "podcertificaterequests/signer"


def test_before_1_37_any_signer_was_allowed() -> None:
    older = Settings.for_version(overrides={"PodCertificateRequest": True}, release=Release(36))
    assert_allowed(judge(_pcr(signerName="example.com/bank"), older))


def _csi_node_status(operation: str = "UPDATE", **new: Any) -> bytes:
    drivers = [{"name": "d", "nodeID": "n1", "topologyKeys": [], "allocatable": {"count": 3}}]
    metadata = {"name": "n1"}
    return review(
        "csinodes",
        operation,
        sub="status",
        name="n1",
        new=obj("csinodes", metadata=metadata, spec={"drivers": drivers, **new}, status={"a": 1}),
        old=obj("csinodes", metadata=metadata, spec={"drivers": drivers}),
    )


def test_a_csi_node_status_needs_its_gate_and_keeps_the_spec() -> None:
    rule = "csinodes/status"
    on = Settings.for_version(overrides={"CSIVolumeHealth": True})
    assert_denied(judge(_csi_node_status()), rule, "CSIVolumeHealth is off")
    assert_allowed(judge(_csi_node_status(), on))
    same = {"name": "d", "nodeID": "n1", "allocatable": {"count": 3}}
    assert_allowed(judge(_csi_node_status(drivers=[same]), on))
    for changed in ({**same, "allocatable": None}, {**same, "nodeID": "n2"}):
        assert_denied(judge(_csi_node_status(drivers=[changed]), on), rule, "spec.drivers[0]")
    assert_denied(judge(_csi_node_status("DELETE"), on), rule, "may only update")


def test_before_1_37_no_rule_judged_the_status_of_a_csi_node() -> None:
    older = Settings.for_version(release=Release(36))
    assert_allowed(judge(_csi_node_status(), older))


def _allocations(*quantities: str, **change: Any) -> Object:
    mapping = [{"name": "cpu", "quantity": quantity} for quantity in quantities]
    claim = {"resourceClaimName": "c", "containers": ["a"], "mapping": mapping, **change}
    return {
        "metadata": {"name": "p1", "namespace": "ns"},
        "spec": {"nodeName": "n1"},
        "status": {"nodeAllocatableResourceClaimStatuses": [claim]},
    }


def _allocated(new: Object, old: Object, settings: Settings | None = None) -> Decision:
    body = review(
        "pods",
        "UPDATE",
        sub="status",
        name="p1",
        namespace="ns",
        new=obj("pods", **new),
        old=obj("pods", **old),
    )
    return judge(body, settings)


@pytest.mark.parametrize(
    "new",
    [
        _allocations("2"),
        _allocations(),
        _allocations("1", containers=["b"]),
        _allocations("1", resourceClaimName="d"),
        _allocations("1", overhead=[{"name": "memory", "perPod": "1Mi"}]),
    ],
)
def test_a_node_keeps_the_claims_on_its_own_resources(new: Object) -> None:
    rule = "pods/status-node-allocatable-claims"
    assert_denied(_allocated(new, _allocations("1")), rule, "from index 0 on")
    assert_allowed(_allocated(new, _allocations("1"), Settings.for_version(release=Release(36))))


def test_equal_quantities_of_claims_may_be_written_differently() -> None:
    assert_allowed(_allocated(_allocations("1000m"), _allocations("1")))


@pytest.mark.parametrize(("mapped", "overheads"), [(500, 0), (0, 250), (498, 1)])
def test_no_more_than_a_thousand_quantities_of_both_objects_are_compared(
    mapped: int, overheads: int
) -> None:
    def written(one: str, *, more: int) -> Object:
        overhead = {"name": "memory", "perPod": one, "perContainer": one}
        return _allocations(*[one] * (mapped + more), overhead=[overhead] * overheads)

    assert_allowed(_allocated(written("1", more=0), written("1000m", more=0)))
    assert_denied(
        _allocated(written("1", more=1), written("1000m", more=1)),
        "pods/status-node-allocatable-claims",
        "over 1000 quantities to compare",
    )
    assert_allowed(_allocated(written("1", more=1), written("1", more=1)))


def test_a_pod_certificate_request_that_names_no_pod_is_told_so() -> None:
    says = "pods ns/ of spec.podName is not found"
    assert_denied(judge(_pcr(podName=""), GATE), "podcertificaterequests/pod", says, code=500)


def test_pod_certificate_requests_need_their_gate() -> None:
    assert_allowed(judge(_pcr(), GATE))
    assert_denied(judge(_pcr()), "podcertificaterequests/gate")


def test_an_object_of_another_kind_than_the_request_says_is_refused() -> None:
    body = review("nodes", "UPDATE", name="n1", new=node(), old=node())
    assert_denied(judge(body.replace(b'"kind": "Node"}', b'"kind": "Pod"}')), "request/object")


def test_a_missing_object_is_refused_where_a_rule_reads_it() -> None:
    for resource in ("pods", "nodes", "leases", "csinodes", "resourceslices"):
        body = review(resource, "CREATE", name="n1", namespace="kube-node-lease")
        assert_denied(judge(body), "request/object", "null")


@pytest.mark.parametrize("resource", ["pods", "nodes", "leases", "csinodes", "resourceslices"])
def test_an_object_of_another_kind_than_the_resource_has_is_refused(resource: str) -> None:
    # The review agrees with its object, and both are wrong.
    body = review(resource, "CREATE", name="n1", namespace="kube-node-lease", new=obj("secrets"))
    assert_denied(judge(body), "request/object", "is of kind 'Secret'")


def test_a_node_that_registers_is_judged_by_the_new_object_alone() -> None:
    labels = {"node-restriction.kubernetes.io/tier": "a"}
    body = review("nodes", "CREATE", name="n1", new=node(labels), old=node(labels))
    assert_denied(judge(body), "nodes/labels", "node-restriction.kubernetes.io/tier")


def _many(prefix: str, value: Any = "x") -> dict[str, Any]:
    return {f"{prefix}{number}": value for number in range(5_000)}


def _references(field: str, kind: str) -> Object:
    variables = [{"name": "e", "valueFrom": {field: {"name": name}}} for name in _many(kind)]
    return mirror_pod(containers=[{"name": "c", "env": variables}])


BOUND = obj("pods", metadata={"name": "p1"}, spec={"nodeName": "n1"})
CLAIMS = [{"name": name} for name in _many("c")]


@pytest.mark.parametrize(
    "body",
    [
        create_mirror(_references("secretKeyRef", "s")),
        update_node(node(), node(_many("k8s.io/"))),
        update_node(node(), node(spec={"taints": [{"key": key} for key in _many("k")]})),
        pod_status(BOUND, {**BOUND, "metadata": {"name": "p1", "labels": _many("l")}}),
        pod_status(BOUND, {**BOUND, "status": {"resourceClaimStatuses": CLAIMS}}),
        token_request("p1", "p1-uid", *_many("a")),
        update_claim(claim(), {**claim(), "metadata": {"annotations": _many("a")}}),
        update_claim(claim(), claim(**_many("f"))),
    ],
)
def test_of_thousands_of_wrong_values_a_message_names_the_first(body: bytes) -> None:
    decision = judge(body)
    denied = decision.otherwise if isinstance(decision, Question) else decision
    assert isinstance(denied, Denied)
    assert ", …" in denied.message
    assert len(denied.message) < 2_000


def test_a_message_is_cut_where_a_single_value_is_long() -> None:
    decision = judge(update_node(node(), node({f"k8s.io/{'x' * 100_000}": ""})))
    assert_denied(decision, "nodes/labels")
    assert isinstance(decision, Denied)
    assert len(decision.message) < 5_000
