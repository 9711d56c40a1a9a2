"""Which answers lead to an Event."""

import json
from typing import Any

import pytest

from noderestrict.agents.agents import InForce
from noderestrict.policy.modes import AUDIT, OFF, WARN
from noderestrict.serving.event_reporter import REFUSED, WOULD_BE_REFUSED, EventReporter
from noderestrict.serving.limits import Limits
from noderestrict.serving.modes import Modes
from tests.admission.test_review import NODE, body
from tests.serving.clients import GOOD, http
from tests.serving.inprocess import listening

Kept = list[tuple[str, str, str, str]]


async def kept(*reviews: bytes, modes: Modes | None = None) -> tuple[Kept, list[bool]]:
    """Return what is handed on for some reviews, and which of them are allowed."""
    found: Kept = []
    reporter = EventReporter(lambda *one: found.append(one))
    allowed = []
    async with listening(Limits(), modes=modes, reporters=[reporter]) as server:
        client = await server.connect()
        for review in reviews:
            status, answer, _ = await client.answer(http(review))
            assert status == 200
            allowed.append(json.loads(answer)["response"]["allowed"])
        client.abort()
    return found, allowed


async def test_a_refusal_is_handed_on_with_the_message_that_the_client_gets() -> None:
    found, allowed = await kept(GOOD, body())
    ((node, reason, rule, message),) = found
    assert allowed == [True, False]
    assert (node, reason, rule) == ("n1", REFUSED, "nodes/own-name")
    assert "n2" in message


@pytest.mark.parametrize("mode", [AUDIT, WARN])
async def test_what_is_only_reported_has_a_reason_of_its_own(mode: str) -> None:
    found, allowed = await kept(body(), modes=Modes(mode))
    assert [reason for _, reason, _, _ in found] == [WOULD_BE_REFUSED] * len(found)
    assert found
    assert allowed == [True]


@pytest.mark.parametrize(
    "change",
    [
        {"dryRun": True},
        {"userInfo": {"username": "admin"}},
        # A node user without a name.
        {"userInfo": {**NODE, "username": "system:node:"}},
    ],
)
async def test_nothing_is_handed_on_for_dry_runs_and_for_who_is_no_node(
    change: dict[str, Any],
) -> None:
    assert (await kept(body(**change)))[0] == []


async def test_nothing_is_handed_on_for_a_rule_that_is_off() -> None:
    assert await kept(body(), modes=Modes(OFF)) == ([], [True])


async def test_without_reporters_the_log_alone_is_told() -> None:
    async with listening(Limits(), agents=InForce()) as server:
        client = await server.connect()
        assert (await client.answer(http(body())))[0] == 200
        client.abort()
