"""Modes of rules: what a denial leads to, rule by rule."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from noderestrict import admission
from noderestrict.policy.decision import Allowed, Denied
from noderestrict.serving.judges import Judge

ENFORCE, WARN, AUDIT, OFF = "enforce", "warn", "audit", "off"
MODES = (ENFORCE, WARN, AUDIT, OFF)


@dataclass(frozen=True, slots=True)
class Modes:
    """The mode of each rule.

    Attributes:
        default: of rules that are not in ``by_rule``. ``enforce`` denies; ``warn`` allows with a
            warning to the client; ``audit`` allows, and reports in the audit log, the metrics and
            the log; ``off`` ignores the rule.
        by_rule: by rule id.
    """

    default: str = ENFORCE
    by_rule: Mapping[str, str] = field(default_factory=dict)

    def of(self, rule: str) -> str:
        """Return the mode of a rule."""
        return self.by_rule.get(rule, self.default)


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
