"""What a pod has of its node decides whether whoever is in its containers takes the node."""

from typing import Any

import msgspec
import pytest

from noderestrict.api import corev1
from noderestrict.exposure.escape import Escape, escape

Object = dict[str, Any]


def of(spec: Object) -> Escape | None:
    return escape(msgspec.convert(spec, corev1.RunningPodSpec))


def mounting(path: str, kind: str = "containers", **mount: Any) -> Object:
    container = {"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/x", **mount}]}
    return {kind: [container], "volumes": [{"name": "v", "hostPath": {"path": path}}]}


def secured(kind: str = "containers", more: Object | None = None, **context: Any) -> Object:
    return {kind: [{"name": "c", "securityContext": context, **(more or {})}]}


@pytest.mark.parametrize(
    "path",
    [
        "/", "//", "/var", "/var/lib", "/var/lib/", "/var/lib/kubelet", "/var/lib/kubelet/pki",
        "/var/lib/kubelet/pki/kubelet-client-current.pem", "/var/lib/kubelet/pods/1/volumes",
        "/etc", "/etc/kubernetes", "/etc/kubernetes/kubelet.conf", "/var/lib/etcd", "/run",
        "/var/run", "/var/run/docker.sock", "/run/containerd", "/run/containerd/containerd.sock",
        "/run/crio/crio.sock", "/var/lib/../lib/kubelet", "/run/dbus",
    ],
)  # fmt: skip
@pytest.mark.parametrize("read_only", [True, False])
def test_credentials_and_sockets_give_the_node_even_for_reading(path: str, read_only: bool) -> None:
    assert of(mounting(path, readOnly=read_only)) is Escape.HOST_FILES


@pytest.mark.parametrize(
    "path",
    [
        "/usr", "/usr/bin", "/usr/local/bin", "/opt", "/opt/cni/bin", "/etc/cni/net.d",
        "/etc/systemd/system", "/etc/cron.d", "/root/.ssh", "/lib/modules", "/proc", "/proc/sys",
        "/sys", "/var/spool", "/var/lib/containerd", "/boot", "/etc/containerd",
        "/etc/containerd/conf.d", "/etc/crio", "/etc/docker", "/etc/default", "/etc/cron.daily",
        "/etc/cron.hourly", "/etc/sysconfig", "/etc/udev/rules.d", "/etc/ld.so.conf.d",
    ],
)  # fmt: skip
def test_what_the_node_runs_gives_it_for_writing(path: str) -> None:
    assert of(mounting(path)) is Escape.HOST_FILES
    assert of(mounting(path, readOnly=False)) is Escape.HOST_FILES
    assert of(mounting(path, readOnly=True)) is None


@pytest.mark.parametrize(
    "path",
    [
        "/data", "/mnt/disks/ssd1", "/var/log", "/var/log/pods", "/etc/localtime",
        "/etc/default/app", "/etc/ssl/certs", "/run/xtables.lock", "/var/run/xtables.lock",
        "/var/lib/kubelet/device-plugins",
        "/var/lib/kubelet/plugins", "/var/lib/kubelet/plugins_registry/x.sock", "/dev/shm",
        "/sys/fs/bpf", "/etcd", "/usr/share/zoneinfo", "/var/lib/calico", "/varlib", "",
        "/var/running", "/runner",
    ],
)  # fmt: skip
def test_other_files_do_not(path: str) -> None:
    assert of(mounting(path)) is None


def test_only_what_a_container_mounts_counts() -> None:
    spec = mounting("/var/lib", subPath="app")
    assert of(spec) is None
    assert of(mounting("/var/lib", subPath="kubelet/pki")) is Escape.HOST_FILES
    assert of(mounting("/var/lib/app", subPath="../kubelet")) is Escape.HOST_FILES
    assert of(mounting("/var/lib", subPathExpr="$(X)")) is Escape.HOST_FILES
    spec["containers"][0]["volumeMounts"] = []
    assert of(spec) is None
    spec["containers"][0]["volumeMounts"] = [{"name": "other", "mountPath": "/x"}]
    assert of(spec) is None


def test_only_containers_that_go_on_running_count() -> None:
    assert of(mounting("/", "ephemeralContainers")) is Escape.HOST_FILES
    spec = mounting("/", "initContainers")
    assert of(spec) is None
    spec["initContainers"][0]["restartPolicy"] = "Always"
    assert of(spec) is Escape.HOST_FILES
    assert of(secured("initContainers", privileged=True)) is None
    sidecar = secured("initContainers", {"restartPolicy": "Always"}, privileged=True)
    assert of(sidecar) is Escape.PRIVILEGED


def test_a_process_of_a_windows_host_is_in_no_container() -> None:
    options = {"windowsOptions": {"hostProcess": True}}
    assert of(secured(windowsOptions={"hostProcess": True})) is Escape.PRIVILEGED
    assert of({**secured(), "securityContext": options}) is Escape.PRIVILEGED
    assert of(secured(windowsOptions={"hostProcess": False})) is None
    assert of({**secured(), "securityContext": {"windowsOptions": {}}}) is None


@pytest.mark.parametrize(
    "name", ["SYS_ADMIN", "CAP_SYS_ADMIN", "sys_admin", "SYS_MODULE", "ALL", "DAC_READ_SEARCH"]
)
def test_capabilities_reach_the_node_but_from_users_of_its_own(name: str) -> None:
    spec = secured(capabilities={"add": ["NET_ADMIN", name]})
    assert of(spec) is Escape.CAPABILITY
    assert of({**spec, "hostUsers": True}) is Escape.CAPABILITY
    assert of({**spec, "hostUsers": False}) is None


def test_other_capabilities_do_not() -> None:
    spec = secured(capabilities={"add": ["NET_ADMIN", "NET_RAW", "SYS_PTRACE"]})
    assert of(spec) is None
    assert of({**spec, "hostPID": True}) is Escape.CAPABILITY
    assert of(secured(capabilities={"drop": ["ALL"]})) is None
    assert of({**secured(), "hostPID": True}) is None


def test_the_easiest_way_is_told() -> None:
    spec = mounting("/")
    spec["containers"][0]["securityContext"] = {"capabilities": {"add": ["SYS_ADMIN"]}}
    assert of(spec) is Escape.CAPABILITY
    spec["containers"][0]["securityContext"]["privileged"] = True
    assert of(spec) is Escape.PRIVILEGED
