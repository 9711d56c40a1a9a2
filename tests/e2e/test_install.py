"""From nothing to enforcing, by the commands of docs/install.md alone."""

import base64
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from noderestrict.doctor.differences import differences
from noderestrict.render.workload import NAMESPACE
from tests.e2e.conftest import let_nodes_do_all, namespace_ready
from tests.e2e.control_plane import APIError, ControlPlane, free_port
from tests.e2e.test_registration import LEASES, NODES, WEBHOOKS, lease, node_object
from tests.render.overlays import build

ROOT = Path(__file__).parents[2]
LABELS = {"metadata": {"labels": {"node-restriction.kubernetes.io/a": "b"}}}


def commands(heading: str) -> list[str]:
    """Return the commands of a section, in their order."""
    text = (ROOT / "docs" / "install.md").read_text()
    section = text.partition(f"{heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^ *\$ (.*)$", section, re.MULTILINE)


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
        for file in ("base/rbac.yaml", "overlays/control-plane/webhook.yaml"):
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
            "NODERESTRICT_METRICS_ADDRESS": f"127.0.0.1:{free_port()}",
        }
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
        for command in commands("## Without pods"):
            here = command.replace("/etc/kubernetes/pki", str(pki))
            here = here.replace("127.0.0.1:6443", f"127.0.0.1:{control_plane.port}")
            here = here.replace("127.0.0.1:8443", f"127.0.0.1:{port}")
            if here.endswith(" &"):
                server = subprocess.Popen(
                    ["bash", "-c", f"exec {here.removesuffix(' &')}"],
                    cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL,
                )  # fmt: skip
                eventually(lambda: not refused(foreign_lease))
                assert not refused(lambda: node.patch(f"{NODES}/n1?dryRun=All", LABELS))
                continue
            if "doctor" in here:
                eventually(lambda: refused(foreign_lease))
            done = subprocess.run(
                ["bash", "-c", here], cwd=tmp_path, env=environment, capture_output=True,
                text=True, timeout=60, check=False,
            )  # fmt: skip
            outputs[command] = done.stdout + done.stderr
            assert done.returncode == 0, (command, outputs[command])
            if "nodes/labels" in here:
                eventually(lambda: refused(lambda: node.patch(f"{NODES}/n1?dryRun=All", LABELS)))
                assert not refused(foreign_lease)
        assert "[+] known-bad request" in outputs[command]
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


def test_the_documented_commands_install_and_upgrade(tmp_path: Path) -> None:
    control_plane = ControlPlane()
    try:
        admin = control_plane.admin
        namespace_ready(admin)
        (tmp_path / "admin").write_text(json.dumps(admin.kubeconfig()))
        (tmp_path / "manifests").symlink_to(ROOT / "manifests")
        environment = {
            "PATH": f"{control_plane.binaries}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "KUBECONFIG": str(tmp_path / "admin"),
        }

        def run(command: str) -> tuple[int, str]:
            done = subprocess.run(
                ["bash", "-o", "pipefail", "-c", command], cwd=tmp_path, env=environment,
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            return done.returncode, done.stdout + done.stderr

        def held(name: str) -> dict[str, str]:
            value: dict[str, str] = admin.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/{name}")[
                "data"
            ]
            return value

        def as_rendered() -> bool:
            """Tell whether the registration is the rendered one, with the CA that is kept."""
            ca = base64.b64decode(held("noderestrict-tls")["ca.crt"])
            expected = next(one for one in build("self-signed") if "webhooks" in one)
            return differences(admin.get(f"{WEBHOOKS}/noderestrict"), expected, ca) == []

        first, *install = commands("# Install")
        assert first == "make image"
        for command in install:
            code, output = run(command)
            assert code == 0, output
        assert as_rendered()
        # Again, and nothing is made anew.
        before = held("noderestrict-tls")
        assert [run(command)[0] for command in install] == [0, 0]
        assert held("noderestrict-tls") == before

        for secret in ("noderestrict-token", "noderestrict-tls"):
            admin.delete(f"/api/v1/namespaces/{NAMESPACE}/secrets/{secret}")
        old_manifests(control_plane)
        server_on_a_worker(control_plane)
        doctor = "noderestrict doctor --kubeconfig $KUBECONFIG"
        told = run(doctor)[1]
        assert "[-] old manifests: Secret" in told
        assert "Secret noderestrict-tls: accessible to worker" in told
        *upgrade, last = commands("## Upgrade")
        for command in upgrade:
            code, output = run(command)
            assert code == 0, output
        # Nobody serves here, of which it tells as well.
        told = run(last)[1]
        assert "[+] old manifests: none left" in told
        # A node that need not end its pod gets none of the new credentials either.
        for secret in ("noderestrict-tls", "noderestrict-token"):
            assert f"Secret {secret}: accessible to no node" in told
        assert as_rendered()
        assert "old" not in held("noderestrict-tls")
    finally:
        control_plane.stop()
