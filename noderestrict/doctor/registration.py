"""Is the webhook registered for everything, in the way that guards and does not lock."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from noderestrict.doctor.findings import Finding, failed, passed, warned
from noderestrict.policy.extra import Extra
from noderestrict.policy.table import ANY
from noderestrict.render.registration import webhook_configuration, webhook_rules

_CHECK = "registration"
_RENDER = (
    "apply the rendered manifests again (noderestrict render), and give both the same policy flags"
)
_SECONDS = 3


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
        if not any(_covers(webhook, group, resource, operation) for webhook in webhooks)
    ]
    if missing:
        yield failed(_CHECK, f"not sent to any webhook: {', '.join(missing[:8])}", _RENDER)
    for webhook in webhooks:
        yield from _check_webhook(webhook, extra)
    if not missing:
        yield passed(_CHECK, "every resource and subresource that the rules need is sent")


def _covers(webhook: Mapping[str, Any], group: str, resource: str, operation: str) -> bool:
    return any(
        {group, ANY} & set(rule.get("apiGroups") or ())
        and {operation, ANY} & set(rule.get("operations") or ())
        and _names(rule.get("resources") or (), resource)
        for rule in webhook.get("rules") or ()
    )


def _names(resources: Sequence[str], wanted: str) -> bool:
    plural, _, sub = wanted.partition("/")
    either = {wanted, f"{plural}/*", f"*/{sub}", "*/*"} if sub else {wanted, "*", "*/*"}
    return bool(either & set(resources))


def _check_webhook(webhook: Mapping[str, Any], extra: Extra) -> Iterator[Finding]:
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
    known = {
        condition["name"]: condition["expression"]
        for one in webhook_configuration({}, extra=extra)["webhooks"]
        for condition in one["matchConditions"]
    }
    for condition in webhook.get("matchConditions") or ():
        if known.get(condition.get("name")) != condition.get("expression"):
            yield failed(
                _CHECK,
                f"{name}: matchCondition {condition.get('name')!r} is not as rendered: it may skip "
                "what a rule would refuse",
                _RENDER,
            )
