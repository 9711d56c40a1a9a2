"""Evaluate one SubjectAccessReview."""

from collections.abc import Mapping

from noderestrict.authorization.decode import Review
from noderestrict.graph.rules import Opinion, Reach, authorize
from noderestrict.policy.releases import LATEST, Release

_NO_NODE = Opinion(allowed=False, reason="")
_NO_NAME = Opinion(allowed=False, reason="the user name names no node")
_NO_RESOURCE = Opinion(allowed=False, reason="nodes have no paths outside of resources")


def evaluate(
    review: Review, graph: Reach, features: Mapping[str, bool], release: Release = LATEST
) -> Opinion:
    """Return the Node authorizer's opinion; it has none on users that are not nodes."""
    if review.access is not None:
        return authorize(review.access, graph, features, release)
    if review.node is None:
        return _NO_NODE
    return _NO_RESOURCE if review.node else _NO_NAME
