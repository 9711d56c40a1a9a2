"""Does the registration send the webhook everything that it must judge, as it was rendered?

What opens a hole is explained. All else that differs from what the servers expect, or from what the
installed overlay would have, is told with both values.
"""

import base64
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from noderestrict.cluster.connection import ClusterError
from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.differences import Difference
from noderestrict.doctor.findings import FAIL, PASS, WARN, Finding, failed, passed, unknown
from noderestrict.doctor.holes import CONDITIONS, RENDER, RULES, Hole, holes, rendered_webhooks
from noderestrict.doctor.overlay import expected_registration
from noderestrict.doctor.registration_differences import registration_differences
from noderestrict.doctor.restore import AS_ADMINISTRATOR, restore
from noderestrict.pki.check import KeyPairError
from noderestrict.policy.extra import Extra
from noderestrict.render.conditions import syntax_of
from noderestrict.render.infrastructure import infrastructure_in
from noderestrict.render.workload import TLS_SECRET

_AGAIN = "install the rendered one again"
#: Fields that may have other values than the rendered ones where nothing says what is expected.
_FREE = frozenset(
    ("admissionReviewVersions", "failurePolicy", "matchPolicy", "namespaceSelector",
     "objectSelector", "timeoutSeconds", RULES, CONDITIONS)
)  # fmt: skip
#: The name of a webhook ("" for the registration), and its field ("" for all of it).
_Place = tuple[str, str]


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
    expected = trusted = None
    again = AS_ADMINISTRATOR
    try:
        again = await restore(cluster)
        expected = await expected_registration(cluster)
        trusted = await _certificate_authority(cluster)
    except ClusterError as error:
        yield unknown(
            f"what the servers expect could not be read: {error}",
            "run it as an administrator",
            AS_ADMINISTRATOR,
        )
    try:
        findings = list(
            check_registration(
                configuration,
                cluster.options.extra,
                expected,
                trusted,
                audited=cluster.options.audited,
                conditions=await cluster.minor_before_match_conditions() is None,
            )
        )
    except KeyPairError as error:
        yield unknown(f"ca.crt of Secret {TLS_SECRET}: {error}", "create it again", again)
        return
    for finding in findings:
        yield finding if finding.status == PASS else replace(finding, command=again)


async def _certificate_authority(cluster: Cluster) -> bytes | None:
    """Return the CAs that a CA bundle may contain, None if they are unknown."""
    secrets: list[Any] = await cluster.items(
        f"/api/v1/namespaces/{cluster.options.namespace}/secrets"
    )
    held = [one.get("data") or {} for one in secrets if one["metadata"]["name"] == TLS_SECRET]
    bundle = held[0].get("ca.crt") if held else None
    return base64.b64decode(bundle) if bundle else None


def check_registration(
    configuration: Mapping[str, Any],
    extra: Extra,
    expected: Mapping[str, Any] | None = None,
    trusted: bytes | None = None,
    *,
    audited: bool = False,
    conditions: bool = True,
) -> Iterator[Finding]:
    """Yield what is wrong with a ValidatingWebhookConfiguration, once for all webhooks.

    Args:
        configuration: as installed.
        extra: the policy beyond the in-tree plugin that it serves.
        expected: the rendered one; None if nothing says which that is.
        trusted: PEM, the CAs that a CA bundle may contain; None for any.
        audited: whether nothing is to be denied.
        conditions: whether the API server has match conditions, as Kubernetes 1.28 does.

    Raises:
        KeyPairError: ``trusted`` is no PEM.
    """
    opened = list(holes(configuration, extra, audited=audited, conditions=conditions))
    if expected is not None:
        differing = [
            (_place(configuration, one), one, FAIL)
            for one in registration_differences(
                configuration, expected, trusted, conditions=conditions
            )
        ]
    else:
        differing = list(_from_its_like(configuration, extra, conditions=conditions))
    found = []
    for hole in opened:
        explains = [one for place, one, _ in differing if _explains(hole, place, one)]
        finding = replace(hole.finding, patch=tuple(one.operation() for one in explains))
        # Whatever else it is, nobody expects it.
        status = FAIL if explains and expected is not None else finding.status
        found.append((hole.webhook, replace(finding, status=status)))
    found += [
        (place[0], Finding(status, _text(one), _AGAIN if expected else RENDER,
                           patch=(one.operation(),)))
        for place, one, status in differing
        if not any(_explains(hole, place, one) for hole in opened)
    ]  # fmt: skip
    yield from _once(found, len(configuration.get("webhooks") or ()))
    if not any(hole.field == RULES for hole in opened):
        yield passed("it covers every resource and subresource that the rules need")
    if expected is not None and not differing:
        yield passed("it is what the servers expect")


def _explains(hole: Hole, place: _Place, difference: Difference) -> bool:
    """Tell whether a hole says what a difference means."""
    webhook, field = place
    if field == "" and difference.is_addition:
        # A webhook that is missing is sent nothing.
        field = RULES
    return hole.field == field and hole.webhook in ("", webhook)


def _once(found: Sequence[tuple[str, Finding]], count: int) -> Iterator[Finding]:
    """Yield what is the same for several webhooks once, with their names."""
    same: dict[Finding, list[tuple[str, Finding]]] = {}
    for name, finding in found:
        same.setdefault(finding, []).append((name, finding))
    for finding, each in same.items():
        names = [name for name, _ in each]
        patch = tuple(operation for _, one in each for operation in one.patch)
        message = f"{_webhooks(names, count)}{finding.message}"
        yield replace(finding, message=message, patch=patch)


def _webhooks(names: Sequence[str], count: int) -> str:
    """Return which webhooks a finding is about, "" if it is about the registration."""
    if names == [""]:
        return ""
    return "all webhooks: " if len(names) == count > 1 else f"{', '.join(names)}: "


def _from_its_like(
    configuration: Mapping[str, Any], extra: Extra, *, conditions: bool
) -> Iterator[tuple[_Place, Difference, str]]:
    """Yield what differs from a registration that is rendered for the same server.

    What is known to do no harm is left out. Where conditions are merely missing, more requests
    depend on the webhook.
    """
    webhooks = configuration.get("webhooks") or []
    if not webhooks:
        return
    client = dict(webhooks[0].get("clientConfig") or {})
    client.pop("caBundle", None)
    expressions = [
        str(condition.get("expression"))
        for webhook in webhooks
        for condition in webhook.get("matchConditions") or ()
    ]
    rendered = rendered_webhooks(client, extra, infrastructure_in(webhooks), syntax_of(expressions))
    expected = {"webhooks": list(rendered.values())}
    for one in registration_differences(configuration, expected, conditions=conditions):
        place = _place(configuration, one)
        _, field = place
        if one.problem:
            # Another check verifies the served certificate with the CA bundle.
            continue
        if field == "":
            yield place, one, WARN
        elif field not in _FREE:
            yield place, one, FAIL
        elif field == CONDITIONS and conditions and (one.is_addition or not one.installed):
            yield place, one, WARN


def _place(configuration: Mapping[str, Any], difference: Difference) -> _Place:
    """Return which webhook and field a difference is about."""
    webhooks = configuration.get("webhooks") or []
    match difference.path.split("/")[1:]:
        case [_, index, *rest] if index.isdecimal():
            return str(webhooks[int(index)].get("name")), rest[0] if rest else ""
        case _:
            # Webhooks that are missing.
            return difference.within, ""


def _text(difference: Difference) -> str:
    """Return what differs; the same for all webhooks, unless it is an element of a list."""
    steps = difference.path.split("/")[1:]
    if len(steps) == 2:
        return "was added" if difference.is_surplus else "is missing"
    if any(step == "-" or step.isdecimal() for step in steps[2:]):
        return difference.text
    return replace(difference, path="/".join(steps[2:] or steps)).text


CHECK = Check("registration", "Does the registration cover everything that the rules need?", check)
