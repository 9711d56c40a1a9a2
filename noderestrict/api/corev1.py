"""Core v1: the fields that rules, records and the graph read.

Field names are the API's own. Every field is optional and may be null, because Go writes
null for many empty fields; a value of the wrong type is a decoding error.
"""

import datetime as dt

import msgspec

from noderestrict.api.metav1 import ObjectMeta


class Presence(msgspec.Struct, gc=False):
    """An object whose fields do not matter."""


class NamedReference(msgspec.Struct, gc=False):
    """A LocalObjectReference, SecretKeySelector or other reference by name."""

    name: str | None = None


class SecretReference(msgspec.Struct, gc=False):
    """A SecretReference: a name, and a namespace that may be left to a default."""

    name: str | None = None
    namespace: str | None = None


class EnvVarSource(msgspec.Struct):
    """The source of a variable's value."""

    configMapKeyRef: NamedReference | None = None
    secretKeyRef: NamedReference | None = None


class EnvVar(msgspec.Struct):
    """One variable of a container."""

    valueFrom: EnvVarSource | None = None


class EnvFromSource(msgspec.Struct):
    """All entries of a Secret or ConfigMap as variables."""

    configMapRef: NamedReference | None = None
    secretRef: NamedReference | None = None


class Container(msgspec.Struct):
    """A container, of any of the three kinds."""

    name: str | None = None
    env: list[EnvVar] | None = None
    envFrom: list[EnvFromSource] | None = None


class SecretNameSource(msgspec.Struct):
    """A source that names a Secret as ``secretName``: secret and azureFile volumes."""

    secretName: str | None = None
    secretNamespace: str | None = None


class SecretRefSource(msgspec.Struct):
    """A source with a ``secretRef``: cephfs, cinder, flexVolume, iscsi, rbd, scaleIO, storageos."""

    secretRef: SecretReference | None = None


class ClaimSource(msgspec.Struct):
    """A persistentVolumeClaim volume."""

    claimName: str | None = None


class EphemeralSource(msgspec.Struct):
    """An ephemeral volume."""

    volumeClaimTemplate: Presence | None = None


class CSISource(msgspec.Struct):
    """A csi volume of a pod."""

    driver: str | None = None
    nodePublishSecretRef: NamedReference | None = None


class ServiceAccountTokenProjection(msgspec.Struct):
    """A projected token."""

    audience: str | None = None


class PodCertificateProjection(msgspec.Struct):
    """A projected certificate of the pod."""

    signerName: str | None = None


class VolumeProjection(msgspec.Struct):
    """One source of a projected volume."""

    clusterTrustBundle: Presence | None = None
    configMap: NamedReference | None = None
    downwardAPI: Presence | None = None
    podCertificate: PodCertificateProjection | None = None
    secret: NamedReference | None = None
    serviceAccountToken: ServiceAccountTokenProjection | None = None


class ProjectedSource(msgspec.Struct):
    """A projected volume."""

    sources: list[VolumeProjection] | None = None


class Volume(msgspec.Struct):
    """A volume of a pod; exactly one source is set on a valid one."""

    name: str = ""
    awsElasticBlockStore: Presence | None = None
    azureDisk: Presence | None = None
    azureFile: SecretNameSource | None = None
    cephfs: SecretRefSource | None = None
    cinder: SecretRefSource | None = None
    configMap: NamedReference | None = None
    csi: CSISource | None = None
    downwardAPI: Presence | None = None
    emptyDir: Presence | None = None
    ephemeral: EphemeralSource | None = None
    fc: Presence | None = None
    flexVolume: SecretRefSource | None = None
    flocker: Presence | None = None
    gcePersistentDisk: Presence | None = None
    gitRepo: Presence | None = None
    glusterfs: Presence | None = None
    hostPath: Presence | None = None
    image: Presence | None = None
    iscsi: SecretRefSource | None = None
    nfs: Presence | None = None
    persistentVolumeClaim: ClaimSource | None = None
    photonPersistentDisk: Presence | None = None
    portworxVolume: Presence | None = None
    projected: ProjectedSource | None = None
    quobyte: Presence | None = None
    rbd: SecretRefSource | None = None
    scaleIO: SecretRefSource | None = None
    secret: SecretNameSource | None = None
    storageos: SecretRefSource | None = None
    vsphereVolume: Presence | None = None


class DeviceClaimSource(msgspec.Struct):
    """Up to Kubernetes 1.30, what is named in an entry of ``spec.resourceClaims`` itself now."""

    resourceClaimName: str | None = None
    resourceClaimTemplateName: str | None = None


class PodResourceClaim(msgspec.Struct):
    """One entry of ``spec.resourceClaims``."""

    name: str | None = None
    resourceClaimName: str | None = None
    resourceClaimTemplateName: str | None = None
    source: DeviceClaimSource | None = None


class PodSpec(msgspec.Struct):
    """A pod's specification: its references to other objects."""

    nodeName: str | None = None
    serviceAccountName: str | None = None
    serviceAccount: str | None = None
    imagePullSecrets: list[NamedReference] | None = None
    initContainers: list[Container] | None = None
    containers: list[Container] | None = None
    ephemeralContainers: list[Container] | None = None
    resourceClaims: list[PodResourceClaim] | None = None
    volumes: list[Volume] | None = None


class PodResourceClaimStatus(msgspec.Struct, frozen=True):
    """One entry of ``status.resourceClaimStatuses``; a null claim name differs from ""."""

    name: str | None = None
    resourceClaimName: str | None = None


class RequestMapping(msgspec.Struct, frozen=True):
    """One entry of ``status.extendedResourceClaimStatus.requestMappings``."""

    containerName: str | None = None
    resourceName: str | None = None
    requestName: str | None = None


class PodExtendedResourceClaimStatus(msgspec.Struct, frozen=True):
    """``status.extendedResourceClaimStatus``."""

    resourceClaimName: str | None = None
    requestMappings: list[RequestMapping] | None = None


class MappedResource(msgspec.Struct, frozen=True):
    """One entry of a ``mapping``; the quantity is a text."""

    name: str | None = None
    quantity: str | None = None


class OverheadResource(msgspec.Struct, frozen=True):
    """One entry of an ``overhead``; quantities are texts."""

    name: str | None = None
    perPod: str | None = None
    perContainer: str | None = None


class NodeAllocatableResourceClaimStatus(msgspec.Struct, frozen=True):
    """One entry of ``status.nodeAllocatableResourceClaimStatuses``."""

    resourceClaimName: str | None = None
    containers: list[str | None] | None = None
    mapping: list[MappedResource] | None = None
    overhead: list[OverheadResource] | None = None


class PodStatus(msgspec.Struct):
    """A pod's status: its resource claims."""

    resourceClaimStatuses: list[PodResourceClaimStatus] | None = None
    extendedResourceClaimStatus: PodExtendedResourceClaimStatus | None = None
    nodeAllocatableResourceClaimStatuses: list[NodeAllocatableResourceClaimStatus] | None = None


class Pod(msgspec.Struct):
    """A Pod."""

    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None
    spec: PodSpec | None = None
    status: PodStatus | None = None


class PodStatusObject(msgspec.Struct):
    """A Pod as updates of its status need it, without containers and volumes."""

    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None
    spec: "PodBinding | None" = None
    status: PodStatus | None = None


class PodBinding(msgspec.Struct, gc=False):
    """The one field of a pod's specification that its status rules need."""

    nodeName: str | None = None


class Taint(msgspec.Struct, frozen=True, gc=False):
    """An entry of ``spec.taints``."""

    key: str | None = None
    value: str | None = None
    effect: str | None = None
    timeAdded: dt.datetime | None = None


class ConfigMapNodeConfigSource(msgspec.Struct, frozen=True, gc=False):
    """``spec.configSource.configMap`` of a Node."""

    namespace: str | None = None
    name: str | None = None
    uid: str | None = None
    resourceVersion: str | None = None
    kubeletConfigKey: str | None = None


class NodeConfigSource(msgspec.Struct, frozen=True):
    """``spec.configSource`` of a Node."""

    configMap: ConfigMapNodeConfigSource | None = None


class NodeSpec(msgspec.Struct):
    """The fields of a Node's specification that rules guard."""

    configSource: NodeConfigSource | None = None
    taints: list[Taint] | None = None
    unschedulable: bool | None = None
    podCIDR: str | None = None
    podCIDRs: list[str] | None = None
    providerID: str | None = None


class Node(msgspec.Struct):
    """A Node."""

    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None
    spec: NodeSpec | None = None


class NodeAddress(msgspec.Struct, gc=False):
    """One entry of ``status.addresses``."""

    address: str | None = None


class NodeStatus(msgspec.Struct):
    """A Node's status: its addresses."""

    addresses: list[NodeAddress] | None = None


class ReportedNode(msgspec.Struct):
    """A Node as lookups need it, with its status."""

    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None
    status: NodeStatus | None = None


class ServiceAccount(msgspec.Struct):
    """A ServiceAccount."""

    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None


class PersistentVolumeClaimSpec(msgspec.Struct, gc=False):
    """The volume that a claim is bound to."""

    volumeName: str | None = None


class PersistentVolumeClaim(msgspec.Struct):
    """A PersistentVolumeClaim, for lookups."""

    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None
    spec: PersistentVolumeClaimSpec | None = None


class CSIPersistentVolumeSource(msgspec.Struct):
    """The csi source of a PersistentVolume."""

    driver: str | None = None
    controllerExpandSecretRef: SecretReference | None = None
    controllerPublishSecretRef: SecretReference | None = None
    nodeExpandSecretRef: SecretReference | None = None
    nodePublishSecretRef: SecretReference | None = None
    nodeStageSecretRef: SecretReference | None = None


class ObjectReference(msgspec.Struct, gc=False):
    """A reference to an object, such as ``spec.claimRef``."""

    kind: str | None = None
    namespace: str | None = None
    name: str | None = None


class PersistentVolumeSpec(msgspec.Struct):
    """The source of a PersistentVolume and its claim."""

    claimRef: ObjectReference | None = None
    awsElasticBlockStore: Presence | None = None
    azureDisk: Presence | None = None
    azureFile: SecretNameSource | None = None
    cephfs: SecretRefSource | None = None
    cinder: SecretRefSource | None = None
    csi: CSIPersistentVolumeSource | None = None
    flexVolume: SecretRefSource | None = None
    gcePersistentDisk: Presence | None = None
    iscsi: SecretRefSource | None = None
    portworxVolume: Presence | None = None
    rbd: SecretRefSource | None = None
    scaleIO: SecretRefSource | None = None
    storageos: SecretRefSource | None = None
    vsphereVolume: Presence | None = None


class PersistentVolume(msgspec.Struct):
    """A PersistentVolume."""

    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None
    spec: PersistentVolumeSpec | None = None


class Event(msgspec.Struct):
    """An Event: the object it is about, as named in v1 and in events.k8s.io/v1."""

    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None
    involvedObject: ObjectReference | None = None
    regarding: ObjectReference | None = None


class Capabilities(msgspec.Struct):
    """What a container may do besides, or may not do."""

    add: list[str] | None = None


class WindowsOptions(msgspec.Struct, gc=False):
    """Whether a container of Windows is none, but a process of its node."""

    hostProcess: bool | None = None


class SecurityContext(msgspec.Struct):
    """Whether a container is all but outside of its container."""

    privileged: bool | None = None
    capabilities: Capabilities | None = None
    windowsOptions: WindowsOptions | None = None


class PodSecurityContext(msgspec.Struct):
    """The same of all containers of a pod."""

    windowsOptions: WindowsOptions | None = None


class VolumeMount(msgspec.Struct, gc=False):
    """Where a container has a volume."""

    name: str | None = None
    readOnly: bool | None = None
    subPath: str | None = None
    subPathExpr: str | None = None


class VolumeDevice(msgspec.Struct, gc=False):
    """A volume that a container has as a raw disk."""

    name: str | None = None


class RunningContainer(Container):
    """A container with its command line, and what it has of its node."""

    command: list[str] | None = None
    args: list[str] | None = None
    restartPolicy: str | None = None
    securityContext: SecurityContext | None = None
    volumeMounts: list[VolumeMount] | None = None
    volumeDevices: list[VolumeDevice] | None = None


class HostPathSource(msgspec.Struct, gc=False):
    """A hostPath or local volume: files of the node."""

    path: str | None = None


class RunningVolume(Volume):
    """A volume of a pod, with what it has of the node."""

    hostPath: HostPathSource | None = None  # type: ignore[assignment]


class RunningPodSpec(PodSpec):
    """A pod's specification, with what it runs and whether it has a token."""

    initContainers: list[RunningContainer] | None = None  # type: ignore[assignment]
    containers: list[RunningContainer] | None = None  # type: ignore[assignment]
    ephemeralContainers: list[RunningContainer] | None = None  # type: ignore[assignment]
    volumes: list[RunningVolume] | None = None  # type: ignore[assignment]
    automountServiceAccountToken: bool | None = None
    hostPID: bool | None = None
    hostUsers: bool | None = None
    securityContext: PodSecurityContext | None = None


class RunningPod(Pod):
    """A Pod, with what whoever takes it over gets."""

    spec: RunningPodSpec | None = None


class HostVolumeSpec(PersistentVolumeSpec):
    """A PersistentVolume's source and claim, with what it has of a node."""

    hostPath: HostPathSource | None = None
    local: HostPathSource | None = None
    volumeMode: str | None = None


class HostVolume(PersistentVolume):
    """A PersistentVolume, with what it has of a node."""

    spec: HostVolumeSpec | None = None


class HoldingAccount(ServiceAccount):
    """A ServiceAccount, with the Secrets that hold its tokens."""

    secrets: list[NamedReference] | None = None
    automountServiceAccountToken: bool | None = None


class SecretType(msgspec.Struct):
    """A Secret without its data."""

    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None
    type: str | None = None
