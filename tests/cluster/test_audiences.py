"""The API server's audiences are learned from a token that can tell them, or not at all."""

import asyncio
import base64
import json
import logging
import time
from typing import Any

import pytest
from aiohttp import web

from noderestrict.cluster.audiences import learn_audiences
from noderestrict.cluster.connection import ClusterError
from noderestrict.cluster.judge import ClusterJudge
from noderestrict.cluster.server_info import server_version
from noderestrict.policy.decision import Allowed, Denied
from noderestrict.policy.settings import Settings
from noderestrict.serving.app import App
from noderestrict.telemetry.metrics import Metrics
from tests.cluster.scripted import connected, raw
from tests.cluster.test_judge import API, POD_PATH, pod, token
from tests.poisoned import FIELDS, poisoned

REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
OUR_POD = "/api/v1/namespaces/noderestrict/pods/ours"
ISSUER = "https://issuer"


def jwt(claims: Any) -> str:
    parts = ({"alg": "none"}, claims)
    encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    return b".".join((*encoded, b"signature")).decode()


def bound(*audiences: str, uid: str = "u1") -> str:
    pod = {"name": "ours", "uid": uid}
    return jwt({"aud": list(audiences), "kubernetes.io": {"namespace": "noderestrict", "pod": pod}})


SECRET = jwt({"iss": "kubernetes/serviceaccount"})


class Cluster(API):
    """Reviews tokens as an API server with these audiences does."""

    def __init__(self, *audiences: str) -> None:
        super().__init__()
        self.audiences = list(audiences)
        self.objects["/.well-known/openid-configuration"] = {"issuer": ISSUER}

    def our_pod(self, *audiences: str | None, uid: str = "u1") -> None:
        sources = [
            {"serviceAccountToken": {"path": "token", **({"audience": one} if one else {})}}
            for one in audiences
        ]
        volumes = [{"name": "token", "projected": {"sources": sources}}]
        self.objects[OUR_POD] = {
            "metadata": {"namespace": "noderestrict", "name": "ours", "uid": uid},
            "spec": {"nodeName": "n1", "volumes": volumes},
        }

    async def __call__(self, request: web.Request) -> web.Response:
        if request.path != REVIEWS or self.down:
            return await super().__call__(request)
        self.asked.append(request.path)
        spec = (await request.json())["spec"]
        assert not spec.get("audiences")
        payload = [*spec["token"].split("."), ""][1]
        try:
            claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
        except ValueError:
            claims = {}
        own = claims.get("aud") if isinstance(claims, dict) else None
        own = [own] if isinstance(own, str) else own or self.audiences
        good = [audience for audience in own if audience in self.audiences]
        if not good:
            error = {"authenticated": False, "error": "token audiences do not match"}
            return web.json_response({"status": error})
        return web.json_response({"status": {"authenticated": True, "audiences": good}})


async def learn(cluster: Cluster, own: str | None) -> tuple[str, ...]:
    async with connected(cluster, own) as connection:
        return await learn_audiences(connection)


@pytest.mark.parametrize("own", [SECRET, "opaque", "a.b.c", jwt({"aud": []})])
@pytest.mark.parametrize("audiences", [("api",), ("api", "vault"), (ISSUER, "api")])
async def test_a_token_for_no_audience_tells_all(own: str, audiences: tuple[str, ...]) -> None:
    assert await learn(Cluster(*audiences), own) == audiences


@pytest.mark.parametrize("others", [(), ("vault",), ("vault", "bank")])
async def test_the_default_token_of_a_pod_tells_all(others: tuple[str, ...]) -> None:
    cluster = Cluster("api", "web")
    cluster.our_pod(None, *others)
    assert await learn(cluster, bound("api", "web")) == ("api", "web")


@pytest.mark.parametrize(
    ("own", "sources"),
    [
        (bound("api"), ["api"]),  # asked for one of two
        (bound("api"), [None, "api"]),  # which of the two is it?
        (bound("api", "vault"), [None]),  # of another time, or of nobody's volume
        (bound("api", "web", uid="of another pod"), [None]),
        (bound("api", "web"), []),  # asked for by hand
        (jwt({"aud": ["api", "web"]}), [None]),  # bound to no pod
        (jwt({"aud": "api"}), [None]),
        (jwt({"aud": {"api": 1}}), [None]),
        (jwt({"kubernetes.io": 5}), [None]),
        (jwt([]), [None]),
    ],
)
async def test_a_token_that_may_be_for_some_audiences_tells_nothing(
    own: str, sources: list[str | None]
) -> None:
    cluster = Cluster("api", "web")
    cluster.our_pod(*sources)
    with pytest.raises(ClusterError):
        await learn(cluster, own)


@pytest.mark.parametrize("fields", FIELDS)
async def test_the_managed_fields_of_our_own_pod_keep_us_from_nothing(fields: str) -> None:
    cluster = Cluster("api", "web")
    cluster.our_pod(None)
    body = poisoned(cluster.objects[OUR_POD], FIELDS[fields])

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == OUR_POD:
            return web.Response(body=body, content_type="application/json")
        return await cluster(request)

    async with connected(answer, bound("api", "web")) as connection:
        assert await learn_audiences(connection) == ("api", "web")


async def test_answers_of_any_depth_are_errors() -> None:
    deep = b'{"status":' * 9_995 + b"{}" + b"}" * 9_995
    async with connected(raw(deep), SECRET) as connection:
        for ask in (learn_audiences, server_version):
            with pytest.raises(ClusterError):
                await ask(connection)


async def test_without_a_token_nothing_is_assumed() -> None:
    cluster = Cluster("api")
    with pytest.raises(ClusterError):
        await learn(cluster, None)
    assert cluster.asked == []


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"authenticated": True},
        {"authenticated": False, "audiences": ["x"]},
        5,
        {"audiences": 1},
    ],
)
async def test_a_review_that_does_not_answer_tells_nothing(status: Any) -> None:
    api = API()
    api.review_status = status
    with pytest.raises(ClusterError):
        async with connected(api, SECRET) as connection:
            await learn_audiences(connection)


def settings() -> Settings:
    return Settings.for_version(audiences_pending=True)


async def test_the_default_token_of_every_pod_is_issued_where_audiences_are_not_the_issuer() -> (
    None
):
    cluster = Cluster("api")
    cluster.objects[POD_PATH] = pod()
    cluster.objects[POD_PATH]["spec"]["volumes"] = [
        {"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}
    ]
    async with connected(cluster, SECRET) as connection:
        judging = ClusterJudge(connection, settings(), Metrics())
        deadline = time.monotonic() + 60
        assert isinstance(await judging.judge(token("api"), deadline), Allowed)
        # No pod asked for one to the issuer.
        decision = await judging.judge(token(ISSUER), deadline)
        assert isinstance(decision, Denied)
        assert decision.code == 403


async def test_audiences_that_have_changed_are_learned_before_a_refusal() -> None:
    cluster = Cluster("old")
    cluster.objects[POD_PATH] = pod()
    cluster.objects[POD_PATH]["spec"]["volumes"] = [
        {"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}
    ]
    async with connected(cluster, SECRET) as connection:
        judging = ClusterJudge(connection, settings(), Metrics())
        now = time.monotonic()
        judging._audiences._clock = lambda: now  # type: ignore[union-attr]
        deadline = now + 5
        assert isinstance(await judging.judge(token("old"), deadline), Allowed)
        cluster.audiences = ["new", "newer"]
        now += 30
        assert isinstance(await judging.judge(token("new", "newer"), deadline), Allowed)
        # Many refusals at a time cost one review.
        before = cluster.asked.count(REVIEWS)
        for _ in range(5):
            assert isinstance(await judging.judge(token("old", "new"), deadline), Denied)
        assert cluster.asked.count(REVIEWS) == before


async def test_audiences_that_were_learned_long_ago_allow_nothing() -> None:
    """The API server has others now: no pod asked for a token for these."""
    cluster = Cluster("old", "older")
    cluster.objects[POD_PATH] = pod()
    cluster.objects[POD_PATH]["spec"]["volumes"] = [
        {"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}
    ]
    async with connected(cluster, SECRET) as connection:
        judging = ClusterJudge(connection, settings(), Metrics())
        now = time.monotonic()
        judging._audiences._clock = lambda: now  # type: ignore[union-attr]
        deadline = now + 20
        assert isinstance(await judging.judge(token("older", "old"), deadline), Allowed)
        cluster.audiences = ["new", "newer"]
        now += 91
        assert judging.allowed(token("older", "old")) is None
        decision = await judging.judge(token("older", "old"), deadline)
        assert isinstance(decision, Denied)
        assert decision.code == 403
        assert isinstance(await judging.judge(token("newer", "new"), deadline), Allowed)
        # Nor if nobody can tell them any more.
        now += 91
        cluster.audiences = []
        decision = await judging.judge(token("newer", "new"), deadline)
        assert isinstance(decision, Denied)
        assert decision.code == 500


async def test_what_does_not_hinge_on_audiences_is_refused_without_them() -> None:
    cluster = Cluster("api")
    cluster.objects[POD_PATH] = pod("n2")
    async with connected(cluster) as connection:
        judging = ClusterJudge(connection, settings(), Metrics())
        decision = await judging.judge(token("api"), time.monotonic() + 60)
    assert isinstance(decision, Denied)
    assert decision.code == 403


async def test_a_client_certificate_makes_not_ready_and_names_the_flag(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("noderestrict"), "propagate", True)
    async with connected(Cluster("api")) as connection:
        judging = ClusterJudge(connection, settings(), Metrics())
        task = asyncio.ensure_future(judging.run())
        async with asyncio.timeout(60):
            while "--api-audiences" not in caplog.text:  # noqa: ASYNC110 (a log)
                await asyncio.sleep(0.01)
        assert judging.checks()["api audiences"] is False
        assert "--api-audiences" in await readyz(judging)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def readyz(judging: ClusterJudge) -> str:
    from aiohttp.test_utils import make_mocked_request

    answer = await App(judging, Metrics()).handle(make_mocked_request("GET", "/readyz?verbose"))
    assert isinstance(answer, web.Response)
    return str(answer.text)


async def test_where_no_gate_restricts_audiences_none_are_needed() -> None:
    async with connected(Cluster("api")) as connection:
        older = Settings.for_version(31, audiences_pending=True)
        judging = ClusterJudge(connection, older, Metrics())
        assert "api audiences" not in judging.checks()
