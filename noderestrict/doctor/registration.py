"""Is the webhook registered for everything, in the way that guards and does not lock."""

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from noderestrict.doctor.findings import Finding, failed, passed, warned
from noderestrict.pki.bundle import certificates
from noderestrict.pki.check import KeyPairError
from noderestrict.policy.extra import Extra
from noderestrict.policy.rule import ANY
from noderestrict.render.conditions import NODE_USERS
from noderestrict.render.registration import webhook_configuration, webhook_rules

_CHECK = "registration"
_RENDER = (
    "apply the rendered manifests again (noderestrict render), and give both the same policy flags"
)
_SECONDS = 3
_CONDITIONS = "matchConditions"
#: Fields that have checks of their own.
_CHECKED = frozenset(
    ("matchPolicy", "namespaceSelector", "objectSelector", "admissionReviewVersions", "rules",
     "failurePolicy", "timeoutSeconds", _CONDITIONS)
)  # fmt: skip
#: Of a value in a message.
_LONGEST = 200
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
    yield from _check_rest(webhooks, extra)
    if not missing:
        yield passed(_CHECK, "every resource and subresource that the rules need is sent")


def _check_rest(webhooks: Sequence[Mapping[str, Any]], extra: Extra) -> Iterator[Finding]:
    """Yield what is not as rendered, and no other check has looked at."""
    if not webhooks:
        return
    client = dict(webhooks[0].get("clientConfig") or {})
    client.pop("caBundle", None)
    found = {str(one.get("name")): one for one in webhooks}
    for name, field, text in _compare(found, webhook_configuration(client, extra=extra)):
        if field == "" or (field == _CONDITIONS and _only_fewer(found[name], extra)):
            yield warned(_CHECK, f"{name}: {text}", _RENDER)
        elif field not in _CHECKED:
            yield failed(_CHECK, f"{name}: {text}", _RENDER)


def _only_fewer(webhook: Mapping[str, Any], extra: Extra) -> bool:
    """Tell whether the webhook is asked more than it needs: it holds everybody up when away."""
    rendered = {one["name"]: one for one in webhook_configuration({}, extra=extra)["webhooks"]}
    known = _comparable(rendered[str(webhook.get("name"))])[_CONDITIONS]
    given = _comparable(webhook)[_CONDITIONS]
    return set(given.items()) < set(known.items())


def differences(
    installed: Mapping[str, Any] | None,
    expected: Mapping[str, Any],
    trusted: bytes | None = None,
    *,
    conditions: bool = True,
) -> list[str]:
    """Return what of a registration is not as rendered: each may let a request pass unseen.

    Args:
        installed: the ValidatingWebhookConfiguration in the cluster, None if there is none.
        expected: the rendered one.
        trusted: PEM, what a CA bundle may hold; None if that is not known.
        conditions: whether the API server knows match conditions: since Kubernetes 1.28.
    """
    if installed is None:
        return ["there is no such ValidatingWebhookConfiguration"]
    found = {str(one.get("name")): one for one in installed.get("webhooks") or ()}
    result = [
        f"{name}: {text}"
        for name, field, text in _compare(found, expected)
        if conditions or field != _CONDITIONS
    ]
    for name, webhook in found.items():
        client = webhook.get("clientConfig") or {}
        problem = _bundle_problem(client.get("caBundle"), trusted)
        if problem:
            result.append(f"{name}: {problem}")
    return sorted(result)


def _compare(
    found: Mapping[str, Mapping[str, Any]], expected: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    """Yield webhook, field ("" for all of it) and what is different."""
    wanted = {one["name"]: one for one in expected["webhooks"]}
    yield from ((name, "", "is missing") for name in wanted if name not in found)
    yield from ((name, "", "was added") for name in found if name not in wanted)
    for name in wanted.keys() & found.keys():
        before, now = _comparable(wanted[name]), _comparable(found[name])
        for field in before.keys() | now.keys():
            if before.get(field) != now.get(field):
                is_, was = _shown(now.get(field)), _shown(before.get(field))
                yield name, field, f"{field} is {is_}, rendered is {was}"


def _comparable(webhook: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a webhook so that equal ones have one notation; the CA is left out."""
    value: dict[str, Any] = _without_nothing(webhook)
    value.setdefault("clientConfig", {}).pop("caBundle", None)
    # All of them must hold: their order means nothing.
    value[_CONDITIONS] = {
        one.get("name"): one.get("expression") for one in webhook.get(_CONDITIONS) or ()
    }
    return value


def _without_nothing(value: Any) -> Any:
    """Return a value without fields that say nothing: null, or an empty object or list."""
    if isinstance(value, Mapping):
        kept = ((key, _without_nothing(one)) for key, one in value.items())
        return {key: one for key, one in kept if one not in (None, {}, [])}
    return [_without_nothing(one) for one in value] if isinstance(value, list) else value


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _bundle_problem(encoded: Any, trusted: bytes | None) -> str:
    try:
        bundle = certificates(base64.b64decode(encoded or "", validate=True))
    except (KeyPairError, binascii.Error, TypeError):
        return "caBundle cannot be read"
    if not bundle:
        return "caBundle is empty"
    if trusted is None:
        return ""
    foreign = len(set(bundle).difference(certificates(trusted)))
    return f"caBundle has {foreign} CAs that the certificate's ca.crt has not" if foreign else ""


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
        if _without_nothing(webhook.get(selector)):
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
