"""Watch for changes of the registration.

Anyone who may change it can disable every rule, and no review would show that.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec

from noderestrict.api.resources import WEBHOOK_CONFIGURATIONS
from noderestrict.api.scanner import ScanError
from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.objects import DECODE_ERRORS, tree
from noderestrict.doctor.registration_differences import registration_differences
from noderestrict.pki.check import KeyPairError
from noderestrict.telemetry.logs import LOGGER
from noderestrict.telemetry.metrics import Metrics

_SHOWN = 8
#: Between comparisons: three of them, and a slow answer, fit into a minute.
SECONDS = 15.0
_ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Expected:
    """What must be installed.

    Attributes:
        registration: the rendered ValidatingWebhookConfiguration.
        trusted: returns the CAs, in PEM, that a CA bundle may contain; None for any.
        conditions: whether the API server supports match conditions.
        agents: returns the webhooks for agents, as their policies are now.
    """

    registration: Mapping[str, Any]
    trusted: Callable[[], bytes | None] = lambda: None
    conditions: bool = True
    agents: Callable[[], Sequence[Mapping[str, Any]]] = tuple

    @property
    def name(self) -> str:
        """The name of the object."""
        name: str = self.registration["metadata"]["name"]
        return name

    def whole(self) -> Mapping[str, Any]:
        """Return the registration, with the webhooks for agents."""
        webhooks = [*self.registration["webhooks"], *self.agents()]
        return {**self.registration, "webhooks": webhooks}


async def watch_registration(
    connection: Connection,
    expected: Expected,
    metrics: Metrics,
    *,
    sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
) -> None:
    """Compare until cancelled; metrics and log report each change.

    Args:
        connection: to the API server.
        expected: what must be installed.
        metrics: receive the number of differences, and the time of the last comparison.
        sleep: waits a number of seconds.
    """
    reported: list[str] = []
    problem = ""
    # From now on its age counts; 0 is for servers that do not compare.
    metrics.registration_checked.set(time.time())
    while True:
        try:
            found = await compared(connection, expected)
        except ClusterError as error:
            # Not a change: the time of the last comparison shows it.
            if str(error) != problem:
                problem = str(error)
                LOGGER.warning("cannot read the registration", extra={"error": problem[:500]})
        else:
            problem = ""
            metrics.registration_differences.set(len(found))
            metrics.registration_checked.set(time.time())
            if found != reported:
                _report(expected.name, found)
            reported = found
        await sleep(SECONDS)


async def compared(connection: Connection, expected: Expected) -> list[str]:
    """Return how the installed registration differs from the rendered one.

    Raises:
        ClusterError: it could not be read.
    """
    try:
        body = await connection.get(
            WEBHOOK_CONFIGURATIONS.path("", expected.name), seconds=_ANSWER_SECONDS
        )
    except ClusterError as error:
        if error.code != HTTPStatus.NOT_FOUND:
            raise
        return ["the ValidatingWebhookConfiguration does not exist"]
    # Off the event loop: anyone who changed it may have made it large.
    return await asyncio.to_thread(_differences, body, expected)


def _differences(body: bytes, expected: Expected) -> list[str]:
    try:
        installed = msgspec.convert(tree(body), _Configuration)
    except (ScanError, *DECODE_ERRORS) as error:
        return [f"it cannot be read: {error}"]
    try:
        found = registration_differences(
            {"webhooks": installed.webhooks},
            expected.whole(),
            expected.trusted(),
            conditions=expected.conditions,
        )
        return sorted(map(str, found))
    except (OSError, KeyPairError) as error:
        return [f"ca.crt of the served certificate cannot be read: {error}"]


class _Configuration(msgspec.Struct):
    webhooks: list[dict[str, Any]] | None = None


def _report(name: str, found: list[str]) -> None:
    if found:
        LOGGER.critical(
            "the registration differs from the rendered one: rules may be skipped",
            extra={"registration": name, "count": len(found), "differences": found[:_SHOWN]},
        )
    else:
        LOGGER.info("the registration matches the rendered one again", extra={"registration": name})
