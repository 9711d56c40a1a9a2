"""admission.k8s.io/v1: AdmissionReview as the API server sends it."""

from typing import Generic, TypeVar

import msgspec

NULL = msgspec.Raw(b"null")


class UserInfo(msgspec.Struct):
    """authentication.k8s.io/v1 UserInfo."""

    username: str | None = None
    uid: str | None = None
    groups: list[str] | None = None
    # Read for few requests, and slow to decode: a map of as many lists as anyone sends.
    extra: msgspec.Raw = NULL


class GroupVersionResource(msgspec.Struct, gc=False):
    """The resource of a request."""

    group: str | None = None
    version: str | None = None
    resource: str | None = None


class GroupVersionKind(msgspec.Struct, gc=False):
    """The kind of the objects in a request."""

    group: str | None = None
    version: str | None = None
    kind: str | None = None


New = TypeVar("New")
Old = TypeVar("Old")


class AdmissionRequest(msgspec.Struct, Generic[New, Old]):
    """The request of a review; the decoder chooses the types of its objects."""

    uid: str
    operation: str
    resource: GroupVersionResource
    kind: GroupVersionKind | None = None
    userInfo: UserInfo | None = None
    subResource: str | None = None
    name: str | None = None
    namespace: str | None = None
    dryRun: bool | None = None
    # msgspec.Raw | None does not accept an object, and null decodes as Raw(b"null").
    object: New = NULL  # type: ignore[assignment] # the default of any type
    oldObject: Old = NULL  # type: ignore[assignment] # likewise


class AdmissionReview(msgspec.Struct, Generic[New, Old]):
    """The envelope."""

    apiVersion: str | None = None
    kind: str | None = None
    request: AdmissionRequest[New, Old] | None = None


class Status(msgspec.Struct, omit_defaults=True):
    """The status of a denial."""

    code: int
    reason: str = ""
    message: str = ""
    status: str = "Failure"


class AdmissionResponse(msgspec.Struct, omit_defaults=True):
    """The answer."""

    uid: str
    allowed: bool
    status: Status | None = None
    warnings: tuple[str, ...] = ()
    auditAnnotations: dict[str, str] | None = None


class AdmissionReviewResponse(msgspec.Struct):
    """The envelope of the answer."""

    apiVersion: str
    kind: str
    response: AdmissionResponse
