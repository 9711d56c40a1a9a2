"""What a rule may look up: protocols, and the small records that answer them.

A record keeps only what rules ask for, so that a store of 150,000 pods stays small.
"""

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any, Protocol

import msgspec

from noderestrict.api import corev1, storagev1
from noderestrict.api.metav1 import ObjectMeta

#: plural resource, namespace ("" for cluster-scoped), name
Key = tuple[str, str, str]

MIRROR_POD_ANNOTATION = "kubernetes.io/config.mirror"

# In-tree volume sources and the CSI drivers that replace them: k8s.io/csi-translation-lib.
MIGRATED_DRIVERS: dict[str, str] = {
    "awsElasticBlockStore": "ebs.csi.aws.com",
    "azureDisk": "disk.csi.azure.com",
    "azureFile": "file.csi.azure.com",
    "cinder": "cinder.csi.openstack.org",
    "gcePersistentDisk": "pd.csi.storage.gke.io",
    "portworxVolume": "pxd.portworx.com",
    "vsphereVolume": "csi.vsphere.vmware.com",
}

_migrated = attrgetter(*MIGRATED_DRIVERS)
_NONE_MIGRATED = (None,) * len(MIGRATED_DRIVERS)

_NO_METADATA = ObjectMeta()


class NodeRecord(msgspec.Struct, frozen=True, gc=False):
    """What rules know of a Node; ``addresses`` are IP addresses and host names."""

    name: str
    uid: str = ""
    addresses: tuple[str, ...] = ()


class PodRecord(msgspec.Struct, frozen=True, gc=False):
    """What rules know of a Pod.

    Attributes:
        namespace: of the pod.
        name: of the pod.
        uid: of the pod.
        node_name: ``spec.nodeName``, "" while unbound.
        service_account_name: ``spec.serviceAccountName``.
        mirror: it carries the mirror annotation.
        audiences: of its projected serviceAccountToken sources.
        csi_drivers: of its inline volumes, migrated in-tree ones included.
        claims: names of its claims, ephemeral ones as ``<pod>-<volume>``.
    """

    namespace: str
    name: str
    uid: str = ""
    node_name: str = ""
    service_account_name: str = ""
    mirror: bool = False
    audiences: tuple[str, ...] = ()
    csi_drivers: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()


class ServiceAccountRecord(msgspec.Struct, frozen=True, gc=False):
    """What rules know of a ServiceAccount."""

    namespace: str
    name: str
    uid: str = ""


class ClaimRecord(msgspec.Struct, frozen=True, gc=False):
    """What rules know of a PersistentVolumeClaim."""

    namespace: str
    name: str
    volume_name: str = ""


class VolumeRecord(msgspec.Struct, frozen=True, gc=False):
    """What rules know of a PersistentVolume: the CSI driver that serves it, or ""."""

    name: str
    csi_driver: str = ""


class CSIDriverRecord(msgspec.Struct, frozen=True, gc=False):
    """What rules know of a CSIDriver: the audiences of its token requests."""

    name: str
    audiences: tuple[str, ...] = ()


Record = (
    NodeRecord | PodRecord | ServiceAccountRecord | ClaimRecord | VolumeRecord | CSIDriverRecord
)


class LookupUnavailableError(Exception):
    """A look-up could not be made: the review is answered 500, neither refused nor allowed."""


class Listers(Protocol):
    """Look-ups of cluster objects; each returns None where no such object is known.

    Every method may raise LookupUnavailableError when it cannot tell.
    """

    def node(self, name: str) -> NodeRecord | None:
        """Return the Node of this name."""

    def pod(self, namespace: str, name: str) -> PodRecord | None:
        """Return the Pod of this namespace and name."""

    def service_account(self, namespace: str, name: str) -> ServiceAccountRecord | None:
        """Return the ServiceAccount of this namespace and name."""

    def persistent_volume_claim(self, namespace: str, name: str) -> ClaimRecord | None:
        """Return the PersistentVolumeClaim of this namespace and name."""

    def persistent_volume(self, name: str) -> VolumeRecord | None:
        """Return the PersistentVolume of this name."""

    def csi_driver(self, name: str) -> CSIDriverRecord | None:
        """Return the CSIDriver of this name."""


def node_record(node: corev1.ReportedNode) -> NodeRecord:
    """Reduce a Node to what rules look up."""
    meta = node.metadata or _NO_METADATA
    addresses = (node.status.addresses if node.status else None) or ()
    return NodeRecord(
        meta.name or "", meta.uid or "", tuple(one.address for one in addresses if one.address)
    )


def pod_record(pod: corev1.Pod) -> PodRecord:
    """Reduce a Pod to what rules look up.

    The choice between the sources of one volume follows podReferencesAudience of the in-tree
    plugin: ephemeral before claim before csi before migrated in-tree sources; projected always.
    """
    meta = pod.metadata or _NO_METADATA
    spec = pod.spec or corev1.PodSpec()
    audiences: list[str] = []
    drivers: list[str] = []
    claims: list[str] = []
    for volume in spec.volumes or ():
        if volume.projected is not None:
            audiences.extend(
                source.serviceAccountToken.audience or ""
                for source in volume.projected.sources or ()
                if source.serviceAccountToken is not None
            )
        if volume.ephemeral is not None and volume.ephemeral.volumeClaimTemplate is not None:
            claims.append(f"{meta.name}-{volume.name}")
        elif volume.persistentVolumeClaim is not None:
            claims.append(volume.persistentVolumeClaim.claimName or "")
        elif volume.csi is not None:
            drivers.append(volume.csi.driver or "")
        else:
            drivers.append(_migrated_driver(volume))
    return PodRecord(
        namespace=meta.namespace or "",
        name=meta.name or "",
        uid=meta.uid or "",
        node_name=spec.nodeName or "",
        service_account_name=spec.serviceAccountName or spec.serviceAccount or "",
        mirror=MIRROR_POD_ANNOTATION in (meta.annotations or {}),
        audiences=tuple(audiences),
        csi_drivers=tuple(filter(None, drivers)),
        claims=tuple(claims),
    )


def service_account_record(account: corev1.ServiceAccount) -> ServiceAccountRecord:
    """Reduce a ServiceAccount to what rules look up."""
    meta = account.metadata or _NO_METADATA
    return ServiceAccountRecord(meta.namespace or "", meta.name or "", meta.uid or "")


def claim_record(claim: corev1.PersistentVolumeClaim) -> ClaimRecord:
    """Reduce a PersistentVolumeClaim to what rules look up."""
    meta = claim.metadata or _NO_METADATA
    volume_name = claim.spec.volumeName if claim.spec else ""
    return ClaimRecord(meta.namespace or "", meta.name or "", volume_name or "")


def volume_record(volume: corev1.PersistentVolume) -> VolumeRecord:
    """Reduce a PersistentVolume to what rules look up."""
    meta = volume.metadata or _NO_METADATA
    driver = ""
    if volume.spec is not None:
        csi = volume.spec.csi
        driver = (csi.driver or "") if csi is not None else _migrated_driver(volume.spec)
    return VolumeRecord(meta.name or "", driver)


def csi_driver_record(driver: storagev1.CSIDriver) -> CSIDriverRecord:
    """Reduce a CSIDriver to what rules look up."""
    meta = driver.metadata or _NO_METADATA
    requests = driver.spec.tokenRequests if driver.spec else None
    return CSIDriverRecord(
        meta.name or "", tuple(request.audience or "" for request in requests or ())
    )


def _migrated_driver(sources: corev1.Volume | corev1.PersistentVolumeSpec) -> str:
    if _migrated(sources) == _NONE_MIGRATED:
        return ""
    for source, driver in MIGRATED_DRIVERS.items():
        if getattr(sources, source) is not None:
            return driver
    return ""


#: For each plural resource that rules look up: the Struct to decode and its reduction.
RECORDS: dict[str, tuple[type[msgspec.Struct], Callable[[Any], Record]]] = {
    "nodes": (corev1.ReportedNode, node_record),
    "pods": (corev1.Pod, pod_record),
    "serviceaccounts": (corev1.ServiceAccount, service_account_record),
    "persistentvolumeclaims": (corev1.PersistentVolumeClaim, claim_record),
    "persistentvolumes": (corev1.PersistentVolume, volume_record),
    "csidrivers": (storagev1.CSIDriver, csi_driver_record),
}


class MemoryListers:
    """Listers over records held in dicts: for replay, tests and ``serve --state``."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._nodes: dict[str, NodeRecord] = {}
        self._pods: dict[tuple[str, str], PodRecord] = {}
        self._accounts: dict[tuple[str, str], ServiceAccountRecord] = {}
        self._claims: dict[tuple[str, str], ClaimRecord] = {}
        self._volumes: dict[str, VolumeRecord] = {}
        self._drivers: dict[str, CSIDriverRecord] = {}
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Keep a record, in place of any of the same type, namespace and name."""
        match record:
            case NodeRecord():
                self._nodes[record.name] = record
            case PodRecord():
                self._pods[record.namespace, record.name] = record
            case ServiceAccountRecord():
                self._accounts[record.namespace, record.name] = record
            case ClaimRecord():
                self._claims[record.namespace, record.name] = record
            case VolumeRecord():
                self._volumes[record.name] = record
            case CSIDriverRecord():
                self._drivers[record.name] = record

    def node(self, name: str) -> NodeRecord | None:
        """Return the Node of this name."""
        return self._nodes.get(name)

    def pod(self, namespace: str, name: str) -> PodRecord | None:
        """Return the Pod of this namespace and name."""
        return self._pods.get((namespace, name))

    def service_account(self, namespace: str, name: str) -> ServiceAccountRecord | None:
        """Return the ServiceAccount of this namespace and name."""
        return self._accounts.get((namespace, name))

    def persistent_volume_claim(self, namespace: str, name: str) -> ClaimRecord | None:
        """Return the PersistentVolumeClaim of this namespace and name."""
        return self._claims.get((namespace, name))

    def persistent_volume(self, name: str) -> VolumeRecord | None:
        """Return the PersistentVolume of this name."""
        return self._volumes.get(name)

    def csi_driver(self, name: str) -> CSIDriverRecord | None:
        """Return the CSIDriver of this name."""
        return self._drivers.get(name)
