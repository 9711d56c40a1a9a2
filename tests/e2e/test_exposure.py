"""Each path that ``exposure`` reports can be walked, as a real API server answers."""

import base64
import contextlib
import json
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from noderestrict.cli import main
from noderestrict.exposure.findings import Findings, Step, UsedRequest
from noderestrict.graph.edges import Vertex
from tests.e2e.control_plane import APIError, Client, ControlPlane
from tests.exposure.clusters import (
    NAMESPACES,
    RBAC,
    granted,
    object_of,
    random_cluster,
    rule,
    sent,
    to_account,
    token,
)
from tests.exposure.test_exposure import BASE, LEADING, NODECLIENT
from tests.exposure.test_paths import user_of

READER = "ranger"
ROOTS = {
    "Node": "/api/v1/nodes",
    "Namespace": "/api/v1/namespaces",
    "ClusterRole": f"/apis/{RBAC}/v1/clusterroles",
    "ClusterRoleBinding": f"/apis/{RBAC}/v1/clusterrolebindings",
    "Role": f"/apis/{RBAC}/v1/namespaces/{{}}/roles",
    "RoleBinding": f"/apis/{RBAC}/v1/namespaces/{{}}/rolebindings",
    "Pod": "/api/v1/namespaces/{}/pods",
    "Secret": "/api/v1/namespaces/{}/secrets",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
}
READS = [
    rule(
        [""],
        ["nodes", "namespaces", "pods", "serviceaccounts", "secrets", "persistentvolumes"],
        ["list"],
    ),
    rule([RBAC], ["clusterroles", "clusterrolebindings", "roles", "rolebindings"], ["list"]),
    rule(["admissionregistration.k8s.io"], ["validatingwebhookconfigurations"], ["list"]),
    rule(["storage.k8s.io"], ["volumeattachments"], ["list"]),
    rule(["resource.k8s.io"], ["resourceslices"], ["list"]),
]


def created(admin: Client, objects: list[dict[str, Any]]) -> None:
    """Create objects; Namespaces get their labels last, since these refuse some pods."""
    labelled = []
    for value in objects:
        metadata = value["metadata"]
        body: dict[str, Any] = json.loads(json.dumps(sent(value)))
        if value["kind"] == "Namespace":
            labelled.append(body)
            body = {**body, "metadata": {"name": metadata["name"]}}
        if value["kind"] == "Pod":
            for container in body["spec"]["containers"]:
                container["image"] = "pause"
        path = ROOTS[value["kind"]].format(metadata.get("namespace", ""))
        try:
            admin.create(path, body)
        except APIError as error:
            # The API server makes some of them itself.
            if error.code != 409:
                raise
    for body in labelled:
        name = body["metadata"]["name"]
        admin.patch(
            f"/api/v1/namespaces/{name}", {"metadata": {"labels": body["metadata"].get("labels")}}
        )


def started() -> ControlPlane:
    """Start a control plane with both in-tree halves."""
    return ControlPlane(
        {
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "disable-admission-plugins": "ServiceAccount",
            "allow-privileged": "true",
        }
    )


@pytest.fixture(scope="module", params=[73, 101, 125])
def cluster(request: pytest.FixtureRequest) -> Iterator[ControlPlane]:
    running = started()
    try:
        reader = {"kind": "User", "name": READER, "apiGroup": RBAC}
        created(running.admin, random_cluster(random.Random(request.param)))
        created(running.admin, granted(reader, *READS, name=READER))
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def plain() -> Iterator[ControlPlane]:
    running = started()
    try:
        rules = rule(["*"], ["*"], ["*"])
        admin = granted(to_account("admin", "kube-system"), rules, name="powerful")
        created(running.admin, [*BASE, *admin])
        yield running
    finally:
        running.stop()


def exposed(client: Client, folder: Path, capsys: Any, *arguments: str) -> Findings:
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(json.dumps(client.kubeconfig()))
    main(["exposure", "--kubeconfig", str(kubeconfig), "--output", "json", *arguments])
    return msgspec.json.decode(capsys.readouterr().out, type=Findings)


def allowed(admin: Client, start: Vertex, request: UsedRequest) -> bool:
    user = user_of(start)
    resource, _, sub_resource = request.resource.partition("/")
    answer = admin.create(
        "/apis/authorization.k8s.io/v1/subjectaccessreviews",
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user.name or "somebody",
                "groups": sorted(user.groups),
                "resourceAttributes": {
                    "verb": request.verb, "group": request.group, "resource": resource,
                    "subresource": sub_resource, "namespace": request.namespace,
                    "name": request.name,
                },
            },
        },
    )  # fmt: skip
    return bool(answer["status"].get("allowed"))


def soon_allowed(admin: Client, start: Vertex, request: UsedRequest) -> bool:
    """Return whether a request is allowed, once the authorizers have seen all objects."""
    return soon(lambda: allowed(admin, start, request))


def asking(findings: Findings) -> Iterator[tuple[Step, UsedRequest]]:
    for step in findings.steps:
        for request in step.requests:
            if step.start.kind not in ("roles", "clusterroles"):
                yield step, request


def test_each_request_on_a_path_is_allowed(
    cluster: ControlPlane, tmp_path: Path, capsys: Any
) -> None:
    arguments = ("--set-up", "in-tree", "--secrets")
    findings = exposed(cluster.user(READER), tmp_path, capsys, *arguments)
    assert findings.not_seen == ()
    assert {node.name for node in (*findings.nodes, *findings.control_planes)} == {"n1", "n2", "n3"}
    count = 0
    for step, request in asking(findings):
        start = step.start.kind, step.start.namespace, step.start.name
        assert soon_allowed(cluster.admin, start, request), (step, request)
        count += 1
    assert count > 3


def test_secrets_are_listed_with_their_types_and_without_their_data(
    cluster: ControlPlane, tmp_path: Path, capsys: Any
) -> None:
    created(cluster.admin, [token("unnamed", "s", NAMESPACES[0])])
    known = exposed(cluster.user(READER), tmp_path, capsys)
    listed = exposed(cluster.user(READER), tmp_path, capsys, "--secrets")
    assert listed.secrets > known.secrets
    assert any("--secrets" in note for note in known.notes)
    assert not any("--secrets" in note for note in listed.notes)


def test_what_may_not_be_read_is_said(cluster: ControlPlane, tmp_path: Path, capsys: Any) -> None:
    created(cluster.admin, [*granted(
        {"kind": "User", "name": "short-sighted", "apiGroup": RBAC},
        rule([""], ["nodes", "pods"], ["list"]), name="short-sighted",
    ), object_of("Node", "n1")])  # fmt: skip
    findings = exposed(cluster.user("short-sighted"), tmp_path, capsys, "--secrets")
    # Without the right to ask, too, nothing shows who holds the nodes.
    assert findings.set_up == "nothing"
    assert {one.what for one in findings.not_seen} == {
        "namespaces", "serviceaccounts", "secrets", "persistentvolumes", "clusterroles",
        "clusterrolebindings", "roles", "rolebindings", "validatingwebhookconfigurations",
    }  # fmt: skip
    assert all("403" in one.why for one in findings.not_seen)


@pytest.mark.parametrize("right", LEADING)
def test_a_planted_weakness_is_found_with_its_path_and_gone_when_closed(
    plain: ControlPlane, tmp_path: Path, capsys: Any, right: str
) -> None:
    rules, steps = LEADING[right]
    created(plain.admin, granted(to_account("s"), *rules, name="planted"))
    try:
        findings = exposed(plain.admin, tmp_path, capsys)
    finally:
        for kind in ("ClusterRole", "ClusterRoleBinding"):
            plain.admin.delete(f"{ROOTS[kind]}/planted")
    # Nothing shows the flags, but a node is refused what the in-tree halves refuse.
    assert findings.set_up == "in-tree"
    nodes = {node.name: node for node in findings.nodes}
    assert nodes["w1"].cluster_steps == steps
    path = [findings.steps[index] for index in nodes["w1"].ways[0].path]
    assert path[1].start.name == "p1"
    assert right in [request.right for step in path for request in step.requests]
    closed = exposed(plain.admin, tmp_path, capsys)
    assert [node.cluster_steps for node in closed.nodes] == [None, None]


def test_an_api_service_takes_over_a_built_in_group(plain: ControlPlane) -> None:
    path = "/apis/apiregistration.k8s.io/v1/apiservices/v1.batch"
    service = {"namespace": "b", "name": "gone"}
    plain.admin.patch(path, {"spec": {"service": service, "insecureSkipTLSVerify": True}})
    try:
        # The API server looks for who answers now, and finds nobody.
        assert soon(lambda: code_of(plain.admin, "/apis/batch/v1/jobs") == 503)
    finally:
        plain.admin.patch(path, {"spec": {"service": None, "insecureSkipTLSVerify": False}})
    assert soon(lambda: code_of(plain.admin, "/apis/batch/v1/jobs") == 200)


@pytest.mark.parametrize(
    ("volume", "passes"),
    [
        ({"hostPath": {"path": "/"}}, False),
        ({"persistentVolumeClaim": {"claimName": "files"}}, True),
        ({"ephemeral": {"volumeClaimTemplate": {"spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "files",
            "resources": {"requests": {"storage": "1Gi"}}}}}}, True),
    ],
)  # fmt: skip
def test_no_pod_security_level_refuses_the_files_of_a_node_behind_a_claim(
    plain: ControlPlane, volume: dict[str, Any], passes: bool
) -> None:
    level = {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
    with contextlib.suppress(APIError):
        plain.admin.create("/api/v1/namespaces", object_of("Namespace", "held", metadata=level))
    files = {
        "hostPath": {"path": "/"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "files",
        "capacity": {"storage": "1Gi"},
    }  # fmt: skip
    body = object_of("PersistentVolume", "files", spec=files)
    plain.admin.create("/api/v1/persistentvolumes?dryRun=All", body)
    mount = {"name": "v", "mountPath": "/v"}
    container = {
        "name": "c", "image": "pause", "volumeMounts": [mount],
        "securityContext": {
            "allowPrivilegeEscalation": False, "runAsNonRoot": True, "runAsUser": 1,
            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
        },
    }  # fmt: skip
    spec = {
        "containers": [container], "volumes": [{"name": "v", **volume}],
        # To the group, files of root's group are open.
        "securityContext": {"runAsGroup": 0, "supplementalGroups": [0]},
    }  # fmt: skip
    path = "/api/v1/namespaces/held/pods?dryRun=All"
    body = object_of("Pod", "p", "held", spec=spec)
    if passes:
        plain.admin.create(path, body)
        return
    with pytest.raises(APIError) as refused:
        plain.admin.create(path, body)
    assert refused.value.code == 403


def test_the_controller_approves_certificates_of_other_nodes_for_whoever_has_the_right(
    plain: ControlPlane,
) -> None:
    plain.start_controllers("certificatesigningrequest-approving-controller")
    created(plain.admin, granted(to_account("joins"), *NODECLIENT, name="joins"))
    created(plain.admin, granted(to_account("asks"), NODECLIENT[0], name="asks"))
    for name in ("joins", "asks"):
        user = plain.user(f"system:serviceaccount:a:{name}")
        assert soon(partial(request_as_node, user, name))

    def approved(name: str) -> bool:
        status = plain.admin.get(f"{REQUESTS}/{name}").get("status") or {}
        return any(one["type"] == "Approved" for one in status.get("conditions", ()))

    assert soon(lambda: approved("joins"))
    assert not approved("asks")


REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"


def request_as_node(client: Client, name: str) -> bool:
    """Request a client certificate of node w2; return whether that was allowed."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
            x509.NameAttribute(NameOID.COMMON_NAME, "system:node:w2"),
        ]
    )
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    pem = request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    body = object_of(
        "CertificateSigningRequest", name,
        spec={
            "request": base64.b64encode(pem).decode(),
            "usages": ["digital signature", "client auth"],
            "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
        },
    )  # fmt: skip
    try:
        client.create(REQUESTS, {**body, "apiVersion": "certificates.k8s.io/v1"})
    except APIError as error:
        if error.code != 403:
            raise
        return False
    return True


def code_of(client: Client, path: str) -> int:
    try:
        client.get(path)
    except APIError as error:
        return error.code
    return 200


def soon(is_so: Callable[[], bool]) -> bool:
    """Return whether something comes true, once caches have caught up."""
    end = time.monotonic() + 20
    while not is_so():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True
