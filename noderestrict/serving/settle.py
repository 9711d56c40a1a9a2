"""Judge a request until a denial is enforced, or nothing more is denied."""

from collections.abc import Set
from typing import Protocol

import msgspec

from noderestrict import admission
from noderestrict.policy.decision import Allowed, Denied
from noderestrict.policy.modes import ENFORCE, OFF
from noderestrict.serving.health import Readiness
from noderestrict.serving.modes import Modes


class Judge(Readiness, Protocol):
    """Decides on a request within a deadline."""

    def allowed(self, request: admission.Request) -> Allowed | None:
        """Return that a request is allowed if that is certain without I/O, else None."""

    async def judge(
        self,
        request: admission.Request,
        deadline: float,
        skipped: Set[str] = frozenset(),
        peer: str = "",
        run: admission.Run = admission.inline,
    ) -> Allowed | Denied:
        """Return the decision.

        Args:
            request: of an AdmissionReview, decoded.
            deadline: of time.monotonic(), seconds.
            skipped: ids of rules to ignore.
            peer: address of the client.
            run: runs the rules.
        """


class Verdict(msgspec.Struct, frozen=True):
    """What is answered: the decision, and the denials that are only reported."""

    decision: Allowed | Denied
    reported: tuple[Denied, ...] = ()


async def settle(
    judge: Judge,
    request: admission.Request,
    objection: Denied,
    deadline: float,
    modes: Modes,
    peer: str = "",
    run: admission.Run = admission.inline,
) -> Verdict:
    """Judge a request again, without the rules that are not enforced, until a decision stands.

    Args:
        judge: decides.
        request: decoded.
        objection: the first denial.
        deadline: of time.monotonic(), seconds.
        modes: of the rules.
        peer: address of the client.
        run: runs the rules.
    """
    decision: Allowed | Denied = objection
    skipped: set[str] = set()
    reported: list[Denied] = []
    while isinstance(decision, Denied):
        mode = modes.of(decision.rule)
        if mode == ENFORCE:
            return Verdict(decision, tuple(reported))
        if mode != OFF:
            reported.append(decision)
        if decision.rule in skipped:
            # Skipping had no effect: a request that cannot be decoded reaches no other rule.
            return Verdict(Allowed(), tuple(dict.fromkeys(reported)))
        skipped.add(decision.rule)
        decision = await judge.judge(request, deadline, skipped, peer, run)
    return Verdict(decision, tuple(reported))
