"""Where the doctor looks for a server."""

from dataclasses import dataclass
from typing import Any

import pytest

from noderestrict.doctor.cluster import Cluster, Options

URL = {"url": "https://127.0.0.1:8443/validate"}
SERVICE = {"service": {"name": "noderestrict", "namespace": "noderestrict"}}


@dataclass
class Connection:
    """To an API server at a host."""

    host: str


def at(api_server: str, client: dict[str, Any], connect: tuple[str, int] | None = None) -> Any:
    connection: Any = Connection(api_server)
    return Cluster(connection, Options(connect=connect)).server(client)


@pytest.mark.parametrize("api_server", ["127.0.0.1", "::1", "localhost"])
def test_beside_the_api_server_it_looks_where_the_api_server_does(api_server: str) -> None:
    assert at(api_server, URL) == ("127.0.0.1", ("127.0.0.1", 8443))


@pytest.mark.parametrize("api_server", ["10.0.0.1", "api.example.com", "2001:db8::1"])
def test_on_another_host_it_does_not_take_its_own_loopback_for_the_api_servers(
    api_server: str,
) -> None:
    assert at(api_server, URL) == ("127.0.0.1", None)
    assert at(api_server, URL, ("10.0.0.1", 8443)) == ("127.0.0.1", ("10.0.0.1", 8443))
    assert at(api_server, {"url": "https://10.0.0.9/"}) == ("10.0.0.9", ("10.0.0.9", 443))


def test_a_service_is_reached_as_told_alone() -> None:
    assert at("127.0.0.1", SERVICE)[1] is None
    assert at("127.0.0.1", SERVICE, ("127.0.0.1", 1))[1] == ("127.0.0.1", 1)
