"""Decode a SubjectAccessReview."""

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from noderestrict.agents.agents import Agents, Held
from noderestrict.agents.identity import User
from noderestrict.agents.reads import Asked
from noderestrict.api import authorizationv1
from noderestrict.errors import NoderestrictError
from noderestrict.graph.rules import Access
from noderestrict.policy.identity import node_name

API_VERSIONS = ("authorization.k8s.io/v1", "authorization.k8s.io/v1beta1")
KIND = "SubjectAccessReview"

_decoder = msgspec.json.Decoder(authorizationv1.SubjectAccessReview)
_NO_AGENTS = Agents()


class ReviewError(NoderestrictError, ValueError):
    """The bytes are not a SubjectAccessReview; the message says why."""


@dataclass(frozen=True, slots=True)
class Review:
    """A decoded review.

    Attributes:
        api_version: echoed in the answer.
        node: the node's name, "" for a node user without one, None for any other user.
        access: what a node requests; None for any other user, and for paths.
        asked: what an agent requests, likewise.
    """

    api_version: str
    node: str | None
    access: Access | None
    asked: Asked | None = None


def decode(body: bytes | msgspec.Raw, agents: Agents = _NO_AGENTS) -> Review:
    """Decode a SubjectAccessReview of v1 or v1beta1.

    Args:
        body: of the review.
        agents: that the user may be one of.

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
    groups = (spec.group if review.apiVersion == API_VERSIONS[1] else spec.groups) or ()
    user = spec.user or ""
    node = node_name(user, groups)
    asked = spec.resourceAttributes
    if node is None and agents.all and asked is not None:
        agent = agents.find(user, groups)
        if agent is not None:
            sender = User(user, spec.uid or "", spec.extra)
            return Review(review.apiVersion, None, None, _of_agent(agent, sender, asked))
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


def _of_agent(agent: Held, user: User, asked: authorizationv1.ResourceAttributes) -> Asked:
    return Asked(
        agent=agent,
        user=user,
        verb=asked.verb or "",
        group=asked.group or "",
        resource=asked.resource or "",
        sub_resource=asked.subresource or "",
        namespace=asked.namespace or "",
        name=asked.name or "",
        fields=frozenset(_demands(asked.fieldSelector)),
        labels=frozenset(_demands(asked.labelSelector)),
    )


def _node_selectors(selector: authorizationv1.Selector | None) -> frozenset[str]:
    if selector is None or not selector.requirements:
        return frozenset()
    return frozenset(value for key, value in _demands(selector) if key == "spec.nodeName")


def _demands(selector: authorizationv1.Selector | None) -> Iterator[tuple[str, str]]:
    """Yield each key of which a selector demands one value, with that value."""
    for one in (selector.requirements if selector is not None else None) or ():
        if one.key and one.operator == "In" and one.values is not None and len(one.values) == 1:
            yield one.key, one.values[0]
