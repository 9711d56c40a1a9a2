"""A cluster of containers on this machine, without a container engine.

A node is a process with namespaces of its own: an overlay on a Debian root, a cgroup, a network
namespace with a cable to a switch. Nothing leads out of the switch. All of it is below FOLDER, in
network namespaces named ``nr-…`` and in cgroups of that name, and goes away with ``down``.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path

import yaml

from noderestrict.render.workload import IMAGE
from tests.containers.cluster import Cluster, CommandError, run, until
from tests.containers.images import Builder, node_root
from tests.containers.kubeadm import (
    AUDIT,
    AUDIT_POLICY,
    ETCD_TAG,
    SOCKET,
    configuration,
    join_configuration,
)
from tests.containers.kubeadm import flags as kubeadm_flags

FOLDER = Path("/var/tmp/noderestrict-cluster")
HERE = Path(__file__).parent
ASSETS = Path(__file__).parents[2] / ".assets"
CERT_MANAGER = ASSETS / "cert-manager"
SWITCH = "nr-switch"
#: Of the nodes, and of one that may join later.
ADDRESSES = {"cp": "10.77.0.10", "w1": "10.77.0.11", "w2": "10.77.0.12", "cp2": "10.77.0.13"}
KUBEADM = "/etc/kubernetes/kubeadm.yaml"
STATIC_PODS = "/etc/kubernetes/manifests"
ETCD_DATA, SNAPSHOT = "/var/lib/etcd", "/var/lib/etcd-snapshot"
GATEWAY = "10.77.0.1"
COMMANDS = ("buildah", "debootstrap", "go", "ip", "nsenter", "openssl", "unshare")
CGROUPS = Path("/sys/fs/cgroup")
#: The control-plane components, and etcd.
CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")
#: Where a node's shells find what our image holds, and how it gets there.
IMAGE_COPY = "/opt/noderestrict-image"
COPY_IMAGE = f"""
ctr -n k8s.io images unmount --rm /mnt > /dev/null 2>&1 || true
ctr -n k8s.io images mount "$1" /mnt
rm -rf {IMAGE_COPY}
cp -a /mnt {IMAGE_COPY}
ctr -n k8s.io images unmount --rm /mnt
"""
COMMAND = f"""#!/bin/sh
export PYTHONHOME={IMAGE_COPY}/usr/local
export PYTHONPATH=$(echo {IMAGE_COPY}/opt/noderestrict/lib/python3*/site-packages)
export LD_LIBRARY_PATH={IMAGE_COPY}/usr/local/lib:{IMAGE_COPY}/usr/lib/noderestrict
exec {IMAGE_COPY}/usr/local/bin/python3 -m noderestrict "$@"
"""
PREFLIGHT = "--ignore-preflight-errors=all"
SECOND = "cp2"


def missing() -> str | None:
    """Return what this machine lacks for a cluster of containers, or None."""
    if os.geteuid() != 0:
        return "not root"
    absent = [name for name in COMMANDS if shutil.which(name) is None]
    if absent:
        return f"no {', '.join(absent)} on the PATH"
    if not (CGROUPS / "memory").is_dir():
        return "no cgroup v1 hierarchies in /sys/fs/cgroup"
    if not Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists():
        return "no br_netfilter in the kernel"
    if "overlay" not in Path("/proc/filesystems").read_text():
        return "no overlayfs in the kernel"
    for folder in ("kubernetes", "node"):
        if not binaries(folder).is_dir():
            return f"no {binaries(folder)}: run make assets node-assets"
    return None


def binaries(kind: str) -> Path:
    """Return where ``make`` links the commands of the control plane or of a node."""
    return ASSETS / f"{kind}-{os.environ.get('KUBERNETES', '1.36')}"


class Machine(Cluster):
    """A cluster of containers."""

    control_plane = "cp"
    workers = ("w1", "w2")
    folder = FOLDER
    kubeconfig = FOLDER / "admin.kubeconfig"

    def __init__(self) -> None:
        self._kubernetes = binaries("kubernetes").resolve()
        self._node = binaries("node").resolve()
        self._version = run(str(self._node / "kubeadm"), "version", "-o", "short").strip()
        self._base = node_root()
        #: Commands of cert-manager and its CustomResourceDefinitions, if they were built.
        self.cert_manager = CERT_MANAGER.resolve() if CERT_MANAGER.is_dir() else None
        folders = [self._kubernetes, self._node]
        if self.cert_manager:
            folders.append(self.cert_manager)
        self.builder = Builder(self._base, folders)
        self._pod_networks: dict[str, str] = {}

    def is_up(self) -> bool:
        return (FOLDER / "up").exists()

    def down(self) -> None:
        down()

    def up(self) -> None:
        down()
        FOLDER.mkdir(parents=True)
        ip("netns", "add", SWITCH)
        inside(SWITCH, "link", "set", "lo", "up")
        inside(SWITCH, "link", "add", "br0", "type", "bridge")
        inside(SWITCH, "addr", "add", f"{GATEWAY}/24", "dev", "br0")
        inside(SWITCH, "link", "set", "br0", "up")
        for node in self.nodes:
            self._install(node)
        with ThreadPoolExecutor() as pool:
            list(pool.map(self.start, self.nodes))
            work = [(node, one) for node in self.nodes for one in self._archives(node)]
            list(pool.map(lambda one: self.import_image(*one), work))
        self._write(self.control_plane, KUBEADM, *configuration(ADDRESSES["cp"], self._version))
        self._write(self.control_plane, f"{AUDIT}/policy.yaml", AUDIT_POLICY)
        self.exec(self.control_plane, "kubeadm", "init", f"--config={KUBEADM}", PREFLIGHT,
                  "--skip-phases=addon/coredns")  # fmt: skip
        self.kubeconfig.write_text(self.exec("cp", "cat", "/etc/kubernetes/admin.conf"))
        self.restart_kubelet(self.control_plane)
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._join, self.workers))
        until("every node has a range for its pods", self._give_pods_a_network)
        self.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=180s")
        (FOLDER / "up").touch()

    def take_over(self) -> None:
        until("every node has a range for its pods", self._give_pods_a_network)

    def _archives(self, node: str) -> list[Path]:
        """Return the images that a node runs."""
        build = self.builder
        archives = [build.pause(), build.shell(), build.product()]
        archives.append(build.command("kube-proxy", self._version, shell=True))
        if node in self.workers:
            return archives
        tags = dict.fromkeys(CONTROL_PLANE, self._version) | {"etcd": ETCD_TAG}
        return archives + [build.command(name, tag) for name, tag in tags.items()]

    def _join(self, node: str, key: str | None = None) -> None:
        """Let a node join.

        Args:
            node: its name.
            key: of the certificates of the control plane, for a node that gets one.
        """
        address = None if key is None else ADDRESSES[node]
        self._write(node, KUBEADM, join_configuration(ADDRESSES["cp"], address, key))
        self.exec(node, "kubeadm", "join", f"--config={KUBEADM}", PREFLIGHT)

    def add_control_plane(self) -> str:
        """Let a second control-plane node join; returns its name."""
        self._install(SECOND)
        self.start(SECOND)
        for archive in self._archives(SECOND):
            self.import_image(SECOND, archive)
        self._write(SECOND, f"{AUDIT}/policy.yaml", AUDIT_POLICY)
        uploaded = self.exec(
            self.control_plane, "kubeadm", "init", "phase", "upload-certs", "--upload-certs"
        )
        self._join(SECOND, uploaded.split()[-1])
        until(f"{SECOND} has a range for its pods", self._give_pods_a_network)
        return SECOND

    def remove_control_plane(self) -> None:
        """Take the second control-plane node away again."""
        self.exec(SECOND, "kubeadm", "reset", "--force", "--cri-socket=" + SOCKET)
        self.kubectl("delete", "node", SECOND)
        self.stop(SECOND)
        shutil.rmtree(FOLDER / SECOND)

    def upgrade_control_plane(self, **flags: str) -> None:
        """Run ``kubeadm upgrade apply``, which replaces what has other flags than it should.

        Args:
            flags: that every component of the control plane gets.
        """
        name = ("configmap", "kubeadm-config", "-n", "kube-system")
        given = self.kubectl.json("get", *name)["data"]["ClusterConfiguration"]
        wanted = yaml.safe_load(given)
        for component in ("apiServer", "controllerManager", "scheduler"):
            now = wanted.setdefault(component, {}).get("extraArgs", [])
            kept = [one for one in now if one["name"] not in flags]
            wanted[component]["extraArgs"] = kept + kubeadm_flags(**flags)
        data = {"data": {"ClusterConfiguration": yaml.safe_dump(wanted)}}
        self.kubectl("patch", *name, "-p", json.dumps(data))
        # Its checks take images that nobody can pull here, and the tag of our etcd is no version.
        self.exec(self.control_plane, "kubeadm", "upgrade", "apply", "--yes", PREFLIGHT,
                  "--skip-phases=preflight", "--etcd-upgrade=false", self._version)  # fmt: skip
        self.restart_kubelet(self.control_plane)

    def save_etcd(self) -> None:
        """Stop the control plane, keep a copy of its storage, and start it again."""
        with self._stopped("etcd", "kube-apiserver"):
            self.exec(self.control_plane, "rm", "-rf", SNAPSHOT)
            self.exec(self.control_plane, "cp", "-a", ETCD_DATA, SNAPSHOT)

    def restore_etcd(self) -> None:
        """Stop the control plane, and start it with the copy of its storage."""
        others = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
        with self._stopped("etcd", *others):
            self.exec(self.control_plane, "rm", "-rf", f"{ETCD_DATA}/member")
            self.exec(self.control_plane, "cp", "-a", f"{SNAPSHOT}/member", ETCD_DATA)

    def restart_controllers(self) -> None:
        """Let controllers that ended for want of an API server run without a back-off."""
        for name in ("kube-controller-manager", "kube-scheduler"):
            file = f"{STATIC_PODS}/{name}.yaml"
            pod = yaml.safe_load(self.exec(self.control_plane, "cat", file))
            # Another pod, for the kubelet.
            pod["metadata"].setdefault("annotations", {})["restarted"] = str(time.time())
            self.write(self.control_plane, file, yaml.safe_dump(pod))
        until("a controller manager leads", lambda: self._leads("kube-controller-manager"))
        until("a scheduler leads", lambda: self._leads("kube-scheduler"))

    def _leads(self, component: str) -> bool:
        """Tell whether a component has renewed its Lease since a moment ago."""
        lease = self.kubectl.json("get", "lease", component, "-n", "kube-system")["spec"]
        renewed = datetime.fromisoformat(lease["renewTime"]).timestamp()
        return bool(lease["holderIdentity"]) and time.time() - renewed < 5

    @contextlib.contextmanager
    def _stopped(self, *components: str) -> Iterator[None]:
        """Stop static pods of the control plane while the context is open."""
        node, aside = self.control_plane, "/etc/kubernetes/aside"
        self.exec(node, "mkdir", "-p", aside)
        for one in reversed(components):
            self.exec(node, "mv", f"{STATIC_PODS}/{one}.yaml", aside)
        for one in components:
            until(f"{one} has stopped", partial(self._has_stopped, one))
        yield
        for one in components:
            self.exec(node, "mv", f"{aside}/{one}.yaml", STATIC_PODS)
        self.answers()

    def _has_stopped(self, command: str) -> bool:
        running = self.exec(self.control_plane, "ps", "-A", "-o", "comm=").split()
        # The kernel keeps fifteen characters of a name.
        return command[:15] not in running

    def _install(self, node: str) -> None:
        """Lay out what a node keeps over a restart."""
        folder = FOLDER / node
        for name in ("root", "upper/etc/containerd", "upper/etc/kubernetes", "work"):
            (folder / name).mkdir(parents=True)
        run("cp", "-a", str(self._base / "var"), str(folder / "var"))
        etc = folder / "upper" / "etc"
        (etc / "hostname").write_text(f"{node}\n")
        (etc / "hosts").write_text(
            "127.0.0.1 localhost\n"
            + "".join(f"{address} {name}\n" for name, address in ADDRESSES.items())
        )
        (etc / "machine-id").write_text(os.urandom(16).hex() + "\n")
        (etc / "resolv.conf").write_text("")
        shutil.copy(HERE / "node" / "containerd.toml", etc / "containerd" / "config.toml")

    def start(self, node: str) -> None:
        plug(node)
        folder = FOLDER / node
        (folder / "pid").unlink(missing_ok=True)
        enter = "".join(f"echo 0 > {one}/cgroup.procs && " for one in cgroups(node))
        with (FOLDER / f"{node}.log").open("ab") as log:
            subprocess.run(
                ["setsid", "--fork", "sh", "-c", f'{enter} echo $$ > "$0" && exec "$@"',
                 str(folder / "parent"),
                 "nsenter", f"--net=/run/netns/nr-{node}",
                 "unshare", "--mount", "--uts", "--pid", "--ipc", "--cgroup", "--fork",
                 "--kill-child", "--propagation=private",
                 "sh", str(HERE / "node" / "init.sh"), node, str(folder), str(self._base),
                 *self._mounts()],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True,
            )  # fmt: skip
        until(f"{node} has a first process", lambda: first_process(folder), 10)
        until(f"containerd of {node} answers", lambda: self.exec(node, "ctr", "version"), 60)
        self._route(node)

    def _mounts(self) -> list[str]:
        """Return links to the folders of commands, under the names that they have in a node."""
        for name, folder in (("kubernetes", self._kubernetes), ("node", self._node)):
            link = FOLDER / name
            if not link.is_symlink():
                with contextlib.suppress(FileExistsError):
                    link.symlink_to(folder)
        return [str(FOLDER / "kubernetes"), str(FOLDER / "node")]

    def stop(self, node: str) -> None:
        kill(node)
        unplug(node)
        # After a start, a kubelet would spend seconds on each cgroup of a container that is gone.
        until(f"the cgroups of {node} are empty", lambda: removed(node), 30)

    def exec(self, node: str, *command: str, stdin: str = "") -> str:
        return run(*self._entered(node), *command, stdin=stdin)

    def _entered(self, node: str) -> tuple[str, ...]:
        pid = (FOLDER / node / "pid").read_text()
        path = "/opt/kubernetes:/opt/node:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
        return (
            "nsenter", f"--target={pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup",
            "env", "-i", f"PATH={path}", "HOME=/root", "KUBECONFIG=/etc/kubernetes/admin.conf",
        )  # fmt: skip

    def local(self, *command: str) -> list[str]:
        path = f"{self._kubernetes}:{os.environ['PATH']}"
        return ["nsenter", f"--net=/run/netns/{SWITCH}", "env", f"PATH={path}", *command]

    def audit_logs(self) -> list[Path]:
        return [*FOLDER.glob(f"*{AUDIT}/audit.log")]

    def import_image(self, node: str, archive: Path) -> None:
        """Let a node have an image without a registry."""
        with archive.open("rb") as file:
            done = subprocess.run(
                [*self._entered(node), "ctr", "-n", "k8s.io", "images", "import", "-"],
                stdin=file, capture_output=True, text=True, check=False, timeout=600,
            )  # fmt: skip
        if done.returncode:
            raise CommandError(["import", str(archive)], done.returncode, done.stderr)

    def give_command(self, node: str) -> None:
        """Let shells of a node run ``noderestrict``, as our image has it."""
        image = self.exec(node, "ctr", "-n", "k8s.io", "images", "ls", "-q", f"name~={IMAGE}$")
        self.exec(node, "sh", "-ec", COPY_IMAGE, "copy", image.strip())
        self.write(node, "/usr/local/bin/noderestrict", COMMAND)
        self.exec(node, "chmod", "+x", "/usr/local/bin/noderestrict")

    def _write(self, node: str, path: str, *documents: dict[str, object]) -> None:
        """Write JSON, which is YAML as well."""
        self.write(node, path, "---\n".join(f"{json.dumps(one)}\n" for one in documents))

    def write(self, node: str, path: str, text: str) -> None:
        """Write a file on a node."""
        folder = path.rpartition("/")[0]
        self.exec(node, "sh", "-c", f"mkdir -p {folder} && cat > {path}", stdin=text)

    def restart_kubelet(self, node: str) -> None:
        """Let the supervisor start another one, with the files of kubeadm's last phase."""
        # It may have ended a moment ago, and the supervisor is about to start another one anyway.
        self.exec(node, "sh", "-c", "kill $(cat /run/kubelet.pid) 2> /dev/null || true")

    def _give_pods_a_network(self) -> bool:
        """Configure CNI with the range that each node has; tells whether all have one."""
        items = self.kubectl.json("get", "nodes")["items"]
        self._pod_networks = {
            one["metadata"]["name"]: one["spec"].get("podCIDR", "") for one in items
        }
        if len(items) < len(self.nodes) or not all(self._pod_networks.values()):
            return False
        for node, network in self._pod_networks.items():
            self._write(node, "/etc/cni/net.d/10-bridge.conflist", bridge(network))
        for node in self._pod_networks:
            self._route(node)
        return True

    def _route(self, node: str) -> None:
        """Lead from a node to the pods of the others, as a network between them would."""
        for other, network in self._pod_networks.items():
            if other != node:
                inside(f"nr-{node}", "route", "replace", network, "via", ADDRESSES[other])


def bridge(network: str) -> dict[str, object]:
    """Return the CNI configuration of a node."""
    ranges = [[{"subnet": network}]]
    return {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "hairpinMode": True,
                "ipam": {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]},
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def ip(*arguments: str) -> None:
    run("ip", *arguments)


def inside(namespace: str, *arguments: str) -> None:
    """Change the network of a namespace."""
    run("ip", "-n", namespace, *arguments)


def plugged(node: str) -> bool:
    return Path(f"/run/netns/nr-{node}").exists()


def plug(node: str) -> None:
    """Make a node's network namespace, and connect it to the switch."""
    name, cable = f"nr-{node}", f"nr-{node}"
    ip("netns", "add", name)
    inside(name, "link", "add", "eth0", "type", "veth", "peer", "name", cable, "netns", SWITCH)
    inside(SWITCH, "link", "set", cable, "master", "br0", "up")
    inside(name, "addr", "add", f"{ADDRESSES[node]}/24", "dev", "eth0")
    inside(name, "link", "set", "lo", "up")
    inside(name, "link", "set", "eth0", "up")
    inside(name, "route", "add", "default", "via", GATEWAY)


def unplug(node: str) -> None:
    if plugged(node):
        # The namespace goes later than its name, and would keep the cable until then.
        with contextlib.suppress(CommandError):
            inside(SWITCH, "link", "delete", f"nr-{node}")
        ip("netns", "delete", f"nr-{node}")


def cgroups(node: str) -> list[Path]:
    """Return a node's cgroups, one a hierarchy, below those of this process; makes them."""
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            continue
        parent = CGROUPS / controllers.removeprefix("name=") / path.lstrip("/")
        cgroup = parent / f"nr-{node}"
        cgroup.mkdir(exist_ok=True)
        if controllers == "cpuset":
            for name in ("cpuset.cpus", "cpuset.mems"):
                (cgroup / name).write_text((parent / name).read_text())
            (cgroup / "cgroup.clone_children").write_text("1")
        if controllers == "cpu":
            # A group weighs as much as one process does, and a node is a machine.
            (cgroup / "cpu.shares").write_text("8192")
        found.append(cgroup)
    return found


def first_process(folder: Path) -> bool:
    """Note which process is a node's first one; tells whether there is one yet."""
    parent = folder / "parent"
    if not parent.exists() or not (pid := parent.read_text().strip()):
        return False
    if child := Path(f"/proc/{pid}/task/{pid}/children").read_text().strip():
        parent.unlink()
        (folder / "pid").write_text(child)
    return bool(child)


def kill(node: str) -> None:
    """End all processes of a node at once."""
    file = FOLDER / node / "pid"
    if not file.exists():
        return
    pid = int(file.read_text())
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    until(f"{node} has ended", lambda: not Path(f"/proc/{pid}/ns/pid").exists(), 30)
    file.unlink()


def all_cgroups(node: str) -> list[Path]:
    """Return a node's cgroups, and those that its containers had, the innermost first."""
    tops = (top for hierarchy in CGROUPS.iterdir() for top in hierarchy.rglob(f"nr-{node}"))
    return sorted((one for top in tops for one in (top, *top.rglob("*/"))), reverse=True)


def down() -> None:
    """Remove a cluster, or what is left of one, and see that nothing is left."""
    for node in ADDRESSES:
        kill(node)
        unplug(node)
    until("their cgroups are empty", lambda: all(map(removed, ADDRESSES)), 30)
    if Path(f"/run/netns/{SWITCH}").exists():
        ip("netns", "delete", SWITCH)
    if FOLDER.exists():
        shutil.rmtree(FOLDER)
    assert not leftovers()


def leftovers() -> list[str]:
    """Return what a cluster has left on this machine."""
    files = [*Path("/run/netns").glob("nr-*"), *FOLDER.parent.glob(FOLDER.name)]
    files += [one for node in ADDRESSES for one in all_cgroups(node)]
    found = [str(one) for one in files]
    found += [one for one in Path("/proc/mounts").read_text().splitlines() if str(FOLDER) in one]
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(HERE / "node" / "init.sh") in (line := command.read_text().replace("\0", " ")):
                found.append(line)
    return found


def removed(node: str) -> bool:
    """Remove a node's cgroups; tells whether they are gone."""
    try:
        for one in all_cgroups(node):
            one.rmdir()
    except OSError:
        time.sleep(0.1)
        return False
    return True
