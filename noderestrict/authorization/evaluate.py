"""Evaluate one SubjectAccessReview."""

from collections.abc import Mapping

from noderestrict.agents import reads
from noderestrict.agents.reads import Asked, Reach
from noderestrict.authorization.decode import API_VERSIONS, Review
from noderestrict.graph import rules
from noderestrict.graph.rules import Access, Opinion, authorize
from noderestrict.policy.decision import Denied
from noderestrict.policy.listers import Listers
from noderestrict.policy.releases import LATEST, Release

_LEFT_TO_RBAC = Opinion(allowed=False)
_NO_NODE = Opinion(allowed=False, reason="")
_NO_NAME = Opinion(allowed=False, reason="the user name names no node")
_NO_RESOURCE = Opinion(allowed=False, reason="nodes have no paths outside of resources")


def evaluate(
    review: Review, graph: rules.Reach, features: Mapping[str, bool], release: Release = LATEST
) -> Opinion:
    """Return the Node authorizer's opinion; it has none on users that are not nodes."""
    if review.access is not None:
        return authorize(review.access, graph, features, release)
    if review.node is None:
        return _NO_NODE
    return _NO_RESOURCE if review.node else _NO_NAME


def evaluate_agent(asked: Asked, listers: Listers) -> Opinion | Reach:
    """Return the opinion on an agent's request: denied, or left to RBAC; or what decides on it.

    Args:
        asked: by an agent.
        listers: answer lookups.

    Raises:
        LookupUnavailableError: a lookup failed.
    """
    found = reads.evaluate(asked, listers)
    if isinstance(found, Denied):
        return denied(found)
    return found or _LEFT_TO_RBAC


def reach_review(asked: Asked, reach: Reach) -> Review:
    """Return the review of a node that tells whether one of its pods refers to an object.

    Args:
        asked: by the agent on that node.
        reach: what decides on it.
    """
    # A node gets the token of a service account by the same path as the account itself, but in
    # every release.
    verb, sub = ("create", "token") if asked.resource == "serviceaccounts" else ("get", "")
    namespace, name = asked.namespace, asked.name
    access = Access(reach.node, verb, asked.group, asked.resource, sub, namespace, name)
    return Review(API_VERSIONS[0], reach.node, access)


def reached(opinion: Opinion, reach: Reach) -> Opinion:
    """Return the opinion on an agent's request, given that on its node's."""
    return _LEFT_TO_RBAC if opinion.allowed else denied(reach.otherwise)


def denied(refusal: Denied) -> Opinion:
    """Return the opinion that a request is denied."""
    return Opinion(
        allowed=False,
        reason=refusal.message,
        denied=True,
        rule=refusal.rule,
        detail=refusal.detail,
    )
