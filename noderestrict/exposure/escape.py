"""What lets whoever is inside a pod's containers take its node.

Source: the baseline level of the Pod Security Standards of Kubernetes, as far as what it refuses
gives a node.
"""

from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum
from itertools import chain
from posixpath import join, normpath
from typing import NamedTuple

from noderestrict.api import corev1

#: Capabilities that reach beyond a container; without users of its own.
_CAPABILITIES = frozenset(("ALL", "SYS_ADMIN", "SYS_MODULE", "SYS_RAWIO", "DAC_READ_SEARCH"))
#: It reaches processes of the node, once they are seen.
_TRACING = "SYS_PTRACE"
#: Credentials of the node, and sockets whose owner does anything for whoever connects. To mount
#: them for reading keeps nobody from either.
_CREDENTIALS = (
    "/etc/kubernetes", "/var/lib/kubelet/pki", "/var/lib/kubelet/pods", "/var/lib/etcd",
    "/var/lib/rancher", "/var/lib/k0s", "/run/containerd/containerd.sock",
    "/run/k3s/containerd/containerd.sock", "/run/crio/crio.sock", "/run/cri-dockerd.sock",
    "/run/docker.sock", "/run/podman/podman.sock", "/run/dbus/system_bus_socket",
    "/run/systemd/private",
)  # fmt: skip
#: What the node runs, and what tells it to.
_PROGRAMS = (
    "/bin", "/sbin", "/lib", "/lib64", "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64",
    "/usr/libexec", "/usr/local", "/opt/bin", "/opt/cni", "/boot", "/root", "/etc/cni",
    "/etc/containerd", "/etc/cron.d", "/etc/cron.daily", "/etc/cron.hourly", "/etc/crio",
    "/etc/crontab", "/etc/default/kubelet", "/etc/docker", "/etc/init.d", "/etc/ld.so.conf.d",
    "/etc/ld.so.preload", "/etc/pam.d", "/etc/passwd", "/etc/profile.d", "/etc/shadow", "/etc/ssh",
    "/etc/sudoers", "/etc/sudoers.d", "/etc/sysconfig/kubelet", "/etc/systemd", "/etc/udev",
    "/var/spool/cron", "/var/lib/containerd", "/var/lib/containers", "/var/lib/cni",
    "/var/lib/docker", "/run/systemd/system", "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe", "/sys/kernel/uevent_helper",
)  # fmt: skip


class Escape(IntEnum):
    """How, the easiest way first."""

    PRIVILEGED = 0
    CAPABILITY = 1
    HOST_FILES = 2


class HostMount(NamedTuple):
    """Files of the node in a container.

    Attributes:
        path: on the node.
        read_only: whether the container cannot write there.
    """

    path: str
    read_only: bool

    @property
    def takes_node(self) -> bool:
        """Whether they are enough to take the node."""
        return _meets(self.path, _CREDENTIALS) or (
            not self.read_only and _meets(self.path, _PROGRAMS)
        )


class ClaimMount(NamedTuple):
    """A volume of a claim in a container.

    Attributes:
        claim: its name.
        sub_path: of the volume that the container has, "" for all of it.
        read_only: whether the container cannot write there.
    """

    claim: str
    sub_path: str
    read_only: bool

    def at(self, path: str) -> HostMount:
        """Return what the container has, if the volume is a path of the node."""
        return HostMount(_under(path, self.sub_path), self.read_only)


def escape(spec: corev1.RunningPodSpec) -> Escape | None:
    """Return how one gets out of a pod's containers, None if the pod itself shows no way."""
    containers = list(_running(spec))
    if _is_of_host(spec.securityContext) or any(map(_is_privileged, containers)):
        return Escape.PRIVILEGED
    if spec.hostUsers is not False and any(
        _is_capable(one, sees_all=spec.hostPID is True) for one in containers
    ):
        return Escape.CAPABILITY
    if any(mount.takes_node for mount in _host_mounts(spec)):
        return Escape.HOST_FILES
    return None


def claim_mounts(name: str, spec: corev1.RunningPodSpec) -> tuple[ClaimMount, ...]:
    """Return the volumes of claims that the containers of a pod have.

    Args:
        name: of the pod, after which claims of ephemeral volumes are named.
        spec: of the pod.
    """
    claims = _claims(name, spec)
    return tuple(
        ClaimMount(claim, path, read_only) for claim, path, read_only in _mounted(spec, claims)
    )


def claim_disks(name: str, spec: corev1.RunningPodSpec) -> frozenset[str]:
    """Return the claims whose volumes the containers of a pod have as raw disks.

    Args:
        name: of the pod, after which claims of ephemeral volumes are named.
        spec: of the pod.
    """
    used = {
        device.name or ""
        for container in _running(spec)
        for device in container.volumeDevices or ()
    }
    return frozenset(claim for volume, claim in _claims(name, spec).items() if volume in used)


def _claims(name: str, spec: corev1.RunningPodSpec) -> dict[str, str]:
    """Return the claim of each volume that has one."""
    claims = {}
    for volume in spec.volumes or ():
        if volume.persistentVolumeClaim is not None:
            claims[volume.name or ""] = volume.persistentVolumeClaim.claimName or ""
        elif volume.ephemeral is not None:
            claims[volume.name or ""] = f"{name}-{volume.name}"
    return claims


def _host_mounts(spec: corev1.RunningPodSpec) -> Iterator[HostMount]:
    paths = {
        volume.name: volume.hostPath.path or ""
        for volume in spec.volumes or ()
        if volume.hostPath is not None
    }
    for path, sub_path, read_only in _mounted(spec, paths):
        yield HostMount(_under(path, sub_path), read_only)


def _mounted(
    spec: corev1.RunningPodSpec, volumes: Mapping[str, str]
) -> Iterator[tuple[str, str, bool]]:
    """Yield what containers mount of some volumes: value, path in the volume, read only."""
    if not volumes:
        return
    for container in _running(spec):
        for mount in container.volumeMounts or ():
            value = volumes.get(mount.name or "")
            if value:
                # What variables make of a path is not known: it may be anything.
                yield value, mount.subPath or "", mount.readOnly is True


def _running(spec: corev1.RunningPodSpec) -> Iterable[corev1.RunningContainer]:
    sidecars = (one for one in spec.initContainers or () if one.restartPolicy == "Always")
    return chain(spec.containers or (), sidecars, spec.ephemeralContainers or ())


def _is_privileged(container: corev1.RunningContainer) -> bool:
    context = container.securityContext
    return context is not None and (context.privileged is True or _is_of_host(context))


def _is_of_host(context: corev1.SecurityContext | corev1.PodSecurityContext | None) -> bool:
    options = context.windowsOptions if context is not None else None
    return options is not None and options.hostProcess is True


def _is_capable(container: corev1.RunningContainer, *, sees_all: bool) -> bool:
    context = container.securityContext
    added = context.capabilities.add if context is not None and context.capabilities else None
    names = {one.upper().removeprefix("CAP_") for one in added or ()}
    return not names.isdisjoint(_CAPABILITIES) or (sees_all and _TRACING in names)


def _under(path: str, sub_path: str) -> str:
    """Return a path of the node in the one form in which it is known."""
    whole = normpath(f"/{join(path, sub_path)}")
    # normpath keeps two slashes.
    whole = f"/{whole.lstrip('/')}"
    return whole.removeprefix("/var") if f"{whole}/".startswith("/var/run/") else whole


def _meets(path: str, known: Iterable[str]) -> bool:
    """Return whether a path holds one that is known, or is in it."""
    return any(_is_in(one, path) or _is_in(path, one) for one in known)


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")
