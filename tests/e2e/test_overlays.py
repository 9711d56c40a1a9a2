"""Every overlay after every other on a real API server: applied twice, and nothing is left over."""

import base64
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from noderestrict.doctor.registration_differences import registration_differences
from noderestrict.policy.extra import Extra
from noderestrict.render.manifests import OVERLAYS, Options, manifests
from tests.e2e.conftest import namespace_ready
from tests.e2e.control_plane import ControlPlane
from tests.e2e.test_registration import WEBHOOKS
from tests.render.overlays import PARTS, build
from tests.serving.tls import authority

pytestmark = pytest.mark.long

CA = authority().certificate
#: Two versions, between which whatever a flag can change does.
VERSIONS = [
    manifests(Options(ca_bundle=CA)),
    manifests(
        Options(
            Extra.of(["events/about-own", "nodes/finalizers"]),
            ("a", "b"),
            ("10.0.0.1:6443",),
            ("cni/agent",),
            CA,
        )
    ),
]
PART = "app.kubernetes.io/part-of=noderestrict"
#: Plural and kind of all that any overlay has, by group and version.
KINDS = {
    "core/v1": {
        "namespaces": "Namespace", "secrets": "Secret", "services": "Service",
        "serviceaccounts": "ServiceAccount",
    },
    "apps/v1": {"daemonsets": "DaemonSet", "deployments": "Deployment"},
    "batch/v1": {"cronjobs": "CronJob"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy"},
    "rbac.authorization.k8s.io/v1": {
        "clusterroles": "ClusterRole", "clusterrolebindings": "ClusterRoleBinding",
        "roles": "Role", "rolebindings": "RoleBinding",
    },
    "admissionregistration.k8s.io/v1": {
        "validatingwebhookconfigurations": "ValidatingWebhookConfiguration",
    },
    "cert-manager.io/v1": {"certificates": "Certificate", "issuers": "Issuer"},
}  # fmt: skip


def tour() -> list[str]:
    """Return overlays in an order in which each follows each other, and none itself."""
    left = set(itertools.permutations(OVERLAYS, 2))

    def onward(path: list[str]) -> list[str] | None:
        if not left:
            return path
        for step in sorted(one for one in left if one[0] == path[-1]):
            left.remove(step)
            found = onward([*path, step[1]])
            if found is not None:
                return found
            left.add(step)
        return None

    found = onward([OVERLAYS[0]])
    assert found is not None
    return found


class Kubectl:
    """kubectl with the manifests of two versions."""

    def __init__(self, control_plane: ControlPlane, folder: Path) -> None:
        self._control_plane = control_plane
        self.admin = control_plane.admin
        self._kubeconfig = folder / "admin"
        self._kubeconfig.write_text(json.dumps(self.admin.kubeconfig()))
        self.folder = folder
        for version, files in enumerate(VERSIONS):
            for path, text in files.items():
                file = folder / str(version) / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)

    def __call__(self, *arguments: str) -> str:
        code, output = self._control_plane.kubectl(self._kubeconfig, *arguments)
        assert code == 0, (arguments, output)
        return output

    def installed(self) -> set[tuple[str, str]]:
        """Return kind and name of all that is there of us."""
        return {
            (kind, one["metadata"]["name"])
            for group, kinds in KINDS.items()
            for plural, kind in kinds.items()
            for one in self.admin.get(f"{_path(group)}/{plural}?labelSelector={PART}")["items"]
        }

    def both(self, version: int, overlay: str) -> str:
        """Return a kustomization of both parts of an overlay."""
        own = self.folder / "own"
        own.mkdir(exist_ok=True)
        parts = [f"../{version}/overlays/{overlay}/{part}" for part in PARTS]
        (own / "kustomization.yaml").write_text(json.dumps({"resources": parts}))
        return str(own)


def _path(group: str) -> str:
    return "/api/v1" if group == "core/v1" else f"/apis/{group}"


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    control_plane = ControlPlane()
    try:
        namespace_ready(control_plane.admin)
        for kind in KINDS["cert-manager.io/v1"].values():
            control_plane.admin.create(
                "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition(kind)
            )
        running = Kubectl(control_plane, tmp_path_factory.mktemp("overlays"))
        running("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        yield running
    finally:
        control_plane.stop()


def definition(kind: str) -> dict[str, Any]:
    """Return a kind of cert-manager, without its fields."""
    plural = f"{kind.lower()}s"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.cert-manager.io"},
        "spec": {
            "group": "cert-manager.io",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "scope": "Namespaced",
            "versions": [version],
        },
    }


def check(kubectl: Kubectl, overlay: str, version: int) -> None:
    """Check that the cluster has exactly what an overlay has."""
    wanted = build(overlay, files=VERSIONS[version])
    assert kubectl.installed() == {(one["kind"], one["metadata"]["name"]) for one in wanted}
    (registration,) = kubectl.admin.get(WEBHOOKS)["items"]
    (expected,) = [one for one in wanted if "webhooks" in one]
    assert registration_differences(registration, expected, CA) == []
    for webhook in registration["webhooks"]:
        assert base64.b64decode(webhook["clientConfig"]["caBundle"]) == CA


@pytest.mark.parametrize("way", ["client-side", "server-side"])
def test_each_overlay_follows_each_other_however_it_is_applied(kubectl: Kubectl, way: str) -> None:
    flags = ["--server-side", "--force-conflicts"] if way == "server-side" else []
    for number, overlay in enumerate(tour()):
        version = number % 2
        folder = kubectl.folder / str(version) / "overlays"
        for part in PARTS:
            kubectl("apply", *flags, "-k", str(folder / overlay / part))
        kubectl("apply", *flags, "-k", kubectl.both(version, overlay))
        left = ["-f", str(folder / overlay / "leftovers.yaml")]
        if overlay != "cert-manager":
            left += ["-f", str(folder / "cert-manager" / "install" / "certificates.yaml")]
        kubectl("delete", "--ignore-not-found", *left)
        check(kubectl, overlay, version)
    kubectl("delete", "--ignore-not-found", *left)


def test_a_tool_that_prunes_leaves_each_overlay_alone(kubectl: Kubectl) -> None:
    allowed = [
        f"--prune-allowlist={group}/{kind}"
        for group, kinds in KINDS.items()
        for kind in kinds.values()
    ]
    for number, overlay in enumerate(tour()):
        version = number % 2
        kubectl("apply", "-k", kubectl.both(version, overlay), "--prune", "-l", PART, *allowed)
        check(kubectl, overlay, version)


def test_an_overlay_that_was_applied_by_one_way_can_be_applied_by_the_other(
    kubectl: Kubectl,
) -> None:
    for number, way in enumerate((["--server-side", "--force-conflicts"], [], [])):
        folder = kubectl.folder / str(number % 2) / "overlays" / "control-plane"
        kubectl("apply", *way, "-k", kubectl.both(number % 2, "control-plane"))
        kubectl("delete", "--ignore-not-found", "-f", str(folder / "leftovers.yaml"))
        check(kubectl, "control-plane", number % 2)


@pytest.mark.parametrize(
    "way", [(), ("--server-side", "--force-conflicts")], ids=["client", "server"]
)
def test_the_node_selector_of_an_older_version_does_not_survive_an_upgrade(
    kubectl: Kubectl, way: tuple[str, ...]
) -> None:
    """Both would have to hold, and no node of k3s has an empty value."""
    older = build("self-signed", files=VERSIONS[0], parts=["install"])
    for pod in pods_of(older):
        del pod["affinity"]
        pod["nodeSelector"] = {"node-role.kubernetes.io/control-plane": ""}
    file = kubectl.folder / "older.json"
    older.sort(key=lambda one: one["kind"] != "Namespace")
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": older}))
    kubectl("apply", *way, "-f", str(file))
    kubectl("apply", *way, "-k", str(kubectl.folder / "0/overlays/self-signed/install"))
    found = [
        kubectl.admin.get(f"/apis/{path}/noderestrict{suffix}")
        for path, suffix in (
            ("apps/v1/namespaces/noderestrict/deployments", ""),
            ("batch/v1/namespaces/noderestrict/cronjobs", "-renewal"),
        )
    ]
    assert ["nodeSelector" in pod for pod in pods_of(found)] == [False, False]
    assert all("affinity" in pod for pod in pods_of(found))
    names = ("deployment/noderestrict", "cronjob/noderestrict-renewal")
    kubectl("delete", "--namespace", "noderestrict", *names)


def pods_of(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the pod of each template."""
    for one in objects:
        if one["kind"] == "CronJob":
            yield one["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        elif one["kind"] in ("Deployment", "DaemonSet"):
            yield one["spec"]["template"]["spec"]
