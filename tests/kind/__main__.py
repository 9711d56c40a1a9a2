"""``make e2e-kind``: the webhook in a kind cluster whose in-tree plugin is off.

Needs docker, kind and kubectl. ``KIND_NODE_IMAGE`` chooses the Kubernetes version, and
``KIND_KEEP=1`` keeps the cluster.
"""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

from noderestrict.render.authorizer import kind_cluster, kubeadm_configuration
from noderestrict.render.workload import CA_SECRET, IMAGE, NAMESPACE, TLS_SECRET

ROOT = Path(__file__).parents[2]
CLUSTER = "noderestrict-e2e"
OVERLAY = ROOT / "manifests" / "overlays" / "self-signed"
#: As docs/install.md says.
BOOTSTRAP = (
    sys.executable, "-m", "noderestrict", "certs", "bootstrap",
    f"--secret={NAMESPACE}/{TLS_SECRET}", f"--ca-secret={NAMESPACE}/{CA_SECRET}",
)  # fmt: skip
REGISTRATION = ("--registration", str(OVERLAY / "enforce" / "registration.yaml"))
#: kind takes patches of the kubeadm version that it uses itself, which differs by its version.
VERSIONS = ("v1beta4", "v1beta3")


def run(*command: str, stdin: str = "") -> str:
    """Return the output of a command; ends the run with its errors if it fails."""
    print("+", " ".join(command), flush=True)
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def cluster_configuration() -> dict[str, object]:
    """Return the kind cluster: the plugin that we stand in for is off."""
    flags = {"disable-admission-plugins": "NodeRestriction", "enable-admission-plugins": ""}
    cluster = kind_cluster(kubeadm_configuration(flags, None), workers=2)
    patches = [
        yaml.safe_dump(kubeadm_configuration(flags, None, version=version), sort_keys=False)
        for version in VERSIONS
    ]
    # A patch of another kubeadm version than the cluster's matches nothing.
    cluster["nodes"][0]["kubeadmConfigPatches"] = patches
    return cluster


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Path]:
    """Run a cluster; yields its administrator's kubeconfig."""
    kubeconfig = folder / "kubeconfig"
    image = os.environ.get("KIND_NODE_IMAGE")
    create = ["kind", "create", "cluster", "--name", CLUSTER, "--config", "-", "--wait", "180s"]
    try:
        run(
            *create, "--kubeconfig", str(kubeconfig), *(["--image", image] if image else []),
            stdin=yaml.safe_dump(cluster_configuration()),
        )  # fmt: skip
        yield kubeconfig
    finally:
        if not os.environ.get("KIND_KEEP"):
            run("kind", "delete", "cluster", "--name", CLUSTER)


class Kubectl:
    """kubectl as one user."""

    def __init__(self, kubeconfig: Path) -> None:
        self._command = ("kubectl", f"--kubeconfig={kubeconfig}")

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        return run(*self._command, *arguments, stdin=stdin)

    def refused(self, *arguments: str, stdin: str = "") -> None:
        """Check that a command is refused by our webhook."""
        command = [*self._command, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        if not done.returncode or "noderestrict.io" not in done.stderr:
            raise SystemExit(f"{' '.join(command)}: not refused by us: {done.stderr}{done.stdout}")


def kubelet(folder: Path, admin: Path, node: str) -> Kubectl:
    """Return kubectl with the credential of a node's kubelet."""
    config = yaml.safe_load(admin.read_text())
    pem = run("docker", "exec", node, "cat", "/var/lib/kubelet/pki/kubelet-client-current.pem")
    encoded = base64.b64encode(pem.encode()).decode()
    config["users"][0]["user"] = {"client-certificate-data": encoded, "client-key-data": encoded}
    file = folder / node
    file.write_text(yaml.safe_dump(config))
    return Kubectl(file)


def until(what: str, check: str, admin: Kubectl, *arguments: str) -> None:
    """Wait until kubectl prints a text."""
    end = time.monotonic() + 300
    while check not in admin(*arguments):
        if time.monotonic() > end:
            raise SystemExit(f"{what}: not within 5 minutes")
        time.sleep(2)


def walk(folder: Path, kubeconfig: Path) -> None:
    """Deploy, and check what nodes may do: with the webhook, without it, and again with it."""
    admin = Kubectl(kubeconfig)
    run("kind", "load", "docker-image", IMAGE, "--name", CLUSTER)
    admin("apply", "-k", str(OVERLAY / "install"))
    run(*BOOTSTRAP, "--kubeconfig", str(kubeconfig))
    namespace = ("-n", NAMESPACE)
    rollout = ("rollout", "status", "deployment/noderestrict", *namespace, "--timeout=300s")
    admin(*rollout)
    run(*BOOTSTRAP, *REGISTRATION, "--kubeconfig", str(kubeconfig))
    # The renewing job starts with its mounted token, and finds nothing to do.
    admin("create", "job", "--from=cronjob/noderestrict-renewal", "renew-now", *namespace)
    admin("wait", "--for=delete", "job/renew-now", *namespace, "--timeout=300s")
    first, second = f"{CLUSTER}-worker", f"{CLUSTER}-worker2"
    node = kubelet(folder, kubeconfig, first)
    hostile(node, first, second)
    admin("create", "deployment", "web", "--image=registry.k8s.io/pause:3.10", "--replicas=4")
    admin("rollout", "status", "deployment/web", "--timeout=300s")
    # Without the webhook nodes stay ready, and hostile requests stay refused.
    admin("scale", "deployment/noderestrict", "--replicas=0", *namespace)
    admin("wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=noderestrict", *namespace,
          "--timeout=120s")  # fmt: skip
    time.sleep(90)
    ready = admin("get", "nodes", "-o", "json")
    for item in json.loads(ready)["items"]:
        states = {one["type"]: one["status"] for one in item["status"]["conditions"]}
        if states["Ready"] != "True":
            raise SystemExit(f"node {item['metadata']['name']} is not ready without the webhook")
    hostile(node, first, second)
    admin("scale", "deployment/noderestrict", "--replicas=2", *namespace)
    admin(*rollout)
    hostile(node, first, second)
    admin("delete", "deployment", "web", "--timeout=120s")


def hostile(node: Kubectl, own: str, other: str) -> None:
    """Try with a kubelet's credential what must be refused."""
    node.refused("label", "node", own, "node-restriction.kubernetes.io/a=b", "--overwrite")
    node.refused("label", "node", other, "example.com/a=b", "--overwrite")
    node.refused("taint", "node", own, "a=b:NoSchedule")
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "stolen"},
        "spec": {"nodeName": own, "containers": [{"name": "c", "image": "pause"}]},
    }
    node.refused("create", "-f", "-", stdin=json.dumps(pod))


def main() -> None:
    missing = [name for name in ("docker", "kind", "kubectl") if shutil.which(name) is None]
    if missing:
        raise SystemExit(f"make e2e-kind needs {', '.join(missing)} on the PATH")
    with tempfile.TemporaryDirectory() as name, cluster(Path(name)) as kubeconfig:
        walk(Path(name), kubeconfig)
    print("kind: all as expected")


if __name__ == "__main__":
    main()
