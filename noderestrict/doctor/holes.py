"""Holes in a registration: requests that it does not send to the webhook, or that need not wait."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from noderestrict.doctor.differences import without_empty
from noderestrict.doctor.findings import Finding, failed, warned
from noderestrict.policy.extra import Extra
from noderestrict.policy.rule import ANY
from noderestrict.render.agents import is_for_agents
from noderestrict.render.conditions import NODE_USERS, SYNTAXES, Syntax
from noderestrict.render.infrastructure import Infrastructure, infrastructure_in
from noderestrict.render.registration import (
    MATCH_CONDITIONS_SINCE,
    NEEDED_BY_NODES,
    webhook_configuration,
    webhook_rules,
)

RENDER = "apply the output of noderestrict render again, with the same policy flags as here"
RULES, CONDITIONS = "rules", "matchConditions"
_SECONDS = 3
_CLUSTER_SCOPED = frozenset({"nodes", "csinodes", "resourceslices", "certificatesigningrequests"})


@dataclass(frozen=True, slots=True)
class Hole:
    """What is wrong with a field.

    Attributes:
        webhook: its name, "" for the registration.
        field: of the webhook.
        finding: what is wrong with it.
    """

    webhook: str
    field: str
    finding: Finding


def holes(
    configuration: Mapping[str, Any], extra: Extra, *, audited: bool, conditions: bool
) -> Iterator[Hole]:
    """Yield what lets requests pass, or stops nodes, whoever wants it so.

    Args:
        configuration: as installed.
        extra: the policy beyond the in-tree plugin that it serves.
        audited: whether nothing is to be denied.
        conditions: whether the API server has match conditions, as Kubernetes 1.28 does.
    """
    # What those for agents are sent is not what a node sends.
    webhooks = [one for one in configuration.get("webhooks") or () if not is_for_agents(one)]
    missing = [
        f"{operation} {group or 'core'}/{resource}"
        for rule in webhook_rules(extra=extra)
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for operation in rule["operations"]
        if not any(
            _covers(one, group, rule["apiVersions"], resource, operation)
            for webhook in webhooks
            for one in webhook.get("rules") or ()
        )
    ]
    if missing:
        text = f"not sent to any webhook: {', '.join(missing[:8])}"
        yield Hole("", RULES, failed(text, RENDER))
    infrastructure = infrastructure_in(webhooks)
    rendered = [rendered_webhooks({}, extra, infrastructure, syntax) for syntax in SYNTAXES]
    for webhook in webhooks:
        yield from _check_webhook(webhook)
        if conditions or NEEDED_BY_NODES.isdisjoint(_plurals(webhook)):
            yield from _check_failure_policy(webhook, audited=audited)
        else:
            yield from _check_failure_policy_without_conditions(webhook, audited=audited)
        name = str(webhook.get("name"))
        yield from _check_conditions(webhook, [one.get(name, {}) for one in rendered])


def rendered_webhooks(
    client: Mapping[str, Any],
    extra: Extra,
    infrastructure: Infrastructure | None,
    syntax: Syntax,
) -> dict[str, Mapping[str, Any]]:
    """Return the rendered webhooks, by name; the arguments are those of the registration."""
    value = webhook_configuration(
        client, extra=extra, infrastructure=infrastructure, optional_fields=syntax.optional
    )
    return {one["name"]: one for one in value["webhooks"]}


def _covers(
    rule: Mapping[str, Any], group: str, versions: Sequence[str], resource: str, operation: str
) -> bool:
    given = set(rule.get("apiVersions") or ())
    scope = "Cluster" if resource.partition("/")[0] in _CLUSTER_SCOPED else "Namespaced"
    return (
        not {group, ANY}.isdisjoint(rule.get("apiGroups") or ())
        and (ANY in given or given.issuperset(versions))
        and (rule.get("scope") or ANY) in (scope, ANY)
        and not {operation, ANY}.isdisjoint(rule.get("operations") or ())
        and _names(rule.get("resources") or (), resource)
    )


def _names(resources: Sequence[str], wanted: str) -> bool:
    plural, _, sub = wanted.partition("/")
    either = {wanted, f"{plural}/*", f"*/{sub}", "*/*"} if sub else {wanted, "*", "*/*"}
    return not either.isdisjoint(resources)


def _check_webhook(webhook: Mapping[str, Any]) -> Iterator[Hole]:
    name = str(webhook.get("name"))
    if webhook.get("matchPolicy") != "Equivalent":
        yield Hole(
            name,
            "matchPolicy",
            failed(
                f"matchPolicy is {webhook.get('matchPolicy')!r}: "
                "requests for other API versions bypass it",
                "set matchPolicy: Equivalent",
            ),
        )
    for selector in ("namespaceSelector", "objectSelector"):
        if without_empty(webhook.get(selector)):
            yield Hole(
                name, selector, failed(f"{selector} excludes objects", f"remove the {selector}")
            )
    # The API server sends the first version that it supports.
    if (webhook.get("admissionReviewVersions") or ["v1"])[0] != "v1":
        yield Hole(
            name,
            "admissionReviewVersions",
            failed(
                f"admissionReviewVersions is {webhook['admissionReviewVersions']}: "
                "the webhook answers only v1",
                "set admissionReviewVersions: [v1]",
            ),
        )
    if (webhook.get("timeoutSeconds") or 10) > _SECONDS:
        yield Hole(
            name,
            "timeoutSeconds",
            warned(
                f"timeoutSeconds is {webhook.get('timeoutSeconds')}",
                f"set timeoutSeconds to {_SECONDS} or less: kubelets wait for the answer",
            ),
        )


def _check_failure_policy(webhook: Mapping[str, Any], *, audited: bool) -> Iterator[Hole]:
    if webhook.get("failurePolicy") != "Fail" and not audited:
        yield Hole(
            str(webhook.get("name")),
            "failurePolicy",
            warned(
                f"failurePolicy is {webhook.get('failurePolicy')!r}: hostile requests pass "
                "while the webhook is away",
                "set failurePolicy: Fail, or say --expect-mode audit for the audit overlay",
            ),
        )


def _check_failure_policy_without_conditions(
    webhook: Mapping[str, Any], *, audited: bool
) -> Iterator[Hole]:
    """Yield what happens to leases, nodes and pods on an API server without match conditions."""
    why = f"API servers before 1.{MATCH_CONDITIONS_SINCE} have no match conditions"
    name = str(webhook.get("name"))
    # An API server reads an absent policy as Fail.
    if webhook.get("failurePolicy") != "Ignore":
        yield Hole(
            name,
            "failurePolicy",
            failed(
                f"failurePolicy is {webhook.get('failurePolicy')!r}, and {why}: nodes stop while "
                "the webhook is away",
                "apply the output of noderestrict render --kubernetes-version",
            ),
        )
    elif not audited:
        yield Hole(
            name,
            "failurePolicy",
            warned(
                f"failurePolicy is 'Ignore', since {why}: while the webhook is away, no rule on "
                f"{', '.join(sorted(NEEDED_BY_NODES))} holds: nodes may label themselves, write "
                "other nodes and create mirror pods that read Secrets",
                f"upgrade the API servers to 1.{MATCH_CONDITIONS_SINCE} or newer; until then, run "
                "several replicas of the webhook",
            ),
        )


def _check_conditions(
    webhook: Mapping[str, Any], rendered: Sequence[Mapping[str, Any]]
) -> Iterator[Hole]:
    """Yield the conditions that may skip requests that a rule would deny.

    A condition is valid only for the resources of its own webhook.

    Args:
        webhook: as installed.
        rendered: the same as rendered for older and newer API servers.
    """
    known = [
        condition["expression"]
        for one in rendered
        for condition in one.get("matchConditions") or ()
    ]
    others = _plurals(webhook) - _plurals(rendered[0])
    for condition in webhook.get("matchConditions") or ():
        expression = condition.get("expression")
        if expression == NODE_USERS["expression"]:
            continue
        if expression not in known:
            problem = "differs from the rendered one"
        elif others:
            problem = f"is not valid for {', '.join(sorted(others))}"
        else:
            continue
        yield Hole(
            str(webhook.get("name")),
            CONDITIONS,
            failed(
                f"matchCondition {condition.get('name')!r} {problem}: it may skip requests "
                "that a rule denies",
                RENDER,
            ),
        )


def _plurals(webhook: Mapping[str, Any]) -> set[str]:
    return {
        resource.partition("/")[0]
        for rule in webhook.get("rules") or ()
        for resource in rule.get("resources") or ()
    }
