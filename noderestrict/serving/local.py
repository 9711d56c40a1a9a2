"""Answers from objects in memory, without a cluster."""

from collections.abc import Mapping, Set
from functools import partial

from noderestrict import admission, authorization
from noderestrict.graph.graph import Graph
from noderestrict.graph.rules import Opinion
from noderestrict.policy.decision import Allowed, Denied, Question
from noderestrict.policy.listers import Listers
from noderestrict.policy.settings import Settings


class LocalJudge:
    """Judges by objects in memory."""

    def __init__(self, settings: Settings, listers: Listers) -> None:
        self._settings = settings
        self._listers = listers

    def allowed(self, request: admission.Request) -> Allowed | None:
        """Return that a request is allowed, or None."""
        decision = admission.evaluate(request, self._settings, self._listers)
        return decision if isinstance(decision, Allowed) else None

    async def judge(
        self,
        request: admission.Request,
        deadline: float,  # noqa: ARG002 (it never waits)
        skipped: Set[str] = frozenset(),
        peer: str = "",  # noqa: ARG002 (it looks nothing up)
        run: admission.Run = admission.inline,
    ) -> Allowed | Denied:
        """Return the decision; whatever only the cluster's authorizer could allow is denied."""
        decision = await run(
            partial(admission.evaluate, request, self._settings, self._listers, skipped)
        )
        return decision.otherwise if isinstance(decision, Question) else decision

    def checks(self) -> Mapping[str, bool]:
        """Return no check: it is ready from the start."""
        return {}

    def details(self) -> Mapping[str, str]:
        """Return nothing: there are no checks."""
        return {}


class LocalAuthorizer:
    """Authorizes by a graph and objects in memory."""

    def __init__(self, graph: Graph, settings: Settings, listers: Listers) -> None:
        self._graph = graph
        self._settings = settings
        self._listers = listers

    async def authorize(
        self,
        review: authorization.Review,
        deadline: float,  # noqa: ARG002 (it never waits)
        peer: str = "",  # noqa: ARG002 (it looks nothing up)
    ) -> Opinion:
        """Return the opinion."""
        if review.asked is None:
            return self._of_node(review)
        found = authorization.evaluate_agent(review.asked, self._listers)
        if isinstance(found, Opinion):
            return found
        opinion = self._of_node(authorization.reach_review(review.asked, found))
        return authorization.reached(opinion, found)

    def _of_node(self, review: authorization.Review) -> Opinion:
        settings = self._settings
        return authorization.evaluate(review, self._graph, settings.features, settings.release)
