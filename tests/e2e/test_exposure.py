"""Each path that ``exposure`` reports can be walked, as a real API server answers."""

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

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
    to_account,
    token,
)
from tests.exposure.test_exposure import BASE, LEADING
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
        body: dict[str, Any] = json.loads(json.dumps(value))
        if value["kind"] in ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"):
            body["apiVersion"] = f"{RBAC}/v1"
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


@pytest.fixture(scope="module", params=[54, 68, 20])
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
    end = time.monotonic() + 10
    while not allowed(admin, start, request):
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


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
