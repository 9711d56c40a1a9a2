"""ValidatingAdmissionPolicies: the rules that need no look-up, for an API server to apply itself.

Everything here follows from the rules and their CEL forms. A policy holds the rules of one resource
that have the same mode, because actions belong to its binding.
"""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from noderestrict import __version__
from noderestrict.agents.agents import RULE_PREFIX
from noderestrict.agents.file import Agent
from noderestrict.policy.cel import (
    IS_NODE_USER,
    MOST_ENTRIES,
    MOST_KEYS,
    NEVER,
    Context,
    Form,
    Uncovered,
    list_of,
    message_expression,
    quoted,
    used_variables,
)
from noderestrict.policy.modes import OFF
from noderestrict.policy.releases import LATEST, RULES_ANNOTATION
from noderestrict.policy.rule import OPERATIONS, Rule
from noderestrict.policy.rules.review import NODE_NAME, OBJECT
from noderestrict.policy.settings import Settings
from noderestrict.policy.table import RULES, row_for, table
from noderestrict.render import agent_policies
from noderestrict.render.load import Object
from noderestrict.render.policy_modes import ACTIONS, DENY
from noderestrict.render.registration import NAME, RESOURCES, match_constraints
from noderestrict.render.written import POLICIES, labelled, yaml_text

#: The first minor version whose API servers have policies.
POLICIES_SINCE = 30

_FILE, _AGENTS = "policies.yaml", "agents.yaml"
_API_VERSION = "admissionregistration.k8s.io/v1"
#: Stands for every subresource that no rule names.
_OTHER = "*"
_NO_LABELS: Mapping[str, str] = {}

#: Subresource and operation.
Cell = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Options:
    """What the policies depend on.

    Attributes:
        settings: of the rules; audiences do not matter.
        mode: of all rules: deny, warn or audit.
        rule_modes: of single rules, by id; ``off`` leaves a rule out. ``agents/NAME`` stands for
            all rules of an agent.
        agents: of checked policies.
    """

    settings: Settings = field(default_factory=lambda: Settings.for_version(LATEST.minor))
    mode: str = DENY
    rule_modes: Mapping[str, str] = field(default_factory=dict)
    agents: Sequence[Agent] = ()

    def mode_of(self, rule: Rule) -> str:
        """Return the mode of a rule."""
        return self.rule_modes.get(rule.id, self.mode)

    def __post_init__(self) -> None:
        """Check that every mode is that of a rule in a policy.

        Raises:
            ValueError: one is not; the message names it.
        """
        for rule in self.rule_modes:
            is_agents = rule.startswith(RULE_PREFIX)
            reason = (
                agent_policies.why_not(rule, self.agents)
                if is_agents
                else _why_not(rule, self.settings)
            )
            if reason:
                raise ValueError(f"rule-modes: {rule!r} is in no policy: {reason}")


def _why_not(rule_id: str, settings: Settings) -> str:
    """Return why a rule is in no policy; "" if it is in one."""
    rule = next(rule for rule in RULES if rule.id == rule_id)
    if isinstance(rule.cel, Uncovered):
        return f"it {rule.cel.value}"
    if rule.strict and rule.id not in settings.extra.rules:
        return "it is a strict rule, and off"
    if not rule.since.includes(settings.release):
        return f"Kubernetes {settings.release} does not have it"
    return ""


def uncovered(settings: Settings) -> dict[Uncovered, list[Rule]]:
    """Return the rules that are in no policy though they are on, by the reason."""
    found: dict[Uncovered, list[Rule]] = {}
    rows = table(settings.extra.rules, settings.release).values()
    on = {OBJECT.id, *(rule.id for row in rows for rule in row.rules)}
    for rule in RULES:
        if isinstance(rule.cel, Uncovered) and rule.id in on:
            found.setdefault(rule.cel, []).append(rule)
    return found


def policies(options: Options | None = None) -> list[Object]:
    """Return every policy, each followed by its binding."""
    options = options or Options()
    return [*_of_nodes(options), *_of_agents(options)]


def _of_nodes(options: Options) -> list[Object]:
    return [
        one
        for name, resources in RESOURCES.items()
        for resource in resources
        for mode in ACTIONS
        for one in _of_resource(options, name, resource, mode)
    ]


def _of_agents(options: Options) -> list[Object]:
    return agent_policies.policies(options.agents, _modes(options))


def _modes(options: Options) -> agent_policies.Modes:
    return agent_policies.Modes(options.mode, options.rule_modes)


def files(options: Options | None = None, labels: Mapping[str, str] = _NO_LABELS) -> dict[str, str]:
    """Return the content of every file, by its name.

    Args:
        options: what the policies depend on.
        labels: of every object, besides ours.
    """
    options = options or Options()
    rendered = {
        _FILE: yaml_text((labelled(one, labels) for one in _of_nodes(options)), _header(options))
    }
    if options.agents:
        rendered[_AGENTS] = yaml_text(
            (labelled(one, labels) for one in _of_agents(options)), _agents_header(options)
        )
    kustomization: Object = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": list(rendered),
    }
    return {**rendered, "kustomization.yaml": yaml_text([kustomization])}


def _header(options: Options) -> str:
    """Return what the policies leave open, as a comment."""
    settings = options.settings
    off = [one for one, mode in options.rule_modes.items() if mode == OFF]
    lines = [
        f"The node rules of Kubernetes {settings.release} that an API server of Kubernetes "
        f"1.{POLICIES_SINCE} or newer can apply itself. See docs/policies.md.",
        "Open is what nodes may read, and what only the webhook can judge:",
        *(
            f"- {', '.join(rule.id for rule in rules)}: {reason.value}"
            for reason, rules in uncovered(settings).items()
        ),
        *([f"- {', '.join(off)}: off"] if off else []),
        f"Stricter than the webhook: an expression visits {MOST_ENTRIES} entries of a list in a "
        f"mirror pod and {MOST_KEYS} labels or annotations of a Node that change; more are denied. "
        "In the spec of a claim, quantities compare as text.",
    ]
    return _comment(lines)


def _agents_header(options: Options) -> str:
    """Return what the policies of agents leave open, as a comment."""
    parts = agent_policies.open_parts(options.agents, _modes(options))
    return _comment(
        [
            f"What API servers of Kubernetes 1.{POLICIES_SINCE} or newer can tell themselves of "
            "policies of agents. See docs/agents.md.",
            *(["Open is what only the webhook or the authorizer can judge:"] if parts else []),
            *(f"- {part}" for part in parts),
            *agent_policies.STRICTER,
        ]
    )


def _comment(lines: Iterable[str]) -> str:
    return "".join(
        f"{one}\n"
        for line in lines
        for one in textwrap.wrap(
            line,
            100,
            initial_indent="# ",
            subsequent_indent="#   " if line[0] == "-" else "# ",
            break_on_hyphens=False,
        )
    )


@dataclass(frozen=True, slots=True)
class _Judged:
    """A rule with the requests that it judges."""

    rule: Rule
    form: Form
    cells: frozenset[Cell]


def _of_resource(options: Options, name: str, resource: str, mode: str) -> Iterator[Object]:
    settings = options.settings
    rules = [
        one
        for one in _judged(resource, settings)
        if options.mode_of(one.rule) != OFF and any(_cases(one, settings))
    ]
    if rules:
        everything = frozenset((_OTHER, operation) for operation in OPERATIONS) | _matched(rules)
        rules.insert(0, _Judged(NODE_NAME, _form(NODE_NAME), everything))
    judged = [one for one in rules if options.mode_of(one.rule) == mode]
    if not judged:
        return
    matched = _matched(judged)
    full_name = f"{NAME}-{name}" if mode == options.mode else f"{NAME}-{name}-{mode}"
    metadata = {
        "name": full_name,
        "labels": {**POLICIES, "app.kubernetes.io/version": __version__},
        "annotations": {RULES_ANNOTATION: str(settings.release)},
    }
    yield {
        "apiVersion": _API_VERSION,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": metadata,
        "spec": _spec(resource, settings, mode, judged, matched),
    }
    yield {
        "apiVersion": _API_VERSION,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": metadata,
        "spec": {"policyName": full_name, "validationActions": list(ACTIONS[mode])},
    }


def _form(rule: Rule) -> Form:
    if not isinstance(rule.cel, Form):
        raise TypeError(f"{rule.id} has no CEL form")
    return rule.cel


def _group(resource: str) -> str:
    """Return the API group of a resource that rules with a form judge; "" if there is none."""
    groups = {
        target.group
        for rule in RULES
        if isinstance(rule.cel, Form)
        for target in rule.targets
        if target.resource == resource
    }
    return max(groups, default="")


def _judged(resource: str, settings: Settings) -> list[_Judged]:
    """Return the rules of a resource that have a form, in the order of evaluation."""
    strict, release, group = settings.extra.rules, settings.release, _group(resource)
    subs = {key[2] for key in table(strict, release) if key[:2] == (group, resource)}
    found: dict[str, set[Cell]] = {}
    for sub in subs | {_OTHER}:
        for operation in OPERATIONS:
            row = row_for(group, resource, sub, operation, strict, release)
            for rule in row.rules if row else ():
                found.setdefault(rule.id, set()).add((sub, operation))
    return [
        _Judged(rule, rule.cel, frozenset(found[rule.id]))
        for rule in RULES
        if rule.id in found and isinstance(rule.cel, Form)
    ]


def _matched(judged: Iterable[_Judged]) -> frozenset[Cell]:
    """Return the cells that a policy matches: all combinations of what its rules judge."""
    cells = [cell for one in judged for cell in one.cells]
    return frozenset((sub, operation) for sub, _ in cells for _, operation in cells)


def _cases(one: _Judged, settings: Settings) -> list[tuple[frozenset[Cell], tuple[str, ...]]]:
    """Return the requests that a rule judges, grouped by the tests that hold for those allowed."""
    by_tests: dict[tuple[str, ...], set[Cell]] = {}
    for operation in OPERATIONS:
        for sub in sorted(sub for sub, op in one.cells if op == operation):
            if tests := one.form.tests(Context(operation, settings)):
                by_tests.setdefault(tests, set()).add((sub, operation))
    return [(frozenset(cells), tests) for tests, cells in by_tests.items()]


def _spec(
    resource: str,
    settings: Settings,
    mode: str,
    judged: Sequence[_Judged],
    matched: frozenset[Cell],
) -> Object:
    tests = {_variable(one.rule): _expression(one, settings, matched) for one in judged}
    validations = [_validation(one) for one in judged]
    used = used_variables(
        [*tests.values(), *(one.get("messageExpression", "") for one in validations)]
    )
    subs = sorted({sub for sub, _ in matched})
    return {
        "failurePolicy": "Fail",
        "matchConstraints": match_constraints(
            [
                {
                    "apiGroups": [_group(resource)],
                    "apiVersions": ["*"],
                    "operations": [one for one in OPERATIONS if one in {op for _, op in matched}],
                    "resources": (
                        [resource, f"{resource}/*"]
                        if _OTHER in subs
                        else [f"{resource}/{sub}" if sub else resource for sub in subs]
                    ),
                    "scope": "*",
                }
            ]
        ),
        "matchConditions": [{"name": "node-users", "expression": IS_NODE_USER}],
        "variables": [
            {"name": name, "expression": expression}
            for name, expression in {**used, **tests}.items()
        ],
        "validations": validations,
        **(_audit_annotations(judged) if mode == DENY else {}),
    }


def _variable(rule: Rule) -> str:
    return rule.id.replace("/", "_").replace("-", "_")


def _validation(one: _Judged) -> Object:
    expression = message_expression(one.rule.id, one.form.message)
    # Also in place of an expression that fails.
    message = one.rule.demands if expression else one.form.message
    return {
        "expression": f"variables.{_variable(one.rule)}",
        "message": f"{one.rule.id}: {message}",
        **({"messageExpression": expression} if expression else {}),
        "reason": "Forbidden",
    }


def _audit_annotations(judged: Sequence[_Judged]) -> Object:
    """Return what names the rule in the audit log.

    A binding that audits does so itself. A policy that must not refuse anything has none of these:
    an API server refuses requests for which one fails, whatever the actions of the binding are.
    """
    first = "".join(
        f"!variables.{_variable(one.rule)} ? {quoted(one.rule.id)} : " for one in judged
    )
    return {"auditAnnotations": [{"key": "rule", "valueExpression": f"{first}''"}]}


def _expression(one: _Judged, settings: Settings, matched: frozenset[Cell]) -> str:
    """Return what holds for every matched request that a rule allows."""
    cases = _cases(one, settings)
    (cells, tests), *others = cases
    if not others:
        is_exempt = _other_than(cells, matched)
        if tests == NEVER or not is_exempt:
            return is_exempt or _all(tests)
        return f"{is_exempt}\n|| ({_all(tests)})"
    choices = [f"{_among(cells, matched)} ? ({_all(tests)})\n: " for cells, tests in cases]
    if matched == frozenset().union(*(cells for cells, _ in cases)):
        choices[-1] = choices[-1].partition(" ? ")[2].removesuffix("\n: ")
        return "".join(choices)
    return f"{''.join(choices)}true"


def _all(tests: Sequence[str]) -> str:
    return "\n&& ".join(f"({one})" if len(tests) > 1 and _has_choice(one) else one for one in tests)


def _has_choice(test: str) -> bool:
    return " || " in test or " ? " in test


def _among(cells: frozenset[Cell], matched: frozenset[Cell]) -> str:
    """Return a test of a matched request that is among some."""
    rest = matched - cells
    return f"!({_either(rest, matched)})" if len(rest) < len(cells) else _either(cells, matched)


def _other_than(cells: frozenset[Cell], matched: frozenset[Cell]) -> str:
    """Return a test of a matched request that is not among some; "" if all are."""
    rest = matched - cells
    if not rest:
        return ""
    return _either(rest, matched) if len(rest) < len(cells) else f"!({_either(cells, matched)})"


def _either(cells: frozenset[Cell], matched: frozenset[Cell]) -> str:
    """Return a test of the subresource and the operation of a request."""
    every = {sub for sub, _ in matched}
    all_operations = {operation for _, operation in matched}

    def subs_of(operation: str) -> list[str]:
        return sorted(sub for sub, op in cells if op == operation)

    found = []
    operations = [one for one in OPERATIONS if subs_of(one)]
    for subs, group in groupby(sorted(operations, key=subs_of), key=subs_of):
        of = set(group)
        tests = [] if of == all_operations else [_is("request.operation", of)]
        if set(subs) != every:
            named = _is("variables.subresource", every - set(subs) if _OTHER in subs else subs)
            tests.append(f"!({named})" if _OTHER in subs else named)
        found.append(" && ".join(tests))
    return " || ".join(f"({one})" for one in found) if len(found) > 1 else found[0]


def _is(what: str, values: Iterable[str]) -> str:
    texts = sorted(values)
    return f"{what} == {quoted(texts[0])}" if len(texts) == 1 else f"{what} in {list_of(texts)}"
