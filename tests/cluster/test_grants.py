"""How long a yes of the cluster's authorizer counts, and for whom."""

from typing import Any

import msgspec
import pytest

from noderestrict.api.admissionv1 import UserInfo
from noderestrict.cluster.connection import ClusterError
from noderestrict.cluster.grant_authorizer import GrantAuthorizer
from noderestrict.cluster.live import Budget, BudgetExhaustedError
from noderestrict.policy.decision import Denied, Question
from noderestrict.policy.rules.serviceaccounts import AUDIENCE_VERB
from tests.cluster.scripted import connected
from tests.cluster.test_judge import API, NODE, token


class Asked:
    """An authorizer before which a clock can be moved on."""

    def __init__(self, connection: Any, budget: Budget | None = None) -> None:
        self.now = 100.0
        self.counts: list[tuple[str, str]] = []
        self._authorizer = GrantAuthorizer(
            connection,
            budget or Budget(),
            lambda resource, result: self.counts.append((resource, result)),
            clock=lambda: self.now,
        )

    async def allows(self, *audiences: str, **changes: Any) -> bool:
        # Encoded and decoded: extra stays JSON.
        user = msgspec.json.decode(
            msgspec.json.encode({**NODE, **changes.get("user", {})}), type=UserInfo
        )
        request = msgspec.structs.replace(token(*audiences), user=user)
        question = Question(
            verb=AUDIENCE_VERB,
            group="",
            resources=audiences,
            name=changes.get("account", "sa"),
            namespace=changes.get("namespace", "ns"),
            otherwise=Denied(403, "Forbidden", "no"),
        )
        return await self._authorizer.allows(request, question, "share", 30)


def api(*, allowed: bool) -> API:
    value = API()
    value.review_status = {"allowed": allowed}
    return value


async def test_a_yes_counts_for_five_seconds_and_no_longer() -> None:
    cluster = api(allowed=True)
    async with connected(cluster) as connection:
        asked = Asked(connection)
        assert await asked.allows("vault")
        cluster.review_status = {"allowed": False}
        asked.now += 4.9
        assert await asked.allows("vault")
        assert len(cluster.reviews) == 1
        asked.now += 0.1
        assert not await asked.allows("vault")
        assert len(cluster.reviews) == 2


async def test_a_no_is_never_remembered() -> None:
    cluster = api(allowed=False)
    async with connected(cluster) as connection:
        asked = Asked(connection)
        assert not await asked.allows("vault")
        cluster.review_status = {"allowed": True}
        assert await asked.allows("vault")
        assert asked.counts == [
            ("subjectaccessreviews", "not_allowed"),
            ("subjectaccessreviews", "allowed"),
        ]


@pytest.mark.parametrize(
    "change",
    [
        {"user": {"username": "system:node:n2"}},
        {"user": {"uid": "8"}},
        {"user": {"groups": ["system:nodes", "more"]}},
        {"user": {"extra": {"a": ["c"]}}},
        {"account": "other"},
        {"namespace": "other"},
    ],
    ids=str,
)
async def test_a_yes_counts_for_nobody_and_nothing_else(change: dict[str, Any]) -> None:
    cluster = api(allowed=True)
    async with connected(cluster) as connection:
        asked = Asked(connection)
        assert await asked.allows("vault")
        cluster.review_status = {"allowed": False}
        assert not await asked.allows("vault", **change)
        assert not await asked.allows("other")
        assert await asked.allows("vault")


async def test_any_audience_that_is_granted_is_enough_and_each_is_asked_about() -> None:
    cluster = api(allowed=False)
    async with connected(cluster) as connection:
        assert not await Asked(connection).allows("a", "b")
        resources = [one["resourceAttributes"]["resource"] for one in cluster.reviews]
        assert resources == ["a", "b"]
        cluster.review_status = {"allowed": True}
        assert await Asked(connection).allows("a", "b")


async def test_only_the_latest_grants_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noderestrict.cluster.grant_authorizer._REMEMBERED", 3)
    cluster = api(allowed=True)
    async with connected(cluster) as connection:
        asked = Asked(connection)
        for audience in "abcd":
            assert await asked.allows(audience)
        cluster.review_status = {"allowed": False}
        assert [await asked.allows(audience) for audience in "abcd"] == [False, True, True, True]


async def test_only_questions_that_reach_the_api_server_are_paid_for() -> None:
    cluster = api(allowed=True)
    async with connected(cluster) as connection:
        asked = Asked(connection, Budget(burst=1, per_second=0))
        for _ in range(3):
            assert await asked.allows("vault")
        with pytest.raises(BudgetExhaustedError):
            await asked.allows("other")


@pytest.mark.parametrize("status", [{"evaluationError": "broken"}, {"allowed": "yes"}, None])
async def test_an_authorizer_that_failed_has_said_neither(status: Any) -> None:
    cluster = API()
    cluster.review_status = status
    async with connected(cluster) as connection:
        asked = Asked(connection)
        with pytest.raises(ClusterError):
            await asked.allows("vault")
        cluster.review_status = {"allowed": True, "evaluationError": "broken in part"}
        assert await asked.allows("vault")
