"""How an installed registration differs from the rendered one."""

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec
from cryptography import x509

from noderestrict.doctor.differences import Difference, differences
from noderestrict.pki.bundle import certificates
from noderestrict.pki.check import KeyPairError
from noderestrict.pki.system_roots import system_roots
from noderestrict.render.agents import is_for_agents

_KIND = "ValidatingWebhookConfiguration"
_CONDITIONS = "matchConditions"


def registration_differences(
    installed: Mapping[str, Any] | None,
    expected: Mapping[str, Any],
    trusted: bytes | None = None,
    *,
    conditions: bool = True,
) -> list[Difference]:
    """Return how a registration differs from the rendered one: each may let a request bypass it.

    Args:
        installed: the ValidatingWebhookConfiguration in the cluster, None if it does not exist.
        expected: the rendered one.
        trusted: PEM, the CAs that a CA bundle may contain; None for any.
        conditions: whether the API server supports match conditions, as Kubernetes 1.28 does.

    Raises:
        KeyPairError: ``trusted`` is no PEM.
    """
    if installed is None:
        return differences(None, {"kind": _KIND})
    found = differences(_webhooks(installed), _webhooks(expected))
    bundle = _encoded(trusted) or _first_bundle(installed)
    return [
        *(
            _with_ca(one, bundle)
            for one in found
            if (conditions or one.field != _CONDITIONS) and not _is_of_agent(one)
        ),
        *_bundles(installed, trusted),
    ]


def _is_of_agent(difference: Difference) -> bool:
    """Tell whether a webhook was added for an agent: one more lets nothing through."""
    whole = difference.is_surplus and difference.path.count("/") == 2
    return whole and is_for_agents({"name": difference.within})


def _webhooks(registration: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a registration is compared; the CA bundles are by other means."""
    webhooks = []
    for one in registration.get("webhooks") or ():
        client = {key: value for key, value in (one.get("clientConfig") or {}).items()
                  if key != "caBundle"}  # fmt: skip
        webhooks.append({**one, "clientConfig": client})
    return {"kind": _KIND, "webhooks": webhooks}


def _encoded(bundle: bytes | None) -> str:
    return base64.b64encode(bundle or b"").decode()


def _first_bundle(registration: Mapping[str, Any]) -> str:
    given = ((one.get("clientConfig") or {}).get("caBundle")
             for one in registration.get("webhooks") or ())  # fmt: skip
    return next((str(one) for one in given if one), "")


def _with_ca(difference: Difference, bundle: str) -> Difference:
    """Return a difference that adds the CA with a whole webhook."""
    match difference.path.split("/"):
        case ["", "webhooks"] if isinstance(difference.rendered, list):
            return replace(difference, rendered=[_put(one, bundle) for one in difference.rendered])
        case ["", "webhooks", _] if isinstance(difference.rendered, Mapping):
            return replace(difference, rendered=_put(difference.rendered, bundle))
    return difference


def _put(webhook: Mapping[str, Any], bundle: str) -> Mapping[str, Any]:
    client = webhook["clientConfig"]
    return {**webhook, "clientConfig": {**client, "caBundle": bundle} if bundle else client}


def _bundles(registration: Mapping[str, Any], trusted: bytes | None) -> Iterator[Difference]:
    known = frozenset(certificates(trusted)) if trusted else None
    for index, webhook in enumerate(registration.get("webhooks") or ()):
        given = (webhook.get("clientConfig") or {}).get("caBundle")
        if problem := _bundle_problem(given, known):
            yield Difference(
                f"/webhooks/{index}/clientConfig/caBundle",
                given or msgspec.UNSET,
                _encoded(trusted) or msgspec.UNSET,
                str(webhook.get("name")),
                problem,
            )


def _bundle_problem(encoded: Any, trusted: frozenset[x509.Certificate] | None) -> str:
    try:
        bundle = certificates(base64.b64decode(encoded or "", validate=True))
    except (KeyPairError, binascii.Error, TypeError):
        return "is not valid PEM"
    if trusted is None:
        return ""
    if not bundle:
        # The API server then trusts the CAs of its own system.
        private = trusted.difference(certificates(system_roots()))
        return "is empty, and the system does not have the certificate's ca.crt" if private else ""
    foreign = len(set(bundle) - trusted)
    if not foreign:
        return ""
    return f"has {foreign} CA{'s' if foreign > 1 else ''} not in the certificate's ca.crt"
