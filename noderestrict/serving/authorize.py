"""``POST /authorize``: one SubjectAccessReview to one answer."""

import time
from functools import partial
from typing import Protocol

from aiohttp import web

from noderestrict import authorization
from noderestrict.graph.rules import Opinion
from noderestrict.policy import modes
from noderestrict.serving.connections import Answer, client_of
from noderestrict.serving.http import HTTPError
from noderestrict.serving.lane import LARGE_BYTES, Lane
from noderestrict.serving.reporter import Reporter
from noderestrict.serving.state import ServerState
from noderestrict.telemetry.metrics import Metrics


class Authorizer(Protocol):
    """Has an opinion on a SubjectAccessReview within a deadline."""

    async def authorize(
        self, review: authorization.Review, deadline: float, peer: str = ""
    ) -> Opinion | None:
        """Return the opinion; None if it is not known now.

        Args:
            review: decoded.
            deadline: of time.monotonic(), seconds.
            peer: address of the client.
        """


class AuthorizeHandler:
    """Answers SubjectAccessReviews.

    Args:
        authorizer: decides.
        metrics: counted into.
        state: has the modes of the rules, and the agents.
        lane: runs what takes long.
        reporter: is told what was denied or got no opinion.
    """

    def __init__(
        self,
        authorizer: Authorizer,
        metrics: Metrics,
        state: ServerState,
        lane: Lane,
        reporter: Reporter,
    ) -> None:
        self._authorizer = authorizer
        self._metrics = metrics
        self._state = state
        self._lane = lane
        self._reporter = reporter

    async def handle(self, http: web.BaseRequest, body: bytes, deadline: float) -> Answer:
        """Return the answer to a review.

        Args:
            http: the request.
            body: its body.
            deadline: of time.monotonic(), seconds.

        Raises:
            HTTPError: 400 for a body that is not a SubjectAccessReview, 503 while the opinion
                cannot be known.
            CrowdedError: too many large bodies wait.
        """
        started = time.perf_counter()
        client = client_of(http)
        agents = self._state.in_force.agents
        try:
            if len(body) > LARGE_BYTES:
                run = self._lane.of(client, len(body), deadline)
                review = await run(partial(authorization.decode, body, agents))
            else:
                review = authorization.decode(body, agents)
        except authorization.ReviewError as error:
            raise HTTPError(400, str(error)) from None
        opinion = await self._authorizer.authorize(review, deadline, client)
        if opinion is None:
            raise HTTPError(503, "the cluster cannot be asked now", {"Retry-After": "1"})
        seconds = time.perf_counter() - started
        self._metrics.authorize_seconds.observe(seconds)
        if opinion.allowed:
            self._metrics.authorization_allowed.inc()
        elif opinion.denied:
            opinion = self._settled(http, review, opinion, seconds)
        else:
            self._metrics.authorization_no_opinion.inc()
            self._reporter.no_opinion(http, review, opinion, seconds)
        return Answer(authorization.encode(review, opinion))

    def _settled(
        self,
        http: web.BaseRequest,
        review: authorization.Review,
        opinion: Opinion,
        seconds: float,
    ) -> Opinion:
        """Return what the mode of the rule makes of a denial; count and log it.

        A webhook of authorizers cannot warn: what is not enforced is only reported.
        """
        mode = self._state.modes.of(opinion.rule)
        if mode == modes.OFF:
            self._metrics.authorization_no_opinion.inc()
            return Opinion(allowed=False)
        self._reporter.denied(http, review, opinion, seconds, mode)
        if mode == modes.ENFORCE:
            self._metrics.authorization_denied.inc()
            return opinion
        self._metrics.authorization_would_be_denied.inc()
        return Opinion(allowed=False)
