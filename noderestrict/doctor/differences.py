"""How an installed registration differs from the rendered one."""

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from noderestrict.pki.bundle import certificates
from noderestrict.pki.check import KeyPairError

CONDITIONS = "matchConditions"
#: Characters of a value in a message.
_LONGEST = 200


def differences(
    installed: Mapping[str, Any] | None,
    expected: Mapping[str, Any],
    trusted: bytes | None = None,
    *,
    conditions: bool = True,
) -> list[str]:
    """Return how a registration differs from the rendered one: each may let a request bypass it.

    Args:
        installed: the ValidatingWebhookConfiguration in the cluster, None if it does not exist.
        expected: the rendered one.
        trusted: PEM, the CAs that a CA bundle may contain; None for any.
        conditions: whether the API server supports match conditions, as Kubernetes 1.28 does.
    """
    if installed is None:
        return ["the ValidatingWebhookConfiguration does not exist"]
    found = {str(one.get("name")): one for one in installed.get("webhooks") or ()}
    result = [
        f"{name}: {text}"
        for name, field, text in compare(found, expected)
        if conditions or field != CONDITIONS
    ]
    for name, webhook in found.items():
        client = webhook.get("clientConfig") or {}
        problem = _bundle_problem(client.get("caBundle"), trusted)
        if problem:
            result.append(f"{name}: {problem}")
    return sorted(result)


def compare(
    found: Mapping[str, Mapping[str, Any]], expected: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    """Yield each difference: webhook, field ("" for the whole webhook) and text.

    Args:
        found: the installed webhooks, by name.
        expected: the rendered ValidatingWebhookConfiguration.
    """
    wanted = {one["name"]: one for one in expected["webhooks"]}
    yield from ((name, "", "is missing") for name in wanted if name not in found)
    yield from ((name, "", "was added") for name in found if name not in wanted)
    for name in wanted.keys() & found.keys():
        before, now = comparable(wanted[name]), comparable(found[name])
        for field in before.keys() | now.keys():
            if before.get(field) != now.get(field):
                is_, was = _shown(now.get(field)), _shown(before.get(field))
                yield name, field, f"{field} is {is_}, rendered as {was}"


def comparable(webhook: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a webhook in one notation, without the CA bundle."""
    value: dict[str, Any] = without_empty(webhook)
    value.setdefault("clientConfig", {}).pop("caBundle", None)
    # All conditions must hold, so their order does not matter.
    value[CONDITIONS] = {
        one.get("name"): one.get("expression") for one in webhook.get(CONDITIONS) or ()
    }
    return value


def without_empty(value: Any) -> Any:
    """Return a value without fields that are null, empty objects or empty lists."""
    if isinstance(value, Mapping):
        kept = ((key, without_empty(one)) for key, one in value.items())
        return {key: one for key, one in kept if one not in (None, {}, [])}
    return [without_empty(one) for one in value] if isinstance(value, list) else value


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _bundle_problem(encoded: Any, trusted: bytes | None) -> str:
    try:
        bundle = certificates(base64.b64decode(encoded or "", validate=True))
    except (KeyPairError, binascii.Error, TypeError):
        return "caBundle is not valid PEM"
    if not bundle:
        return "caBundle is empty"
    if trusted is None:
        return ""
    foreign = len(set(bundle).difference(certificates(trusted)))
    if not foreign:
        return ""
    return f"caBundle has {foreign} CA{'s' if foreign > 1 else ''} not in the certificate's ca.crt"
