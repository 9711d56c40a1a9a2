"""The connection to the API server: raw bytes in and out, with checked status codes."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from kubernetes_asyncio import client, config
from kubernetes_asyncio.client.exceptions import ApiException

from noderestrict.cluster.api_servers import Address, use_addresses
from noderestrict.errors import NoderestrictError
from noderestrict.policy.hostile import brief, is_failure, refused_as
from noderestrict.telemetry.logs import LOGGER

_OK = range(200, 300)
_REFRESH_SECONDS = 30


class ClusterError(NoderestrictError):
    """The API server did not answer, or answered with an error; ``code`` is 0 for no answer."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class ConnectionFailedError(ClusterError):
    """The configuration is unusable; the message says why."""


class _Status(msgspec.Struct):
    message: str | None = None


class Connection:
    """One API client for the whole process.

    Args:
        api: a configured client; closed by ``close``.
        refresh: a task that keeps its credentials fresh.
    """

    def __init__(self, api: client.ApiClient, refresh: asyncio.Task[None] | None = None) -> None:
        self._api = api
        self._refresh = refresh

    @classmethod
    async def open(
        cls,
        kubeconfig: str | None,
        context: str | None,
        api_servers: Sequence[Address] = (),
    ) -> "Connection":
        """Connect with a kubeconfig, or as a pod of the cluster.

        Args:
            kubeconfig: a file; None means the service account of the pod.
            context: of the kubeconfig; None means its current one.
            api_servers: where a pod reaches API servers; none for the Service of the cluster.

        Raises:
            ConnectionFailedError: the configuration is unusable.
        """
        if api_servers and kubeconfig is not None:
            raise ConnectionFailedError(
                "--api-server is for the service account of a pod: a --kubeconfig names its own"
            )
        configuration = client.Configuration()
        if kubeconfig is None:
            try:
                config.load_incluster_config(  # type: ignore[no-untyped-call]
                    client_configuration=configuration
                )
            except config.ConfigException as error:
                raise ConnectionFailedError(
                    f"not running in a pod of a cluster ({error}): set --kubeconfig (or --state)"
                ) from None
            in_pod = client.ApiClient(configuration)
            if api_servers:
                await use_addresses(in_pod, api_servers)
            return cls(in_pod)
        at = f"--kubeconfig {kubeconfig}" + (f", --context {context}" if context else "")
        with refused_as(ConnectionFailedError, at):
            for file in map(Path, kubeconfig.split(os.pathsep)):
                # Opening a FIFO would block until somebody writes to it.
                if file.expanduser().exists() and not file.expanduser().is_file():
                    raise ConnectionFailedError(f"{at}: {file} is not a regular file")
            loader = await config.load_kube_config(
                kubeconfig, context, configuration, persist_config=False
            )
            api = client.ApiClient(configuration)
        refresh = asyncio.get_running_loop().create_task(_keep_fresh(loader, configuration))
        return cls(api, refresh)

    async def token(self) -> str | None:
        """Return the bearer token that requests currently send; None if they send none.

        Raises:
            ClusterError: the token cannot be read.
        """
        try:
            sent = await self._api.configuration.get_api_key_with_prefix("BearerToken")
        except (config.ConfigException, OSError) as error:
            raise ClusterError(f"our own token: {error}") from None
        return (sent or "").removeprefix("Bearer ").strip() or None

    async def close(self) -> None:
        """Close all connections."""
        if self._refresh is not None:
            self._refresh.cancel()
        await self._api.close()

    async def get(
        self, path: str, query: Mapping[str, str] | None = None, *, seconds: float = 30
    ) -> bytes:
        """Return the body of a GET.

        Raises:
            ClusterError: there was no answer, or an error.
        """
        async with self._response("GET", path, query, None, seconds) as response:
            return await response.read()

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
        async with self._response("PUT", path, None, body, seconds) as response:
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
        async with self._response("PATCH", path, None, operations, seconds, kind) as response:
            return await response.read()

    async def stream(
        self, path: str, query: Mapping[str, str], *, inactivity: float
    ) -> AsyncIterator[bytes]:
        """Yield the body of a GET in pieces as it arrives.

        Args:
            path: of the request.
            query: its parameters.
            inactivity: seconds without data after which to abandon the stream.

        Raises:
            ClusterError: there was no answer, an error, or the stream broke off.
        """
        timeout = aiohttp.ClientTimeout(sock_connect=10, sock_read=inactivity)
        async with self._response("GET", path, query, None, timeout) as response:
            while piece := await response.content.readany():
                yield piece

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
        response = None
        try:
            response = await self._api.call_api(
                path,
                method,
                query_params=list((query or {}).items()),
                header_params={
                    "Accept": "application/json",
                    "Content-Type": content_type,
                    **(headers or {}),
                },
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=limit,
            )
            if response.status not in _OK:
                raise ClusterError(
                    f"{what}: {response.status} {_message(await response.read())}".rstrip(),
                    response.status,
                )
            yield response
        except aiohttp.InvalidURL as error:
            raise ClusterError(f"{what}: invalid URL {error.url}") from error
        except (aiohttp.ClientError, ApiException, OSError, TimeoutError) as error:
            raise ClusterError(f"{what}: {error or type(error).__name__}") from error
        finally:
            if response is not None:
                response.close()


async def _keep_fresh(loader: Any, configuration: client.Configuration) -> None:
    """Renew the credentials of a kubeconfig repeatedly, if they need it."""
    while True:
        try:
            await config.refresh_token(loader, configuration, _REFRESH_SECONDS)
        except BaseException as error:
            if not is_failure(error):
                raise
            LOGGER.warning("credentials could not be renewed", extra={"error": brief(error)})
        else:
            # Credentials of this kind need no renewal.
            return


def _message(body: bytes) -> str:
    try:
        return (msgspec.json.decode(body, type=_Status).message or "")[:300]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return body[:100].decode("utf-8", "replace")
