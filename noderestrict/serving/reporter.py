"""Who is told of each answer: the log, and what else the operator turns on."""

from collections.abc import Sequence

from aiohttp import web

from noderestrict import admission, authorization
from noderestrict.graph.rules import Opinion
from noderestrict.policy.decision import Denied


class Reporter:
    """Is told of each answer, before it is sent; must neither block nor raise.

    Does nothing with what a subclass leaves alone.
    """

    def allowed(self, request: admission.Request, seconds: float) -> None:
        """Take note of an allowed request.

        Args:
            request: decoded.
            seconds: that the answer took.
        """

    def refused(
        self,
        http: web.BaseRequest,
        request: admission.Request,
        denied: Denied,
        seconds: float,
        mode: str,
    ) -> None:
        """Take note of a denial, whether it is enforced or only reported.

        Args:
            http: the HTTP request.
            request: decoded from it.
            denied: by a rule.
            seconds: that the answer took.
            mode: of the rule.
        """

    def no_opinion(
        self,
        http: web.BaseRequest,
        review: authorization.Review,
        opinion: Opinion,
        seconds: float,
    ) -> None:
        """Take note of an access that is not allowed here.

        Args:
            http: the HTTP request.
            review: decoded from it.
            opinion: on it.
            seconds: that the answer took.
        """

    def denied(
        self,
        http: web.BaseRequest,
        review: authorization.Review,
        opinion: Opinion,
        seconds: float,
        mode: str,
    ) -> None:
        """Take note that an agent's read is denied, or would be.

        Args:
            http: the HTTP request.
            review: decoded from it.
            opinion: on it.
            seconds: that the answer took.
            mode: of the rule.
        """


class Reporters(Reporter):
    """Tells several reporters, in order."""

    def __init__(self, reporters: Sequence[Reporter]) -> None:
        self._reporters = tuple(reporters)

    def allowed(self, request: admission.Request, seconds: float) -> None:
        """Tell all of an allowed request."""
        for one in self._reporters:
            one.allowed(request, seconds)

    def refused(
        self,
        http: web.BaseRequest,
        request: admission.Request,
        denied: Denied,
        seconds: float,
        mode: str,
    ) -> None:
        """Tell all of a denial."""
        for one in self._reporters:
            one.refused(http, request, denied, seconds, mode)

    def no_opinion(
        self,
        http: web.BaseRequest,
        review: authorization.Review,
        opinion: Opinion,
        seconds: float,
    ) -> None:
        """Tell all of an access that is not allowed here."""
        for one in self._reporters:
            one.no_opinion(http, review, opinion, seconds)

    def denied(
        self,
        http: web.BaseRequest,
        review: authorization.Review,
        opinion: Opinion,
        seconds: float,
        mode: str,
    ) -> None:
        """Tell all of an agent's read that is denied."""
        for one in self._reporters:
            one.denied(http, review, opinion, seconds, mode)
