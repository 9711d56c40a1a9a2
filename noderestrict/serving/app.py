"""Routes: each request to what answers it, each error to an HTTP error."""

import time
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from noderestrict.agents.agents import InForce
from noderestrict.serving.authorize import AuthorizeHandler, Authorizer
from noderestrict.serving.body import BodyReader
from noderestrict.serving.capture import Capture
from noderestrict.serving.connections import Answer
from noderestrict.serving.health import Health
from noderestrict.serving.http import HTTPError, OverloadedError, error_response
from noderestrict.serving.lane import LARGE_BYTES, CrowdedError, Lane
from noderestrict.serving.limits import Limits, parse_timeout
from noderestrict.serving.modes import Modes
from noderestrict.serving.refusal_log import RefusalLog
from noderestrict.serving.reporter import Reporter, Reporters
from noderestrict.serving.settle import Judge
from noderestrict.serving.state import ServerState
from noderestrict.serving.validate import ValidateHandler
from noderestrict.telemetry.logs import LOGGER
from noderestrict.telemetry.metrics import Metrics

# The API server's own bounds for timeoutSeconds.
_DEFAULT_TIMEOUT = 10.0
_LONGEST_TIMEOUT = 30.0
# The network and the API server itself use a part of its timeout.
_DEADLINE_SHARE = 0.9
# Paths as sent, query included, that are remembered.
_ROUTES = 100

#: Answers a request, given its body and the deadline of time.monotonic().
Endpoint = Callable[[web.BaseRequest, bytes, float], Awaitable[Answer]]
#: What answers, and the seconds for an answer.
_Route = tuple[Endpoint, float]


class App:
    """Answers every request of a server.

    Args:
        judge: decides on AdmissionReviews.
        metrics: counted into.
        limits: on load and size.
        authorizer: decides on SubjectAccessReviews; ``/authorize`` is not found if None.
        rule_modes: of the rules; all are enforced if None.
        capture: gets judged reviews.
        agents: that are held to their node; none if None.
        reporters: are told of answers, after the log.
        traced: returns what answers at a path within a span, given what answers; None for no spans.

    Attributes:
        state: of the server.
    """

    def __init__(
        self,
        judge: Judge,
        metrics: Metrics,
        limits: Limits | None = None,
        authorizer: Authorizer | None = None,
        rule_modes: Modes | None = None,
        capture: Capture | None = None,
        agents: InForce | None = None,
        reporters: Sequence[Reporter] = (),
        traced: Callable[[str, Endpoint], Endpoint] | None = None,
    ) -> None:
        limits = limits or Limits()
        self.state = state = ServerState(limits, rule_modes, agents)
        self._metrics = metrics
        metrics.in_flight.set_function(lambda: state.in_flight.all_requests)
        self._bodies = BodyReader(limits, metrics)
        lane, log = Lane(), RefusalLog()
        reporter: Reporter = Reporters((log, *reporters)) if reporters else log
        validate = ValidateHandler(judge, metrics, state, lane, reporter, capture)
        self._posts: dict[str, Endpoint] = {"/validate": validate.handle}
        if authorizer is not None:
            authorize = AuthorizeHandler(authorizer, metrics, state, lane, reporter)
            self._posts["/authorize"] = authorize.handle
        if traced is not None:
            self._posts = {path: traced(path, handle) for path, handle in self._posts.items()}
        health = Health(state, judge)
        #: Tells whether every readiness check passes.
        self.ready = health.ready
        self._gets = {"/livez": health.livez, "/healthz": health.livez, "/readyz": health.readyz}
        self._routes: dict[str, _Route] = {}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; raises nothing but cancellation."""
        response: web.Response | Answer
        try:
            # As sent: parsing a URL takes longer than most decisions.
            route = self._routes.get(request.raw_path) if request.method == "POST" else None
            found = route or self._find(request)
            if isinstance(found, web.Response):
                response = found
            else:
                endpoint, seconds = found
                deadline = self._deadline(seconds)
                body = self._bodies.arrived(request) or await self._bodies.receive(request)
                large = len(body) > LARGE_BYTES
                self._enter(large)
                try:
                    response = await endpoint(request, body, deadline)
                finally:
                    self.state.in_flight.leave(large)
        except HTTPError as error:
            response = self._rejected(request, error)
        except CrowdedError as crowded:
            response = self._rejected(request, OverloadedError(crowded.limit))
        except Exception:  # noqa: BLE001 (the boundary: logged, counted, answered 500)
            # A defect must be an error, so that the failurePolicy decides.
            LOGGER.exception("internal error", extra={"path": request.path[:100]})
            self._metrics.internal_errors.inc()
            self._metrics.rejected[500].inc()
            response = error_response(500, "internal error; see the server's log")
            response.force_close()
        if self.state.draining:
            response.force_close()
        return response  # type: ignore[return-value] # an Answer has what aiohttp uses of one

    def _deadline(self, seconds: float) -> float:
        """Return the time.monotonic() by which an answer is due, in seconds.

        Raises:
            OverloadedError: it cannot be met.
        """
        lag = self.state.lag
        if lag >= seconds:
            raise OverloadedError("deadline")
        return time.monotonic() + seconds - lag

    def _enter(self, large: bool) -> None:  # noqa: FBT001 (per request, so cheap)
        if not self.state.in_flight.enter(large):
            raise OverloadedError("requests")

    def _rejected(self, request: web.BaseRequest, error: HTTPError) -> web.Response:
        """Count an error, and return the response to it."""
        self._metrics.rejected[error.code].inc()
        if isinstance(error, OverloadedError):
            self._metrics.shed[error.limit].inc()
        response = error_response(error.code, str(error), error.headers)
        # The rest of a body that nobody read must not become the next request.
        if not request.content.is_eof():
            response.force_close()
        return response

    def _find(self, request: web.BaseRequest) -> web.Response | _Route:
        """Return the answer to a request without a body, or the route of one with a body.

        Raises:
            HTTPError: 404 or 405.
        """
        path = request.path
        if request.method == "POST" and path in self._posts:
            return self._route(request)
        if request.method in ("GET", "HEAD") and path in self._gets:
            return self._gets[path](request)
        if path in self._posts:
            raise HTTPError(405, f"{path} answers POST only", {"Allow": "POST"})
        if path in self._gets:
            raise HTTPError(405, f"{path} answers GET only", {"Allow": "GET, HEAD"})
        known = ", ".join((*self._posts, *self._gets))
        raise HTTPError(404, f"there is nothing at this path; known: {known}")

    def _route(self, request: web.BaseRequest) -> _Route:
        """Return the endpoint of a path and the seconds that its query leaves for an answer."""
        timeout = parse_timeout(request.query.get("timeout", "")) or _DEFAULT_TIMEOUT
        seconds = min(timeout, _LONGEST_TIMEOUT) * _DEADLINE_SHARE
        route = self._posts[request.path], seconds
        if len(self._routes) < _ROUTES:
            self._routes[request.raw_path] = route
        return route
