"""What was found out: about each request, about each rule, and about the cluster."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from noderestrict.policy.releases import Since

#: Of a request: it passed, somebody refused it, it is not known, or there was nothing to send.
PASSED, REFUSED, UNTOLD, NOTHING = "passed", "refused", "unknown", "not applicable"
#: Of a rule: it holds, it does not, it is not known, or the cluster has nothing that it protects.
HOLDS, FAILS = "holds", "does not hold"
RESULTS = (HOLDS, FAILS, UNTOLD, NOTHING)
ADMISSION, AUTHORIZER = "admission", "authorizer"

#: Who refuses requests by rules about nodes; others may refuse them for other reasons.
PLUGIN, AUTHORIZERS, OURS = "NodeRestriction plugin", "authorizer", "noderestrict webhook"
API_SERVER = "API server"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request.

    Attributes:
        state: ``passed``, ``refused``, ``unknown`` or ``not applicable``.
        by: who refused it, "" if nobody did.
        message: the answer, or why it is not known.
    """

    state: str
    by: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request that was sent.

    Attributes:
        what: what the node asked for, in words.
        request: the request, "" if none could be built.
        hostile: whether it must be refused.
        since: since when the in-tree plugin or authorizer answers as it should.
        outcome: of the request.
        direct: what our webhook answered when it was asked directly; None if it was not.
    """

    what: str
    request: str
    hostile: bool
    since: Since
    outcome: Outcome
    direct: Outcome | None = None


@dataclass(frozen=True, slots=True)
class RuleResult:
    """What was found out about one rule.

    Attributes:
        half: ``admission`` or ``authorizer``.
        rule: its id.
        demands: what it requires.
        result: ``holds``, ``does not hold``, ``unknown`` or ``not applicable``.
        by: who holds it.
        why: reasons for any other result.
        ours: what our webhook has to do with it, "" if it is not installed.
        attempts: the requests that were sent.
    """

    half: str
    rule: str
    demands: str
    result: str
    by: tuple[str, ...]
    why: tuple[str, ...]
    ours: str
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found out about a cluster.

    Attributes:
        node: the node whose requests were sent.
        user: as whom we are connected, "" if unknown.
        impersonated: whether that user impersonated the node.
        version: of the API server, such as ``1.36.3``.
        release: which release's rules the cluster has, in words.
        notes: what could not be read, and why.
        all_read: whether all objects could be read that requests may be about.
        rules: results in the order of evaluation, admission first.
    """

    node: str
    user: str
    impersonated: bool
    version: str
    release: str
    notes: tuple[str, ...]
    all_read: bool
    rules: tuple[RuleResult, ...]

    @property
    def counts(self) -> dict[str, int]:
        """The number of rules by result."""
        counted = Counter(rule.result for rule in self.rules)
        return {result: counted[result] for result in RESULTS}

    @property
    def exit_code(self) -> int:
        """1 if a rule does not hold, else 2 if anything could not be told, else 0."""
        counts = self.counts
        return 1 if counts[FAILS] else 2 if counts[UNTOLD] else 0

    @property
    def summary(self) -> str:
        """The counts, in words."""
        counts = self.counts
        text = f"{counts[HOLDS]} hold, {counts[FAILS]} do not, {counts[UNTOLD]} could not be told"
        if counts[NOTHING]:
            text += f", {counts[NOTHING]} not applicable"
        return text


def judge(
    half: str, rule: str, demands: str, attempts: Sequence[Attempt], ours: str = ""
) -> RuleResult:
    """Return the result of a rule from its attempts."""
    hostile = [one for one in attempts if one.hostile and one.outcome.state != NOTHING]
    honest = [one for one in attempts if not one.hostile and one.outcome.state != NOTHING]
    by = tuple(dict.fromkeys(one.outcome.by for one in hostile if one.outcome.state == REFUSED))
    through = [one for one in hostile if one.outcome.state == PASSED]
    wrong = wrongly_refused(half, attempts)
    untold = [one for one in (*hostile, *honest) if one.outcome.state == UNTOLD]
    untold += [one for one in honest if one.outcome.state == REFUSED and one not in wrong]
    if not hostile:
        result, why = NOTHING, [one.outcome.message for one in attempts if one.hostile]
        why = why or ["the release whose rules are expected refuses nothing here"]
    elif through or wrong:
        result = FAILS
        why = [f"must be refused, but passes: {_named(one)}" for one in through]
        why += [f"must pass, but is refused ({one.outcome.by}): {_named(one)}" for one in wrong]
    elif untold:
        result, why = UNTOLD, [f"{one.what}: {one.outcome.message}" for one in untold]
    else:
        result, why = HOLDS, []
    held = by if result in (HOLDS, UNTOLD) else ()
    return RuleResult(
        half, rule, demands, result, held, tuple(dict.fromkeys(why)), ours, tuple(attempts)
    )


def wrongly_refused(half: str, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Return the honest attempts that a rule about nodes refused."""
    by = {one.outcome.by for one in attempts if one.hostile and one.outcome.state == REFUSED}
    # Whoever else refuses an honest request may have reasons that are not about nodes.
    suspects = {PLUGIN, AUTHORIZERS, OURS, *by}
    return [
        one
        for one in attempts
        if not one.hostile
        and one.outcome.state == REFUSED
        and (half == AUTHORIZER or one.outcome.by in suspects)
    ]


def _named(attempt: Attempt) -> str:
    message = f": {attempt.outcome.message}" if attempt.outcome.message else ""
    return f"{attempt.what}{message}"
