"""``POST /validate``: one AdmissionReview to one answer."""

import time
from functools import partial

from aiohttp import web

from noderestrict import admission
from noderestrict.policy import modes
from noderestrict.policy.decision import Allowed, Denied
from noderestrict.policy.text import printable
from noderestrict.serving.capture import Capture
from noderestrict.serving.connections import Answer, client_of
from noderestrict.serving.http import HTTPError
from noderestrict.serving.lane import LARGE_BYTES, Lane
from noderestrict.serving.modes import Modes
from noderestrict.serving.refusal_log import short
from noderestrict.serving.reporter import Reporter
from noderestrict.serving.settle import Judge, Verdict, settle
from noderestrict.serving.state import ServerState
from noderestrict.telemetry.metrics import Metrics

# The API server truncates longer warnings.
_WARNING = 256


class ValidateHandler:
    """Answers AdmissionReviews.

    Args:
        judge: decides.
        metrics: counted into.
        state: has the modes of the rules, and the agents.
        lane: runs what takes long.
        reporter: is told of answers.
        capture: gets judged reviews, if any.
    """

    def __init__(
        self,
        judge: Judge,
        metrics: Metrics,
        state: ServerState,
        lane: Lane,
        reporter: Reporter,
        capture: Capture | None,
    ) -> None:
        self._decoder = admission.TypedDecoder(state.in_force)
        self._judge = judge
        self._metrics = metrics
        self._state = state
        self._lane = lane
        self._reporter = reporter
        self._capture = capture

    async def handle(self, http: web.BaseRequest, body: bytes, deadline: float) -> Answer:
        """Return the answer to a review.

        Args:
            http: the request.
            body: its body.
            deadline: of time.monotonic(), seconds.

        Raises:
            HTTPError: 400 for a body that is not an AdmissionReview.
            CrowdedError: too many large bodies wait.
        """
        started = time.perf_counter()
        large = len(body) > LARGE_BYTES
        run = self._lane.of(client_of(http), len(body), deadline) if large else admission.inline
        try:
            request = (
                await run(partial(self._decoder.decode, body))
                if large
                else self._decoder.decode_quickly(body)
            )
        except admission.UnscannedError:
            request = await self._scan(body, client_of(http), deadline)
        except admission.ReviewError as error:
            raise HTTPError(400, str(error)) from None
        decision = (None if large else self._judge.allowed(request)) or await self._judge.judge(
            request, deadline, peer=client_of(http), run=run
        )
        # Bound once: they may change while the judge waits.
        rule_modes = self._state.modes
        if isinstance(decision, Denied):
            verdict = await settle(
                self._judge, request, decision, deadline, rule_modes, client_of(http), run
            )
            answer = encode(request, verdict, rule_modes)
        else:
            verdict = None
            answer = admission.encode(request, decision)
        seconds = time.perf_counter() - started
        self._metrics.validate_seconds.observe(seconds)
        if verdict is None:
            self._count(request, decision, modes.ENFORCE)
            self._reporter.allowed(request, seconds)
        else:
            decision = verdict.reported[0] if verdict.reported else verdict.decision
            self._report(http, request, verdict, rule_modes, seconds)
        if self._capture is not None:
            # What the rules decided, whatever their mode made of it.
            self._capture.offer(request, body, decision, client_of(http))
        return Answer(answer)

    async def _scan(self, body: bytes, client: str, deadline: float) -> admission.Request:
        """Decode, in the lane, a body that msgspec rejects: that takes long.

        Raises:
            HTTPError: 400 for a body that is not an AdmissionReview.
        """
        run = self._lane.of(client, len(body), deadline)
        try:
            return await run(partial(admission.decode, body, self._state.in_force.agents))
        except admission.ReviewError as error:
            raise HTTPError(400, str(error)) from None

    def _report(
        self,
        http: web.BaseRequest,
        request: admission.Request,
        verdict: Verdict,
        rule_modes: Modes,
        seconds: float,
    ) -> None:
        """Count and log what the rules denied."""
        self._count(request, verdict.decision, modes.ENFORCE)
        for denied in verdict.reported:
            mode = rule_modes.of(denied.rule)
            self._count(request, denied, mode)
            self._reporter.refused(http, request, denied, seconds, mode)
        if isinstance(verdict.decision, Denied):
            self._reporter.refused(http, request, verdict.decision, seconds, modes.ENFORCE)

    def _count(self, request: admission.Request, decision: Allowed | Denied, mode: str) -> None:
        self._metrics.decisions.count(
            request.resource,
            request.sub_resource,
            request.operation,
            decision.rule,
            "denied" if isinstance(decision, Denied) else "allowed",
            mode,
        )


def encode(request: admission.Request, verdict: Verdict, rule_modes: Modes) -> bytes:
    """Return an answer whose audit annotations and warnings name the rules that denied.

    Args:
        request: answered.
        verdict: on it.
        rule_modes: that the verdict was reached with.
    """
    decision = verdict.decision
    denied = isinstance(decision, Denied)
    if not (denied or verdict.reported):
        return admission.encode(request, decision)
    rules = [reported.rule for reported in verdict.reported]
    annotations = {
        "rule": ",".join([*rules, *([decision.rule] if denied else [])]),
        **_requester(request),
        "decision": "denied" if denied else "would-be-denied",
    }
    warnings = [
        f"noderestrict would refuse this ({reported.rule}): {reported.message}"[:_WARNING]
        for reported in verdict.reported
        if rule_modes.of(reported.rule) == modes.WARN
    ]
    return admission.encode(request, decision, warnings, annotations)


def _requester(request: admission.Request) -> dict[str, str]:
    if request.agent is not None:
        return {"agent": request.agent.name}
    return {"node": printable(short(request.node))}
