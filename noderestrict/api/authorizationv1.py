"""authorization.k8s.io v1 and v1beta1: a SubjectAccessReview and its answer."""

import msgspec

NULL = msgspec.Raw(b"null")


class Requirement(msgspec.Struct, gc=False):
    """One requirement of a selector."""

    key: str | None = None
    operator: str | None = None
    values: list[str] | None = None


class Selector(msgspec.Struct):
    """A field or label selector; webhooks must not parse its raw text."""

    requirements: list[Requirement] | None = None


class ResourceAttributes(msgspec.Struct):
    """A request for a resource."""

    namespace: str | None = None
    verb: str | None = None
    group: str | None = None
    resource: str | None = None
    subresource: str | None = None
    name: str | None = None
    fieldSelector: Selector | None = None
    labelSelector: Selector | None = None


class SubjectAccessReviewSpec(msgspec.Struct):
    """The user and the request; v1beta1 calls the groups ``group``."""

    resourceAttributes: ResourceAttributes | None = None
    user: str | None = None
    groups: list[str] | None = None
    group: list[str] | None = None
    uid: str | None = None
    extra: msgspec.Raw = NULL


class SubjectAccessReview(msgspec.Struct):
    """A SubjectAccessReview."""

    apiVersion: str | None = None
    kind: str | None = None
    spec: SubjectAccessReviewSpec | None = None


class SubjectAccessReviewStatus(msgspec.Struct, omit_defaults=True):
    """The answer; unless it is denied, the next authorizer is asked."""

    allowed: bool
    reason: str
    denied: bool = False


class SubjectAccessReviewAnswer(msgspec.Struct):
    """A SubjectAccessReview with its answer."""

    apiVersion: str
    kind: str
    status: SubjectAccessReviewStatus
