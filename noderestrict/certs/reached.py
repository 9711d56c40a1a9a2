"""Ask the API server whether it gets an answer from what a registration would make it call.

Before anything depends on the answer: a registration of its own, for one object that nobody else
creates, has the same address and CA. API servers notice a registration after a moment, so at first
it names a server that does not exist: once its failure is seen, the next answer counts.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from noderestrict.api.resources import WEBHOOK_CONFIGURATIONS
from noderestrict.cluster.connection import MANAGED, ClusterError, Connection
from noderestrict.cluster.objects import version_of

NAME = "noderestrict-probe"
_ABSENT, _PROBED = "absent.noderestrict.io", "probe.noderestrict.io"
_LABEL = "noderestrict.io/probe"
_CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
#: Nobody listens there.
_NOBODY = {"url": "https://127.0.0.1:1/"}
_PAUSE_SECONDS = 0.5
#: API servers take about a second.
_NOTICED_SECONDS = 15.0


async def why_not_reached(
    connection: Connection,
    registration: Mapping[str, Any],
    seconds: float,
    *,
    sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> str:
    """Return why the API server gets no answer; "" if it gets one.

    Args:
        connection: to the API server, as somebody who may write registrations.
        registration: a ValidatingWebhookConfiguration with the CA in it.
        seconds: how long to wait for an answer.
        sleep: waits a number of seconds.
        clock: returns the time in seconds.

    Raises:
        ClusterError: the API server could not be asked.
    """
    end = clock() + seconds
    clients: list[Mapping[str, Any]] = []
    for webhook in registration["webhooks"]:
        if webhook["clientConfig"] not in clients:
            clients.append(webhook["clientConfig"])
    for client in clients:
        if problem := await _why_not(connection, client, end, sleep, clock):
            return problem
    return ""


async def _why_not(
    connection: Connection,
    client: Mapping[str, Any],
    end: float,
    sleep: Callable[[float], Awaitable[Any]],
    clock: Callable[[], float],
) -> str:
    path = WEBHOOK_CONFIGURATIONS.path("", NAME)
    # One may be left from a run that was killed.
    await _delete(connection, path)
    await connection.post(
        WEBHOOK_CONFIGURATIONS.list_path, _configuration(_ABSENT, _NOBODY), query=MANAGED
    )
    noticed = clock() + _NOTICED_SECONDS
    try:
        if not await _until(connection, lambda seen: _ABSENT in seen, noticed, sleep, clock):
            return "the API server does not call webhooks"
        probed = _configuration(_PROBED, client)["webhooks"]
        written = version_of(
            await connection.json_patch(
                path, [{"op": "replace", "path": "/webhooks", "value": probed}]
            )
        )
        problem = ""

        def answered(seen: str) -> bool:
            nonlocal problem
            if _PROBED in seen:
                problem = seen
            return not seen

        if await _until(connection, answered, max(end, noticed), sleep, clock):
            if await _version(connection, path) != written:
                return f"somebody else has changed {NAME}, as another run does: run it again"
            return ""
        return problem or "the API server does not notice registrations"
    finally:
        await _delete(connection, path)


async def _until(
    connection: Connection,
    holds: Callable[[str], bool],
    end: float,
    sleep: Callable[[float], Awaitable[Any]],
    clock: Callable[[], float],
) -> bool:
    """Repeat a dry run until its failure, "" for none, is as wanted; False if it never is.

    Args:
        connection: to the API server.
        holds: tells whether it is as wanted.
        end: when to stop.
        sleep: waits a number of seconds.
        clock: returns the time in seconds.
    """
    while not holds(await _failure(connection)):
        if clock() >= end:
            return False
        await sleep(_PAUSE_SECONDS)
    return True


async def _failure(connection: Connection) -> str:
    """Return how a call of the webhook fails; "" if it does not."""
    value = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "labels": {_LABEL: "true"}},
    }
    try:
        await connection.post(_CONFIG_MAPS, value, query={"dryRun": "All"})
    except ClusterError as error:
        if _ABSENT in str(error) or _PROBED in str(error):
            return str(error)
        raise
    return ""


def _configuration(webhook: str, client: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": NAME},
        "webhooks": [
            {
                "name": webhook,
                "clientConfig": dict(client),
                "objectSelector": {"matchExpressions": [{"key": _LABEL, "operator": "Exists"}]},
                "rules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE"],
                        "resources": ["configmaps"],
                        "scope": "Namespaced",
                    }
                ],
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "timeoutSeconds": 3,
            }
        ],
    }


async def _version(connection: Connection, path: str) -> str | None:
    """Return the version of a configuration, None if it does not exist."""
    try:
        return version_of(await connection.get(path))
    except ClusterError as error:
        if error.code != HTTPStatus.NOT_FOUND:
            raise
        return None


async def _delete(connection: Connection, path: str) -> None:
    try:
        await connection.delete(path)
    except ClusterError as error:
        if error.code != HTTPStatus.NOT_FOUND:
            raise
