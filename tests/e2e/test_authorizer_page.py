"""The page on the authorizer, followed command by command, with what kubeadm sets up.

Processes stand in for the containers of static pods. They run in a mount and a network namespace of
their own, where /etc/kubernetes and the ports are free.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.authorizer_page import PAGE, commands, variables
from tests.e2e.control_plane import assets

pytestmark = pytest.mark.long

ADDRESS = "10.77.0.10"
KUBERNETES = "/etc/kubernetes"
#: Where the container of the server has them; a process here runs as root.
USER = "65532"
CONFIGURATION = f"""
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {{advertiseAddress: {ADDRESS}, bindPort: 6443}}
nodeRegistration: {{name: cp, criSocket: "unix:///none"}}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.36.2
clusterName: test
apiServer:
  extraArgs:
  - {{name: disable-admission-plugins, value: ServiceAccount}}
  - {{name: profiling, value: "false"}}
"""
Object = dict[str, Any]


class Machine:
    """A control-plane node without containers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.binaries = assets()
        tools = folder / "bin"
        tools.mkdir()
        for file in (*self.binaries.iterdir(), kubeadm()):
            (tools / file.name).symlink_to(file)
        (tools / "noderestrict").symlink_to(Path(sys.executable).parent / "noderestrict")
        self.environment = {
            "PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(folder), "LANG": "C",
        }  # fmt: skip
        self._static: dict[str, tuple[str, subprocess.Popen[bytes]]] = {}
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--net", "--propagation=private", "sh", "-c",
             "echo; exec sleep 3600"],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._holder.stdout
        self._pipe = self._holder.stdout
        self._pipe.read(1)
        for place in (KUBERNETES, "/var/lib/etcd"):
            self.sh(f"mkdir -p {place} && mount --bind {self._made(place)} {place}")
        self.sh(f"ip link set lo up && ip address add {ADDRESS}/32 dev lo")

    def _made(self, place: str) -> Path:
        folder = self.folder / place.strip("/").replace("/", "-")
        folder.mkdir()
        return folder

    def inside(self, *command: str) -> list[str]:
        return ["nsenter", f"--target={self._holder.pid}", "--mount", "--net",
                f"--wdns={self.folder}", *command]  # fmt: skip

    def sh(self, text: str, seconds: float = 120) -> str:
        """Run a text in a shell, and return what it prints; raises if it fails."""
        done = subprocess.run(
            self.inside("sh", "-ec", text), env=self.environment, capture_output=True, text=True,
            timeout=seconds, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}: {done.stdout}{done.stderr}{self.logs()}"
        return done.stdout

    def logs(self) -> str:
        return "".join(
            f"\n{file.name}: {file.read_text()[-2000:]}" for file in self.folder.glob("*.log")
        )

    def run_static_pods(self) -> None:
        """Do what a kubelet does with static pods whose files have changed."""
        manifests = self.folder / "etc-kubernetes" / "manifests"
        for file in sorted(manifests.glob("*.yaml")):
            text = file.read_text()
            known, process = self._static.get(file.stem, ("", None))
            if known == text and process is not None and process.poll() is None:
                continue
            if process is not None:
                process.kill()
                process.wait()
            (container,) = yaml.safe_load(text)["spec"]["containers"]
            command = [*container.get("command", ["noderestrict"]), *container.get("args", [])]
            with (self.folder / f"{file.stem}.log").open("ab") as log:
                self._static[file.stem] = (
                    text,
                    subprocess.Popen(
                        self.inside(*command), env=self.environment, stdout=log, stderr=log
                    ),
                )

    def is_ready(self, user: str) -> None:
        """Check that the API server is ready; static pods are run anew if they have ended."""
        self.run_static_pods()
        done = self.kubectl(user, "get", "--raw", "/readyz")
        assert done.returncode == 0, done.stderr + self.logs()

    def kill(self, *names: str) -> None:
        for name in names:
            _, process = self._static.pop(name)
            process.kill()
            process.wait()

    def stop(self) -> None:
        self.kill(*self._static)
        self._holder.kill()
        self._holder.wait()
        self._pipe.close()

    def kubectl(self, user: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        words = ["kubectl", f"--kubeconfig={KUBERNETES}/{user}.conf", *arguments]
        return subprocess.run(
            self.inside(*words), env=self.environment, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip


def kubeadm() -> Path:
    found = sorted(PAGE.parents[1].glob(".assets/node-*/kubeadm"))
    which = shutil.which("kubeadm")
    if not found and which is None:
        pytest.skip("there is no kubeadm")
    return found[-1] if found else Path(str(which))


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if os.geteuid() or not all(map(shutil.which, ("unshare", "nsenter", "ip", "curl", "setpriv"))):
        pytest.skip("it takes root, and util-linux, iproute2 and curl")
    running = Machine(tmp_path_factory.mktemp("machine"))
    try:
        (running.folder / "init.yaml").write_text(CONFIGURATION)
        for phase in ("certs all", "kubeconfig all", "etcd local", "control-plane apiserver"):
            running.sh(f"kubeadm init phase {phase} --config init.yaml")
        eventually(lambda: running.is_ready("super-admin"), 180)
        running.sh(f"export KUBECONFIG={KUBERNETES}/super-admin.conf;"
                   "kubeadm init phase upload-config kubeadm --config init.yaml"
                   f" --kubeconfig {KUBERNETES}/super-admin.conf;"
                   "kubectl create clusterrolebinding admins --clusterrole cluster-admin"
                   " --group kubeadm:cluster-admins")  # fmt: skip
        for name in ("n1", "n2"):
            user = f"kubeadm kubeconfig user --client-name system:node:{name} --org system:nodes"
            running.sh(f"{user} --config init.yaml > {KUBERNETES}/{name}.conf")
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def installed(machine: Machine) -> Machine:
    """Follow the page; whatever a command waits for, static pods are run in the meantime."""
    typed = commands("Install it with kubeadm")
    assert len(typed) > 15
    script = machine.folder / "typed"
    for count, command in enumerate(typed):
        if command in commands("Install it with kubeadm", 6):
            # No kubelet shows static pods to the API server.
            continue
        script.write_text("\n".join(("set -e", *variables(typed[:count]), command, "")))
        errors = machine.folder / "errors"
        with errors.open("wb") as file:
            process = subprocess.Popen(
                machine.inside("sh", str(script)), env=machine.environment, stderr=file
            )
        end = time.monotonic() + 180
        while process.poll() is None:
            machine.run_static_pods()
            assert time.monotonic() < end, f"{command} does not end: {machine.logs()}"
            time.sleep(0.2)
        assert process.returncode == 0, (command, errors.read_text(), machine.logs())
    eventually(lambda: machine.is_ready("admin"), 180)
    return machine


def eventually(check: Callable[[], None], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            check()
        except AssertionError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)
        else:
            return


def answered(machine: Machine) -> None:
    """Check that a node reads the Secret that its pod names, and that another does not."""
    own = machine.kubectl("n1", "get", "secret", "mine", "-o", "name")
    assert own.stdout == "secret/mine\n", own.stderr + machine.logs()
    for user, secret in (("n2", "mine"), ("n1", "other")):
        refused = machine.kubectl(user, "get", "secret", secret)
        assert "nothing on node" in refused.stderr, refused


def unanswered(machine: Machine, *arguments: str) -> None:
    assert "connection refused" in machine.kubectl("n1", *arguments).stderr


def test_the_server_may_read_its_files_and_no_other_user_may(installed: Machine) -> None:
    (container,) = yaml.safe_load(
        (installed.folder / "etc-kubernetes/manifests/noderestrict-authorizer.yaml").read_text()
    )["spec"]["containers"]
    flags = dict(one.removeprefix("--").partition("=")[::2] for one in container["args"])
    files = [flags["kubeconfig"], *(f"{flags['tls-dir']}/{one}" for one in ("tls.crt", "tls.key"))]
    for file in files:
        as_user = "setpriv --clear-groups --reuid {0} --regid {0} cat " + file
        assert installed.sh(as_user.format(USER))
        with pytest.raises(AssertionError, match="Permission denied"):
            installed.sh(as_user.format("1000"))


def test_nodes_are_answered_by_the_webhook_alone(installed: Machine) -> None:
    command = (installed.folder / "etc-kubernetes/manifests/kube-apiserver.yaml").read_text()
    assert "--authorization-mode" not in command
    assert "--profiling=false" in command
    admin = f"kubectl --kubeconfig {KUBERNETES}/admin.conf"
    for name in ("mine", "other"):
        installed.sh(f"{admin} create secret generic {name} --from-literal=a=b")
    spec = ('{"spec":{"nodeName":"n1","volumes":[{"name":"s","secret":{"secretName":"mine"}}],'
            '"automountServiceAccountToken":false}}')  # fmt: skip
    installed.sh(f"{admin} run web --image pause --overrides '{spec}'")
    eventually(lambda: answered(installed))


def test_kubeadm_writes_the_same_pod_from_what_it_has_stored(installed: Machine) -> None:
    stored = installed.sh(
        f"kubectl --kubeconfig {KUBERNETES}/admin.conf -n kube-system get configmap kubeadm-config"
        " --output jsonpath='{.data.ClusterConfiguration}'"
    )
    assert "authorization-config" in stored
    rendered = yaml.safe_load(stored)
    assert {"name": "profiling", "value": "false"} in rendered["apiServer"]["extraArgs"]
    assert [one["name"] for one in rendered["apiServer"]["extraVolumes"]] == ["noderestrict"]


def test_after_all_was_off_nodes_are_answered_again(installed: Machine) -> None:
    installed.kill("etcd", "kube-apiserver", "noderestrict-authorizer")

    def check() -> None:
        installed.run_static_pods()
        answered(installed)

    eventually(check, 180)


def test_without_the_server_nodes_are_refused_but_renew_leases(installed: Machine) -> None:
    for command in commands("While it is away"):
        installed.sh(
            f"export KUBECONFIG={KUBERNETES}/admin.conf; ENDPOINT={ADDRESS}:6443; {command}"
        )
    installed.kill("noderestrict-authorizer")
    # An API server remembers an answer for a second.
    eventually(lambda: unanswered(installed, "get", "secret", "mine"))
    lease = installed.kubectl(
        "n1", *["-n", "kube-node-lease", "get", "lease", "x", "--ignore-not-found"]
    )
    assert lease.returncode == 0, lease.stderr
    can = [
        verb
        for verb in ("get", "update", "list", "watch", "create", "patch", "delete")
        if installed.kubectl("n1", "auth", "can-i", verb, "leases", "-n", "kube-node-lease").stdout
        == "yes\n"
    ]
    assert can == ["get", "update"]
    installed.run_static_pods()
    eventually(lambda: answered(installed))
