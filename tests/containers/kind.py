"""A kind cluster, on a Docker engine; ``KIND_NODE_IMAGE`` chooses the Kubernetes version."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml

from noderestrict.render.authorizer import kind_cluster, kubeadm_configuration
from noderestrict.render.workload import IMAGE
from tests.containers.cluster import Cluster, run
from tests.containers.images import PAUSE_IMAGE, SHELL_IMAGE

NAME = "noderestrict-e2e"
COMMANDS = ("docker", "kind", "kubectl")
#: kind takes patches of the kubeadm version that it uses itself, which differs by its version.
VERSIONS = ("v1beta4", "v1beta3")
#: Has a shell and sleep.
SHELL_SOURCE = "docker.io/library/busybox:1"


def missing() -> str | None:
    """Return what this machine lacks for a kind cluster, or None."""
    absent = [name for name in COMMANDS if shutil.which(name) is None]
    return f"no {', '.join(absent)} on the PATH" if absent else None


def cluster_configuration() -> dict[str, Any]:
    """Return the kind cluster: the plugin that we stand in for is off."""
    flags = {"disable-admission-plugins": "NodeRestriction", "enable-admission-plugins": ""}
    cluster = kind_cluster(kubeadm_configuration(flags, None), workers=2)
    # A patch of another kubeadm version than the cluster's matches nothing.
    cluster["nodes"][0]["kubeadmConfigPatches"] = [
        yaml.safe_dump(kubeadm_configuration(flags, None, version=version), sort_keys=False)
        for version in VERSIONS
    ]
    return cluster


class Kind(Cluster):
    """A kind cluster with our image, which ``make image`` has built."""

    control_plane = f"{NAME}-control-plane"
    workers = (f"{NAME}-worker", f"{NAME}-worker2")

    def __init__(self) -> None:
        self.folder = Path(tempfile.gettempdir()) / NAME
        self.kubeconfig = self.folder / "admin.kubeconfig"

    def is_up(self) -> bool:
        return NAME in run("kind", "get", "clusters").split()

    def up(self) -> None:
        self.folder.mkdir(exist_ok=True)
        image = os.environ.get("KIND_NODE_IMAGE")
        run(
            "kind", "create", "cluster", "--name", NAME, "--config", "-", "--wait", "180s",
            "--kubeconfig", str(self.kubeconfig), *(["--image", image] if image else []),
            stdin=yaml.safe_dump(cluster_configuration()),
        )  # fmt: skip
        run("docker", "pull", "--quiet", SHELL_SOURCE)
        run("docker", "tag", SHELL_SOURCE, SHELL_IMAGE)
        run("kind", "load", "docker-image", IMAGE, SHELL_IMAGE, "--name", NAME)
        for node in self.nodes:
            pause = next(
                one
                for one in self.exec(node, "ctr", "-n", "k8s.io", "images", "ls", "-q").split()
                if "/pause:" in one
            )
            self.exec(node, "ctr", "-n", "k8s.io", "images", "tag", pause, PAUSE_IMAGE)

    def take_over(self) -> None:
        """Use a cluster that was left running: there is nothing to do."""

    def down(self) -> None:
        run("kind", "delete", "cluster", "--name", NAME)
        shutil.rmtree(self.folder, ignore_errors=True)

    def local(self, *command: str) -> list[str]:
        return list(command)

    def exec(self, node: str, *command: str, stdin: str = "") -> str:
        return run("docker", "exec", "--interactive", node, *command, stdin=stdin)

    def stop(self, node: str) -> None:
        run("docker", "kill", node)

    def start(self, node: str) -> None:
        run("docker", "start", node)
