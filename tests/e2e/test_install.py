"""From nothing to enforcing, by the commands of docs/install.md alone."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.e2e.conftest import let_nodes_do_all, namespace_ready
from tests.e2e.control_plane import APIError, ControlPlane, free_port
from tests.e2e.test_registration import LEASES, NODES, lease, node_object

ROOT = Path(__file__).parents[2]
LABELS = {"metadata": {"labels": {"node-restriction.kubernetes.io/a": "b"}}}


def commands() -> list[str]:
    """Return the commands of the section on hosts without pods, in their order."""
    text = (ROOT / "docs" / "install.md").read_text()
    section = text.partition("## Without pods")[2].partition("\n## ")[0]
    return re.findall(r"^\$ (.*)$", section, re.MULTILINE)


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
        for command in commands():
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
