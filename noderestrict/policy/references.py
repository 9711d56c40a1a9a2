"""Find every API object that a pod refers to, and where: mirror pods must not have any.

The source is HasAPIObjectReference in pkg/api/pod/util.go of Kubernetes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter

from noderestrict.api import corev1
from noderestrict.policy.cel import (
    EMPTY_LIST,
    MOST_INNER,
    absent,
    any_of,
    each,
    if_present,
    list_of,
    present,
    value,
)
from noderestrict.policy.releases import Part, since

TRUST_BUNDLES = Part("projected cluster trust bundles", since(29))
RESOURCE_CLAIMS = Part("`spec.resourceClaims`", since(34, (32, 6), (33, 2)))
CLOSED_LIST = Part("every volume and projected source that is not known to be harmless", since(34))
PARTS = (TRUST_BUNDLES, RESOURCE_CLAIMS, CLOSED_LIST)


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference from a pod to another object.

    Attributes:
        path: JSON path in the pod, such as ``spec.volumes[2].projected.sources[0].secret``.
        kind: of the object, or "unknown" for an unknown source.
        name: of the object, "" if the source has none.
        part: of the rule that denies it; None if it always has been denied.
    """

    path: str
    kind: str
    name: str = ""
    part: Part | None = None

    def __str__(self) -> str:
        """Return the path and the object, for a message."""
        if self.kind == UNKNOWN:
            return f"{self.path} (an unknown source, which may refer to other objects)"
        return (
            f"{self.path} ({self.kind} {self.name!r})"
            if self.name
            else f"{self.path} ({self.kind})"
        )


UNKNOWN = "unknown"

# Sources that refer to no object, except that some name one Secret (see _SECRET_REFS).
_LOCAL_SOURCES = (
    "awsElasticBlockStore", "azureDisk", "cephfs", "cinder", "downwardAPI", "emptyDir", "fc",
    "flexVolume", "flocker", "gcePersistentDisk", "gitRepo", "hostPath", "image", "iscsi", "nfs",
    "photonPersistentDisk", "portworxVolume", "quobyte", "rbd", "scaleIO", "storageos",
    "vsphereVolume",
)  # fmt: skip

_SECRET_REFS = ("cephfs", "cinder", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos")

# The sources of a volume that refer to nothing, and all others. Each takes a single call, because a
# pod can have tens of thousands of volumes.
_HARMLESS = tuple(source for source in _LOCAL_SOURCES if source not in _SECRET_REFS)
_OTHER = tuple(
    source
    for source in corev1.Volume.__struct_fields__
    if source != "name" and source not in _HARMLESS
)
_harmless, _other = attrgetter(*_HARMLESS), attrgetter(*_OTHER)
_PROJECTED = tuple(
    source for source in corev1.VolumeProjection.__struct_fields__ if source != "downwardAPI"
)
_projected, _NOTHING_PROJECTED = attrgetter(*_PROJECTED), (None,) * len(_PROJECTED)
_NO_HARMLESS, _NO_OTHER = (None,) * len(_HARMLESS), (None,) * len(_OTHER)


def references(spec: corev1.PodSpec) -> Iterator[Reference]:
    """Yield every reference from a pod to another API object, in the order of its fields."""
    if spec.serviceAccountName:
        yield Reference("spec.serviceAccountName", "ServiceAccount", spec.serviceAccountName)
    elif spec.serviceAccount:
        yield Reference("spec.serviceAccount", "ServiceAccount", spec.serviceAccount)
    for index, secret in enumerate(spec.imagePullSecrets or ()):
        if secret.name:
            yield Reference(f"spec.imagePullSecrets[{index}]", "Secret", secret.name)
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for index, container in enumerate(getattr(spec, field) or ()):
            if container.env is None and container.envFrom is None:
                continue
            yield from _of_container(f"spec.{field}[{index}]", container)
    for index, claim in enumerate(spec.resourceClaims or ()):
        yield Reference(
            f"spec.resourceClaims[{index}]", "ResourceClaim", claim.name or "", RESOURCE_CLAIMS
        )
    for index, volume in enumerate(spec.volumes or ()):
        if _other(volume) == _NO_OTHER and _harmless(volume) != _NO_HARMLESS:
            continue
        yield from _of_volume(f"spec.volumes[{index}]", volume)


def _of_container(path: str, container: corev1.Container) -> Iterator[Reference]:
    for index, variable in enumerate(container.env or ()):
        source = variable.valueFrom
        if source is None:
            continue
        if source.secretKeyRef is not None and source.secretKeyRef.name:
            yield Reference(
                f"{path}.env[{index}].valueFrom.secretKeyRef", "Secret", source.secretKeyRef.name
            )
        if source.configMapKeyRef is not None and source.configMapKeyRef.name:
            yield Reference(
                f"{path}.env[{index}].valueFrom.configMapKeyRef",
                "ConfigMap",
                source.configMapKeyRef.name,
            )
    for index, everything in enumerate(container.envFrom or ()):
        if everything.secretRef is not None and everything.secretRef.name:
            yield Reference(
                f"{path}.envFrom[{index}].secretRef", "Secret", everything.secretRef.name
            )
        if everything.configMapRef is not None and everything.configMapRef.name:
            yield Reference(
                f"{path}.envFrom[{index}].configMapRef", "ConfigMap", everything.configMapRef.name
            )


def _of_volume(path: str, volume: corev1.Volume) -> Iterator[Reference]:
    yield from _named_by_volume(path, volume)
    if any(getattr(volume, source) is not None for source in _LOCAL_SOURCES):
        return
    if volume.configMap is not None:
        if not volume.configMap.name:
            yield Reference(f"{path}.configMap", "ConfigMap", part=CLOSED_LIST)
    elif volume.secret is not None:
        if not volume.secret.secretName:
            yield Reference(f"{path}.secret", "Secret", part=CLOSED_LIST)
    elif volume.csi is not None:
        yield Reference(f"{path}.csi", "CSIDriver", volume.csi.driver or "", part=CLOSED_LIST)
    elif volume.glusterfs is not None:
        yield Reference(f"{path}.glusterfs", "Endpoints", part=CLOSED_LIST)
    elif volume.persistentVolumeClaim is not None:
        claim = volume.persistentVolumeClaim.claimName or ""
        yield Reference(f"{path}.persistentVolumeClaim", "PersistentVolumeClaim", claim)
    elif volume.ephemeral is not None:
        yield Reference(f"{path}.ephemeral", "PersistentVolumeClaim", part=CLOSED_LIST)
    elif volume.azureFile is not None:
        if not volume.azureFile.secretName:
            yield Reference(f"{path}.azureFile", "Secret", part=CLOSED_LIST)
    elif volume.projected is not None:
        for index, source in enumerate(volume.projected.sources or ()):
            if _projected(source) == _NOTHING_PROJECTED and source.downwardAPI is not None:
                continue
            yield from _of_projection(f"{path}.projected.sources[{index}]", source)
    else:
        yield Reference(path, UNKNOWN, part=CLOSED_LIST)


def _named_by_volume(path: str, volume: corev1.Volume) -> Iterator[Reference]:
    """Yield the Secrets and ConfigMaps that the volume names, whatever else it contains."""
    if volume.secret is not None and volume.secret.secretName:
        yield Reference(f"{path}.secret", "Secret", volume.secret.secretName)
    if volume.configMap is not None and volume.configMap.name:
        yield Reference(f"{path}.configMap", "ConfigMap", volume.configMap.name)
    if volume.azureFile is not None and volume.azureFile.secretName:
        yield Reference(f"{path}.azureFile", "Secret", volume.azureFile.secretName)
    if volume.csi is not None:
        secret = volume.csi.nodePublishSecretRef
        if secret is not None and secret.name:
            yield Reference(f"{path}.csi.nodePublishSecretRef", "Secret", secret.name)
    for field in _SECRET_REFS:
        source: corev1.SecretRefSource | None = getattr(volume, field)
        if source is not None and source.secretRef is not None and source.secretRef.name:
            yield Reference(f"{path}.{field}.secretRef", "Secret", source.secretRef.name)
    if volume.projected is not None:
        for index, projection in enumerate(volume.projected.sources or ()):
            at = "projected.sources"
            if projection.secret is not None and projection.secret.name:
                name = projection.secret.name
                yield Reference(f"{path}.{at}[{index}].secret", "Secret", name)
            if projection.configMap is not None and projection.configMap.name:
                name = projection.configMap.name
                yield Reference(f"{path}.{at}[{index}].configMap", "ConfigMap", name)


def _of_projection(path: str, source: corev1.VolumeProjection) -> Iterator[Reference]:
    """Yield the references of a projected source that _named_by_volume does not yield."""
    if source.configMap is not None:
        if not source.configMap.name:
            yield Reference(f"{path}.configMap", "ConfigMap", part=CLOSED_LIST)
    elif source.secret is not None:
        if not source.secret.name:
            yield Reference(f"{path}.secret", "Secret", part=CLOSED_LIST)
    elif source.serviceAccountToken is not None:
        yield Reference(f"{path}.serviceAccountToken", "ServiceAccount token", part=CLOSED_LIST)
    elif source.clusterTrustBundle is not None:
        yield Reference(f"{path}.clusterTrustBundle", "ClusterTrustBundle", part=TRUST_BUNDLES)
    elif source.podCertificate is not None:
        yield Reference(f"{path}.podCertificate", "PodCertificateRequest", part=CLOSED_LIST)
    elif source.downwardAPI is None:
        yield Reference(path, UNKNOWN, part=CLOSED_LIST)


#: The sources of a volume in which CEL looks for names, with where these stand.
_NAMES = {
    "azureFile": ("secretName",),
    "configMap": ("name",),
    "csi": ("nodePublishSecretRef.name",),
    "secret": ("secretName",),
    **dict.fromkeys(_SECRET_REFS, ("secretRef.name",)),
}


def no_references(demands: Callable[[Part], bool]) -> tuple[str, ...]:
    """Return the CEL tests that hold for a pod without references.

    They see what a newer API server has and no type here: a source of a volume is a key there. They
    take a volume with two sources, which no API server sends, for the sum of both.

    Args:
        demands: whether a part of the rule applies.
    """
    spec = "variables.spec"
    claims = f"size({value(f'{spec}.resourceClaims', EMPTY_LIST)}) == 0"
    return (
        f"{value(f'{spec}.serviceAccountName')} == ''",
        f"{value(f'{spec}.serviceAccount')} == ''",
        each(value(f"{spec}.imagePullSecrets", EMPTY_LIST), "secret", _unnamed("secret.name")),
        each("variables.containers", "container", _container_is_free(), MOST_INNER),
        *((claims,) if demands(RESOURCE_CLAIMS) else ()),
        each("variables.volumes", "volume", _volume_is_free(demands)),
    )


def _unnamed(*paths: str) -> str:
    """Return a test that there is no text, or an empty one, at each path."""
    return " && ".join(f"{value(path)} == ''" for path in paths)


def _container_is_free() -> str:
    key = "variable.valueFrom"
    variable = _unnamed(f"{key}.secretKeyRef.name", f"{key}.configMapKeyRef.name")
    everything = _unnamed("source.secretRef.name", "source.configMapRef.name")
    return " && ".join(
        if_present(path, each(path, item, test))
        for path, item, test in (
            ("container.env", "variable", variable),
            ("container.envFrom", "source", everything),
        )
    )


def _volume_is_free(demands: Callable[[Part], bool]) -> str:
    closed = demands(CLOSED_LIST)
    sources = each("volume[key].sources", "source", _source_is_free(demands), MOST_INNER)
    projected = if_present("volume[key].sources", sources)
    if closed:
        tests = [
            f"key in {list_of(_HARMLESS)}",
            f"(key in {list_of(_SECRET_REFS)} && {_unnamed('volume[key].secretRef.name')})",
            f"(key == 'projected' && {projected})",
        ]
    else:
        denied = [*_NAMES, "projected", "persistentVolumeClaim"]
        tests = [
            f"!(key in {list_of(sorted(denied))})",
            *(
                f"(key == '{source}' && {_unnamed(*(f'volume[key].{path}' for path in paths))})"
                for source, paths in sorted(_NAMES.items())
            ),
            f"(key == 'projected' && {projected})",
        ]
    held = any_of("key == 'name'", "volume[key] == null", *tests)
    every = f"volume.all(key, {held})"
    # A volume without a source may be one of a kind that the API server does not know.
    some = "volume.exists(key, key != 'name' && volume[key] != null)"
    return f"{every} && {some}" if closed else every


def _source_is_free(demands: Callable[[Part], bool]) -> str:
    """Return a test of one source of a projected volume."""
    if demands(CLOSED_LIST):
        others = "source.all(kind, kind == 'downwardAPI' || source[kind] == null)"
        return f"{others} && {present('source.downwardAPI')}"
    tests = [_unnamed("source.secret.name", "source.configMap.name")]
    if demands(TRUST_BUNDLES):
        tests.append(absent("source.clusterTrustBundle"))
    return " && ".join(tests)
