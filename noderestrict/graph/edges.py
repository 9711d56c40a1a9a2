"""The edges of the graph: which objects an object refers to.

The sources are graph.go of the Node authorizer, and VisitPodSecretNames, VisitPodConfigmapNames
and VisitPVSecretNames of Kubernetes.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any

from noderestrict.api import corev1, resourcev1
from noderestrict.policy.records import MIRROR_POD_ANNOTATION

#: An ObjectKey as a plain tuple. There are millions, and the garbage collector skips only plain
#: tuples of strings.
Vertex = tuple[str, str, str]

# The sources that name a Secret. A volume with several is invalid, and the first one counts.
_POD_SOURCES = (
    "azureFile", "cephfs", "cinder", "flexVolume", "projected", "rbd", "secret", "scaleIO",
    "iscsi", "storageos", "csi",
)  # fmt: skip
_VOLUME_SOURCES = (
    "azureFile", "cephfs", "cinder", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos", "csi",
)  # fmt: skip
# Secrets of these sources are in the claim's namespace unless they name another.
_DEFAULT_TO_CLAIM = ("cephfs", "flexVolume", "rbd", "scaleIO", "iscsi")
_CSI_SECRETS = ("nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef")


def pod_edges(pod: corev1.Pod) -> set[Vertex]:
    """Return everything that a bound pod lets its node reach, including the pod."""
    return set(each_pod_edge(pod))


def each_pod_edge(pod: corev1.Pod) -> Iterator[Vertex]:
    """Yield everything that a bound pod lets its node reach, pod and account first; some twice."""
    meta, spec = pod.metadata, pod.spec
    if meta is None or spec is None:
        return
    namespace, name = meta.namespace or "", meta.name or ""
    yield "pods", namespace, name
    if MIRROR_POD_ANNOTATION in (meta.annotations or {}):
        return
    if spec.serviceAccountName:
        yield "serviceaccounts", namespace, spec.serviceAccountName
    # Lazily, so that callers can stop early.
    names = chain(
        _container_names(spec), chain.from_iterable(map(_volume_names, spec.volumes or ()))
    )
    for plural, title in names:
        if title:
            yield plural, namespace, title
    for volume in spec.volumes or ():
        claim = None
        if volume.persistentVolumeClaim is not None:
            claim = volume.persistentVolumeClaim.claimName
        elif volume.ephemeral is not None:
            claim = f"{name}-{volume.name}"
        if claim:
            yield "persistentvolumeclaims", namespace, claim
    for claim in _resource_claims(pod):
        yield "resourceclaims", namespace, claim


def _container_names(spec: corev1.PodSpec) -> Iterator[tuple[str, str | None]]:
    for secret in spec.imagePullSecrets or ():
        yield "secrets", secret.name
    for container in chain(
        spec.initContainers or (), spec.containers or (), spec.ephemeralContainers or ()
    ):
        for everything in container.envFrom or ():
            if everything.secretRef is not None:
                yield "secrets", everything.secretRef.name
            if everything.configMapRef is not None:
                yield "configmaps", everything.configMapRef.name
        for variable in container.env or ():
            if variable.valueFrom is None:
                continue
            if variable.valueFrom.secretKeyRef is not None:
                yield "secrets", variable.valueFrom.secretKeyRef.name
            if variable.valueFrom.configMapKeyRef is not None:
                yield "configmaps", variable.valueFrom.configMapKeyRef.name


def _volume_names(volume: corev1.Volume) -> Iterator[tuple[str, str | None]]:
    field = next((field for field in _POD_SOURCES if getattr(volume, field) is not None), None)
    match field:
        case None | "projected":
            pass
        case "azureFile" | "secret":
            yield "secrets", getattr(volume, field).secretName
        case "csi":
            secret = volume.csi.nodePublishSecretRef if volume.csi else None
            yield "secrets", secret.name if secret else None
        case _:
            secret_ref = getattr(volume, field).secretRef
            yield "secrets", secret_ref.name if secret_ref else None
    if volume.projected is not None:
        for source in volume.projected.sources or ():
            if source.secret is not None and field == "projected":
                yield "secrets", source.secret.name
            if source.configMap is not None:
                yield "configmaps", source.configMap.name
    elif volume.configMap is not None:
        yield "configmaps", volume.configMap.name


def _resource_claims(pod: corev1.Pod) -> Iterator[str]:
    status = pod.status or corev1.PodStatus()
    made: dict[str | None, str | None] = {}
    for entry in status.resourceClaimStatuses or ():
        made.setdefault(entry.name, entry.resourceClaimName)
    for claim in (pod.spec.resourceClaims if pod.spec else None) or ():
        source = claim.source or claim
        if source.resourceClaimName is not None:
            name: str | None = source.resourceClaimName
        elif source.resourceClaimTemplateName is not None:
            name = made.get(claim.name)
        else:
            name = None
        if name:
            yield name
    extended = status.extendedResourceClaimStatus
    if extended is not None and extended.resourceClaimName:
        yield extended.resourceClaimName


def named_node(value: Any) -> str:
    """Return the node that a VolumeAttachment, ResourceSlice or PodCertificateRequest names."""
    if isinstance(value, resourcev1.ResourceSlice):
        return value.node_name or ""
    return (value.spec.nodeName if value.spec else None) or ""


def volume_edges(volume: corev1.PersistentVolume) -> tuple[Vertex | None, frozenset[Vertex]]:
    """Return the claim of a PersistentVolume, and what nodes reach through it, itself first."""
    meta, spec = volume.metadata, volume.spec
    if meta is None or spec is None or spec.claimRef is None:
        return None, frozenset()
    namespace = spec.claimRef.namespace or ""
    claim = ("persistentvolumeclaims", namespace, spec.claimRef.name or "")
    secrets = (("secrets", where, name) for where, name in _volume_secrets(spec, namespace) if name)
    return claim, frozenset((("persistentvolumes", "", meta.name or ""), *secrets))


def _volume_secrets(spec: corev1.PersistentVolumeSpec, claim: str) -> Iterator[tuple[str, str]]:
    field = next((field for field in _VOLUME_SOURCES if getattr(spec, field) is not None), None)
    if spec.azureFile is not None:
        yield spec.azureFile.secretNamespace or claim, spec.azureFile.secretName or ""
    elif field == "csi":
        for name in _CSI_SECRETS:
            secret: corev1.SecretReference | None = getattr(spec.csi, name)
            if secret is not None:
                yield secret.namespace or "", secret.name or ""
    elif field is not None:
        source: corev1.SecretRefSource = getattr(spec, field)
        if source.secretRef is not None:
            default = claim if field in _DEFAULT_TO_CLAIM else ""
            yield source.secretRef.namespace or default, source.secretRef.name or ""
