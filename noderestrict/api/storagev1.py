"""storage.k8s.io/v1: the fields of a CSIDriver that determine audiences."""

import msgspec

from noderestrict.api.metav1 import ObjectMeta


class TokenRequest(msgspec.Struct, gc=False):
    """A token that a driver requests."""

    audience: str | None = None


class CSIDriverSpec(msgspec.Struct):
    """A CSIDriver's specification."""

    tokenRequests: list[TokenRequest] | None = None


class CSIDriver(msgspec.Struct):
    """A CSIDriver."""

    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None
    spec: CSIDriverSpec | None = None


class VolumeAttachmentSpec(msgspec.Struct, gc=False):
    """The node that a volume is attached to."""

    nodeName: str | None = None


class VolumeAttachment(msgspec.Struct):
    """A VolumeAttachment."""

    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None
    spec: VolumeAttachmentSpec | None = None
