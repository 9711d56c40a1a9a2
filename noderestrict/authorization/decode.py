"""Decode a SubjectAccessReview."""

from dataclasses import dataclass

import msgspec

from noderestrict.api import authorizationv1
from noderestrict.errors import NoderestrictError
from noderestrict.graph.rules import Access
from noderestrict.policy.identity import node_name

API_VERSIONS = ("authorization.k8s.io/v1", "authorization.k8s.io/v1beta1")
KIND = "SubjectAccessReview"

_decoder = msgspec.json.Decoder(authorizationv1.SubjectAccessReview)


class ReviewError(NoderestrictError, ValueError):
    """The bytes are not a SubjectAccessReview; the message says why."""


@dataclass(frozen=True, slots=True)
class Review:
    """A decoded review.

    Access:
        api_version: echoed in the answer.
        node: the node's name, "" for a node user without one, None for any other user.
        access: what a node requests; None for any other user, and for paths.
    """

    api_version: str
    node: str | None
    access: Access | None


def decode(body: bytes | msgspec.Raw) -> Review:
    """Decode a SubjectAccessReview of v1 or v1beta1.

    Raises:
        ReviewError: the bytes are something else.
    """
    try:
        review = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ReviewError(f"the body is not a SubjectAccessReview: {error}") from None
    except RecursionError:
        raise ReviewError("the body is not a SubjectAccessReview: nested too deeply") from None
    if review.apiVersion not in API_VERSIONS or review.kind != KIND:
        raise ReviewError(
            f"apiVersion {review.apiVersion!r}, kind {review.kind!r}: send {KIND!r} of "
            f"{' or '.join(API_VERSIONS)}"
        )
    spec = review.spec
    if spec is None:
        raise ReviewError("spec is missing")
    groups = spec.group if review.apiVersion == API_VERSIONS[1] else spec.groups
    node = node_name(spec.user or "", groups or ())
    asked = spec.resourceAttributes
    access = None
    if node and asked is not None:
        access = Access(
            node=node,
            verb=asked.verb or "",
            group=asked.group or "",
            resource=asked.resource or "",
            sub_resource=asked.subresource or "",
            namespace=asked.namespace or "",
            name=asked.name or "",
            node_selectors=_node_selectors(asked.fieldSelector),
        )
    return Review(review.apiVersion, node, access)


def _node_selectors(selector: authorizationv1.FieldSelector | None) -> frozenset[str]:
    if selector is None or not selector.requirements:
        return frozenset()
    return frozenset(
        requirement.values[0]
        for requirement in selector.requirements
        if requirement.key == "spec.nodeName"
        and requirement.operator == "In"
        and requirement.values is not None
        and len(requirement.values) == 1
    )
