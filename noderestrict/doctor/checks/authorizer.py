"""Is the authorization webhook configured after RBAC, and with short caches?"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import Finding, failed, passed, warned
from noderestrict.doctor.workloads import api_servers, elements, values
from noderestrict.policy.hostile import brief, is_failure
from noderestrict.serving.limits import parse_timeout

_LONGEST_TTL = 5.0
_RENDER = "noderestrict render authorizer"


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield findings on the API servers' flags, and on the file that was given."""
    for name, command in (await api_servers(cluster)).items():
        modes = elements(values(command, "--authorization-mode"))
        if "Webhook" in modes and "RBAC" in modes and modes.index("Webhook") < modes.index("RBAC"):
            yield warned(
                f"{name}: Webhook precedes RBAC in --authorization-mode",
                "put RBAC first: fewer requests then reach the webhook",
            )
    if cluster.options.authorization_config is not None:
        file = cluster.options.authorization_config
        for finding in await asyncio.to_thread(check_authorization_config, file):
            yield finding


def check_authorization_config(file: Path) -> list[Finding]:
    """Return what is wrong with an AuthorizationConfiguration."""
    try:
        config = yaml.safe_load(file.read_text())
        authorizers = [(str(one["type"]), dict(one.get("webhook") or {}))
                       for one in config["authorizers"]]  # fmt: skip
    except BaseException as error:
        if not is_failure(error):
            raise
        return [failed(f"{file}: not an AuthorizationConfiguration: {brief(error)}",
                       "render it again", _RENDER)]  # fmt: skip
    types = [kind for kind, _ in authorizers]
    if "Webhook" not in types:
        return [failed(f"{file}: no authorizer is a Webhook", "render it again", _RENDER)]
    found = list(_order(file, types))
    for kind, webhook in authorizers:
        if kind == "Webhook":
            found += _caches(file, webhook)
    return found or [passed(f"{file}: {', '.join(types)}")]


def _order(file: Path, types: Sequence[str]) -> Iterator[Finding]:
    if "RBAC" not in types or types.index("RBAC") > types.index("Webhook"):
        yield warned(f"{file}: RBAC does not precede the webhook", "put RBAC first", _RENDER)
    if "Node" in types:
        yield warned(
            f"{file}: the Node authorizer is enabled as well",
            "remove it, or remove the webhook",
            _RENDER,
        )
    if "AlwaysAllow" in types:
        yield failed(f"{file}: AlwaysAllow allows every request", "remove it", _RENDER)


def _caches(file: Path, webhook: Mapping[str, Any]) -> Iterator[Finding]:
    for ttl in ("authorizedTTL", "unauthorizedTTL"):
        given = webhook.get(ttl)
        seconds = parse_timeout(str(given)) if given else None
        # Unset, they are five minutes and half a minute.
        if seconds is None or seconds > _LONGEST_TTL:
            yield warned(
                f"{file}: {ttl} is {given or 'unset'}: answers are cached for too long",
                "set it to 1s",
                _RENDER,
            )


CHECK = Check("authorizer", "Does the authorization webhook follow RBAC, with short caches?", check)
