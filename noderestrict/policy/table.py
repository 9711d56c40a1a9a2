"""The rules in the order of evaluation, compiled to rows.

A row has the rules for one resource, subresource and operation, and the most specific row counts.
Default-deny resources have a row that denies everything no other row matches. Everything else is
allowed. Strict rules that are on come last.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import cache, lru_cache

from noderestrict.policy.attributes import Attributes
from noderestrict.policy.decision import Allowed, Decision, Question
from noderestrict.policy.releases import LATEST, Release
from noderestrict.policy.rule import ANY, Key, Rule, Target, rules_of
from noderestrict.policy.rules import (
    certificatesigningrequests,
    csinodes,
    events,
    leases,
    nodes,
    nodes_strict,
    persistentvolumeclaims,
    podcertificaterequests,
    pods,
    resourceslices,
    review,
    serviceaccounts,
)

_ALLOWED = Allowed()

#: Every rule, in the order of evaluation.
RULES: tuple[Rule, ...] = tuple(
    sorted(
        (
            rule
            for module in (
                review,
                pods,
                nodes,
                persistentvolumeclaims,
                serviceaccounts,
                leases,
                csinodes,
                resourceslices,
                certificatesigningrequests,
                podcertificaterequests,
                nodes_strict,
                events,
            )
            for rule in rules_of(module)
        ),
        key=lambda rule: rule.strict,
    )
)
RULE_IDS = tuple(rule.id for rule in RULES)
STRICT_RULE_IDS = tuple(rule.id for rule in RULES if rule.strict)


@dataclass(frozen=True, slots=True)
class Row:
    """Rules for one kind of request.

    Attributes:
        target: the requests that it matches.
        rules: run in order; the first objection wins.
    """

    target: Target
    rules: tuple[Rule, ...]

    @property
    def fields(self) -> tuple[str, ...]:
        """Paths of the fields that the rules compare with the existing object."""
        return tuple(dict.fromkeys(field for rule in self.rules for field in rule.fields))

    def evaluate(self, request: Attributes, skipped: Set[str] = frozenset()) -> Decision:
        """Return the first objection of the rules, or Allowed.

        A Question ends the evaluation too: only the last rule may ask one.

        Args:
            request: as the rules see it.
            skipped: ids of rules to ignore.

        Raises:
            LookupUnavailableError: a lookup failed.
        """
        for rule in self.rules:
            found = rule.check(request)
            if found is None:
                continue
            decision = rule.named(found)
            objection = decision.otherwise if isinstance(decision, Question) else decision
            if objection.rule in skipped:
                continue
            if isinstance(decision, Question) and rule is not self.rules[-1]:
                raise AssertionError(f"{rule.id} asks a question before the last rule")
            return decision
        return _ALLOWED


@cache
def table(strict: frozenset[str] = frozenset(), release: Release = LATEST) -> Mapping[Key, Row]:
    """Return all rows by the keys of their targets.

    Args:
        strict: ids of the strict rules that are on.
        release: whose rules apply.
    """
    rows: dict[Key, Row] = {}
    for rule in RULES:
        if rule.strict and rule.id not in strict:
            continue
        if not rule.since.includes(release):
            continue
        for target in rule.targets:
            known = rows.get(target.key)
            rules = (*known.rules, rule) if known else (rule,)
            rows[target.key] = Row(target, rules)
    return rows


@lru_cache(maxsize=1000)
def row_for(
    group: str,
    resource: str,
    sub_resource: str,
    operation: str,
    strict: frozenset[str] = frozenset(),
    release: Release = LATEST,
) -> Row | None:
    """Return the most specific row for a request; None if no rule judges it.

    Args:
        group: of the resource.
        resource: plural.
        sub_resource: "" for none.
        operation: of the request.
        strict: ids of the strict rules that are on.
        release: whose rules apply.
    """
    rows = table(strict, release)
    for sub in (sub_resource, ANY):
        for op in (operation, ANY):
            row = rows.get((group, resource, sub, op))
            if row is not None:
                return row
    return None
