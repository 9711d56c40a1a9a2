"""A real cluster to test in, whatever it is made of."""

import abc
import json
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml

T = TypeVar("T")


class CommandError(AssertionError):
    """A command failed.

    Attributes:
        output: what it printed, errors last.
    """

    def __init__(self, command: Sequence[str], code: int, output: str) -> None:
        self.output = output
        super().__init__(f"{' '.join(command)}: exit code {code}\n{output[-4000:]}")


def run(*command: str, stdin: str = "", timeout: float = 600) -> str:
    """Return the output of a command of this machine.

    Args:
        command: with its arguments.
        stdin: what it reads.
        timeout: seconds.

    Raises:
        CommandError: if it fails.
    """
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, check=False, timeout=timeout
    )
    if done.returncode:
        raise CommandError(command, done.returncode, done.stdout + done.stderr)
    return done.stdout


def until(what: str, check: Callable[[], T], seconds: float = 180) -> T:
    """Return the first true answer of a check, which may fail until then.

    Args:
        what: is waited for, for the error.
        check: asked every half second.
        seconds: after which it is given up.
    """
    end = time.monotonic() + seconds
    while True:
        problem: object = ""
        try:
            if answer := check():
                return answer
        except CommandError as error:
            problem = error
        assert time.monotonic() < end, f"{what}: not within {seconds} s {problem}"
        time.sleep(0.5)


class Kubectl:
    """kubectl as one user."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command

    def __call__(self, *arguments: str, stdin: str = "", timeout: float = 600) -> str:
        return run(*self._command, *arguments, stdin=stdin, timeout=timeout)

    def json(self, *arguments: str) -> Any:
        """Return what kubectl prints, decoded."""
        return json.loads(self(*arguments, "-o", "json"))

    def refusal(self, *arguments: str, stdin: str = "") -> str:
        """Return the error of a command that must fail."""
        try:
            output = self(*arguments, stdin=stdin)
        except CommandError as error:
            return error.output
        raise AssertionError(f"kubectl {' '.join(arguments)}: not refused: {output}")


class Cluster(abc.ABC):
    """One control-plane node and two workers, with the in-tree NodeRestriction switched off.

    Attributes:
        control_plane: name of the node with the API server.
        workers: names of the other nodes.
        folder: for files of this run.
        kubeconfig: the administrator's.
    """

    control_plane: str
    workers: tuple[str, str]
    folder: Path
    kubeconfig: Path

    @property
    def nodes(self) -> tuple[str, ...]:
        return (self.control_plane, *self.workers)

    @abc.abstractmethod
    def is_up(self) -> bool:
        """Tell whether an earlier run left the cluster running."""

    @abc.abstractmethod
    def up(self) -> None:
        """Make the cluster from nothing, with our image on every node."""

    @abc.abstractmethod
    def take_over(self) -> None:
        """Use the cluster that was left running."""

    @abc.abstractmethod
    def down(self) -> None:
        """Remove the cluster, and all that belongs to it."""

    @abc.abstractmethod
    def local(self, *command: str) -> list[str]:
        """Return a command of this machine as it is run where the API server is reached."""

    @abc.abstractmethod
    def exec(self, node: str, *command: str, stdin: str = "") -> str:
        """Return the output of a command on a node."""

    @abc.abstractmethod
    def stop(self, node: str) -> None:
        """Cut a node's power."""

    @abc.abstractmethod
    def start(self, node: str) -> None:
        """Start a stopped node, with nothing in memory: no processes, no iptables rules."""

    def answers(self) -> float:
        """Wait until the API server answers; returns the time of its first answer."""
        until("the API server answers", lambda: self.kubectl("get", "--raw", "/readyz"), 240)
        return time.monotonic()

    def audit_logs(self) -> list[Path]:
        """Return the logs of what nodes wrote, one an API server; none if they are not kept."""
        return []

    def written(self, since: float) -> list[dict[str, Any]]:
        """Return the audit logs' events of what real kubelets wrote.

        Args:
            since: time of the earliest, in seconds since the epoch.
        """
        logs = self.audit_logs()
        assert logs, "this cluster keeps no audit log"
        found = []
        for line in "".join(one.read_text() for one in logs).splitlines():
            event = json.loads(line)
            when = datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp()
            # What tests send says nothing of itself, or that it is kubectl.
            if when >= since and event.get("userAgent", "").startswith("kubelet/"):
                found.append(event)
        return found

    @property
    def kubectl(self) -> Kubectl:
        """Kubectl as an administrator."""
        return self.user(self.kubeconfig)

    def user(self, kubeconfig: Path) -> Kubectl:
        """Return kubectl with a kubeconfig."""
        return Kubectl(self.local("kubectl", f"--kubeconfig={kubeconfig}"))

    def credential(self, node: str) -> str:
        """Return the certificate and key of a node's kubelet."""
        return self.exec(node, "cat", "/var/lib/kubelet/pki/kubelet-client-current.pem")

    def kubelet(self, node: str) -> Kubectl:
        """Return kubectl with the credential of a node's kubelet."""
        config = yaml.safe_load(self.kubeconfig.read_text())
        pem = self.folder / f"{node}.pem"
        pem.write_text(self.credential(node))
        config["users"][0]["user"] = {"client-certificate": str(pem), "client-key": str(pem)}
        file = self.folder / f"{node}.kubeconfig"
        file.write_text(yaml.safe_dump(config))
        return self.user(file)
