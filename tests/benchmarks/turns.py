"""The CPU of several kinds of reviews, in turns of a few milliseconds, over the same connections.

What else the machine does falls on all kinds alike.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import uvloop

from tests.benchmarks.load import Client, request_of

CONNECTIONS = 8
#: Of each turn; several milliseconds of a server's CPU.
REQUESTS = 200


@dataclass(frozen=True)
class Kind:
    """What is sent, and to which process.

    Attributes:
        url: of the server.
        pid: of its process.
        body: of the review.
    """

    url: str
    pid: int
    body: bytes


def cpu(pid: int) -> float:
    """Return the CPU seconds that the threads of a process have used, by the scheduler's clock."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def in_turns(kinds: Mapping[str, Kind], rounds: int) -> dict[str, list[float]]:
    """Return the CPU of a review of each kind, in microseconds, for each round.

    Args:
        kinds: by name.
        rounds: in each of which every kind has a turn.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_in_turns(kinds, rounds))


async def _in_turns(kinds: Mapping[str, Kind], rounds: int) -> dict[str, list[float]]:
    clients = {
        url: [await Client.connect(url) for _ in range(CONNECTIONS)]
        for url in {kind.url for kind in kinds.values()}
    }
    micros: dict[str, list[float]] = {name: [] for name in kinds}
    names = list(kinds)
    # The first round is not counted: servers remember what they have seen.
    for number in range(-1, rounds):
        # Each goes first as often.
        first = number % len(names)
        for name in names[first:] + names[:first]:
            kind = kinds[name]
            request = request_of(kind.url, kind.body)
            before = cpu(kind.pid)
            await asyncio.gather(*(_burst(client, request) for client in clients[kind.url]))
            if number >= 0:
                micros[name].append((cpu(kind.pid) - before) * 1e6 / REQUESTS)
    for client in (one for some in clients.values() for one in some):
        client.close()
    return micros


async def _burst(client: Client, request: bytes) -> None:
    for _ in range(REQUESTS // CONNECTIONS):
        await client.send(request)
