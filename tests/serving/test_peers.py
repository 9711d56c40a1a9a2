"""What is shared out by address is told who asks."""

import asyncio
from collections.abc import Set
from pathlib import Path

import pytest

from noderestrict import admission
from noderestrict.policy.decision import Allowed, Denied, forbidden
from noderestrict.policy.listers import MemoryListers
from noderestrict.policy.settings import Settings
from noderestrict.serving.capture import Capture, CaptureOptions
from noderestrict.serving.limits import Limits
from noderestrict.serving.local import LocalJudge
from noderestrict.serving.modes import Modes
from noderestrict.telemetry.logs import DROPS
from noderestrict.telemetry.metrics import Metrics
from tests.serving.clients import BAD, http
from tests.serving.inprocess import Client, listening


class Noting(LocalJudge):
    """Refuses once, and notes for whom it judges."""

    def __init__(self) -> None:
        super().__init__(Settings.for_version(), MemoryListers())
        self.peers: list[str] = []

    async def judge(
        self,
        request: admission.Request,
        deadline: float,
        skipped: Set[str] = frozenset(),
        peer: str = "",
        run: admission.Run = admission.inline,
    ) -> Allowed | Denied:
        self.peers.append(peer)
        return Allowed() if skipped else forbidden(rule="pods/mirror-references", message="no")


async def post(port: int, address: str, times: int = 1) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    client = Client(reader, writer)
    for _ in range(times):
        assert (await client.answer(http(BAD)))[0] == 200
    client.abort()


def owners(directory: Path) -> list[str]:
    return sorted(file.stem.rpartition("-")[2] for file in directory.iterdir())


@pytest.mark.parametrize(("mode", "judged"), [("enforce", 1), ("audit", 2)])
async def test_the_judge_and_the_capture_are_told_who_asks(
    tmp_path: Path, mode: str, judged: int
) -> None:
    judge = Noting()
    capture = Capture(CaptureOptions(tmp_path), Metrics())
    async with listening(Limits(), judge, capture=capture) as running:
        running.app.state.modes = Modes(mode)
        for address in ("127.0.0.1", "127.0.0.2"):
            await post(running.port, address)
        capture.close()
    assert judge.peers == ["127.0.0.1"] * judged + ["127.0.0.2"] * judged
    assert owners(tmp_path) == ["127.0.0.1", "127.0.0.2"]


async def test_nobody_uses_up_the_log_lines_of_a_node_at_another_address() -> None:
    async with listening(Limits(), Noting()) as running:
        before = DROPS.of("node")
        await post(running.port, "127.0.0.2", 50)
        dropped = DROPS.of("node") - before
        assert dropped == 30
        await post(running.port, "127.0.0.1", 5)
        assert DROPS.of("node") - before == dropped
