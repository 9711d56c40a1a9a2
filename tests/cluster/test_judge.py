"""Look-ups that miss are made live; what cannot be asked is never refused."""

import asyncio
import ipaddress
import json
import time
from typing import Any

import msgspec
import pytest
from aiohttp import web
from cryptography import x509

from noderestrict import admission
from noderestrict.api.corev1 import ReportedNode
from noderestrict.api.resources import ObjectKey
from noderestrict.cluster import judge as judge_module
from noderestrict.cluster.judge import ClusterJudge, streams
from noderestrict.cluster.live import Budget, BudgetExhaustedError, Coalescer, LiveLookups
from noderestrict.cluster.server_info import is_open_to_cve_2021_25735, server_version
from noderestrict.policy.decision import Allowed, Denied
from noderestrict.policy.extra import Extra
from noderestrict.policy.settings import Settings
from noderestrict.telemetry.metrics import Metrics
from tests.cluster.scripted import connected
from tests.policy.test_strict import serving_csr


def test_lists_are_streamed_where_pages_come_from_etcd_and_streams_are_served() -> None:
    assert [minor for minor in range(28, 38) if streams(minor)] == [32, 33]


class API:
    """Holds objects by path; counts what is asked."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.asked: list[str] = []
        self.reviews: list[Any] = []
        self.review_status: dict[str, Any] = {"allowed": False}
        self.down = False

    async def __call__(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        await asyncio.sleep(0)
        if self.down:
            return web.json_response({"message": "down"}, status=503)
        if request.method == "POST":
            self.reviews.append((await request.json())["spec"])
            return web.json_response({"status": self.review_status})
        value = self.objects.get(request.path)
        if value is None:
            return web.json_response({"message": "not found"}, status=404)
        return web.json_response(value)


POD_PATH = "/api/v1/namespaces/ns/pods/p"
NODE = {"username": "system:node:n1", "uid": "7", "groups": ["system:nodes"], "extra": {"a": ["b"]}}
SETTINGS = Settings.for_version(api_audiences=("api",))


def pod(node: str = "n1", uid: str = "u") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "ns", "name": "p", "uid": uid},
        "spec": {"nodeName": node, "serviceAccountName": "sa"},
    }


def review(resource: str, operation: str, **fields: Any) -> admission.Request:
    body = {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "1",
            "operation": operation,
            "namespace": "ns",
            "name": "p",
            "resource": {"group": "", "version": "v1", "resource": resource},
            "userInfo": NODE,
            **fields,
        },
    }
    return admission.decode(json.dumps(body).encode())


DELETE = review("pods", "DELETE")


def token(*audiences: str, uid: str = "u") -> admission.Request:
    reference = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid}
    spec = {"audiences": list(audiences), "boundObjectRef": reference}
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": spec,
    }
    return review("serviceaccounts", "CREATE", subResource="token", name="sa", object=request)


async def judge(
    api: API, request: admission.Request, seconds: float = 60
) -> tuple[Allowed | Denied, ClusterJudge]:
    async with connected(api) as connection:
        judging = ClusterJudge(connection, SETTINGS, Metrics())
        deadline = time.monotonic() + seconds
        return await judging.judge(request, deadline), judging


async def test_a_pod_that_the_store_lacks_is_looked_up_live() -> None:
    api = API()
    api.objects[POD_PATH] = pod()
    assert isinstance((await judge(api, DELETE))[0], Allowed)
    assert api.asked == [POD_PATH]


async def test_a_pod_that_is_nowhere_is_404_after_one_look() -> None:
    api = API()
    decision, _ = await judge(api, DELETE)
    assert isinstance(decision, Denied)
    assert decision.code == 404
    assert api.asked == [POD_PATH]


async def test_a_pod_with_thousands_of_claims_takes_no_budget_from_its_node() -> None:
    api = API()
    api.objects[POD_PATH] = large = pod()
    large["spec"]["volumes"] = [
        {"name": f"v{number}", "persistentVolumeClaim": {"claimName": f"c{number}"}}
        for number in range(18_000)
    ]
    async with connected(api) as connection:
        judging = ClusterJudge(connection, SETTINGS, Metrics())
        deadline = time.monotonic() + 60
        decision = await judging.judge(token("bank"), deadline)
        assert isinstance(decision, Denied)
        assert decision.code == 500
        assert api.asked == [POD_PATH]
        assert isinstance(await judging.judge(DELETE, deadline), Allowed)


async def test_looking_up_a_large_object_costs_as_much_as_looking_up_many_small_ones() -> None:
    api = API()
    api.objects[POD_PATH] = pod() | {"data": "x" * 1_400_000}
    budget = Budget(burst=20, per_second=1, clock=lambda: 0.0)
    async with connected(api) as connection:
        lookups = LiveLookups(connection, budget)
        for _ in range(2):
            assert await lookups.get(ObjectKey("pods", "ns", "p"), "n1", 5) is not None
        with pytest.raises(BudgetExhaustedError):
            await lookups.get(ObjectKey("pods", "ns", "p"), "n1", 5)
        assert await lookups.get(ObjectKey("pods", "ns", "p"), "n2", 5) is not None
    assert len(api.asked) == 3


async def test_a_stale_store_never_refuses_and_a_fresh_one_is_not_asked_live() -> None:
    api = API()
    api.objects[POD_PATH] = pod()
    async with connected(api) as connection:
        judging = ClusterJudge(connection, SETTINGS, Metrics())
        deadline = time.monotonic() + 60
        store = judging.informers.stores["pods"]
        store.upsert(msgspec.convert(pod("n2"), _pod_type()))
        assert isinstance(await judging.judge(DELETE, deadline), Allowed)
        assert len(api.asked) == 1
        store.upsert(msgspec.convert(pod("n1"), _pod_type()))
        assert isinstance(await judging.judge(DELETE, deadline), Allowed)
        assert len(api.asked) == 1


def _pod_type() -> Any:
    from noderestrict.api.corev1 import Pod

    return Pod


async def test_an_api_server_that_is_down_gives_500() -> None:
    api = API()
    api.down = True
    decision, _ = await judge(api, DELETE)
    assert isinstance(decision, Denied)
    assert decision.code == 500
    assert "try again" in decision.message


async def test_what_could_not_be_looked_up_is_named_in_the_log_and_not_in_the_answer() -> None:
    api = API()
    api.objects[POD_PATH] = pod()
    claim = {"name": "v", "persistentVolumeClaim": {"claimName": "data-of-the-bank"}}
    api.objects[POD_PATH]["spec"]["volumes"] = [claim]
    claims = "/api/v1/namespaces/ns/persistentvolumeclaims/data-of-the-bank"
    api.objects[claims] = {"metadata": {"name": ["undecodable"]}}
    decision, _ = await judge(api, token("vault"))
    assert isinstance(decision, Denied)
    assert decision.code == 500
    assert "data-of-the-bank" in decision.detail
    assert "data-of-the-bank" not in decision.message


async def test_a_uid_that_differs_is_refused_only_after_a_live_look() -> None:
    api = API()
    api.objects[POD_PATH] = pod(uid="other")
    decision, _ = await judge(api, token())
    assert isinstance(decision, Denied)
    assert decision.code == 403
    assert POD_PATH in api.asked


async def test_the_authorizer_is_asked_with_the_nodes_own_identity() -> None:
    api = API()
    api.objects[POD_PATH] = pod()
    api.review_status = {"allowed": True}
    assert isinstance((await judge(api, token("vault")))[0], Allowed)
    assert api.reviews[0] == {
        "user": "system:node:n1",
        "uid": "7",
        "groups": ["system:nodes"],
        "extra": {"a": ["b"]},
        "resourceAttributes": {
            "verb": "request-serviceaccounts-token-audience",
            "group": "",
            "version": "v1",
            "resource": "vault",
            "name": "sa",
            "namespace": "ns",
        },
    }


@pytest.mark.parametrize(
    ("status", "code"), [({"allowed": False}, 403), ({"evaluationError": "broken"}, 500), ({}, 403)]
)
async def test_only_a_plain_no_of_the_authorizer_refuses(status: dict[str, Any], code: int) -> None:
    api = API()
    api.objects[POD_PATH] = pod()
    api.review_status = status
    decision, _ = await judge(api, token("vault"))
    assert isinstance(decision, Denied)
    assert decision.code == code


@pytest.mark.parametrize(
    "extra", [{"a": ["b" * 70_000]}, {"a": "b"}, "b"], ids=["long", "no list", "no map"]
)
async def test_an_extra_that_cannot_be_passed_on_gives_500_to_the_question_alone(
    extra: object,
) -> None:
    api = API()
    api.objects[POD_PATH] = pod()
    api.review_status = {"allowed": True}
    odd = msgspec.Raw(json.dumps(extra).encode())
    for request, code in ((DELETE, 0), (token("vault"), 500)):
        user = msgspec.structs.replace(request.user, extra=odd)
        decision, _ = await judge(api, msgspec.structs.replace(request, user=user))
        assert getattr(decision, "code", 0) == code
    assert not api.reviews


async def test_a_deadline_that_has_passed_gives_500() -> None:
    decision, _ = await judge(API(), DELETE, seconds=-1)
    assert isinstance(decision, Denied)
    assert decision.code == 500


async def test_hostile_names_do_not_become_paths() -> None:
    api = API()
    async with connected(api) as connection:
        lookups = LiveLookups(connection, Budget())
        for name in ("../secrets/x", "a/b", "a?b", "..", "%2e%2e", "a\n"):
            assert await lookups.get(ObjectKey("pods", "ns", name), "n1", 5) is None
    assert api.asked == []


async def test_a_node_cannot_ask_without_end() -> None:
    now = 0.0
    budget = Budget(burst=3, per_second=1, clock=lambda: now)
    for _ in range(3):
        budget.spend("hostile")
    with pytest.raises(BudgetExhaustedError):
        budget.spend("hostile")
    budget.spend("other")
    now = 1.0
    budget.spend("hostile")


@pytest.fixture
def no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_module, "Budget", lambda: Budget(burst=20, clock=lambda: 0.0))


def of_node(name: str, pod: str) -> admission.Request:
    user = {"username": f"system:node:{name}", "groups": ["system:nodes"]}
    return review("pods", "DELETE", name=pod, userInfo=user)


async def codes(
    judging: ClusterJudge, node: str, peer: str, count: int = 1, pods: str = "p"
) -> set[int]:
    deadline = time.monotonic() + 60
    found = set()
    for number in range(count):
        request = of_node(node, f"{pods}-{number}")
        decision = await judging.judge(request, deadline, peer=peer)
        assert isinstance(decision, Denied)
        found.add(decision.code)
    return found


@pytest.mark.usefixtures("no_time_passes")
async def test_nobody_at_another_address_can_use_up_what_a_node_may_ask() -> None:
    async with connected(API()) as connection:
        judging = ClusterJudge(connection, SETTINGS, Metrics())
        for name in ("n1", "n2"):
            judging.informers.stores["nodes"].upsert(
                msgspec.convert({"metadata": {"name": name}}, ReportedNode)
            )
        assert 500 in await codes(judging, "n1", "10.0.0.66", 40)
        assert await codes(judging, "n1", "10.0.0.1", 3) == {404}
        assert await codes(judging, "n2", "10.0.0.66", 3) == {404}


@pytest.mark.usefixtures("no_time_passes")
async def test_names_that_no_node_has_share_one_budget_and_use_up_no_other() -> None:
    async with connected(API()) as connection:
        judging = ClusterJudge(connection, SETTINGS, Metrics())
        judging.informers.stores["nodes"].upsert(
            msgspec.convert({"metadata": {"name": "n1"}}, ReportedNode)
        )
        found = set()
        for number in range(40):
            found |= await codes(judging, f"made-up-{number}", "10.0.0.66")
        assert 500 in found
        assert await codes(judging, "n1", "10.0.0.66", 3) == {404}


@pytest.mark.parametrize(("address", "allowed"), [("10.0.0.7", True), ("10.0.0.8", False)])
async def test_addresses_that_no_store_has_are_looked_up_live(address: str, allowed: bool) -> None:
    api = API()
    api.objects["/api/v1/nodes/n1"] = {
        "metadata": {"name": "n1"},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.7"}]},
    }
    strict = Settings.for_version(extra=Extra.of(["certificatesigningrequests/addresses"]))
    body = serving_csr(x509.IPAddress(ipaddress.ip_address(address)))
    async with connected(api) as connection:
        judging = ClusterJudge(connection, strict, Metrics())
        # As a list by metadata leaves it.
        judging.informers.stores["nodes"].upsert(
            msgspec.convert({"metadata": {"name": "n1"}}, ReportedNode)
        )
        decision = await judging.judge(admission.decode(body), time.monotonic() + 60)
    assert isinstance(decision, Allowed) is allowed
    assert api.asked == ["/api/v1/nodes/n1"]


async def test_equal_questions_share_a_call_that_starts_after_them() -> None:
    calls = 0
    gate = asyncio.Event()

    async def call() -> int:
        nonlocal calls
        calls += 1
        number = calls
        await gate.wait()
        return number

    coalescer: Coalescer[int] = Coalescer()
    first = asyncio.ensure_future(coalescer.ask("k", call, 5))
    await asyncio.sleep(0)
    late = [asyncio.ensure_future(coalescer.ask("k", call, 5)) for _ in range(5)]
    await asyncio.sleep(0)
    gate.set()
    assert await first == 1
    assert set(await asyncio.gather(*late)) == {2}
    assert calls == 2


async def test_until_audiences_are_known_what_hinges_on_them_is_500() -> None:
    api = API()
    api.objects[POD_PATH] = pod()
    async with connected(api) as connection:
        settings = Settings.for_version(audiences_pending=True)
        judging = ClusterJudge(connection, settings, Metrics())
        deadline = time.monotonic() + 60
        decision = await judging.judge(token("https://issuer"), deadline)
        assert isinstance(decision, Denied)
        assert decision.code == 500
        assert judging.checks()["api audiences"] is False


@pytest.mark.parametrize(
    ("text", "version"), [("v1.36.0", (36, 0)), ("v1.31.4+k3s1", (31, 4)), ("v1.20.5-gke", (20, 5))]
)
async def test_the_server_version_is_read(text: str, version: tuple[int, int]) -> None:
    api = API()
    api.objects["/version"] = {"gitVersion": text}
    async with connected(api) as connection:
        assert await server_version(connection) == version


def test_servers_open_to_the_node_bypass_are_known() -> None:
    bad = [(17, 99), (18, 17), (19, 9), (20, 5)]
    good = [(18, 18), (19, 10), (20, 6), (21, 0), (36, 0)]
    assert all(is_open_to_cve_2021_25735(*version) for version in bad)
    assert not any(is_open_to_cve_2021_25735(*version) for version in good)
