"""The connection to the API server: raw bytes in and out, with checked status codes."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
from multidict import CIMultiDict

from noderestrict.cluster.access import Access, Impersonated
from noderestrict.cluster.api_servers import Address
from noderestrict.cluster.credentials import Credential, Credentials
from noderestrict.cluster.errors import ClusterError as ClusterError
from noderestrict.cluster.errors import ConnectionFailedError as ConnectionFailedError
from noderestrict.cluster.kubernetes_client import ApiClient, ApiException, Configuration
from noderestrict.cluster.locate import find_access
from noderestrict.cluster.transport import USER_AGENT, client_session, environment_proxy
from noderestrict.errors import said

#: Query of writes: a proxy may change the user agent, from which API servers take it otherwise.
MANAGED = {"fieldManager": "noderestrict"}
_OK = range(200, 300)
_IMPERSONATE_USER = "Impersonate-User"
#: Of an error message: it may repeat a node name before it says who refused.
_LONGEST = 1000
#: Bytes of an answer that is an error; what a proxy hands on may have no end.
_ERROR = 2**20
#: Bytes of a piece after which no more is on its way.
_SMALL = 2**14


class _Status(msgspec.Struct):
    message: str | None = None


class _Session:
    """An HTTP session with the number of its requests; it is closed after the last one."""

    def __init__(self, http: aiohttp.ClientSession, context: ssl.SSLContext | None) -> None:
        self.http = http
        self.context = context
        self.requests = 0


class Connection:
    """One API client for the whole process.

    Args:
        api: a configured client; closed by ``close``.
        credentials: what requests authenticate with; None for what the client is configured with.
        impersonation: headers that impersonate a user.
        new_session: returns an HTTP session for a TLS context.

    Attributes:
        credentials: what requests authenticate with.
        namespace: of objects that are named without one.
    """

    def __init__(
        self,
        api: ApiClient,
        credentials: Credentials | None = None,
        impersonation: Sequence[tuple[str, str]] = (),
        new_session: Callable[[ssl.SSLContext | None], aiohttp.ClientSession] = client_session,
    ) -> None:
        self._api = api
        self.credentials = credentials or Credentials(
            Credential(api.configuration.api_key.get("BearerToken") or "")
        )
        self._impersonation = impersonation
        self.namespace = "default"
        self._new_session = new_session
        self._session = _Session(api.rest_client.pool_manager, self.credentials.current.context)
        self._renewal: asyncio.Task[None] | None = None

    @property
    def impersonated(self) -> str:
        """The user that requests impersonate unless they say whom, "" for none."""
        return dict(self._impersonation).get(_IMPERSONATE_USER, "")

    @classmethod
    async def open(
        cls,
        kubeconfig: str | None,
        context: str | None,
        api_servers: Sequence[Address] = (),
        counted: Callable[[str], None] | None = None,
        impersonated: Impersonated | None = None,
    ) -> "Connection":
        """Connect as client-go does, and keep the credential fresh.

        Args:
            kubeconfig: one or more files; None means $KUBECONFIG, ~/.kube/config or the service
                account of the pod.
            context: of the kubeconfig; None means its current one.
            api_servers: where a pod reaches API servers; none for the Service of the cluster.
            counted: called with the result of each renewal of the credential.
            impersonated: whom to impersonate instead of whom the kubeconfig says.

        Raises:
            ConnectionFailedError: the configuration is unusable.
            ClusterError: what issues the credential failed.
        """
        access = await asyncio.to_thread(
            find_access, kubeconfig, context, pod=bool(api_servers), impersonated=impersonated
        )
        return await cls.to(access, api_servers, counted)

    @classmethod
    async def to(
        cls,
        access: Access,
        api_servers: Sequence[Address] = (),
        counted: Callable[[str], None] | None = None,
    ) -> "Connection":
        """Connect with an access, and keep the credential fresh.

        Args:
            access: how to reach the API server, and as whom.
            api_servers: where a pod reaches API servers; none for the Service of the cluster.
            counted: called with the result of each renewal of the credential.

        Raises:
            ConnectionFailedError: the access is unusable.
            ClusterError: what issues the credential failed.
        """
        credentials = await Credentials.read(access)
        if counted is not None:
            credentials.counted = counted
        cluster = access.cluster
        configuration = Configuration(host=cluster.server)
        configuration.tls_server_name = cluster.tls_server_name or None
        if not api_servers:
            configuration.proxy = cluster.proxy or environment_proxy(cluster.server)
        api = ApiClient(configuration)
        # Its own session verifies certificates otherwise, and cannot present another one.
        await api.rest_client.close()
        new_session = partial(client_session, addresses=api_servers)
        api.rest_client.pool_manager = new_session(credentials.current.context)
        connection = cls(api, credentials, access.user.impersonation, new_session)
        connection.namespace = access.namespace
        connection._renewal = asyncio.get_running_loop().create_task(credentials.run())
        return connection

    @property
    def host(self) -> str:
        """Host name or IP address of the API server, as configured."""
        return urlsplit(str(self._api.configuration.host)).hostname or ""

    async def token(self) -> str | None:
        """Return the bearer token that requests currently send; None if they send none."""
        scheme, _, token = self.credentials.current.authorization.partition(" ")
        return token if scheme == "Bearer" and token else None

    async def close(self) -> None:
        """Close all connections."""
        if self._renewal is not None:
            self._renewal.cancel()
            # A plugin that runs is ended.
            await asyncio.wait((self._renewal,))
        await self._api.close()

    async def _session_of(self, credential: Credential) -> _Session:
        """Return the session for a credential: another client certificate takes another one.

        Connections keep the certificate that they were opened with. Requests on the old ones end as
        they would have.
        """
        old = self._session
        if old.context is not credential.context:
            http = self._new_session(credential.context)
            self._session = _Session(http, credential.context)
            self._api.rest_client.pool_manager = http
            if not old.requests:
                await old.http.close()
        return self._session

    async def get(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        seconds: float = 30,
        accept: str | None = None,
        most: int | None = None,
    ) -> bytes:
        """Return the body of a GET.

        Args:
            path: of the request.
            query: its parameters.
            seconds: how long to wait.
            accept: media type to ask for, if not JSON as it is.
            most: bytes to take of what somebody else than the API server answers; None for all.

        Raises:
            ClusterError: there was no answer, an error, or more than that.
        """
        headers = {"Accept": accept} if accept else None
        async with self._response("GET", path, query, None, seconds, headers=headers) as response:
            if most is None:
                return await response.read()
            return await limited(response, most, f"GET {path}")

    async def post(
        self,
        path: str,
        body: Mapping[str, Any],
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = 30,
    ) -> bytes:
        """Return the body that answers a POST.

        Raises:
            ClusterError: there was no answer, or an error.
        """
        async with self._response("POST", path, query, body, seconds, headers=headers) as response:
            return await response.read()

    async def put(self, path: str, body: Mapping[str, Any], *, seconds: float = 30) -> bytes:
        """Return the body that answers a PUT.

        Raises:
            ClusterError: there was no answer, or an error.
        """
        async with self._response("PUT", path, MANAGED, body, seconds) as response:
            return await response.read()

    async def delete(self, path: str, *, seconds: float = 30) -> bytes:
        """Return the body that answers a DELETE.

        Raises:
            ClusterError: there was no answer, or an error.
        """
        async with self._response("DELETE", path, None, None, seconds) as response:
            return await response.read()

    async def json_patch(
        self, path: str, operations: Sequence[Mapping[str, Any]], *, seconds: float = 30
    ) -> bytes:
        """Return the body that answers a JSON patch.

        Raises:
            ClusterError: there was no answer, or an error.
        """
        kind = "application/json-patch+json"
        async with self._response("PATCH", path, MANAGED, operations, seconds, kind) as response:
            return await response.read()

    async def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any],
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        seconds: float = 30,
    ) -> tuple[bytes, list[str]]:
        """Return the body that answers a request, and the warnings that came with it.

        Raises:
            ClusterError: there was no answer, or an error.
        """
        async with self._response(
            method, path, query, body, seconds, content_type, headers
        ) as response:
            return await response.read(), response.headers.getall("Warning", [])

    async def stream(
        self,
        path: str,
        query: Mapping[str, str],
        *,
        inactivity: float | None = None,
        accept: str | None = None,
        gather: Callable[[], Awaitable[None]] | None = None,
    ) -> AsyncIterator[bytes]:
        """Yield the body of a GET in pieces as it arrives.

        Args:
            path: of the request.
            query: its parameters.
            inactivity: seconds without data after which to abandon the stream; None for a caller
                that looks after that, since it takes time with each piece.
            accept: media type to ask for, if not JSON as it is.
            gather: waits after a small piece; what arrives meanwhile is read at once.

        Raises:
            ClusterError: there was no answer, an error, or the stream broke off.
        """
        timeout = aiohttp.ClientTimeout(sock_connect=10, sock_read=inactivity)
        # An API server compresses long answers, which takes it longer than to send them.
        headers = {"Accept-Encoding": "identity"}
        if accept:
            headers["Accept"] = accept
        async with self._response("GET", path, query, None, timeout, headers=headers) as response:
            while piece := await response.content.readany():
                yield piece
                if gather and len(piece) < _SMALL and response.connection is not None:
                    await _left_unread(response.connection.transport, gather)

    @contextlib.asynccontextmanager
    async def websocket(
        self, path: str, query: Mapping[str, str], protocol: str, seconds: float
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse[bool]]:
        """Open a WebSocket.

        Args:
            path: of the request.
            query: its parameters.
            protocol: to speak over it.
            seconds: until it is closed.

        Raises:
            ClusterError: it could not be opened, broke off, or took too long.
        """
        what, configuration = f"GET {path}", self._api.configuration
        credential = self.credentials.current
        headers = CIMultiDict(self._impersonation)
        headers["User-Agent"] = USER_AGENT
        if credential.authorization:
            headers["Authorization"] = credential.authorization
        session = await self._session_of(credential)
        session.requests += 1
        try:
            async with (
                asyncio.timeout(seconds),
                session.http.ws_connect(
                    f"{configuration.host}{path}",
                    params=query,
                    protocols=(protocol,),
                    headers=headers,
                    proxy=configuration.proxy,
                    server_hostname=configuration.tls_server_name,
                ) as socket,
            ):
                yield socket
        except aiohttp.WSServerHandshakeError as error:
            raise ClusterError(f"{what}: {_phrase(error.status)}", error.status) from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ClusterError(f"{what}: {said(error)}") from error
        finally:
            await self._release(session)

    @contextlib.asynccontextmanager
    async def _response(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None,
        limit: float | aiohttp.ClientTimeout,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        what = f"{method} {path}"
        sent = CIMultiDict({"Accept": "application/json", "Content-Type": content_type})
        sent.update(headers or {})
        if _IMPERSONATE_USER not in sent:
            sent.extend(self._impersonation)
        elif self._impersonation:
            # The API server knows one impersonated user: the other's rights would decide nothing.
            raise ClusterError(
                f"{what}: cannot impersonate {sent[_IMPERSONATE_USER]} as {self.impersonated}"
            )
        sent["User-Agent"] = USER_AGENT
        request = partial(
            self._send,
            method,
            f"{self._api.configuration.host}{path}",
            dict(query or {}),
            sent,
            body,
            limit,
        )
        session = response = None
        try:
            used = self.credentials.current
            session, response = await request(used)
            if response.status == HTTPStatus.UNAUTHORIZED and await self.credentials.replaced(
                used, _patience(limit)
            ):
                response.close()
                await self._release(session)
                session = response = None
                session, response = await request(self.credentials.current)
            if response.status not in _OK:
                message = _message(await _beginning(response, _ERROR))
                raise ClusterError(f"{what}: {response.status} {message}".rstrip(), response.status)
            yield response
        except aiohttp.InvalidURL as error:
            raise ClusterError(f"{what}: invalid URL {error.url}") from error
        except (aiohttp.ClientError, ApiException, OSError, TimeoutError) as error:
            raise ClusterError(f"{what}: {said(error)}") from error
        finally:
            if response is not None:
                response.close()
            if session is not None:
                await self._release(session)

    async def _send(
        self,
        method: str,
        url: str,
        query: dict[str, str],
        headers: Any,
        body: Any,
        limit: float | aiohttp.ClientTimeout,
        credential: Credential,
    ) -> tuple[_Session, aiohttp.ClientResponse]:
        """Return the response to a request, and the session to release after it."""
        if credential.authorization:
            headers["Authorization"] = credential.authorization
        session = await self._session_of(credential)
        session.requests += 1
        try:
            response: aiohttp.ClientResponse = await self._api.rest_client.request(
                method,
                url,
                query_params=query,
                headers=headers,
                body=body,
                _preload_content=False,
                _request_timeout=limit,
            )
        except BaseException:
            await self._release(session)
            raise
        self.credentials.answered(response.status, credential)
        return session, response

    async def _release(self, session: _Session) -> None:
        session.requests -= 1
        if not session.requests and session is not self._session:
            await session.http.close()


async def _left_unread(
    transport: asyncio.Transport | None, wait: Callable[[], Awaitable[None]]
) -> None:
    """Wait, and read nothing from a connection meanwhile."""
    if transport is None or transport.is_closing():
        return
    transport.pause_reading()
    try:
        await wait()
    finally:
        if not transport.is_closing():
            transport.resume_reading()


async def limited(response: aiohttp.ClientResponse, most: int, what: str) -> bytes:
    """Return a body.

    Args:
        response: whose body has not been read.
        most: bytes that it may have.
        what: was asked for, for the error.

    Raises:
        ClusterError: it has more.
    """
    body = await _beginning(response, most + 1)
    if len(body) > most:
        raise ClusterError(f"{what}: the answer has over {most} bytes")
    return body


async def _beginning(response: aiohttp.ClientResponse, most: int) -> bytes:
    """Return the first bytes of a body, all of a shorter one."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) >= most:
            break
    return bytes(body[:most])


def _patience(limit: float | aiohttp.ClientTimeout) -> float:
    """Return how long a refused request waits for another credential."""
    return limit.sock_connect or 0.0 if isinstance(limit, aiohttp.ClientTimeout) else limit


def _phrase(code: int) -> str:
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)


def _message(body: bytes) -> str:
    try:
        return (msgspec.json.decode(body, type=_Status).message or "")[:_LONGEST]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return body[:100].decode("utf-8", "replace")
