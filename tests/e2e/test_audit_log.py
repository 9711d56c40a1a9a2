"""From nothing to enforcing: what the API server's own audit log tells, and audit mode."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from noderestrict.cli import main
from noderestrict.render.registration import (
    cluster_role,
    cluster_role_binding,
    webhook_configuration,
)
from tests.e2e.conftest import USER, let_nodes_do_all, namespace_ready
from tests.e2e.control_plane import APIError, ControlPlane
from tests.e2e.test_registration import (
    LEASES,
    NODES,
    PODS,
    RBAC,
    Registered,
    configured,
    lease,
    live,
    node_object,
    pod,
    server,
)

POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "RequestResponse", "verbs": ["create", "update", "patch", "delete"]}],
}


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registered]:
    folder = tmp_path_factory.mktemp("audit")
    (folder / "policy.yaml").write_text(yaml.safe_dump(POLICY))
    control_plane = ControlPlane(
        {
            "audit-policy-file": str(folder / "policy.yaml"),
            "audit-log-path": str(folder / "audit.log"),
        },
    )
    try:
        admin = control_plane.admin
        admin.create(f"{RBAC}/clusterroles", cluster_role())
        user = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": USER}
        admin.create(f"{RBAC}/clusterrolebindings", cluster_role_binding(user))
        let_nodes_do_all(admin)
        namespace_ready(admin)
        while True:
            try:
                admin.get("/api/v1/namespaces/kube-node-lease")
                break
            except APIError:
                time.sleep(0.1)
        (folder / "kubeconfig").write_text(json.dumps(control_plane.user(USER).kubeconfig()))
        with server(control_plane, folder, "auditing", "--mode", "audit") as auditing:
            yield Registered(control_plane, admin, folder, auditing)
    finally:
        control_plane.stop()


def events(audited: Registered) -> list[dict[str, Any]]:
    lines = (audited.folder / "audit.log").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_audit_log_and_audit_mode_tell_who_would_be_refused(
    audited: Registered, capsys: pytest.CaptureFixture[str]
) -> None:
    configuration = webhook_configuration(audited.client_config(audited.enforcing))
    merge = "application/merge-patch+json"
    with configured(audited, configuration):
        node = audited.control_plane.node("n1")
        end = time.monotonic() + 30
        while not any(
            "noderestrict" in json.dumps(e.get("annotations", {})) for e in events(audited)
        ):
            assert time.monotonic() < end, "the webhook is not asked"
            node.create(f"{LEASES}?dryRun=All", lease("somebody-else"))
            time.sleep(0.2)
        # What kubelets do.
        node.create(NODES, node_object("n1"))
        node.create(LEASES, lease("n1"))
        audited.admin.create(PODS, pod("on-n1", "n1"))
        audited.admin.create(PODS, pod("elsewhere", "n2"))
        for number in range(3):
            live(node, "n1", number)
        # What they must not do; in audit mode all of it passes.
        hostile: dict[str, tuple[Any, ...]] = {
            "nodes/labels": ("PATCH", f"{NODES}/n1",
                {"metadata": {"labels": {"node-restriction.kubernetes.io/a": "b"}}}, merge),
            "nodes/taints": ("PATCH", f"{NODES}/n1",
                {"spec": {"taints": [{"key": "a", "effect": "NoExecute"}]}}, merge),
            "leases/own-name": ("POST", LEASES, lease("another")),
            "pods/status-labels": ("PATCH", f"{PODS}/on-n1/status",
                {"metadata": {"labels": {"app": "other"}}}, merge),
            "pods/status-own": ("PATCH", f"{PODS}/elsewhere/status",
                {"status": {"message": "m"}}, merge),
            "pods/mirror-annotation": ("POST", PODS, pod("mine", "n1")),
            "pods/delete-own": ("DELETE", f"{PODS}/elsewhere?gracePeriodSeconds=0"),
        }  # fmt: skip
        for attempt in hostile.values():
            node.request(*attempt)
    told = {
        rule
        for event in events(audited)
        for key, value in (event.get("annotations") or {}).items()
        if key.endswith(".noderestrict.io/rule")
        for rule in value.split(",")
    }
    assert told >= hostile.keys()

    capsys.readouterr()
    log = str(audited.folder / "audit.log")
    assert main(["replay", "--audit-log", log, "--output", "json", "--fail-on-denied"]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    denied = {row["rule"] for row in rows if not row["allowed"]}
    assert denied == hostile.keys()
    # Registering, a lease, and three times lease, node status and pod status.
    assert sum(row["allowed"] for row in rows) == 11
