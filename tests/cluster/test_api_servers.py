"""A pod reaches API servers at the addresses that it is given, verified by their common name."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from kubernetes_asyncio.config import incluster_config

from noderestrict.cluster.connection import ClusterError, Connection, ConnectionFailedError
from noderestrict.cluster.server_info import server_version
from tests.e2e.control_plane import free_port
from tests.serving.tls import authority, leaf, write_pair

CA = authority()
NAME = "kubernetes.default.svc"


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this process what a pod has: a Service that nobody serves, a token and a CA."""
    (tmp_path / "token").write_text("secret")
    (tmp_path / "ca.crt").write_bytes(CA.certificate)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(free_port()))
    # A proxy is for requests that leave the cluster.
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{free_port()}")


def served(folder: Path, *names: str) -> ssl.SSLContext:
    folder.mkdir()
    write_pair(folder, leaf(CA, *names))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return context


@asynccontextmanager
async def api_server(folder: Path, host: str, minor: int, *names: str) -> AsyncIterator[int]:
    """Serve a version; yields the port."""

    async def version(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer secret"
        return web.json_response({"gitVersion": f"v1.{minor}.0"})

    app = web.Application()
    app.router.add_get("/version", version)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, 0, ssl_context=served(folder, *names))
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def minor_at(*addresses: tuple[str, int]) -> int:
    connection = await Connection.open(None, None, addresses)
    try:
        return (await server_version(connection))[0]
    finally:
        await connection.close()


@pytest.mark.usefixtures("pod")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_pod_needs_no_service_to_reach_the_api_server(tmp_path: Path, host: str) -> None:
    async with api_server(tmp_path / "a", host, 33, NAME) as port:
        assert await minor_at((host, port)) == 33
        with pytest.raises(ClusterError):
            await minor_at()


@pytest.mark.usefixtures("pod")
async def test_the_first_address_that_answers_is_used(tmp_path: Path) -> None:
    async with (
        api_server(tmp_path / "a", "127.0.0.1", 33, NAME) as first,
        api_server(tmp_path / "b", "127.0.0.1", 34, NAME) as second,
    ):
        both = (("127.0.0.1", first), ("127.0.0.1", second))
        assert await minor_at(*both) == 33
        assert await minor_at(*reversed(both)) == 34
        down, unknown = ("127.0.0.1", free_port()), ("no.such.name.invalid", 1)
        assert await minor_at(down, unknown, ("localhost", second)) == 34


@pytest.mark.usefixtures("pod")
async def test_a_server_that_is_no_api_server_gets_no_token(tmp_path: Path) -> None:
    async with api_server(tmp_path / "a", "127.0.0.1", 33, "127.0.0.1", "localhost") as port:
        with pytest.raises(ClusterError, match=r"kubernetes\.default\.svc"):
            await minor_at(("127.0.0.1", port))


async def test_a_kubeconfig_names_its_own_server(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFailedError, match="--api-server"):
        await Connection.open(str(tmp_path / "kubeconfig"), None, [("127.0.0.1", 6443)])
