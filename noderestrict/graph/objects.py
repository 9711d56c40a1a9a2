"""The resources that make edges, with their Structs."""

import msgspec

from noderestrict.api import certificatesv1, corev1, resourcev1, storagev1

#: plural: (kind, Struct)
RESOURCES: dict[str, tuple[str, type[msgspec.Struct]]] = {
    "pods": ("Pod", corev1.Pod),
    "persistentvolumes": ("PersistentVolume", corev1.PersistentVolume),
    "volumeattachments": ("VolumeAttachment", storagev1.VolumeAttachment),
    "resourceslices": ("ResourceSlice", resourcev1.ResourceSlice),
    "podcertificaterequests": ("PodCertificateRequest", certificatesv1.PodCertificateRequest),
}
PLURALS = {kind: plural for plural, (kind, _) in RESOURCES.items()}
