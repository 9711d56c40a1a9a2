"""The table of the API server's resources that noderestrict reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from noderestrict.api import (
    appsv1,
    certificatesv1,
    corev1,
    metav1,
    rbacv1,
    resourcev1,
    storagev1,
)


class ObjectKey(NamedTuple):
    """Identifies an object of the cluster.

    Attributes:
        resource: plural.
        namespace: "" for cluster-scoped resources.
        name: of the object.
    """

    resource: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """Return the key as people write it, such as ``pods default/web-0``."""
        return f"{self.resource} {qualified(self.namespace, self.name)}"


def qualified(namespace: str, name: str) -> str:
    """Return ``NAMESPACE/NAME``, or only the name if there is no namespace."""
    return f"{namespace}/{name}" if namespace else name


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource of the API.

    Attributes:
        plural: its name in paths.
        kind: of its objects.
        version: of the API group, as in paths; the newest that is known.
        struct: the fields to read of an object.
        group: API group, "" for the core group.
        namespaced: whether its objects are in namespaces.
        short_names: names that kubectl accepts in addition to the plural and the kind.
        older_versions: newest first, which older API servers serve instead. Empty for a resource
            that every supported API server serves.
    """

    plural: str
    kind: str
    version: str
    struct: type[msgspec.Struct] = metav1.PartialObject
    group: str = ""
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    older_versions: tuple[str, ...] = ()

    @property
    def list_path(self) -> str:
        """The path of all its objects, in all namespaces."""
        root = f"/apis/{self.group}" if self.group else "/api"
        return f"{root}/{self.version}/{self.plural}"

    def path(self, namespace: str, name: str) -> str:
        """Return the path of one object; both names must be valid path segments."""
        before, _, plural = self.list_path.rpartition("/")
        within = f"/namespaces/{namespace}" if self.namespaced else ""
        return f"{before}{within}/{plural}/{name}"

    def is_called(self, name: str) -> bool:
        """Return whether a lower-case name means this resource: plural, singular or short name."""
        return name in (self.plural, self.kind.lower(), *self.short_names)

    def key(self, namespace: str | None, name: str | None) -> ObjectKey:
        """Return the key of one of its objects."""
        return ObjectKey(self.plural, (namespace or "") if self.namespaced else "", name or "")


_RBAC = "rbac.authorization.k8s.io"

#: Group and plural of what asks the API server and is never stored. No policy is asked about these:
#: it could stop the cluster, or what repairs it.
REVIEWS = frozenset(
    {
        ("authentication.k8s.io", "selfsubjectreviews"),
        ("authentication.k8s.io", "tokenreviews"),
        ("authorization.k8s.io", "localsubjectaccessreviews"),
        ("authorization.k8s.io", "selfsubjectaccessreviews"),
        ("authorization.k8s.io", "selfsubjectrulesreviews"),
        ("authorization.k8s.io", "subjectaccessreviews"),
    }
)

RESOURCES: Mapping[str, Resource] = {
    resource.plural: resource
    for resource in (
        Resource("nodes", "Node", "v1", corev1.ReportedNode, namespaced=False, short_names=("no",)),
        Resource("namespaces", "Namespace", "v1", namespaced=False, short_names=("ns",)),
        Resource("pods", "Pod", "v1", corev1.Pod, short_names=("po",)),
        Resource("secrets", "Secret", "v1"),
        Resource("configmaps", "ConfigMap", "v1", short_names=("cm",)),
        Resource(
            "serviceaccounts", "ServiceAccount", "v1", corev1.ServiceAccount, short_names=("sa",)
        ),
        Resource(
            "persistentvolumeclaims",
            "PersistentVolumeClaim",
            "v1",
            corev1.PersistentVolumeClaim,
            short_names=("pvc",),
        ),
        Resource(
            "persistentvolumes",
            "PersistentVolume",
            "v1",
            corev1.PersistentVolume,
            namespaced=False,
            short_names=("pv",),
        ),
        Resource(
            "csidrivers",
            "CSIDriver",
            "v1",
            storagev1.CSIDriver,
            group="storage.k8s.io",
            namespaced=False,
        ),
        Resource(
            "volumeattachments",
            "VolumeAttachment",
            "v1",
            storagev1.VolumeAttachment,
            group="storage.k8s.io",
            namespaced=False,
        ),
        Resource("resourceclaims", "ResourceClaim", "v1", group="resource.k8s.io"),
        Resource(
            "resourceslices",
            "ResourceSlice",
            "v1",
            resourcev1.ResourceSlice,
            group="resource.k8s.io",
            namespaced=False,
            older_versions=("v1beta2", "v1beta1", "v1alpha3", "v1alpha2"),
        ),
        Resource(
            "podcertificaterequests",
            "PodCertificateRequest",
            "v1",
            certificatesv1.PodCertificateRequest,
            group="certificates.k8s.io",
            short_names=("pcr",),
            older_versions=("v1beta1", "v1alpha1"),
        ),
        Resource("daemonsets", "DaemonSet", "v1", appsv1.DaemonSet, "apps", short_names=("ds",)),
        Resource("clusterroles", "ClusterRole", "v1", rbacv1.Role, _RBAC, namespaced=False),
        Resource("roles", "Role", "v1", rbacv1.Role, _RBAC),
        Resource(
            "clusterrolebindings",
            "ClusterRoleBinding",
            "v1",
            rbacv1.RoleBinding,
            _RBAC,
            namespaced=False,
        ),
        Resource("rolebindings", "RoleBinding", "v1", rbacv1.RoleBinding, _RBAC),
        Resource(
            "validatingwebhookconfigurations",
            "ValidatingWebhookConfiguration",
            "v1",
            group="admissionregistration.k8s.io",
            namespaced=False,
        ),
    )
}
WEBHOOK_CONFIGURATIONS = RESOURCES["validatingwebhookconfigurations"]
PLURALS: Mapping[str, str] = {resource.kind: plural for plural, resource in RESOURCES.items()}
