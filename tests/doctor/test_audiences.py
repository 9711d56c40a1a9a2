"""The doctor compares the audiences of the servers with those of the API server."""

from typing import Any

import pytest
from aiohttp import web

from noderestrict.doctor.checks.api_audiences import check
from noderestrict.doctor.cluster import Cluster as Examined
from noderestrict.doctor.cluster import Options
from noderestrict.render import workload
from tests.cluster.scripted import connected
from tests.cluster.test_audiences import ISSUER, SECRET, Cluster, jwt

USER = "system:serviceaccount:noderestrict:noderestrict"
DEPLOYMENTS = "/apis/apps/v1/namespaces/noderestrict/deployments"
DAEMON_SETS = "/apis/apps/v1/namespaces/noderestrict/daemonsets"
API_SERVERS = "/api/v1/namespaces/kube-system/pods"


def api_server(*flags: str) -> dict[str, Any]:
    spec = {"containers": [{"command": ["kube-apiserver", *flags]}]}
    return {"metadata": {"name": "kube-apiserver-a"}, "spec": spec}


class Selecting(Cluster):
    """Lists of the pods of kube-system, our authorizer's if these are asked for."""

    def __init__(self, *flags: str) -> None:
        super().__init__("api")
        spec = {"containers": [{"args": ["serve", *flags]}]}
        pod = {"metadata": {"name": "noderestrict-authorizer-a"}, "spec": spec}
        self._listed = {"app.kubernetes.io/name=noderestrict-authorizer": [pod]}

    async def __call__(self, request: web.Request) -> web.Response:
        if request.path == API_SERVERS:
            items = self._listed.get(request.query["labelSelector"], [])
            return web.json_response({"items": items})
        return await super().__call__(request)


async def examine(
    *told: str,
    servers: tuple[str, ...] | None = None,
    token: str | None = SECRET,
    installed: bool = True,
) -> list[tuple[str, str]]:
    cluster = Cluster("api")
    cluster.objects[DEPLOYMENTS] = {"items": [workload.deployment(told)] if installed else []}
    cluster.objects[DAEMON_SETS] = {"items": []}
    cluster.objects[API_SERVERS] = {"items": [] if servers is None else [api_server(*servers)]}
    async with connected(cluster, token) as connection:
        examined = Examined(connection, Options(server_user=USER))
        return [(one.status, one.message) async for one in check(examined)]


@pytest.mark.parametrize("token", [SECRET, jwt({"aud": "api"}), None])
async def test_a_server_that_learns_them_passes(token: str | None) -> None:
    ((status, _),) = await examine(token=token)
    assert status == "pass"


@pytest.mark.parametrize(
    ("told", "status"), [("api", "pass"), (ISSUER, "fail"), (f"api,{ISSUER}", "fail")]
)
async def test_the_flag_is_compared_with_a_review_of_our_own_token(told: str, status: str) -> None:
    ((found, message),) = await examine(f"--api-audiences={told}")
    assert found == status
    assert "api" in message


@pytest.mark.parametrize(
    ("flags", "right"),
    [
        (["--api-audiences=a,b", f"--service-account-issuer={ISSUER}"], "b,a"),
        (
            [f"--service-account-issuer={ISSUER}", "--service-account-issuer", "old"],
            f"{ISSUER},old",
        ),
        ([f"--service-account-issuer={ISSUER}"], ISSUER),
    ],
)
async def test_the_flag_is_compared_with_those_of_the_api_server(
    flags: list[str], right: str
) -> None:
    ((status, _),) = await examine(f"--api-audiences={right}", servers=tuple(flags))
    assert status == "pass"
    ((status, message),) = await examine("--api-audiences=other", servers=tuple(flags))
    assert status == "fail"
    assert "kube-apiserver-a" in message


async def test_the_issuer_is_a_hint_where_nothing_else_is_known() -> None:
    ((status, _),) = await examine(f"--api-audiences={ISSUER}", token=None)
    assert status == "pass"
    ((status, message),) = await examine("--api-audiences=other", token=None)
    assert status == "warn"
    assert ISSUER in message


async def test_flags_that_are_not_visible_are_reported() -> None:
    found = await examine(installed=False)
    assert [status for status, _ in found] == ["unknown"]


@pytest.mark.parametrize(("told", "status"), [("api", "pass"), (ISSUER, "fail")])
async def test_the_flag_of_a_static_pod_is_compared(told: str, status: str) -> None:
    async with connected(Selecting(f"--api-audiences={told}"), SECRET) as connection:
        examined = Examined(connection, Options(server_user="noderestrict-authorizer"))
        ((found, message),) = [(one.status, one.message) async for one in check(examined)]
    assert found == status
    assert "pod kube-system/noderestrict-authorizer-a has" in message
