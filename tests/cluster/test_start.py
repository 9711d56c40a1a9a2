"""A server starts when its API server answers, and says why it does not."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from noderestrict.cluster import start
from noderestrict.cluster.connection import ClusterError, Connection, ConnectionFailedError
from noderestrict.cluster.start import reached
from tests.cli.store import kubeconfig
from tests.cluster.scripted import Answer, Scripted, connected, reply

VERSION = reply({"gitVersion": "v1.36.2"})
DOWN = reply({"message": "down"}, 503)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "_PAUSE_SECONDS", 0.001)


async def minor_of(folder: Path, *answers: Answer, wait: float = 60) -> tuple[int, Scripted]:
    """Reach an API server that answers so; returns its minor version, and what was asked."""
    script = Scripted(*answers)
    async with connected(script) as connection:
        file = folder / "kubeconfig"
        file.write_text(json.dumps(kubeconfig(str(connection._api.configuration.host))))
        async with reached(str(file), None, wait) as (found, minor):
            # It can be used until the end.
            script.steps.append(VERSION)
            assert await found.get("/version")
    return minor, script


async def test_an_api_server_that_answers_is_asked_once(tmp_path: Path) -> None:
    minor, script = await minor_of(tmp_path, VERSION, wait=0)
    assert minor == 36
    assert [path for path, _ in script.asked] == ["/version"] * 2


async def test_an_api_server_is_asked_until_it_answers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nonsense = reply({"gitVersion": "soon"})
    minor, script = await minor_of(tmp_path, DOWN, nonsense, DOWN, VERSION)
    assert minor == 36
    assert len(script.asked) == 5
    told = [one for one in caplog.records if one.message == "the API server does not answer"]
    assert len(told) == 3
    assert "down" in told[0].error  # type: ignore[attr-defined]


async def test_who_waits_no_longer_says_what_the_last_answer_was(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="503 down"):
        await minor_of(tmp_path, DOWN, wait=0)


@pytest.mark.parametrize("text", [None, "{", "a: b"])
async def test_a_kubeconfig_that_cannot_be_used_is_not_waited_for(
    tmp_path: Path, text: str | None
) -> None:
    file = tmp_path / "kubeconfig"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConnectionFailedError, match="kubeconfig"):
        async with asyncio.timeout(60), reached(str(file), None, 3600):
            pass


@pytest.mark.parametrize(("version", "open_"), [("v1.20.5", True), ("v1.20.6", False)])
async def test_an_api_server_that_lets_updates_pass_unseen_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, version: str, open_: bool
) -> None:
    caplog.set_level(logging.CRITICAL)
    await minor_of(tmp_path, reply({"gitVersion": version}))
    assert [record.levelname for record in caplog.records] == ["CRITICAL"] * open_
    assert all("CVE-2021-25735" in record.message for record in caplog.records)


@pytest.mark.parametrize(("version", "loud"), [("v1.37.2", False), ("v1.38.0-rc.1", True)])
async def test_an_api_server_that_is_newer_than_the_rules_is_told(
    version: str, loud: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await minor_of(tmp_path, reply({"gitVersion": version}))
    told = [one for one in caplog.records if "newer than the rules" in one.message]
    assert [one.levelname for one in told] == (["ERROR"] if loud else [])


async def test_no_connection_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    closed: list[Any] = []
    open_ = Connection.open
    close = Connection.close

    async def opening(*arguments: Any) -> Any:
        opened.append(await open_(*arguments))
        return opened[-1]

    async def closing(connection: Any) -> None:
        closed.append(connection)
        await close(connection)

    monkeypatch.setattr(Connection, "open", opening)
    monkeypatch.setattr(Connection, "close", closing)
    await minor_of(tmp_path, DOWN, DOWN, VERSION)
    assert len(opened) == 3
    assert set(opened) <= set(closed)
