"""``agents find`` reads a real API server, with as little as it may read."""

import json
from pathlib import Path

import msgspec
import pytest

from noderestrict.cli import main
from noderestrict.survey.findings import Findings
from tests.e2e.conftest import namespace_ready
from tests.e2e.control_plane import ControlPlane
from tests.survey.clusters import RBAC, daemon_set, grants

READER = "surveyor"
RULES = [
    (["apps"], ["daemonsets"], ["list"]),
    ([RBAC], ["clusterroles", "clusterrolebindings", "roles", "rolebindings"], ["list"]),
]


def found(kubeconfig: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, Findings]:
    code = main(["agents", "find", "--kubeconfig", str(kubeconfig), "--output", "json"])
    return code, msgspec.json.decode(capsys.readouterr().out, type=Findings)


def test_a_live_cluster_is_surveyed_and_what_may_not_be_read_is_said(
    control_plane: ControlPlane, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    admin = control_plane.admin
    namespace_ready(admin)
    agent = daemon_set("cni", "cni", "default")
    agent["spec"] = {
        "selector": {"matchLabels": {"app": "cni"}},
        "template": {
            "metadata": {"labels": {"app": "cni"}},
            "spec": {"serviceAccountName": "cni", "containers": [{"name": "c", "image": "cni"}]},
        },
    }
    root = f"/apis/{RBAC}/v1"
    role, binding = grants("default/cni", [([""], ["nodes/status"], ["patch"])])
    reading, reader = grants("x/surveyor", RULES)
    reader["subjects"] = [{"kind": "User", "name": READER, "apiGroup": RBAC}]
    sets = "/apis/apps/v1/namespaces/default/daemonsets"
    for path, value in (
        (sets, agent),
        (f"{root}/clusterroles", role),
        (f"{root}/clusterrolebindings", binding),
        (f"{root}/clusterroles", reading),
        (f"{root}/clusterrolebindings", reader),
    ):
        admin.create(path, value)
    try:
        as_admin, as_reader = tmp_path / "admin", tmp_path / "reader"
        as_admin.write_text(json.dumps(admin.kubeconfig()))
        as_reader.write_text(json.dumps(control_plane.user(READER).kubeconfig()))

        code, findings = found(as_admin, capsys)
        assert (code, findings.not_seen) == (1, ())
        assert [one.service_account for one in findings.agents] == ["default/cni"]
        assert [right.right for right in findings.agents[0].rights] == ["nodes/status"]
        assert findings.agents[0].remedy.startswith("constrained impersonation would do")
        assert findings.kubernetes.startswith("1.")

        code, findings = found(as_reader, capsys)
        assert [one.service_account for one in findings.agents] == ["default/cni"]
        assert [one.what for one in findings.not_seen] == ["pods"]
        assert "403" in findings.not_seen[0].why

        admin.delete(f"{root}/clusterrolebindings/cni")
        code, findings = found(as_reader, capsys)
        assert (code, findings.agents[0].severity) == (2, "none")
    finally:
        admin.delete(f"{sets}/cni")
        for kind in ("clusterroles", "clusterrolebindings"):
            for name in ("cni", "surveyor"):
                control_plane.admin.send("DELETE", f"{root}/{kind}/{name}", None, "")
