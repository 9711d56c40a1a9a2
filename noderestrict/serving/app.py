"""HTTP: one request to one response."""

import time
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
from aiohttp import web

from noderestrict import admission, authorization
from noderestrict.graph.authorizer import Opinion
from noderestrict.policy.decision import Allowed, Denied
from noderestrict.policy.text import printable
from noderestrict.serving import modes
from noderestrict.serving.authorizers import Authorizer
from noderestrict.serving.capture import Capture
from noderestrict.serving.connections import body_clock, is_shed
from noderestrict.serving.judges import Judge
from noderestrict.serving.lane import LARGE_BYTES, CrowdedError, Lane
from noderestrict.serving.limits import Budget, Limits, parse_timeout
from noderestrict.serving.modes import Modes
from noderestrict.serving.response import Answer
from noderestrict.serving.room import peer_of
from noderestrict.telemetry.logs import DROPS, LOGGER, NODE, NodeLimiter
from noderestrict.telemetry.metrics import Metrics

_DEBUG = 10
_JSON = {"Content-Type": "application/json"}
_TEXT = {"Content-Type": "text/plain; charset=utf-8"}
# The API server's own bounds for timeoutSeconds.
_DEFAULT_TIMEOUT = 10.0
_LONGEST_TIMEOUT = 30.0
# Network and the API server's own work need a part of its time-out.
_DEADLINE_SHARE = 0.9
# Paths as sent, query included, that are remembered.
_ROUTES = 100
# Namespace and name have at most 63 and 253 characters.
_LONGEST_NAME = 512
# Longer warnings are cut by the API server.
_WARNING = 256

#: Answers a request, given its body and the deadline of time.monotonic().
Endpoint = Callable[[web.BaseRequest, bytes, float], Awaitable[Answer]]
#: What answers, and the seconds for an answer.
_Route = tuple[Endpoint, float]


class HTTPError(Exception):
    """The request cannot be answered as asked."""

    def __init__(self, code: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.headers = headers or {}


class App:
    """Answers every request of a server.

    Args:
        judge: decides.
        metrics: counted into.
        limits: what is refused for overload or size.
        authorizer: answers ``/authorize``; None for no such path.
        rule_modes: of the rules; all are enforced if None.
        capture: takes judged reviews.
    """

    def __init__(
        self,
        judge: Judge,
        metrics: Metrics,
        limits: Limits | None = None,
        authorizer: Authorizer | None = None,
        rule_modes: Modes | None = None,
        capture: Capture | None = None,
    ) -> None:
        self._judge = judge
        self._decoder = admission.TypedDecoder()
        self._authorizer = authorizer
        self.modes = rule_modes or Modes()
        self._capture = capture
        self._metrics = metrics
        self._limits = limits or Limits()
        self.budget = Budget(self._limits)
        self._large = 0
        metrics.in_flight.set_function(lambda: self.budget.requests + self._large)
        self._lane = Lane()
        self._logged = NodeLimiter()
        self._posts: dict[str, Endpoint] = {"/validate": self._validate}
        if authorizer is not None:
            self._posts["/authorize"] = self._authorize
        self._routes: dict[str, _Route] = {}
        self._gets = {"/livez": self._livez, "/healthz": self._livez, "/readyz": self._readyz}
        self.conditions: dict[str, Callable[[], bool]] = {}
        self.draining = False
        self.lag = 0.0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; never raises but for cancellation."""
        response: web.Response | Answer
        try:
            # As sent: taking a URL apart costs more than most decisions.
            route = self._routes.get(request.raw_path) if request.method == "POST" else None
            found = route or self._find(request)
            if isinstance(found, web.Response):
                response = found
            else:
                endpoint, seconds = found
                deadline = time.monotonic() + seconds - self.lag
                self._look_at_head(request, seconds)
                body = self._arrived(request) or await self._read(request)
                # Large ones wait in their lane, and take no place from small ones.
                large = len(body) > LARGE_BYTES
                if large:
                    self._large += 1
                else:
                    self._enter()
                try:
                    response = await endpoint(request, body, deadline)
                except CrowdedError as crowded:
                    raise self._shed(crowded.limit) from None
                finally:
                    if large:
                        self._large -= 1
                    else:
                        self.budget.leave()
        except HTTPError as error:
            self._metrics.rejected[error.code].inc()
            response = _error(error.code, str(error), error.headers)
            # What is left of a body that nobody read must not become the next request.
            if not request.content.is_eof():
                response.force_close()
        except Exception:  # noqa: BLE001 (the boundary: logged, counted, answered 500)
            # A defect must be an error, so that the failurePolicy decides.
            LOGGER.exception("internal error", extra={"path": request.path[:100]})
            self._metrics.internal_errors.inc()
            self._metrics.rejected[500].inc()
            response = _error(500, "internal error; the server's log has the details")
            response.force_close()
        if self.draining:
            response.force_close()
        return response  # type: ignore[return-value] # an Answer is enough of one

    def _find(self, request: web.BaseRequest) -> web.Response | _Route:
        """Return the answer to a request without a body, or what answers one with a body.

        Raises:
            HTTPError: 404 or 405.
        """
        path = request.path
        if request.method == "POST" and path in self._posts:
            return self._route(request)
        if request.method in ("GET", "HEAD"):
            get = self._gets.get(path)
            if get is not None:
                return get(request)
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

    def _look_at_head(self, request: web.BaseRequest, seconds: float) -> None:
        """Refuse a request for what its headers say.

        Raises:
            HTTPError: 400 for another content type, 413 for a large body, 415 for a packed one, 503
                for one that there is no time for.
        """
        size = request.content_length
        if size is not None and size > self._limits.body_bytes:
            raise HTTPError(
                413, f"the body has {size} bytes; the limit is {self._limits.body_bytes} bytes"
            )
        if self.lag >= seconds:
            raise self._shed("deadline")
        kind = request.headers.get("Content-Type")
        if kind != "application/json" and request.content_type != "application/json":
            raise HTTPError(
                400, f"Content-Type is {request.content_type[:80]!r}; application/json is needed"
            )
        if "Content-Encoding" in request.headers:
            # The API server sends none, and few bytes could become many.
            raise HTTPError(415, "Content-Encoding is not taken: send the JSON itself")

    def _enter(self) -> None:
        """Count in a request that is here.

        Raises:
            HTTPError: 503 for overload.
        """
        if not self.budget.enter():
            raise self._shed("requests")

    def _shed(self, limit: str) -> HTTPError:
        self._metrics.shed[limit].inc()
        # The API server tries again after a 503 that says when.
        headers = {} if limit == "deadline" else {"Retry-After": "1"}
        return HTTPError(503, f"overloaded: the limit on {limit} is reached", headers)

    def _arrived(self, request: web.BaseRequest) -> bytes:
        """Return a body that is here already, b"" if some of it is missing.

        Raises:
            HTTPError: 413 for a large body, 503 for one that does not fit in with the others.
        """
        content = request.content
        if not content.is_eof() or content.at_eof():
            return b""
        if is_shed(request):
            raise self._shed("bytes")
        return self._measured(content.read_nowait(-1))

    def _measured(self, body: bytes) -> bytes:
        if len(body) > self._limits.body_bytes:
            raise HTTPError(413, f"the body is over {self._limits.body_bytes} bytes")
        self._metrics.body_bytes.observe(len(body))
        return body

    async def _read(self, request: web.BaseRequest) -> bytes:
        """Return a body as it arrives.

        Raises:
            HTTPError: 400 for one that cannot be read, 408 for a slow sender, 413 for a large body,
                503 for one that does not fit in with the others.
        """
        chunks: list[bytes] = []
        size = 0
        try:
            async with body_clock(request, self._limits.body_seconds):
                while chunk := await request.content.readany():
                    chunks.append(chunk)
                    size += len(chunk)
                    if size > self._limits.body_bytes:
                        raise HTTPError(413, f"the body is over {self._limits.body_bytes} bytes")
        except TimeoutError:
            if is_shed(request):
                raise self._shed("bytes") from None
            raise HTTPError(
                408, f"the body did not arrive within {self._limits.body_seconds:g} s"
            ) from None
        except (web.RequestPayloadError, ConnectionError) as error:
            # It stays with the stream, and with its traceback so would all that was read.
            error.__traceback__ = None
            raise HTTPError(400, f"the body cannot be read: {error}") from None
        except RuntimeError:
            if request.transport is not None:
                raise
            raise HTTPError(400, "the client is gone") from None
        return self._measured(b"".join(chunks))

    async def _validate(self, http: web.BaseRequest, body: bytes, deadline: float) -> Answer:
        started = time.perf_counter()
        large = len(body) > LARGE_BYTES
        run = self._lane.of(_peer(http), deadline) if large else admission.inline
        try:
            request = (
                await run(partial(self._decoder.decode, body))
                if large
                else self._decoder.decode_quickly(body)
            )
        except admission.UnscannedError:
            request = await self._scan(http, body, deadline)
        except admission.ReviewError as error:
            raise HTTPError(400, str(error)) from None
        decision = (None if large else self._judge.allowed(request)) or await self._judge.judge(
            request, deadline, peer=_peer(http), run=run
        )
        if isinstance(decision, Denied):
            return await self._object(http, body, request, decision, deadline, started, run)
        answer = admission.encode(request, decision)
        seconds = time.perf_counter() - started
        self._metrics.validate_seconds.observe(seconds)
        self._count(request, decision, modes.ENFORCE)
        if self._capture is not None:
            self._capture.offer(request, body, decision, _peer(http))
        if LOGGER.isEnabledFor(_DEBUG):
            LOGGER.debug("allowed", extra=_log_fields(request, seconds))
        return Answer(answer)

    async def _scan(self, http: web.BaseRequest, body: bytes, deadline: float) -> admission.Request:
        """Return the review in a body that msgspec does not take, which takes long.

        Raises:
            HTTPError: 400 for a body that is no review.
        """
        run = self._lane.of(_peer(http), deadline)
        try:
            return await run(partial(admission.decode, body))
        except admission.ReviewError as error:
            raise HTTPError(400, str(error)) from None

    async def _object(
        self,
        http: web.BaseRequest,
        body: bytes,
        request: admission.Request,
        objection: Denied,
        deadline: float,
        started: float,
        run: admission.Run,
    ) -> Answer:
        """Answer a request that a rule objects to, as the modes of the rules have it."""
        # Bound once: they may change while the judge waits.
        rule_modes = self.modes
        verdict = await modes.settle(
            self._judge, request, objection, deadline, rule_modes, _peer(http), run
        )
        decision = verdict.decision
        if verdict.reported or isinstance(decision, Denied):
            answer = _answer_objection(request, verdict, rule_modes)
        else:
            answer = admission.encode(request, decision)
        seconds = time.perf_counter() - started
        self._metrics.validate_seconds.observe(seconds)
        self._count(request, decision, modes.ENFORCE)
        if self._capture is not None:
            # What the rules said, whatever their mode made of it.
            said = verdict.reported[0] if verdict.reported else decision
            self._capture.offer(request, body, said, _peer(http))
        for denied in verdict.reported:
            mode = rule_modes.of(denied.rule)
            self._count(request, denied, mode)
            self._log_refusal(http, request, denied, seconds, mode)
        if isinstance(decision, Denied):
            self._log_refusal(http, request, decision, seconds, modes.ENFORCE)
        return Answer(answer)

    def _count(self, request: admission.Request, decision: Allowed | Denied, mode: str) -> None:
        self._metrics.decisions.count(
            request.resource,
            request.sub_resource,
            request.operation,
            decision.rule,
            "denied" if isinstance(decision, Denied) else "allowed",
            mode,
        )

    async def _authorize(self, http: web.BaseRequest, body: bytes, deadline: float) -> Answer:
        started = time.perf_counter()
        try:
            if len(body) > LARGE_BYTES:
                run = self._lane.of(_peer(http), deadline)
                review = await run(partial(authorization.decode, body))
            else:
                review = authorization.decode(body)
        except authorization.ReviewError as error:
            raise HTTPError(400, str(error)) from None
        opinion = None
        if self._authorizer is not None:
            opinion = await self._authorizer.authorize(review, deadline, _peer(http))
        if opinion is None:
            raise HTTPError(503, "the cluster cannot be asked now", {"Retry-After": "1"})
        seconds = time.perf_counter() - started
        self._metrics.authorize_seconds.observe(seconds)
        if opinion.allowed:
            self._metrics.authorization_allowed.inc()
        else:
            self._metrics.authorization_no_opinion.inc()
            self._log_no_opinion(http, review, opinion, seconds)
        return Answer(authorization.encode(review, opinion))

    def _log_no_opinion(
        self,
        http: web.BaseRequest,
        review: authorization.Review,
        opinion: Opinion,
        seconds: float,
    ) -> None:
        if review.node is None or not self._may_log(http, review.node):
            return
        LOGGER.warning(
            "no opinion",
            extra={
                "client": http.remote,
                "node": _short(review.node),
                "request": str(review.attributes or "")[:2000],
                "why": opinion.reason[:2000],
                "seconds": round(seconds, 6),
            },
        )

    def _may_log(self, http: web.BaseRequest, node: str | None) -> bool:
        """Tell whether a node, at the address of a client, may write one more line."""
        allowed = self._logged.allow((_peer(http), _short(node)))
        if not allowed:
            DROPS.count(NODE)
        return allowed

    def _log_refusal(
        self,
        http: web.BaseRequest,
        request: admission.Request,
        denied: Denied,
        seconds: float,
        mode: str,
    ) -> None:
        if not self._may_log(http, request.node):
            return
        LOGGER.warning(
            "refused" if mode == modes.ENFORCE else "would be refused",
            extra={
                "client": http.remote,
                **_log_fields(request, seconds),
                "rule": denied.rule,
                "code": denied.code,
                "mode": mode,
                "why": denied.message[:2000],
                "detail": denied.detail[:2000],
            },
        )

    def _livez(self, _request: web.BaseRequest) -> web.Response:
        return web.Response(body=b"ok", headers=_TEXT)

    def _readyz(self, request: web.BaseRequest) -> web.Response:
        checks = {
            "shutdown": not self.draining,
            **{name: check() for name, check in self.conditions.items()},
            **self._judge.checks(),
        }
        ready = all(checks.values())
        if "verbose" in request.query or not ready:
            details = self._judge.details()
            lines = [
                f"[{'+' if ok else '-'}] {name}" + (f": {details[name]}" if name in details else "")
                for name, ok in checks.items()
            ]
            text = "\n".join((*lines, "ready" if ready else "not ready", ""))
        else:
            text = "ok"
        return web.Response(body=text.encode(), status=200 if ready else 503, headers=_TEXT)


def _answer_objection(
    request: admission.Request, verdict: modes.Verdict, rule_modes: Modes
) -> bytes:
    """Encode an answer whose audit annotations and warnings tell which rule objected."""
    decision = verdict.decision
    denied = isinstance(decision, Denied)
    rules = [objection.rule for objection in verdict.reported]
    annotations = {
        "rule": ",".join([*rules, *([decision.rule] if denied else [])]),
        "node": printable(request.node or ""),
        "decision": "denied" if denied else "would-be-denied",
    }
    warnings = [
        f"noderestrict would refuse this ({objection.rule}): {objection.message}"[:_WARNING]
        for objection in verdict.reported
        if rule_modes.of(objection.rule) == modes.WARN
    ]
    return admission.encode(request, decision, warnings, annotations)


def _peer(http: web.BaseRequest) -> str:
    """Return whom a request is from, as budgets and files are shared out."""
    return peer_of(http.remote or "")


def _short(name: str | None) -> str:
    """Return a name as it is logged and remembered: whole, if Kubernetes allows it."""
    return (name or "")[:_LONGEST_NAME]


def _log_fields(request: admission.Request, seconds: float) -> dict[str, object]:
    where = f"{request.namespace}/{request.name}" if request.namespace else request.name
    return {
        "node": _short(request.node),
        "operation": request.operation,
        "resource": _short(admission.resource_path(request)),
        "object": _short(where),
        "uid": request.uid,
        "dry_run": request.dry_run,
        "seconds": round(seconds, 6),
    }


def _error(code: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = msgspec.json.encode({"code": code, "message": printable(message[:1000])})
    return web.Response(body=body, status=code, headers={**_JSON, **(headers or {})})
