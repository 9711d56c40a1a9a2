"""Is the webhook registered for everything, in the way that guards and does not lock."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from noderestrict.doctor.findings import Finding, failed, passed, warned
from noderestrict.policy.extra import Extra
from noderestrict.policy.rule import ANY
from noderestrict.render.conditions import NODE_USERS
from noderestrict.render.registration import webhook_configuration, webhook_rules

_CHECK = "registration"
_RENDER = (
    "apply the rendered manifests again (noderestrict render), and give both the same policy flags"
)
_SECONDS = 3
_CLUSTER_SCOPED = frozenset({"nodes", "csinodes", "resourceslices", "certificatesigningrequests"})


def check_registration(configuration: Mapping[str, Any], extra: Extra) -> Iterator[Finding]:
    """Yield what is wrong with a ValidatingWebhookConfiguration.

    Args:
        configuration: as it is in the cluster.
        extra: the policy beyond the in-tree plugin that it is there for.
    """
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
        yield failed(_CHECK, f"not sent to any webhook: {', '.join(missing[:8])}", _RENDER)
    rendered = {one["name"]: one for one in webhook_configuration({}, extra=extra)["webhooks"]}
    for webhook in webhooks:
        yield from _check_webhook(webhook)
        yield from _check_conditions(webhook, rendered.get(webhook.get("name"), {}))
    if not missing:
        yield passed(_CHECK, "every resource and subresource that the rules need is sent")


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


def _check_webhook(webhook: Mapping[str, Any]) -> Iterator[Finding]:
    name = webhook.get("name")
    if webhook.get("matchPolicy") != "Equivalent":
        yield failed(
            _CHECK,
            f"{name}: matchPolicy is {webhook.get('matchPolicy')!r}: "
            "other API versions pass unseen",
            "set matchPolicy: Equivalent",
        )
    for selector in ("namespaceSelector", "objectSelector"):
        if webhook.get(selector):
            yield failed(_CHECK, f"{name}: {selector} leaves objects out", f"remove the {selector}")
    # The API server sends the first that it knows.
    if (webhook.get("admissionReviewVersions") or ["v1"])[0] != "v1":
        yield failed(
            _CHECK,
            f"{name}: admissionReviewVersions is {webhook['admissionReviewVersions']}: "
            "reviews of other versions are not answered",
            "set admissionReviewVersions: [v1]",
        )
    if webhook.get("failurePolicy") != "Fail":
        yield warned(
            _CHECK,
            f"{name}: failurePolicy is {webhook.get('failurePolicy')!r}: hostile requests pass "
            "while the webhook is away",
            "set failurePolicy: Fail, unless this is the audit overlay",
        )
    if (webhook.get("timeoutSeconds") or 10) > _SECONDS:
        yield warned(
            _CHECK,
            f"{name}: timeoutSeconds is {webhook.get('timeoutSeconds')}",
            f"set timeoutSeconds to at most {_SECONDS}: kubelets wait for it",
        )


def _check_conditions(webhook: Mapping[str, Any], rendered: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield the conditions that may skip what a rule would refuse.

    What a condition proves holds for the resources of its own webhook alone.
    """
    name = webhook.get("name")
    known = [condition["expression"] for condition in rendered.get("matchConditions") or ()]
    others = _plurals(webhook) - _plurals(rendered)
    for condition in webhook.get("matchConditions") or ():
        expression = condition.get("expression")
        if expression == NODE_USERS["expression"]:
            continue
        if expression not in known:
            problem = "is not as rendered"
        elif others:
            problem = f"is not made for {', '.join(sorted(others))}"
        else:
            continue
        yield failed(
            _CHECK,
            f"{name}: matchCondition {condition.get('name')!r} {problem}: it may skip what a rule "
            "would refuse",
            _RENDER,
        )


def _plurals(webhook: Mapping[str, Any]) -> set[str]:
    return {
        resource.partition("/")[0]
        for rule in webhook.get("rules") or ()
        for resource in rule.get("resources") or ()
    }
