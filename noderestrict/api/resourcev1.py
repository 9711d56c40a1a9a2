"""resource.k8s.io: the field of a ResourceSlice that names its node."""

import msgspec

from noderestrict.api.metav1 import ObjectMeta


class ResourceSliceSpec(msgspec.Struct, gc=False):
    """A ResourceSlice's node; null for a slice that belongs to no single node."""

    nodeName: str | None = None


class ResourceSlice(msgspec.Struct):
    """A ResourceSlice."""

    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None
    spec: ResourceSliceSpec | None = None
    nodeName: str | None = None

    @property
    def node_name(self) -> str | None:
        """The node that it belongs to; only v1alpha2 has no spec."""
        if self.apiVersion == "resource.k8s.io/v1alpha2":
            return self.nodeName
        return self.spec.nodeName if self.spec else None
