"""Webhook configurations that somebody else applies without a CA, such as Helm.

Before that, the certificate must be there, and the installed configurations must trust the server,
get answers, and have every webhook that is about to be there: one without a CA would deny nodes
whatever it is asked about. The fields that are written here get no owner. Otherwise what is written
here would be in the way when the owner of a webhook changes it or drops it.
"""

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from noderestrict.api.resources import WEBHOOK_CONFIGURATIONS
from noderestrict.certs.configurations import Configuration
from noderestrict.certs.errors import CertsError
from noderestrict.certs.journal import Journal
from noderestrict.certs.place import Place, trust_of
from noderestrict.certs.typed import at_version, patch_typed, read_typed
from noderestrict.cluster.connection import MANAGED, ClusterError, Connection

#: A registration that concerns nothing but a ConfigMap that is never created, and stays installed.
NAME = "noderestrict-served"
WEBHOOK = "served.noderestrict.io"
LABEL = "noderestrict.io/served"
_REMEDY = "first install or upgrade with mode=audit"
_PAUSE_SECONDS = 1.0
_HTTPS = 443


async def installed_of(connection: Connection, registrations: Sequence[Any]) -> list[Any]:
    """Return those configurations of a plan that are installed already.

    Args:
        connection: to the cluster.
        registrations: what is planned.

    Raises:
        CertsError: nodes would be denied if the plan was applied.
        ClusterError: the cluster cannot be read.
    """
    present = []
    for value in registrations:
        name = value["metadata"]["name"]
        found = await _installed(connection, name)
        if name != NAME and (problem := _why_not_safe(value, found)):
            raise CertsError(f"nodes would be denied: {problem}; {_REMEDY}")
        present += [value] if found is not None else []
    return present


async def complete(
    connection: Connection,
    present: Sequence[Mapping[str, Any]],
    place: Place,
    namespace: str,
    journal: Journal,
    wait: float,
) -> bool:
    """Give the installed configurations the webhooks that are planned, with the CA.

    Returns:
        Whether any lacked one.

    Args:
        connection: to the cluster.
        present: those of the plan that are installed.
        place: of the certificate, with what callers trust.
        namespace: of the server.
        journal: gets to know what is added.
        wait: how long an answer may take, in seconds.

    Raises:
        CertsError: nodes would be denied if the plan was applied.
        ClusterError: the cluster cannot be read or changed.
    """
    others = [one for one in present if one["metadata"]["name"] != NAME]
    if any(fails_closed(one) for one in others) and (
        problem := await why_not_answered(connection, namespace, wait)
    ):
        raise CertsError(f"nodes would be denied: {problem}; {_REMEDY}")
    trust = await trust_of(place)
    added = False
    for value in present:
        name = value["metadata"]["name"]
        for webhook in await _add_webhooks(connection, value, trust):
            journal.did(f"{name}: webhook {webhook} is there, with the CA")
            added = True
        await _disown(connection, name)
    return added


def fails_closed(configuration: Mapping[str, Any]) -> bool:
    """Tell whether any request is denied while nobody answers."""
    return any(one.get("failurePolicy") != "Ignore" for one in configuration["webhooks"])


async def why_not_answered(
    connection: Connection,
    namespace: str,
    seconds: float,
    *,
    sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> str:
    """Return why the API server gets no answer from the installed servers; "" if it gets one.

    Args:
        connection: as somebody who may create ConfigMaps there.
        namespace: of the ConfigMap, which is not created.
        seconds: how long to wait for an answer.
        sleep: waits a number of seconds.
        clock: returns the time in seconds.

    Raises:
        ClusterError: the API server could not be asked.
    """
    if problem := _why_nobody_is_asked(await _installed(connection, NAME)):
        return problem
    end = clock() + seconds
    value = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "labels": {LABEL: "true"}},
    }
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    while True:
        try:
            await connection.post(path, value, query={"dryRun": "All"})
        except ClusterError as error:
            if WEBHOOK not in str(error):
                raise
            problem = str(error)
        else:
            return ""
        if clock() >= end:
            return problem
        await sleep(_PAUSE_SECONDS)


def _why_nobody_is_asked(served: Mapping[str, Any] | None) -> str:
    """Return why no answer is needed for the ConfigMap, so that none can be seen; "" if one is."""
    if served is None:
        return f"there is no ValidatingWebhookConfiguration {NAME}"
    webhooks = [one for one in served.get("webhooks") or () if one["name"] == WEBHOOK]
    if webhooks and fails_closed({"webhooks": webhooks}):
        return ""
    return f"ValidatingWebhookConfiguration {NAME} has no webhook {WEBHOOK} that must answer"


async def _installed(connection: Connection, name: str) -> dict[str, Any] | None:
    """Return a webhook configuration as plain values; None if it does not exist.

    Raises:
        ClusterError: it could not be read.
    """
    try:
        path = WEBHOOK_CONFIGURATIONS.path("", name)
        found: dict[str, Any] = await read_typed(connection, path, Configuration)
    except ClusterError as error:
        if error.code == HTTPStatus.NOT_FOUND:
            return None
        raise
    return found


def _why_not_safe(planned: Mapping[str, Any], found: Mapping[str, Any] | None) -> str:
    """Return why nodes would be denied if a configuration was applied without a CA; "" if not.

    Args:
        planned: what is about to be applied.
        found: what is installed, None for nothing.
    """
    name = planned["metadata"]["name"]
    if not fails_closed(planned):
        return ""
    if found is None:
        return f"{name} is not installed yet, so nobody has seen that the server answers"
    known = [_client(one) for one in found.get("webhooks") or ()]
    for webhook in planned["webhooks"]:
        if _client(webhook) not in known:
            return f"{name} would call a server that it does not call yet"
    return ""


def _client(webhook: Mapping[str, Any]) -> dict[str, Any]:
    """Return whom a webhook calls, without the CA, and with the API server's defaults."""
    client = webhook.get("clientConfig") or {}
    if service := client.get("service"):
        return {"port": _HTTPS, **service}
    return {"url": client.get("url")}


async def _add_webhooks(
    connection: Connection, planned: Mapping[str, Any], bundle: bytes
) -> list[str]:
    """Add the webhooks that are planned and not installed, with a CA.

    Args:
        connection: to the cluster.
        planned: what is about to be applied.
        bundle: the CA.

    Returns:
        The names of those that were added.

    Raises:
        ClusterError: the change failed.
    """
    path = WEBHOOK_CONFIGURATIONS.path("", planned["metadata"]["name"])
    ca = base64.b64encode(bundle).decode()

    def added(value: Mapping[str, Any]) -> list[dict[str, Any]]:
        known = {one["name"] for one in value.get("webhooks") or ()}
        return at_version(value, [
            {"op": "add", "path": "/webhooks/-",
             "value": {**one, "clientConfig": {**one["clientConfig"], "caBundle": ca}}}
            for one in planned["webhooks"] if one["name"] not in known
        ])  # fmt: skip

    operations = await patch_typed(connection, path, Configuration, added)
    return [one["value"]["name"] for one in operations if one["op"] == "add"]


async def _disown(connection: Connection, name: str) -> None:
    """Let nobody own the fields of a configuration that were written from here.

    Raises:
        ClusterError: the change failed.
    """

    def dropped(value: Mapping[str, Any]) -> list[dict[str, Any]]:
        managers = value["metadata"].get("managedFields") or ()
        ours = [
            index for index, one in enumerate(managers) if one.get("manager") in MANAGED.values()
        ]
        removed = [{"op": "remove", "path": f"/metadata/managedFields/{one}"} for one in ours[::-1]]
        return at_version(value, removed)

    path = WEBHOOK_CONFIGURATIONS.path("", name)
    await patch_typed(connection, path, Configuration, dropped)
