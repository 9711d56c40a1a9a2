"""Without any one condition of the policies, a verdict changes on the reviews of ``test_policies``.

Only the changed expression is evaluated: its verdict stands alone, as that of every rule does.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("cel_expr_python.cel", reason="no CEL runtime for this platform")

from noderestrict.policy.cel import IS_NODE_USER
from noderestrict.policy.releases import Release
from noderestrict.policy.rules import review
from noderestrict.policy.settings import Settings
from noderestrict.render.policies import Options, policies
from noderestrict.replay.policies import cel
from tests.builders import Object
from tests.render.cel_mutants import mutants
from tests.render.policy_reviews import (
    BASES,
    USERS,
    annotated,
    bounded,
    is_of_a_node,
    refusing_rules,
    variables_of,
    with_user,
)
from tests.render.test_policies import EVERYTHING, MADE


def verdict(program: cel.Program, values: cel.Values) -> object:
    """Return the value of an expression; None if it has none, which counts as a denial."""
    try:
        return values.value(program)
    except cel.EvaluationError:
        return None


class Rule:
    """A rule's expression among the variables of its policy, and reviews to try it out on.

    Args:
        policy: rendered.
        name: of the rule's variable.
        reviews: of the resource.
    """

    def __init__(self, policy: Object, name: str, reviews: list[Any]) -> None:
        self._compiler = cel.Compiler()
        variables = {
            one["name"]: self._compiler.variable(one["name"], one["expression"])
            for one in policy["spec"]["variables"]
            if one["name"] != name
        }
        self.expression = next(
            one["expression"] for one in policy["spec"]["variables"] if one["name"] == name
        )
        original = self._compiler.compile(self.expression)
        values = [cel.Values(given, variables) for given in reviews]
        # A condition less makes a rule deny less, or fail: these reviews show it first.
        self._reviews = sorted(
            ((one, verdict(original, one)) for one in values), key=lambda one: one[1] is True
        )

    @property
    def can_fail(self) -> bool:
        """Whether the expression itself fails on any review, rather than deny it."""
        return any(expected is None for _, expected in self._reviews)

    def survives(self, expression: str) -> bool:
        """Tell whether an expression has the same verdict on every review."""
        changed = self._compiler.compile(expression)
        return all(verdict(changed, values) == expected for values, expected in self._reviews)


def rules(settings: Settings) -> Iterator[tuple[str, Object]]:
    """Yield the name of each rule's variable with its policy."""
    for policy in policies(Options(settings)):
        for validation in policy["spec"].get("validations", ()):
            yield validation["expression"].removeprefix("variables."), policy


RULES = [
    *(pytest.param(name, policy, id=name) for name, policy in rules(EVERYTHING)),
    *(
        pytest.param(name, policy, id=f"{name}-1.{minor}")
        for minor in (33, 28)
        for name, policy in rules(Settings.for_version(minor, release=Release(minor)))
        if name == "pods_mirror_references"
    ),
]
REVIEWS: dict[str, list[Any]] = {}
for _body in (*MADE, *bounded(by=1), *annotated(by=1)):
    if not is_of_a_node(_body) or review.OBJECT.id in refusing_rules(_body, EVERYTHING):
        continue
    _resource = json.loads(_body)["request"]["resource"]["resource"]
    REVIEWS.setdefault(_resource, []).append(variables_of(_body))


@pytest.mark.parametrize(("name", "policy"), RULES)
def test_without_any_one_condition_a_verdict_changes(name: str, policy: Object) -> None:
    (resource, *_) = policy["spec"]["matchConstraints"]["resourceRules"][0]["resources"]
    rule = Rule(policy, name, REVIEWS[resource])
    assert not rule.can_fail
    survivors = [one for one in ("true", *mutants(rule.expression)) if rule.survives(one)]
    assert survivors == []


def test_without_any_one_condition_others_than_nodes_are_judged_or_nodes_are_not() -> None:
    users = [with_user(BASES[0], user) for user in USERS]
    given = [cel.Values(variables_of(body), {}) for body in users]
    original = [verdict(cel.Compiler().compile(IS_NODE_USER), values) for values in given]
    assert True in original
    assert False in original
    for changed in mutants(IS_NODE_USER):
        program = cel.Compiler().compile(changed)
        assert [verdict(program, values) for values in given] != original, changed
