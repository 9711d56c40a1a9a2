"""Ask our webhook itself, past the API server: what would it say if it were reached?"""

import asyncio
import base64
import ssl
import uuid
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from noderestrict.api.resources import WEBHOOK_CONFIGURATIONS
from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.objects import DECODE_ERRORS, tree
from noderestrict.cluster.transport import verifying_context
from noderestrict.policy.hostile import brief, is_failure
from noderestrict.probes.request import Request
from noderestrict.verify.results import OURS, PASSED, REFUSED, UNTOLD, Outcome

Address = tuple[str, int]

_SECONDS = 10.0
_HTTPS = 443
#: What our webhook notes in an answer that audit mode makes of a refusal.
WOULD_BE = "would be refused, but the mode of the rule is not enforce"


class _Status(msgspec.Struct):
    code: int = 0
    message: str = ""


class _Response(msgspec.Struct):
    allowed: bool
    status: _Status = msgspec.field(default_factory=_Status)
    auditAnnotations: dict[str, str] = msgspec.field(  # noqa: N815 (the API's name)
        default_factory=dict
    )


class _Review(msgspec.Struct):
    response: _Response


class OurWebhook:
    """Our webhook as it is registered, and where it can be reached from here.

    Args:
        url: to send reviews to; "" if it cannot be reached.
        host: name that its certificate needs.
        context: verifies its certificate.
        why_not: why it cannot be reached, "" if it can.
    """

    def __init__(
        self,
        url: str = "",
        host: str = "",
        context: ssl.SSLContext | None = None,
        why_not: str = "",
    ) -> None:
        self._url = url
        self._host = host
        self._context = context
        self.why_not = why_not

    async def ask(self, request: Request) -> Outcome | None:
        """Return what it says to a request; None once it could not be asked."""
        if self.why_not:
            return None
        uid = str(uuid.uuid4())
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(_SECONDS)) as session,
                session.post(
                    self._url,
                    json=request.review(uid),
                    ssl=self._context or True,
                    server_hostname=self._host,
                ) as answer,
            ):
                body = await answer.read()
                if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                    return Outcome(UNTOLD, message=f"it answers {answer.status}")
            return _outcome(msgspec.json.decode(body, type=_Review).response)
        except (aiohttp.ClientError, OSError, TimeoutError, *DECODE_ERRORS) as error:
            self.why_not = f"it could not be asked at {self._url}: {brief(error)}"
            return None


def _outcome(response: _Response) -> Outcome:
    if not response.allowed:
        state = UNTOLD if response.status.code >= HTTPStatus.INTERNAL_SERVER_ERROR else REFUSED
        return Outcome(state, OURS if state == REFUSED else "", response.status.message)
    if response.auditAnnotations.get("decision") == "would-be-denied":
        return Outcome(PASSED, message=WOULD_BE)
    return Outcome(PASSED)


async def find_our_webhook(
    connection: Connection, configuration: str, connect: Address | None
) -> OurWebhook | None:
    """Return our webhook; None if it is not registered.

    Args:
        connection: to the API server.
        configuration: name of the ValidatingWebhookConfiguration.
        connect: where it can be reached from here, if not at the registered URL.

    Raises:
        ClusterError: the registration cannot be read.
    """
    path = WEBHOOK_CONFIGURATIONS.path("", configuration)
    try:
        body = await connection.get(path)
    except ClusterError as error:
        if error.code != HTTPStatus.NOT_FOUND:
            raise
        return None
    try:
        webhooks = tree(body).get("webhooks") or []
        if not webhooks:
            return None
        return await asyncio.to_thread(_located, webhooks[0].get("clientConfig") or {}, connect)
    except BaseException as error:
        if not is_failure(error):
            raise
        return OurWebhook(why_not=f"its registration cannot be used: {brief(error)}")


def _located(client: Mapping[str, Any], connect: Address | None) -> OurWebhook:
    if service := client.get("service"):
        host, path = f"{service['name']}.{service['namespace']}.svc", service.get("path") or "/"
        address = connect
        if address is None:
            return OurWebhook(
                why_not="its Service is not reachable from here: forward a port to it, and pass "
                "--connect HOST:PORT"
            )
    else:
        url = urlsplit(str(client["url"]))
        host, path = url.hostname or "", url.path or "/"
        address = connect or (host, _HTTPS if url.port is None else url.port)
    bundle = base64.b64decode(client.get("caBundle") or "", validate=True)
    context = verifying_context(bundle or None)
    name, port = address
    at = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    return OurWebhook(f"https://{at}{path}", host, context)
