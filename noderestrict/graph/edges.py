"""What an object leads to.

The sources are graph.go of the Node authorizer, and VisitPodSecretNames, VisitPodConfigmapNames
and VisitPVSecretNames of Kubernetes.
"""

from collections.abc import Iterator

from noderestrict.api import corev1
from noderestrict.policy.listers import MIRROR_POD_ANNOTATION
from noderestrict.policy.references import references

#: plural resource, namespace ("" for cluster-scoped), name
Vertex = tuple[str, str, str]

_PLURALS = {"Secret": "secrets", "ConfigMap": "configmaps"}
# Secrets of these sources are looked for in the claim's namespace unless they name another.
_DEFAULT_TO_CLAIM = ("cephfs", "flexVolume", "rbd", "scaleIO", "iscsi")
_EXPLICIT_NAMESPACE = ("cinder", "storageos")
_CSI_SECRETS = ("nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef")


def pod_edges(pod: corev1.Pod) -> set[Vertex]:
    """Return all that a bound pod lets its node reach, itself included."""
    meta, spec = pod.metadata, pod.spec
    if meta is None or spec is None:
        return set()
    namespace, name = meta.namespace or "", meta.name or ""
    edges = {("pods", namespace, name)}
    if MIRROR_POD_ANNOTATION in (meta.annotations or {}):
        return edges
    if spec.serviceAccountName:
        edges.add(("serviceaccounts", namespace, spec.serviceAccountName))
    for reference in references(spec):
        plural = _PLURALS.get(reference.kind)
        if plural is not None and reference.name:
            edges.add((plural, namespace, reference.name))
    for volume in spec.volumes or ():
        claim = None
        if volume.persistentVolumeClaim is not None:
            claim = volume.persistentVolumeClaim.claimName
        elif volume.ephemeral is not None:
            claim = f"{name}-{volume.name}"
        if claim:
            edges.add(("persistentvolumeclaims", namespace, claim))
    edges.update(("resourceclaims", namespace, claim) for claim in _resource_claims(pod))
    return edges


def _resource_claims(pod: corev1.Pod) -> Iterator[str]:
    status = pod.status or corev1.PodStatus()
    made: dict[str | None, str | None] = {}
    for entry in status.resourceClaimStatuses or ():
        made.setdefault(entry.name, entry.resourceClaimName)
    for claim in (pod.spec.resourceClaims if pod.spec else None) or ():
        if claim.resourceClaimName is not None:
            name: str | None = claim.resourceClaimName
        elif claim.resourceClaimTemplateName is not None:
            name = made.get(claim.name)
        else:
            name = None
        if name:
            yield name
    extended = status.extendedResourceClaimStatus
    if extended is not None and extended.resourceClaimName:
        yield extended.resourceClaimName


def volume_edges(volume: corev1.PersistentVolume) -> tuple[Vertex | None, frozenset[Vertex]]:
    """Return the claim of a PersistentVolume, and what its nodes reach through it, itself first."""
    meta, spec = volume.metadata, volume.spec
    if meta is None or spec is None or spec.claimRef is None:
        return None, frozenset()
    namespace = spec.claimRef.namespace or ""
    claim = ("persistentvolumeclaims", namespace, spec.claimRef.name or "")
    secrets = (("secrets", where, name) for where, name in _volume_secrets(spec, namespace) if name)
    return claim, frozenset((("persistentvolumes", "", meta.name or ""), *secrets))


def _volume_secrets(spec: corev1.PersistentVolumeSpec, claim: str) -> Iterator[tuple[str, str]]:
    if spec.azureFile is not None:
        yield spec.azureFile.secretNamespace or claim, spec.azureFile.secretName or ""
    for field in _DEFAULT_TO_CLAIM + _EXPLICIT_NAMESPACE:
        source: corev1.SecretRefSource | None = getattr(spec, field)
        if source is not None and source.secretRef is not None:
            default = claim if field in _DEFAULT_TO_CLAIM else ""
            yield source.secretRef.namespace or default, source.secretRef.name or ""
    if spec.csi is not None:
        for field in _CSI_SECRETS:
            secret: corev1.SecretReference | None = getattr(spec.csi, field)
            if secret is not None:
                yield secret.namespace or "", secret.name or ""
