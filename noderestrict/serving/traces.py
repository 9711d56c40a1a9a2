"""One span for each review, as a part of the API server's trace."""

from http import HTTPStatus

from aiohttp import web
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from noderestrict import admission, authorization
from noderestrict.graph.rules import Opinion
from noderestrict.policy.decision import Denied
from noderestrict.policy.modes import ENFORCE
from noderestrict.serving.app import Endpoint
from noderestrict.serving.authorize import Authorizer
from noderestrict.serving.connections import Answer
from noderestrict.serving.http import HTTPError
from noderestrict.serving.refusal_log import short
from noderestrict.serving.reporter import Reporter

_STATUS = "http.response.status_code"
#: Attributes of ours. A node's name has that of the semantic conventions.
_NODE, _AGENT = "k8s.node.name", "noderestrict.agent"
_RESOURCE, _OPERATION = "noderestrict.resource", "noderestrict.operation"
_RULE, _MODE, _DECISION = "noderestrict.rule", "noderestrict.mode", "noderestrict.decision"
_ALLOWED, _DENIED, _WOULD_BE_DENIED = "allowed", "denied", "would-be-denied"
_NO_OPINION = "no-opinion"


class Traces:
    """Makes spans of requests.

    Args:
        tracer: begins them.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._propagator = TraceContextTextMapPropagator()

    def endpoint(self, path: str, handle: Endpoint) -> Endpoint:
        """Return what answers as an endpoint does, within a span.

        Args:
            path: of the endpoint.
            handle: answers.
        """
        name = f"POST {path}"
        attributes: dict[str, AttributeValue] = {"http.request.method": "POST", "http.route": path}

        async def traced(http: web.BaseRequest, body: bytes, deadline: float) -> Answer:
            with self._tracer.start_as_current_span(
                name,
                self._propagator.extract(http.headers),
                SpanKind.SERVER,
                attributes,
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                code: int = HTTPStatus.INTERNAL_SERVER_ERROR
                try:
                    answer = await handle(http, body, deadline)
                    code = HTTPStatus.OK
                except HTTPError as error:
                    code = error.code
                    raise
                finally:
                    span.set_attribute(_STATUS, code)
                    if code >= HTTPStatus.INTERNAL_SERVER_ERROR:
                        span.set_status(StatusCode.ERROR)
                return answer

        return traced


class SpanReporter(Reporter):
    """Puts into the current span what was asked, and what admission answered.

    The authorizer's opinion is there already.
    """

    def allowed(self, request: admission.Request, seconds: float) -> None:  # noqa: ARG002
        """Take note of an allowed request."""
        _describe(request, {_DECISION: _ALLOWED})

    def refused(
        self,
        http: web.BaseRequest,  # noqa: ARG002
        request: admission.Request,
        denied: Denied,
        seconds: float,  # noqa: ARG002
        mode: str,
    ) -> None:
        """Take note of a denial; the one that is enforced comes last."""
        decision = _DENIED if mode == ENFORCE else _WOULD_BE_DENIED
        _describe(request, {_DECISION: decision, _RULE: denied.rule, _MODE: mode})
        trace.get_current_span().add_event(decision, {_RULE: denied.rule, _MODE: mode})

    def denied(
        self,
        http: web.BaseRequest,  # noqa: ARG002
        review: authorization.Review,  # noqa: ARG002
        opinion: Opinion,
        seconds: float,  # noqa: ARG002
        mode: str,
    ) -> None:
        """Take note of the mode of the rule that denied an agent's read."""
        decision = _DENIED if mode == ENFORCE else _WOULD_BE_DENIED
        trace.get_current_span().set_attributes(
            {_DECISION: decision, _RULE: opinion.rule, _MODE: mode}
        )


class TracedAuthorizer:
    """Puts into the current span what was asked, and what the authorizer found.

    Args:
        authorizer: decides.
    """

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def authorize(
        self, review: authorization.Review, deadline: float, peer: str = ""
    ) -> Opinion | None:
        """Return the opinion of the authorizer."""
        opinion = await self._authorizer.authorize(review, deadline, peer)
        span = trace.get_current_span()
        if not span.is_recording():
            return opinion
        asked = review.asked or review.access
        if review.asked is not None:
            span.set_attribute(_AGENT, review.asked.agent.name)
        elif review.node is not None:
            span.set_attribute(_NODE, short(review.node))
        if asked is not None:
            sub_resource = f"/{asked.sub_resource}" if asked.sub_resource else ""
            span.set_attribute(_RESOURCE, short(f"{asked.resource}{sub_resource}"))
            span.set_attribute(_OPERATION, short(asked.verb))
        if opinion is not None:
            found = _ALLOWED if opinion.allowed else _DENIED if opinion.denied else _NO_OPINION
            span.set_attribute(_DECISION, found)
        return opinion


def _describe(request: admission.Request, decided: dict[str, AttributeValue]) -> None:
    span = trace.get_current_span()
    if not span.is_recording():
        return
    agent = request.agent
    requester = (_NODE, short(request.node)) if agent is None else (_AGENT, agent.name)
    span.set_attributes(
        {
            **dict([requester]),
            _RESOURCE: short(admission.resource_path(request)),
            _OPERATION: short(request.operation),
            **decided,
        }
    )
