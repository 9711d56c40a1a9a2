"""From nothing to enforcing, by the commands of docs/install.md alone."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from noderestrict.doctor.registration_differences import registration_differences
from noderestrict.pki.issue import Authority
from noderestrict.render.workload import CA_SECRET, NAMESPACE, TLS_SECRET
from tests.e2e.conftest import let_nodes_do_all, namespace_ready
from tests.e2e.control_plane import ISSUER, APIError, ControlPlane, free_port
from tests.e2e.test_credentials import Installed
from tests.e2e.test_registration import LEASES, NODES, WEBHOOKS, lease, node_object
from tests.render.overlays import build
from tests.serving.tls import serving

ROOT = Path(__file__).parents[2]
LABELS = {"metadata": {"labels": {"node-restriction.kubernetes.io/a": "b"}}}


def commands(heading: str) -> list[str]:
    """Return the commands of a section, in their order."""
    text = (ROOT / "docs" / "install.md").read_text()
    after = text.partition(f"{heading}\n")[2]
    section = re.split(r"^#{2,3} ", after, maxsplit=1, flags=re.MULTILINE)[0]
    found = re.findall(r"^ *\$ (.*)$", section, re.MULTILINE)
    assert found, heading
    return found


def eventually(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 40
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_the_documented_commands_lead_from_nothing_to_enforcing(tmp_path: Path) -> None:
    control_plane = ControlPlane()
    server: subprocess.Popen[bytes] | None = None
    try:
        admin = control_plane.admin
        let_nodes_do_all(admin)
        namespace_ready(admin)
        pki = tmp_path / "pki"
        pki.mkdir()
        (pki / "ca.crt").write_bytes(control_plane.ca.certificate)
        (pki / "ca.key").write_bytes(control_plane.ca.key)
        (tmp_path / "admin").write_text(json.dumps(admin.kubeconfig()))
        port = free_port()
        for file in ("base/rbac.yaml", "overlays/control-plane/enforce/registration.yaml"):
            target = tmp_path / "manifests" / file
            target.parent.mkdir(parents=True)
            text = (ROOT / "manifests" / file).read_text()
            target.write_text(text.replace("127.0.0.1:8443", f"127.0.0.1:{port}"))
        environment = {
            "PATH": f"{control_plane.binaries}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "TMPDIR": str(tmp_path),
            "KUBECONFIG": str(tmp_path / "admin"),
            "NODERESTRICT_PORT": str(port),
        }
        metrics = free_port()
        outputs = {}
        node = control_plane.node("n1")

        def refused(act: Callable[[], object]) -> bool:
            try:
                act()
            except APIError as error:
                return "noderestrict.io" in str(error)
            return False

        def foreign_lease() -> object:
            return node.create(f"{LEASES}?dryRun=All", lease("another"))

        admin.create(NODES, node_object("n1"))
        enforced = False
        for command in commands("## Without pods"):
            here = command.replace("/etc/kubernetes/pki", str(pki))
            here = here.replace("127.0.0.1:6443", f"127.0.0.1:{control_plane.port}")
            here = here.replace("127.0.0.1:8443", f"127.0.0.1:{port}")
            here = here.replace("127.0.0.1:9090", f"127.0.0.1:{metrics}")
            here = here.replace("https://kubernetes.default.svc.cluster.local", ISSUER)
            if here.endswith(" &"):
                server = subprocess.Popen(
                    ["bash", "-c", f"exec {here.removesuffix(' &')}"],
                    cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL,
                )  # fmt: skip
                continue
            if "doctor" in here:
                eventually(lambda: refused(foreign_lease))
            done = subprocess.run(
                ["bash", "-c", here], cwd=tmp_path, env=environment, capture_output=True,
                text=True, timeout=60, check=False,
            )  # fmt: skip
            outputs[command] = done.stdout + done.stderr
            # No pod runs on the node: the doctor cannot try out what is about pods.
            expected = (0, 2) if "doctor" in here else (0,)
            assert done.returncode in expected, (command, outputs[command])
            enforced |= here.startswith("echo") and "enforce" in here
            if not enforced:
                # Whatever has been done so far.
                assert not refused(foreign_lease), here
                assert not refused(lambda: node.patch(f"{NODES}/n1?dryRun=All", LABELS)), here
            if "nodes/labels" in here:
                eventually(lambda: refused(lambda: node.patch(f"{NODES}/n1?dryRun=All", LABELS)))
                assert not refused(foreign_lease)
        assert "[+] rules: leases" in outputs[command]
        assert "[-]" not in outputs[command]
    finally:
        if server is not None:
            server.kill()
            server.wait()
        control_plane.stop()


OLD = "noderestrict-certs"


def old_manifests(control_plane: ControlPlane) -> None:
    """Create what the manifests once had, and nobody may keep."""
    admin, space = control_plane.admin, f"/api/v1/namespaces/{NAMESPACE}"
    rbac, meta = "/apis/rbac.authorization.k8s.io/v1", {"name": OLD}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": OLD}
    subjects = [{"kind": "ServiceAccount", "name": OLD, "namespace": NAMESPACE}]
    for path, more in (
        (f"{rbac}/namespaces/{NAMESPACE}/roles", {"rules": []}),
        (f"{rbac}/namespaces/{NAMESPACE}/rolebindings", {"roleRef": role, "subjects": subjects}),
        (f"{rbac}/clusterroles", {"rules": []}),
        (
            f"{rbac}/clusterrolebindings",
            {"roleRef": {**role, "kind": "ClusterRole"}, "subjects": subjects},
        ),
        (f"{space}/serviceaccounts", {}),
    ):
        admin.create(path, {"metadata": meta, **more})
    for name in (f"{OLD}-token", "noderestrict-token", "noderestrict-tls"):
        admin.create(f"{space}/secrets", {"metadata": {"name": name}, "data": {"old": "YQ=="}})


def server_on_a_worker(control_plane: ControlPlane) -> None:
    """Create a pod of an old server, whose node reads what it is given."""
    secrets = ("noderestrict-token", "noderestrict-tls")
    spec = {
        "nodeName": "worker",
        "serviceAccountName": "noderestrict",
        "containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": name, "secret": {"secretName": name}} for name in secrets],
    }
    pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
    control_plane.admin.create(pods, {"metadata": {"name": "old"}, "spec": spec})


class Walk(Installed):
    """Runs documented commands; our pods are one process, at the port that the manifests name."""

    def __init__(self, control_plane: ControlPlane, folder: Path) -> None:
        super().__init__(control_plane, folder)
        self.port = free_port()
        shutil.copytree(ROOT / "manifests", folder / "manifests")
        for file in (folder / "manifests" / "overlays" / "control-plane").rglob("*.yaml"):
            text = file.read_text()
            file.write_text(text.replace("127.0.0.1:8443", f"127.0.0.1:{self.port}"))
        self._environment = {
            "PATH": f"{control_plane.binaries}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "KUBECONFIG": str(self.kubeconfig),
        }

    def __call__(self, command: str, *, code: int = 0) -> str:
        """Return what a command prints."""
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command], cwd=self.folder, env=self._environment,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        output = done.stdout + done.stderr
        assert done.returncode == code, (command, output)
        return output

    def registration(self) -> Any:
        """Return the installed registration, None if there is none."""
        items = self.admin.get(WEBHOOKS)["items"]
        assert len(items) < 2
        return items[0] if items else None

    def is_as_rendered(self, overlay: str) -> bool:
        """Tell whether the registration is an overlay's, with the CA that is kept."""
        text = json.dumps(build(overlay, parts=["enforce"])[0])
        expected = json.loads(text.replace("127.0.0.1:8443", f"127.0.0.1:{self.port}"))
        ca = self.data(TLS_SECRET)["ca.crt"]
        return registration_differences(self.registration(), expected, ca) == []

    def is_enforced(self) -> bool:
        try:
            self.nodes["worker"].create(f"{LEASES}?dryRun=All", lease("another"))
        except APIError as error:
            return "noderestrict.io" in str(error)
        return False

    @contextlib.contextmanager
    def served(self) -> Iterator[None]:
        """Serve the certificate of the Secret with the token of the Secret, as our pods do."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        for name, data in self.data(TLS_SECRET).items():
            (folder / name).write_bytes(data)
        eventually(lambda: "token" in self.data("noderestrict-token"))
        token = self.data("noderestrict-token")["token"].decode()
        ca = Authority(self.data(CA_SECRET)["tls.crt"], b"")
        with serving(
            folder, "--kubeconfig", str(self.token_kubeconfig(token)), "--port", str(self.port),
            ca=ca, state=False,
        ) as server:  # fmt: skip
            eventually(lambda: server.request("/readyz")[0] == 200)
            yield


@pytest.fixture
def walk(tmp_path: Path) -> Iterator[Walk]:
    control_plane = ControlPlane()
    try:
        namespace_ready(control_plane.admin)
        let_nodes_do_all(control_plane.admin)
        control_plane.start_controllers("serviceaccount-token-controller,namespace-controller")
        yield Walk(control_plane, tmp_path)
    finally:
        control_plane.stop()


def test_nothing_is_denied_before_a_server_answers_and_all_of_it_can_be_repeated(
    walk: Walk,
) -> None:
    audit, enforce = commands("## Audit"), commands("## Enforce")
    for command in audit:
        if "rollout" not in command:
            walk(command)
        if "enforce" in command:
            assert walk.is_as_rendered("audit")
            walk(command)
    assert not walk.is_enforced()
    install, bootstrap, rollout, register, leftovers, doctor = enforce
    walk(install)
    walk(bootstrap)
    before = walk.data(TLS_SECRET)
    walk(bootstrap)
    assert walk.data(TLS_SECRET) == before
    assert "rollout status" in rollout
    # Nobody serves yet: only a registration that denies nothing stays.
    output = walk(f"{register} --wait 0", code=2)
    assert output.count("\n") == 1
    assert "not written" in output
    assert walk.is_as_rendered("audit") is False
    assert {one["failurePolicy"] for one in walk.registration()["webhooks"]} == {"Ignore"}
    assert not walk.is_enforced()
    # Neither does an apply get past the API server without a CA.
    applied = walk("kubectl apply -k manifests/overlays/control-plane/enforce", code=1)
    assert "illegal base64" in applied
    with walk.served():
        for _ in range(2):
            walk(register)
            assert walk.is_as_rendered("control-plane")
            walk(leftovers)
        eventually(walk.is_enforced)
        told = walk(doctor, code=1)
        assert "[+] rules: leases" in told
        assert "[+] registration: it is what the servers expect" in told
        assert "[+] cold start" in told
        for command in (install, bootstrap, register, leftovers):
            walk(command)
        assert walk.is_enforced()
    # Restored in spite of that, if one insists.
    walk(f"{register} --unserved")
    unregister, remove = commands("## Uninstall")
    for _ in range(2):
        walk(unregister)
        walk(remove)
        assert walk.registration() is None
    left = walk("kubectl get -A all,sa,cm,secret,roles,rolebindings,clusterroles,"
                "clusterrolebindings,namespaces -o name")  # fmt: skip
    assert "noderestrict" not in left
    assert not walk.is_enforced()
    walk(install)
    assert walk.registration() is None
    assert not walk.is_enforced()


def test_the_documented_commands_replace_what_older_manifests_left(walk: Walk) -> None:
    install, bootstrap, _, register, leftovers, doctor = commands("## Enforce")
    admin = walk.admin
    walk(install)
    walk(bootstrap)
    for secret in ("noderestrict-token", "noderestrict-tls"):
        admin.delete(f"/api/v1/namespaces/{NAMESPACE}/secrets/{secret}")
    old_manifests(walk.control_plane)
    server_on_a_worker(walk.control_plane)
    told = walk(doctor, code=1)
    assert "[-] old manifests: Secret" in told
    assert "Secret noderestrict-tls: accessible to worker" in told
    for command in (*commands("### From older manifests"), install, bootstrap):
        walk(command)
    with walk.served():
        walk(register)
        walk(leftovers)
        told = walk(doctor, code=1)
    assert "[+] old manifests: none left" in told
    # A node that need not end its pod gets none of the new credentials either.
    for secret in ("noderestrict-tls", "noderestrict-token"):
        assert f"Secret {secret}: accessible to no node" in told
    assert walk.is_as_rendered("control-plane")
    assert "old" not in walk.data(TLS_SECRET)
