"""Who answers SubjectAccessReviews."""

from collections.abc import Mapping
from typing import Protocol

from noderestrict import authorization
from noderestrict.graph.graph import Graph
from noderestrict.graph.rules import Opinion


class Authorizer(Protocol):
    """Answers a SubjectAccessReview within a deadline."""

    async def authorize(
        self, review: authorization.Review, deadline: float, peer: str = ""
    ) -> Opinion | None:
        """Return the opinion; None if it cannot be known now.

        Args:
            review: a decoded SubjectAccessReview.
            deadline: of time.monotonic(), seconds.
            peer: address of the client.
        """


class LocalAuthorizer:
    """Answers from a graph in memory."""

    def __init__(self, graph: Graph, features: Mapping[str, bool]) -> None:
        self._graph = graph
        self._features = features

    async def authorize(
        self,
        review: authorization.Review,
        deadline: float,  # noqa: ARG002 (nothing is waited for)
        peer: str = "",  # noqa: ARG002 (nothing is looked up)
    ) -> Opinion:
        """Return the opinion."""
        return authorization.evaluate(review, self._graph, self._features)
