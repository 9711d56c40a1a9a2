"""Log lines about refusals, limited for each node so that none can flood the log."""

from aiohttp import web

from noderestrict import admission, authorization
from noderestrict.agents.agents import RULE_PREFIX, Held
from noderestrict.graph.rules import Opinion
from noderestrict.policy import modes
from noderestrict.policy.decision import Denied
from noderestrict.serving.connections import client_of
from noderestrict.serving.reporter import Reporter
from noderestrict.telemetry.logs import DROPS, LOGGER, NODE, NodeLimiter

_DEBUG = 10
# A namespace has at most 63 characters, a name 253.
_LONGEST_NAME = 512
_LONGEST_TEXT = 2000


class RefusalLog(Reporter):
    """Logs what was refused, and at debug level what was allowed."""

    def __init__(self) -> None:
        self._limiter = NodeLimiter()

    def allowed(self, request: admission.Request, seconds: float) -> None:
        """Log an allowed request, at debug level."""
        if LOGGER.isEnabledFor(_DEBUG):
            LOGGER.debug("allowed", extra=_fields(request, seconds))

    def refused(
        self,
        http: web.BaseRequest,
        request: admission.Request,
        denied: Denied,
        seconds: float,
        mode: str,
    ) -> None:
        """Log a denial, whether it is enforced or only reported."""
        if not self._may_log(http, _requester(request.node, request.agent)):
            return
        LOGGER.warning(
            "refused" if mode == modes.ENFORCE else "would be refused",
            extra={
                "client": http.remote,
                **_fields(request, seconds),
                "rule": denied.rule,
                "code": denied.code,
                "mode": mode,
                "why": denied.message[:_LONGEST_TEXT],
                "detail": denied.detail[:_LONGEST_TEXT],
            },
        )

    def no_opinion(
        self,
        http: web.BaseRequest,
        review: authorization.Review,
        opinion: Opinion,
        seconds: float,
    ) -> None:
        """Log that a node's access was not allowed; nothing if the review is not a node's."""
        if review.node is None or not self._may_log(http, review.node):
            return
        LOGGER.warning(
            "no opinion",
            extra={
                "client": http.remote,
                "node": short(review.node),
                "request": str(review.access or "")[:_LONGEST_TEXT],
                "why": opinion.reason[:_LONGEST_TEXT],
                "seconds": round(seconds, 6),
            },
        )

    def denied(
        self,
        http: web.BaseRequest,
        review: authorization.Review,
        opinion: Opinion,
        seconds: float,
        mode: str,
    ) -> None:
        """Log that an agent's read was denied, or would be."""
        asked = review.asked
        if asked is None or not self._may_log(http, _requester(None, asked.agent)):
            return
        LOGGER.warning(
            "denied" if mode == modes.ENFORCE else "would be denied",
            extra={
                "client": http.remote,
                "agent": asked.agent.name,
                "request": str(asked)[:_LONGEST_TEXT],
                "rule": opinion.rule,
                "mode": mode,
                "why": opinion.reason[:_LONGEST_TEXT],
                "detail": opinion.detail[:_LONGEST_TEXT],
                "seconds": round(seconds, 6),
            },
        )

    def _may_log(self, http: web.BaseRequest, node: str | None) -> bool:
        """Return whether a node, at the address of a client, may write one more line."""
        allowed = self._limiter.allow((client_of(http), short(node)))
        if not allowed:
            DROPS.count(NODE)
        return allowed


def _requester(node: str | None, agent: Held | None) -> str | None:
    """Return whose lines are limited together: those of a node, or of an agent on all nodes."""
    return node if agent is None else f"{RULE_PREFIX}{agent.name}"


def short(name: str | None) -> str:
    """Return a name as it is logged and remembered: whole, if Kubernetes allows it."""
    return (name or "")[:_LONGEST_NAME]


def _fields(request: admission.Request, seconds: float) -> dict[str, object]:
    where = f"{request.namespace}/{request.name}" if request.namespace else request.name
    agent = request.agent
    return {
        **({"agent": agent.name} if agent is not None else {"node": short(request.node)}),
        "operation": request.operation,
        "resource": short(admission.resource_path(request)),
        "object": short(where),
        "uid": request.uid,
        "dry_run": request.dry_run,
        "seconds": round(seconds, 6),
    }
