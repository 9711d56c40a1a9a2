"""The parts of objects that rules look up, as small records: a store may hold 150,000 pods."""

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, ClassVar

import msgspec

from noderestrict.api import corev1, storagev1
from noderestrict.api.metav1 import ObjectMeta

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
    """What rules read of a Node; ``addresses`` are IP addresses and host names."""

    resource: ClassVar[str] = "nodes"

    name: str
    uid: str = ""
    addresses: tuple[str, ...] = ()


class PodRecord(msgspec.Struct, frozen=True, gc=False):
    """What rules read of a Pod.

    Attributes:
        namespace: of the pod.
        name: of the pod.
        uid: of the pod.
        node_name: ``spec.nodeName``, "" while unbound.
        service_account_name: ``spec.serviceAccountName``.
        mirror: whether it has the mirror annotation.
        audiences: of its projected serviceAccountToken sources.
        csi_drivers: of its inline volumes.
        migrated_drivers: likewise, those that replace in-tree sources.
        signers: of its projected podCertificate sources.
        claims: names of its claims; of ephemeral ones ``<pod>-<volume>``.
    """

    resource: ClassVar[str] = "pods"

    namespace: str
    name: str
    uid: str = ""
    node_name: str = ""
    service_account_name: str = ""
    mirror: bool = False
    audiences: tuple[str, ...] = ()
    csi_drivers: tuple[str, ...] = ()
    migrated_drivers: tuple[str, ...] = ()
    signers: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()


class ServiceAccountRecord(msgspec.Struct, frozen=True, gc=False):
    """What rules read of a ServiceAccount."""

    resource: ClassVar[str] = "serviceaccounts"

    namespace: str
    name: str
    uid: str = ""


class ClaimRecord(msgspec.Struct, frozen=True, gc=False):
    """What rules read of a PersistentVolumeClaim."""

    resource: ClassVar[str] = "persistentvolumeclaims"

    namespace: str
    name: str
    volume_name: str = ""


class VolumeRecord(msgspec.Struct, frozen=True, gc=False):
    """What rules read of a PersistentVolume.

    Attributes:
        name: of the volume.
        csi_driver: that serves it, or "".
        migrated: whether that driver replaces an in-tree source.
    """

    resource: ClassVar[str] = "persistentvolumes"

    name: str
    csi_driver: str = ""
    migrated: bool = False


class CSIDriverRecord(msgspec.Struct, frozen=True, gc=False):
    """What rules read of a CSIDriver: the audiences of its token requests."""

    resource: ClassVar[str] = "csidrivers"

    name: str
    audiences: tuple[str, ...] = ()


Record = (
    NodeRecord | PodRecord | ServiceAccountRecord | ClaimRecord | VolumeRecord | CSIDriverRecord
)


def node_record(node: corev1.ReportedNode) -> NodeRecord:
    """Reduce a Node to what rules look up."""
    meta = node.metadata or _NO_METADATA
    addresses = (node.status.addresses if node.status else None) or ()
    return NodeRecord(
        meta.name or "", meta.uid or "", tuple(one.address for one in addresses if one.address)
    )


def pod_record(pod: corev1.Pod) -> PodRecord:
    """Reduce a Pod to what rules look up.

    The order of the sources of one volume is that of podReferencesAudience in the in-tree plugin:
    ephemeral, claim, csi, migrated in-tree sources. Projected sources always count.
    """
    meta = pod.metadata or _NO_METADATA
    spec = pod.spec or corev1.PodSpec()
    audiences: list[str] = []
    drivers: list[str] = []
    migrated: list[str] = []
    signers: list[str] = []
    claims: list[str] = []
    for volume in spec.volumes or ():
        if volume.projected is not None:
            audiences.extend(
                source.serviceAccountToken.audience or ""
                for source in volume.projected.sources or ()
                if source.serviceAccountToken is not None
            )
            signers.extend(
                source.podCertificate.signerName or ""
                for source in volume.projected.sources or ()
                if source.podCertificate is not None
            )
        if volume.ephemeral is not None and volume.ephemeral.volumeClaimTemplate is not None:
            claims.append(f"{meta.name}-{volume.name}")
        elif volume.persistentVolumeClaim is not None:
            claims.append(volume.persistentVolumeClaim.claimName or "")
        elif volume.csi is not None:
            drivers.append(volume.csi.driver or "")
        else:
            migrated.append(_migrated_driver(volume))
    return PodRecord(
        namespace=meta.namespace or "",
        name=meta.name or "",
        uid=meta.uid or "",
        node_name=spec.nodeName or "",
        service_account_name=spec.serviceAccountName or spec.serviceAccount or "",
        mirror=MIRROR_POD_ANNOTATION in (meta.annotations or {}),
        audiences=tuple(audiences),
        csi_drivers=tuple(filter(None, drivers)),
        migrated_drivers=tuple(filter(None, migrated)),
        signers=tuple(signers),
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
    if volume.spec is None:
        return VolumeRecord(meta.name or "")
    csi = volume.spec.csi
    if csi is not None:
        return VolumeRecord(meta.name or "", csi.driver or "")
    driver = _migrated_driver(volume.spec)
    return VolumeRecord(meta.name or "", driver, migrated=bool(driver))


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


#: Functions that reduce an object to its record, by the plural of each resource that rules look up.
RECORDS: Mapping[str, Callable[[Any], Record]] = {
    "nodes": node_record,
    "pods": pod_record,
    "serviceaccounts": service_account_record,
    "persistentvolumeclaims": claim_record,
    "persistentvolumes": volume_record,
    "csidrivers": csi_driver_record,
}
