"""authentication.k8s.io/v1: the fields of a TokenRequest that rules read."""

import msgspec

from noderestrict.api.metav1 import ObjectMeta


class BoundObjectReference(msgspec.Struct, gc=False):
    """The object that a token is bound to."""

    apiVersion: str | None = None
    kind: str | None = None
    name: str | None = None
    uid: str | None = None


class TokenRequestSpec(msgspec.Struct):
    """The specification of a token request."""

    audiences: list[str | None] | None = None
    boundObjectRef: BoundObjectReference | None = None


class TokenRequest(msgspec.Struct):
    """A TokenRequest."""

    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None
    spec: TokenRequestSpec | None = None
