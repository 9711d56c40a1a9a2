"""The chart in a real cluster, by Helm: no node's request fails on the way, and nothing is left."""

import base64
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from noderestrict.pki.bundle import certificates
from tests.e2e.conftest import let_nodes_do_all, namespace_ready
from tests.e2e.control_plane import APIError, ControlPlane, free_port
from tests.e2e.helm import CHART, NAMESPACE, ROOT, SECONDS, Helm, Kubelet

pytestmark = pytest.mark.long

AS_RENDERED = [("pass", "release noderestrict is installed as rendered")]
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
RELEASE = ("noderestrict", str(CHART), "--namespace", NAMESPACE)
Object = dict[str, Any]
CONTROLLERS = (
    "job-controller,daemonset-controller,deployment-controller,replicaset-controller,"
    "serviceaccount-token-controller,serviceaccount-controller,namespace-controller,"
    "garbage-collector-controller,root-ca-certificate-publisher-controller"
)


@dataclass
class Node:
    """A node that writes, again and again, what the webhook is asked about and allows.

    Attributes:
        done: number of requests.
        failures: what went wrong.
    """

    control_plane: ControlPlane
    done: int = 0
    failures: list[str] = field(default_factory=list)
    _end: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join(SECONDS)

    def _run(self) -> None:
        node = self.control_plane.node("n1")
        while not self._end.wait(0.02):
            label = {"metadata": {"labels": {"kubelet.kubernetes.io/turn": str(self.done)}}}
            try:
                node.patch("/api/v1/nodes/n1", label)
            except APIError as error:
                self.failures.append(f"{self.done}: {error}")
            self.done += 1
        node.close()


@dataclass
class Installed:
    control_plane: ControlPlane
    helm: Helm
    kubelet: Kubelet
    kubeconfig: Path
    port: int

    def values(self, *more: str) -> list[str]:
        given = ("placement=control-plane", f"port={self.port}", *more)
        return [word for one in given for word in ("--set", one)]

    def registration(self, name: str = "noderestrict") -> Object | None:
        items = self.control_plane.admin.get(WEBHOOKS)["items"]
        return next((one for one in items if one["metadata"]["name"] == name), None)

    def policies(self) -> set[str]:
        found = self.registration()
        return {one["failurePolicy"] for one in found["webhooks"]} if found else set()

    def bundles(self) -> set[bytes]:
        found = [self.registration(), self.registration("noderestrict-served")]
        return {
            base64.b64decode(one["clientConfig"].get("caBundle", ""))
            for each in found
            if each is not None
            for one in each["webhooks"]
        }

    def secret(self, name: str) -> Object | None:
        items = self.control_plane.admin.get(SECRETS)["items"]
        return next((one["data"] for one in items if one["metadata"]["name"] == name), None)

    def is_denied(self) -> bool:
        """Tell whether a node may not label itself as it likes."""
        node = self.control_plane.node("n1")
        label = {"metadata": {"labels": {"node-restriction.kubernetes.io/x": "y"}}}
        try:
            node.request("PATCH", "/api/v1/nodes/n1?dryRun=All", label,
                         "application/merge-patch+json")  # fmt: skip
        except APIError as error:
            return "noderestrict.io" in str(error)
        return False

    def compared(self) -> list[tuple[str, str]]:
        """Return what doctor says of the objects that are installed."""
        done = subprocess.run(
            [sys.executable, "-m", "noderestrict", "doctor", "--kubeconfig", self.kubeconfig,
             "--output", "json"],
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        found = [one for one in json.loads(done.stdout) if one["check"] == "manifests"]
        return [(one["status"], one["message"]) for one in found]

    def noderestrict(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "noderestrict", *words], capture_output=True, text=True,
            timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done
        return done.stdout


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Installed]:
    control_plane = ControlPlane()
    try:
        control_plane.needs("kube-controller-manager")
        admin = control_plane.admin
        namespace_ready(admin)
        let_nodes_do_all(admin)
        kubeconfig = tmp_path / "admin"
        kubeconfig.write_text(json.dumps(admin.kubeconfig()))
        helm = Helm(tmp_path, kubeconfig)
        control_plane.start_controllers(CONTROLLERS)
        admin.create("/api/v1/nodes", {"metadata": {"name": "n1"}})
        kubelet = Kubelet(control_plane, tmp_path)
        yield Installed(control_plane, helm, kubelet, kubeconfig, free_port())
    finally:
        control_plane.stop()


def ours(admin: Any) -> set[str]:
    """Return what is left of us in the cluster."""
    found = set()
    for path in (
        WEBHOOKS,
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
        f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/roles",
        f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/rolebindings",
        f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets",
        f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments",
        f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs",
        f"/apis/batch/v1/namespaces/{NAMESPACE}/cronjobs",
        f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts",
        f"/api/v1/namespaces/{NAMESPACE}/configmaps",
        SECRETS,
    ):
        for one in admin.get(path)["items"]:
            name = one["metadata"]["name"]
            if name.startswith("noderestrict"):
                found.add(f"{path.rpartition('/')[2]}/{name}")
    return found


def test_from_audit_to_enforcing_and_back_no_request_fails(
    installed: Installed, tmp_path: Path
) -> None:
    helm, admin, kubelet = installed.helm, installed.control_plane.admin, installed.kubelet
    node = Node(installed.control_plane)
    upgrade = ("upgrade", *RELEASE, "--reset-then-reuse-values", "--wait", "--timeout", "600s")
    with kubelet.running(), node.running():
        # Nobody serves yet, so nothing may be enforced, and nothing is left of the attempt.
        helm("install", *RELEASE, "--create-namespace", *installed.values("mode=enforce"),
             "--timeout", "600s", code=1)  # fmt: skip
        assert "is not installed yet" in kubelet.outputs[-1][1]
        assert installed.registration() is None
        helm("uninstall", "noderestrict", "--namespace", NAMESPACE)
        # Helm 3 forgets what came before a hook that failed, until the next one.
        left = ours(admin)
        assert {one for one in left if "-hook" not in one or not helm.forgets_hooks} == set()

        told = helm("install", *RELEASE, *installed.values(), "--wait", "--timeout", "600s")
        assert "Nothing is denied" in told
        assert installed.policies() == {"Ignore"}
        assert not installed.is_denied()
        assert installed.compared() == AS_RENDERED
        # The accounts of hooks are gone; audit mode keeps no CA.
        left = ours(admin)
        assert not {one for one in left if one.endswith(("-hook", "-ca"))}, left
        (audit_ca,) = installed.bundles()
        assert len(certificates(audit_ca)) == 1
        tested = helm("test", "noderestrict", "--namespace", NAMESPACE)
        assert "Succeeded" in tested

        told = helm(*upgrade, "--set", "mode=enforce")
        assert "helm test" in told
        assert installed.policies() == {"Fail"}
        until(installed.is_denied)
        certificate, ca = installed.secret("noderestrict-tls"), installed.secret("noderestrict-ca")
        assert ca is not None
        assert installed.bundles() == {base64.b64decode(ca["ca.crt"])}

        # Another image: the same certificate, the same CA.
        helm(*upgrade, "--set", "image.tag=v2")
        assert installed.compared() == AS_RENDERED
        assert installed.secret("noderestrict-tls") == certificate
        assert installed.is_denied()

        # A new CA, by an operator; upgrades and rollbacks leave it alone.
        installed.noderestrict(
            "certs", "rotate", "--secret", f"{NAMESPACE}/noderestrict-tls",
            "--ca-secret", f"{NAMESPACE}/noderestrict-ca",
            "--webhook-configuration=noderestrict", "--webhook-configuration=noderestrict-served",
            f"--served-at=127.0.0.1:{installed.port}", "--kubeconfig", str(installed.kubeconfig),
        )  # fmt: skip
        rotated = installed.bundles()
        assert len(rotated) == 1
        assert rotated != {base64.b64decode(ca["ca.crt"])}
        certificate = installed.secret("noderestrict-tls")
        helm(*upgrade, "--set", "image.tag=v3")
        assert installed.bundles() == rotated

        # A webhook is added with the CA at once, and removed again.
        file = tmp_path / "agents.yaml"
        file.write_text(installed.noderestrict(
            "render", "values", "--agents", str(ROOT / "manifests/agents/calico.yaml")
        ))  # fmt: skip
        before = len((installed.registration() or {})["webhooks"])
        helm(*upgrade, "--values", str(file))
        assert len((installed.registration() or {})["webhooks"]) > before
        assert installed.bundles() == rotated
        helm("rollback", "noderestrict", "--namespace", NAMESPACE, "--wait", "--timeout", "600s")
        assert len((installed.registration() or {})["webhooks"]) == before
        assert installed.bundles() == rotated
        assert installed.secret("noderestrict-tls") == certificate
        assert installed.is_denied()
        assert "Succeeded" in helm("test", "noderestrict", "--namespace", NAMESPACE)

        # Back to audit mode, which is the first revision.
        helm("rollback", "noderestrict", "1", "--namespace", NAMESPACE, "--wait",
             "--timeout", "600s")  # fmt: skip
        assert installed.policies() == {"Ignore"}
        assert installed.bundles() == rotated
        until(lambda: not installed.is_denied())
        helm(*upgrade, "--set", "mode=enforce")
        until(installed.is_denied)
        assert installed.secret("noderestrict-tls") == certificate

        helm("uninstall", "noderestrict", "--namespace", NAMESPACE, "--wait")
        assert node.done > 100
    assert node.failures == []
    # What the hooks keep for the next installation is in the namespace.
    assert ours(admin) == {"secrets/noderestrict-tls", "secrets/noderestrict-ca"}
    admin.delete(f"/api/v1/namespaces/{NAMESPACE}")
    until(lambda: ours(admin) == set())


def test_nothing_is_enforced_while_nobody_serves(installed: Installed) -> None:
    helm, kubelet = installed.helm, installed.kubelet
    upgrade = ("upgrade", *RELEASE, "--reset-then-reuse-values", "--timeout", "600s")
    with kubelet.running():
        helm("install", *RELEASE, "--create-namespace", *installed.values(), "--wait")
        kubelet.serves = False
        told = helm(*upgrade, "--set", "mode=enforce", code=1)
        assert "pre-upgrade" in told
        assert "nodes would be denied" in kubelet.outputs[-1][1]
        assert installed.policies() == {"Ignore"}
        kubelet.serves = True
        helm(*upgrade, "--set", "mode=enforce", "--wait")
        until(installed.is_denied)
        # Elsewhere nobody serves.
        helm(*upgrade, "--set", f"port={free_port()}", code=1)
        assert "would call a server that it does not call yet" in kubelet.outputs[-1][1]
        assert installed.policies() == {"Fail"}
        assert installed.is_denied()
        # After an emergency it begins anew.
        installed.control_plane.admin.delete(f"{WEBHOOKS}/noderestrict")
        helm(*upgrade, code=1)
        assert "is not installed yet" in kubelet.outputs[-1][1]
        assert installed.registration() is None
        helm(*upgrade, "--set", "mode=audit", "--wait")
        assert installed.policies() == {"Ignore"}
        helm(*upgrade, "--set", "mode=enforce", "--wait")
        until(installed.is_denied)


VALUES = (
    (),
    ("mode=enforce", "policies=deny", "mirrorPods=true", "dedicatedNodes=true",
     "clientVerification=true", "replicas=1", "labels.team=a", "image.pullPolicy=Always",
     "imagePullSecrets[0].name=pull", "extraArgs={--log-level=debug}"),
    ("mode=warn", "placement=control-plane", "policies=warn", "hooks=false",
     "ruleModes.nodes/labels=enforce", "policy.agents.a\\.yaml=x"),
    ("policies=audit", "networkPolicies=false"),
)  # fmt: skip


@pytest.mark.parametrize("values", VALUES)
def test_an_api_server_knows_every_field(
    control_plane: ControlPlane, tmp_path: Path, values: tuple[str, ...]
) -> None:
    namespace_ready(control_plane.admin)
    with contextlib.suppress(APIError):
        control_plane.admin.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    sets = [word for one in values for word in ("--set", one)]
    text = Helm(tmp_path)("template", *RELEASE, *sets)
    assert text.count("kind: ") > 15
    kubeconfig = tmp_path / "admin"
    kubeconfig.write_text(json.dumps(control_plane.admin.kubeconfig()))
    code, output = control_plane.kubectl(
        kubeconfig, "apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text
    )
    assert code == 0, output
    assert "error" not in output.lower()
