"""Exchange OpenID Connect refresh tokens for ID tokens.

The source is k8s.io/client-go/plugin/pkg/client/auth/oidc/oidc.go.
"""

import asyncio
import base64
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
import yaml

from noderestrict.cluster.access import Provider
from noderestrict.cluster.errors import ClusterError, ConnectionFailedError
from noderestrict.cluster.issued import Issued, expiry_of
from noderestrict.cluster.transport import client_session, environment_proxy, verifying_context
from noderestrict.policy.hostile import brief, is_failure, refused_as
from noderestrict.telemetry.logs import LOGGER

_T = TypeVar("_T")
_SECONDS = 30.0
_LONGEST_ANSWER = 1024 * 1024
ISSUER, CLIENT, SECRET = "idp-issuer-url", "client-id", "client-secret"
ID_TOKEN, REFRESH_TOKEN = "id-token", "refresh-token"
#: An ID token that expires so soon is exchanged.
_LEEWAY_SECONDS = 10.0


class _Metadata(msgspec.Struct):
    token_endpoint: str = ""


class _Tokens(msgspec.Struct):
    id_token: str | None = None
    refresh_token: str | None = None


class _RefusedError(ClusterError):
    """The provider answered with an error."""


class Exchange:
    """Issues ID tokens of one user.

    Args:
        provider: whom to ask, with the user's tokens.
        clock: seconds since 1970.
    """

    def __init__(self, provider: Provider, clock: Callable[[], float] = time.time) -> None:
        self._provider = provider
        self._clock = clock
        self._id_token = provider.config.get(ID_TOKEN, "").strip()
        self._refresh_token = provider.config.get(REFRESH_TOKEN, "").strip()

    async def issue(self) -> Issued:
        """Return the ID token of the kubeconfig the first time, while it is valid; else a new one.

        Raises:
            ConnectionFailedError: there is no refresh token.
            ClusterError: the provider did not answer, or not as it should.
        """
        given, self._id_token = self._id_token, ""
        if given:
            expires = expiry_of(given)
            if expires is None:
                raise ConnectionFailedError(
                    f"{self._provider.where}.config.{ID_TOKEN}: not a JWT that expires"
                )
            if expires > self._clock() + _LEEWAY_SECONDS:
                return Issued(given, expires=expires)
        if not self._refresh_token:
            raise ConnectionFailedError(
                f"{self._provider.where}.config.{REFRESH_TOKEN}: missing, and the ID token has "
                "expired"
            )
        tokens = await self._exchanged()
        if not tokens.id_token:
            raise ClusterError(f"{self._where()} answered without an ID token")
        changed = {ID_TOKEN: tokens.id_token}
        if tokens.refresh_token and tokens.refresh_token != self._refresh_token:
            self._refresh_token = changed[REFRESH_TOKEN] = tokens.refresh_token
        await asyncio.to_thread(self._keep, changed)
        return Issued(tokens.id_token, expires=expiry_of(tokens.id_token))

    def _where(self) -> str:
        return f"{self._provider.where}.config.{ISSUER}: {self._provider.config[ISSUER][:200]!r}"

    async def _exchanged(self) -> _Tokens:
        issuer, ca = self._provider.config[ISSUER], self._provider.ca
        with refused_as(ConnectionFailedError, str(ca or self._provider.where)):
            context = await asyncio.to_thread(
                lambda: verifying_context(None if ca is None else ca.read())
            )
        try:
            async with asyncio.timeout(_SECONDS), client_session(context) as session:
                path = "/.well-known/openid-configuration"
                metadata = await self._asked(session, issuer.removesuffix("/") + path, _Metadata)
                if not metadata.token_endpoint:
                    raise ClusterError(f"{self._where()} names no token_endpoint")
                return await self._refreshed(session, metadata.token_endpoint)
        except aiohttp.InvalidURL as error:
            raise ClusterError(f"{self._where()}: invalid URL {str(error.url)[:200]}") from None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise ClusterError(f"{self._where()}: {brief(error)}") from None

    async def _refreshed(self, session: aiohttp.ClientSession, endpoint: str) -> _Tokens:
        client, secret = self._provider.config[CLIENT], self._provider.config.get(SECRET, "")
        form = {"grant_type": "refresh_token", "refresh_token": self._refresh_token}
        pair = f"{quote(client, safe='')}:{quote(secret, safe='')}"
        header = {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        try:
            return await self._asked(session, endpoint, _Tokens, form, header)
        except _RefusedError:
            # Some providers want the client in the form, and nothing says which.
            form |= {"client_id": client, **({"client_secret": secret} if secret else {})}
            return await self._asked(session, endpoint, _Tokens, form)

    async def _asked(
        self,
        session: aiohttp.ClientSession,
        url: str,
        kind: type[_T],
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> _T:
        """Return the answer to a GET, or to a POST of a form."""
        body = bytearray()
        async with session.request(
            "POST" if form else "GET", url, data=form, headers=headers, proxy=environment_proxy(url)
        ) as response:
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > _LONGEST_ANSWER:
                    raise ClusterError(f"{self._where()}: the answer is too long")
        if response.status != HTTPStatus.OK:
            # The body may hold tokens.
            raise _RefusedError(f"{self._where()}: {url[:200]} answered {response.status}")
        with refused_as(ClusterError, f"{self._where()}: {url[:200]}"):
            return msgspec.json.decode(bytes(body), type=kind)

    def _keep(self, tokens: Mapping[str, str]) -> None:
        """Write new tokens to the kubeconfig: the provider may accept a refresh token only once."""
        file = self._provider.file
        try:
            config: Any = yaml.safe_load(file.read_bytes())
            user = next(one for one in config["users"] if one["name"] == self._provider.user)
            user["user"]["auth-provider"]["config"].update(tokens)
            # In place, so that its owner and mode stay.
            file.write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
        except BaseException as error:
            if not is_failure(error):
                raise
            if REFRESH_TOKEN in tokens:
                LOGGER.warning(
                    "a new refresh token cannot be written to the kubeconfig",
                    extra={"file": str(file), "error": brief(error)},
                )
