"""Does the registration send the webhook everything that it must judge?"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.differences import CONDITIONS, comparable, compare, without_empty
from noderestrict.doctor.findings import PASS, Finding, failed, passed, warned
from noderestrict.doctor.restore import restore
from noderestrict.policy.extra import Extra
from noderestrict.policy.rule import ANY
from noderestrict.render.conditions import NODE_USERS
from noderestrict.render.infrastructure import Infrastructure, infrastructure_in
from noderestrict.render.registration import (
    MATCH_CONDITIONS_SINCE,
    NEEDED_BY_NODES,
    webhook_configuration,
    webhook_rules,
)

_RENDER = "apply the output of noderestrict render again, with the same policy flags as here"
_SECONDS = 3
#: Fields that this check examines one by one.
_CHECKED = frozenset(
    ("matchPolicy", "namespaceSelector", "objectSelector", "admissionReviewVersions", "rules",
     "failurePolicy", "timeoutSeconds", CONDITIONS)
)  # fmt: skip
_CLUSTER_SCOPED = frozenset({"nodes", "csinodes", "resourceslices", "certificatesigningrequests"})


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield what is wrong with the installed registration."""
    configuration = await cluster.registration()
    if configuration is None:
        yield failed(
            f"ValidatingWebhookConfiguration {cluster.options.configuration} does not exist",
            "apply one of manifests/overlays",
            await restore(cluster),
        )
        return
    for finding in check_registration(
        configuration,
        cluster.options.extra,
        audited=cluster.options.audited,
        conditions=await cluster.minor_before_match_conditions() is None,
    ):
        if finding.status == PASS:
            yield finding
        else:
            yield replace(finding, command=await restore(cluster))


def check_registration(
    configuration: Mapping[str, Any],
    extra: Extra,
    *,
    audited: bool = False,
    conditions: bool = True,
) -> Iterator[Finding]:
    """Yield what is wrong with a ValidatingWebhookConfiguration, once for all webhooks.

    Args:
        configuration: as installed.
        extra: the policy beyond the in-tree plugin that it serves.
        audited: whether nothing is to be denied.
        conditions: whether the API server has match conditions, as Kubernetes 1.28 does.
    """
    count = len(configuration.get("webhooks") or ())
    names: dict[Finding, list[str]] = {}
    for name, finding in _findings(configuration, extra, audited=audited, conditions=conditions):
        names.setdefault(finding, []).append(name)
    for finding, webhooks in names.items():
        yield replace(finding, message=f"{_webhooks(webhooks, count)}{finding.message}")


def _webhooks(names: Sequence[str], count: int) -> str:
    """Return which webhooks a finding is about, "" if it is about the registration."""
    if names == [""]:
        return ""
    return "all webhooks: " if len(names) == count > 1 else f"{', '.join(names)}: "


def _findings(
    configuration: Mapping[str, Any], extra: Extra, *, audited: bool, conditions: bool
) -> Iterator[tuple[str, Finding]]:
    """Yield findings with the name of the webhook, "" for the registration."""
    webhooks = configuration.get("webhooks") or []
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
        yield "", failed(f"not sent to any webhook: {', '.join(missing[:8])}", _RENDER)
    infrastructure = infrastructure_in(webhooks)
    rendered = _rendered({}, extra, infrastructure)
    for webhook in webhooks:
        yield from _check_webhook(webhook)
        if conditions or NEEDED_BY_NODES.isdisjoint(_plurals(webhook)):
            yield from _check_failure_policy(webhook, audited=audited)
        else:
            yield from _check_failure_policy_without_conditions(webhook, audited=audited)
        yield from _check_conditions(webhook, rendered.get(str(webhook.get("name")), {}))
    yield from _check_rest(webhooks, extra, infrastructure, conditions=conditions)
    if not missing:
        yield "", passed("it covers every resource and subresource that the rules need")


def _rendered(
    client: Mapping[str, Any], extra: Extra, infrastructure: Infrastructure | None
) -> dict[str, Mapping[str, Any]]:
    """Return the rendered webhooks, by name."""
    value = webhook_configuration(client, extra=extra, infrastructure=infrastructure)
    return {one["name"]: one for one in value["webhooks"]}


def _check_rest(
    webhooks: Sequence[Mapping[str, Any]],
    extra: Extra,
    infrastructure: Infrastructure | None,
    *,
    conditions: bool,
) -> Iterator[tuple[str, Finding]]:
    """Yield differences from the rendered registration in all other fields."""
    if not webhooks:
        return
    client = dict(webhooks[0].get("clientConfig") or {})
    client.pop("caBundle", None)
    found = {str(one.get("name")): one for one in webhooks}
    rendered = _rendered(client, extra, infrastructure)
    for name, field, text in compare(found, {"webhooks": list(rendered.values())}):
        fewer = field == CONDITIONS and _only_fewer(found[name], rendered[name])
        if field == "" or (fewer and conditions):
            yield name, warned(text, _RENDER)
        elif field not in _CHECKED:
            yield name, failed(text, _RENDER)


def _only_fewer(webhook: Mapping[str, Any], rendered: Mapping[str, Any]) -> bool:
    """Tell whether conditions are merely missing: more requests then depend on the webhook."""
    known = comparable(rendered)[CONDITIONS]
    given = comparable(webhook)[CONDITIONS]
    return set(given.items()) < set(known.items())


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


def _check_webhook(webhook: Mapping[str, Any]) -> Iterator[tuple[str, Finding]]:
    name = str(webhook.get("name"))
    if webhook.get("matchPolicy") != "Equivalent":
        yield (
            name,
            failed(
                f"matchPolicy is {webhook.get('matchPolicy')!r}: "
                "requests for other API versions bypass it",
                "set matchPolicy: Equivalent",
            ),
        )
    for selector in ("namespaceSelector", "objectSelector"):
        if without_empty(webhook.get(selector)):
            yield name, failed(f"{selector} excludes objects", f"remove the {selector}")
    # The API server sends the first version that it supports.
    if (webhook.get("admissionReviewVersions") or ["v1"])[0] != "v1":
        yield (
            name,
            failed(
                f"admissionReviewVersions is {webhook['admissionReviewVersions']}: "
                "the webhook answers only v1",
                "set admissionReviewVersions: [v1]",
            ),
        )
    if (webhook.get("timeoutSeconds") or 10) > _SECONDS:
        yield (
            name,
            warned(
                f"timeoutSeconds is {webhook.get('timeoutSeconds')}",
                f"set timeoutSeconds to {_SECONDS} or less: kubelets wait for the answer",
            ),
        )


def _check_failure_policy(
    webhook: Mapping[str, Any], *, audited: bool
) -> Iterator[tuple[str, Finding]]:
    if webhook.get("failurePolicy") != "Fail" and not audited:
        yield (
            str(webhook.get("name")),
            warned(
                f"failurePolicy is {webhook.get('failurePolicy')!r}: hostile requests pass "
                "while the webhook is away",
                "set failurePolicy: Fail, or say --expect-mode audit for the audit overlay",
            ),
        )


def _check_failure_policy_without_conditions(
    webhook: Mapping[str, Any], *, audited: bool
) -> Iterator[tuple[str, Finding]]:
    """Yield what happens to leases, nodes and pods on an API server without match conditions."""
    why = f"API servers before 1.{MATCH_CONDITIONS_SINCE} have no match conditions"
    name = str(webhook.get("name"))
    # An API server reads an absent policy as Fail.
    if webhook.get("failurePolicy") != "Ignore":
        yield (
            name,
            failed(
                f"failurePolicy is {webhook.get('failurePolicy')!r}, and {why}: nodes stop while "
                "the webhook is away",
                "apply the output of noderestrict render --kubernetes-version",
            ),
        )
    elif not audited:
        yield (
            name,
            warned(
                f"failurePolicy is 'Ignore', since {why}: while the webhook is away, no rule on "
                f"{', '.join(sorted(NEEDED_BY_NODES))} holds: nodes may label themselves, write "
                "other nodes and create mirror pods that read Secrets",
                f"upgrade the API servers to 1.{MATCH_CONDITIONS_SINCE} or newer; until then, run "
                "several replicas of the webhook",
            ),
        )


def _check_conditions(
    webhook: Mapping[str, Any], rendered: Mapping[str, Any]
) -> Iterator[tuple[str, Finding]]:
    """Yield the conditions that may skip requests that a rule would deny.

    A condition is valid only for the resources of its own webhook.
    """
    known = [condition["expression"] for condition in rendered.get("matchConditions") or ()]
    others = _plurals(webhook) - _plurals(rendered)
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
        yield (
            str(webhook.get("name")),
            failed(
                f"matchCondition {condition.get('name')!r} {problem}: it may skip requests "
                "that a rule denies",
                _RENDER,
            ),
        )


def _plurals(webhook: Mapping[str, Any]) -> set[str]:
    return {
        resource.partition("/")[0]
        for rule in webhook.get("rules") or ()
        for resource in rule.get("resources") or ()
    }


CHECK = Check("registration", "Does the registration cover everything that the rules need?", check)
