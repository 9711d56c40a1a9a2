"""apps/v1 DaemonSets, and the fields of their pods that tell what credentials these hold."""

import msgspec

from noderestrict.api.metav1 import ObjectMeta


class HostPath(msgspec.Struct):
    """A path of the node."""

    path: str | None = None


class HostVolume(msgspec.Struct):
    """A volume, of which only hostPath matters."""

    hostPath: HostPath | None = None


class PlainVariable(msgspec.Struct):
    """A variable of a container with its value."""

    name: str | None = None
    value: str | None = None


class Command(msgspec.Struct):
    """A container's command line and variables."""

    command: list[str] | None = None
    args: list[str] | None = None
    env: list[PlainVariable] | None = None


class HostedPodSpec(msgspec.Struct):
    """Where a pod runs, as which service account, and what of its node it sees."""

    nodeName: str | None = None
    serviceAccountName: str | None = None
    serviceAccount: str | None = None
    volumes: list[HostVolume] | None = None
    initContainers: list[Command] | None = None
    containers: list[Command] | None = None


class HostedPod(msgspec.Struct):
    """A Pod, read for that."""

    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None
    spec: HostedPodSpec | None = None


class PodTemplateSpec(msgspec.Struct):
    """What pods are made from."""

    spec: HostedPodSpec | None = None


class DaemonSetSpec(msgspec.Struct):
    """The pods that every node gets."""

    template: PodTemplateSpec | None = None


class DaemonSetStatus(msgspec.Struct):
    """How many nodes it is for."""

    desiredNumberScheduled: int | None = None


class DaemonSet(msgspec.Struct):
    """A DaemonSet."""

    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None
    spec: DaemonSetSpec | None = None
    status: DaemonSetStatus | None = None
