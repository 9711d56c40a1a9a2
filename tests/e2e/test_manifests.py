"""What a real API server fills in is no difference, and what mends one can be typed."""

import asyncio
import json
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from noderestrict.cluster.judge import connected
from noderestrict.doctor.checks import manifests as manifests_check
from noderestrict.doctor.cluster import Options
from noderestrict.doctor.findings import Finding
from noderestrict.doctor.run import examine
from noderestrict.render.manifests import OVERLAYS, manifests
from noderestrict.render.manifests import Options as Rendered
from tests.e2e.conftest import namespace_ready
from tests.e2e.control_plane import ControlPlane
from tests.serving.tls import authority

FILES = manifests(Rendered(ca_bundle=authority().certificate))
RBAC = "/apis/rbac.authorization.k8s.io/v1"
SPACE = "namespaces/noderestrict"
DEPLOYMENT = f"/apis/apps/v1/{SPACE}/deployments/noderestrict"
TEMPLATE = "/spec/template/spec"
Object = dict[str, Any]


@dataclass
class Running:
    """A cluster to which kubectl applies what is rendered in a folder."""

    control_plane: ControlPlane
    folder: Path

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "admin"

    def type(self, *commands: str) -> None:
        """Type commands in a shell, where kubectl is on the path."""
        for command in commands:
            done = subprocess.run(
                ["bash", "-c", command], cwd=self.folder, capture_output=True, text=True,
                timeout=60, check=False,
                env={"HOME": str(self.folder), "KUBECONFIG": str(self.kubeconfig),
                     "PATH": f"{self.control_plane.binaries}:/usr/bin:/bin"},
            )  # fmt: skip
            assert done.returncode == 0, (command, done.stderr)

    def install(self, overlay: str, *components: str) -> None:
        """Install an overlay with components, and remove what others have left."""
        base = f"manifests/overlays/{overlay}"
        own = self.folder / "own"
        own.mkdir(exist_ok=True)
        kustomization = {
            "resources": [f"../{base}/install"],
            "components": [f"../manifests/components/{name}" for name in components],
        }
        (own / "kustomization.yaml").write_text(json.dumps(kustomization))
        self.type(
            "kubectl apply -k own", f"kubectl apply -k {base}/enforce",
            f"kubectl delete --ignore-not-found -f {base}/leftovers.yaml",
        )  # fmt: skip

    def change(self, path: str, patch: list[Object]) -> None:
        admin = self.control_plane.admin
        code, answer = admin.send(
            "PATCH", path, json.dumps(patch).encode(), "application/json-patch+json"
        )
        assert code == 200, answer

    def examine(self) -> list[Finding]:
        return asyncio.run(self._findings())

    async def _findings(self) -> list[Finding]:
        async with connected(str(self.kubeconfig), None) as connection:
            found = examine(connection, Options(), [manifests_check.CHECK])
            return [finding async for _, finding in found]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    control_plane = ControlPlane()
    try:
        namespace_ready(control_plane.admin)
        folder = tmp_path_factory.mktemp("manifests")
        for path, text in FILES.items():
            file = folder / "manifests" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        found = Running(control_plane, folder)
        found.kubeconfig.write_text(json.dumps(control_plane.admin.kubeconfig()))
        yield found
    finally:
        control_plane.stop()


@pytest.mark.parametrize(
    ("overlay", "components"),
    [
        *((one, ()) for one in OVERLAYS if one != "cert-manager"),
        ("self-signed", ("client-verification", "dedicated-nodes", "mirror-pods")),
        ("control-plane", ("client-verification",)),
    ],
)
def test_what_an_api_server_fills_in_is_no_difference(
    running: Running, overlay: str, components: tuple[str, ...]
) -> None:
    running.install(overlay, *components)
    assert [(one.status, one.message) for one in running.examine()] == [
        ("pass", f"overlay {overlay} is installed as rendered")
    ]


#: Path of an object, and a JSON patch that changes it.
FAULTS: dict[str, tuple[str, list[Object]]] = {
    "rights": (
        f"{RBAC}/clusterroles/noderestrict",
        [
            {"op": "add", "path": "/rules/0",
             "value": {"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]}},
            {"op": "add", "path": "/rules/3/verbs/0", "value": "delete"},
            {"op": "remove", "path": "/rules/1/resources/2"},
        ],
    ),
    "binding": (
        f"{RBAC}/clusterrolebindings/noderestrict",
        [{"op": "add", "path": "/subjects/-",
          "value": {"kind": "Group", "apiGroup": "rbac.authorization.k8s.io",
                    "name": "system:nodes"}}],
    ),
    "pod": (
        DEPLOYMENT,
        [
            {"op": "add", "path": f"{TEMPLATE}/hostPID", "value": True},
            {"op": "replace", "path": f"{TEMPLATE}/dnsPolicy", "value": "Default"},
            {"op": "add", "path": f"{TEMPLATE}/containers/0/args/1", "value": "--mode=audit"},
            {"op": "remove", "path": f"{TEMPLATE}/containers/0/args/4"},
            {"op": "add", "path": f"{TEMPLATE}/volumes/0",
             "value": {"name": "host", "hostPath": {"path": "/"}}},
            {"op": "add", "path": f"{TEMPLATE}/containers/0/volumeMounts/0",
             "value": {"name": "host", "mountPath": "/host"}},
            {"op": "replace", "path": f"{TEMPLATE}/containers/0/image", "value": "e/x:1"},
        ],
    ),
    "service": (
        f"/api/v1/{SPACE}/services/noderestrict",
        [{"op": "replace", "path": "/spec/selector", "value": {"app": "mine"}},
         {"op": "replace", "path": "/spec/ports/0/targetPort", "value": 9999}],
    ),
    "policy": (
        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/noderestrict-mirror-pods",
        [{"op": "replace", "path": "/spec/failurePolicy", "value": "Ignore"},
         {"op": "replace", "path": "/spec/validations/0/expression", "value": "true"}],
    ),
    "network": (
        f"/apis/networking.k8s.io/v1/{SPACE}/networkpolicies/noderestrict-others",
        [{"op": "add", "path": "/spec/ingress", "value": [{}]}],
    ),
    "namespace": (
        f"/api/v1/{SPACE}",
        [{"op": "remove", "path": "/metadata/labels/pod-security.kubernetes.io~1enforce"}],
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_what_mends_a_difference_can_be_typed_and_mends_it(
    running: Running, fault: tuple[str, list[Object]]
) -> None:
    running.install("self-signed", "mirror-pods")
    path, changes = fault
    running.change(path, changes)
    found = running.examine()
    assert len(found) >= len(changes)
    assert {one.status for one in found} <= {"fail", "warn"}
    for command in dict.fromkeys(one.command for one in found):
        assert shlex.split(command)[0] == "kubectl"
        running.type(*command.splitlines())
    assert [one.status for one in running.examine()] == ["pass"]


def test_what_is_missing_and_what_cannot_be_changed_is_made_anew(running: Running) -> None:
    running.install("self-signed")
    admin = running.control_plane.admin
    admin.delete(f"/apis/policy/v1/{SPACE}/poddisruptionbudgets/noderestrict")
    binding = admin.get(f"{RBAC}/{SPACE}/rolebindings/noderestrict")
    admin.delete(f"{RBAC}/{SPACE}/rolebindings/noderestrict")
    del binding["metadata"]["resourceVersion"], binding["metadata"]["uid"]
    binding["roleRef"]["name"] = "noderestrict-renewal"
    admin.create(f"{RBAC}/{SPACE}/rolebindings", binding)
    found = running.examine()
    assert {one.message.partition(" ")[0] for one in found} == {
        "RoleBinding", "PodDisruptionBudget"
    }  # fmt: skip
    for command in dict.fromkeys(one.command for one in found):
        running.type(*command.splitlines())
    assert [one.status for one in running.examine()] == ["pass"]
