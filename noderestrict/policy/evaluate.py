"""One request through its rules."""

from collections.abc import Set

from noderestrict.policy.attributes import Attributes
from noderestrict.policy.decision import Allowed, Decision, Question
from noderestrict.policy.table import Row

_ALLOWED = Allowed()


def evaluate(row: Row, request: Attributes, skipped: Set[str] = frozenset()) -> Decision:
    """Return the first objection of the row's rules, or Allowed.

    A Question ends the evaluation too: it is always the last rule that asks one.

    Args:
        row: of the request.
        request: its attributes.
        skipped: ids of rules that do not count.

    Raises:
        LookupUnavailableError: a look-up could not be made.
    """
    for rule in row.rules:
        decision = rule.objection(request)
        if decision is None:
            continue
        objection = decision.otherwise if isinstance(decision, Question) else decision
        if objection.rule in skipped:
            continue
        if isinstance(decision, Question) and rule is not row.rules[-1]:
            raise AssertionError(f"{rule.id} asks a question before the last rule")
        return decision
    return _ALLOWED
