"""The authorizer in a cluster of containers, by the commands of docs/authorizer.md."""

import time
from collections.abc import Iterable

import yaml

from tests.authorizer_page import commands, variables
from tests.containers.cluster import CommandError, until
from tests.containers.machine import STATIC_PODS, Machine

#: Where the page is followed, on the control-plane node.
FOLDER = "/root/page"
NAME = "noderestrict-authorizer"
STATIC_POD = f"{STATIC_PODS}/{NAME}.yaml"
#: Where its manifest is while it is away.
ASIDE = f"/root/{NAME}.yaml"
INSTALL = "Install it with kubeadm"
#: What the API server says while it is away.
NOBODY = "127.0.0.1:8444: connect: connection refused"
#: Seconds that all commands of a step may take together.
PATIENCE = 300


class Authorizer:
    """What the page installs beside the one API server.

    Args:
        machine: the cluster.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._node = machine.control_plane

    def install(self, agents: str = "") -> None:
        """Type what the page says.

        Args:
            agents: text of a policy file, "" for none.
        """
        if self._exists(FOLDER):
            self.undo()
        self.machine.give_command(self._node)
        self.machine.write(self._node, f"{FOLDER}/agents.yaml", agents)
        option = " --agents agents.yaml" if agents else ""
        with_agents = ("noderestrict render", "noderestrict doctor")
        typed = commands(INSTALL)
        print(self._type(one + option if one.startswith(with_agents) else one for one in typed))
        self.machine.restart_controllers()

    def keep_nodes_ready(self) -> None:
        """Let nodes renew Leases without it, as the page says."""
        self._type((*variables(commands(INSTALL)), *commands("While it is away")))

    def undo(self) -> None:
        """Undo it as the page says, and remove what is left."""
        node, file = self._node, f"{FOLDER}/authorizer/kubeadm.yaml"
        if self._exists(file):
            self._ask_node_authorizer(file)
        self.machine.exec(node, "rm", "-f", STATIC_POD, ASIDE)
        until("the authorizer has ended", lambda: not self._runs())
        for part in ("rbac", "node-leases"):
            objects = f"{FOLDER}/authorizer/{part}.yaml"
            if self._exists(objects):
                self.machine.exec(node, "kubectl", "delete", "--ignore-not-found", "-f", objects)
        self.machine.exec(node, "rm", "-rf", FOLDER, "/etc/kubernetes/noderestrict")

    def _ask_node_authorizer(self, file: str) -> None:
        """Let the API server ask whom it asked before."""
        node = self._node
        documents = list(yaml.safe_load_all(self.machine.exec(node, "cat", file)))
        for document in documents:
            for flag in document.get("apiServer", {}).get("extraArgs", ()):
                if flag["name"] == "authorization-config":
                    flag.update(name="authorization-mode", value="Node,RBAC")
        self.machine.write(node, file, yaml.safe_dump_all(documents))
        typed = [*variables(commands(INSTALL)), *commands(INSTALL, 5)]
        self._type(one.replace("authorization-config;", "authorization-mode;") for one in typed)
        until("the API server has its old flags", lambda: self.is_asked() is False)
        self.machine.restart_controllers()

    def _type(self, typed: Iterable[str]) -> str:
        script = "\n".join((f"cd {FOLDER}", "set -x", *typed))
        try:
            return self.machine.exec(
                self._node, "timeout", str(PATIENCE), "bash", "-e", "-o", "pipefail", "-c", script
            )
        except CommandError as error:
            # The error shows the end of it.
            print(error.output)
            raise

    def is_asked(self) -> bool | None:
        """Tell whether the API server that runs has the flags for it; None if none runs."""
        servers = [line for line in self._processes() if line.startswith("kube-apiserver")]
        return any("--authorization-config" in one for one in servers) if servers else None

    def _runs(self) -> bool:
        return any("serve --authorizer" in line for line in self._processes())

    def _processes(self) -> list[str]:
        """Return the command lines of the node's processes."""
        return self.machine.exec(self._node, "ps", "-A", "-o", "args=").splitlines()

    def stop(self) -> None:
        """Take it away, and wait until nothing answers any more."""
        self.machine.exec(self._node, "mv", STATIC_POD, ASIDE)
        until("the authorizer has ended", lambda: not self._runs())
        # For which the API server remembers its answers.
        time.sleep(2)

    def start(self) -> None:
        """Let it run again, and wait until it is ready."""
        self.machine.exec(self._node, "mv", ASIDE, STATIC_POD)
        until("the authorizer is ready", self.is_ready)

    def _exists(self, path: str) -> bool:
        check = f"if [ -e {path} ]; then echo yes; fi"
        return bool(self.machine.exec(self._node, "sh", "-c", check))

    def is_ready(self) -> bool:
        check = "curl --silent --fail http://127.0.0.1:9091/readyz || true"
        return bool(self.machine.exec(self._node, "sh", "-c", check))
