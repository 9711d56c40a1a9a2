"""Who waits in line gets its turn."""

import asyncio

from noderestrict.serving.turns import Turns


class Clock:
    """Moves on only when told; turns that are due then are given at the next look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def turns_of_loop() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_so_many_pass_at_once_and_then_so_many_a_second() -> None:
    clock = Clock()
    turns = Turns(per_second=10, burst=3, clock=clock)
    clock.now = 100.0
    waiting = [asyncio.create_task(turns.wait()) for _ in range(10)]
    await turns_of_loop()
    assert [task.done() for task in waiting] == [True] * 3 + [False] * 7
    clock.now += 0.201
    turns._next()
    await turns_of_loop()
    assert [task.done() for task in waiting] == [True] * 5 + [False] * 5
    for task in waiting:
        task.cancel()


async def test_a_quiet_time_earns_no_more_than_a_burst() -> None:
    clock = Clock()
    turns = Turns(per_second=10, burst=3, clock=clock)
    clock.now = 1e6
    waiting = [asyncio.create_task(turns.wait()) for _ in range(100)]
    await turns_of_loop()
    assert sum(task.done() for task in waiting) == 3
    for task in waiting:
        task.cancel()


async def test_who_is_gone_takes_no_turn() -> None:
    clock = Clock()
    turns = Turns(per_second=10, burst=1, clock=clock)
    clock.now = 100.0
    waiting = [asyncio.create_task(turns.wait()) for _ in range(1000)]
    await turns_of_loop()
    for task in waiting[1:-1]:
        task.cancel()
    await turns_of_loop()
    clock.now += 0.101
    turns._next()
    await turns_of_loop()
    assert waiting[-1].done()
    assert not waiting[-1].cancelled()


async def test_newcomers_do_not_pass_who_waits() -> None:
    clock = Clock()
    turns = Turns(per_second=10, burst=1, clock=clock)
    clock.now = 100.0
    await turns.wait()
    first = asyncio.create_task(turns.wait())
    await turns_of_loop()
    clock.now += 0.101
    second = asyncio.create_task(turns.wait())
    await turns_of_loop()
    turns._next()
    await turns_of_loop()
    assert (first.done(), second.done()) == (True, False)
    second.cancel()


async def test_the_loop_gives_each_turn_by_itself() -> None:
    turns = Turns(per_second=1000, burst=1)
    await asyncio.gather(*(turns.wait() for _ in range(20)))
