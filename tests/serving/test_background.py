"""What runs beside the server never ends in silence, and never ends the server."""

import asyncio

import pytest

from noderestrict.serving.background import running, supervise
from noderestrict.telemetry.metrics import Metrics


class PanicException(BaseException):
    """As libraries in Rust raise it for a defect of their own."""


def failures(metrics: Metrics, job: str) -> float | None:
    name = "noderestrict_background_failures_total"
    return metrics.registry.get_sample_value(name, {"job": job})


async def delays(*lives: float, ends: BaseException | None) -> list[float]:
    """Return how long is waited after each life of a job that runs so many seconds."""
    now = 0.0
    waited: list[float] = []
    left = list(lives)
    metrics = Metrics()

    async def job() -> None:
        nonlocal now
        if not left:
            raise asyncio.CancelledError
        now += left.pop(0)
        if ends is not None:
            raise ends

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    with pytest.raises(asyncio.CancelledError):
        await supervise("job", job, metrics, sleep=sleep, clock=lambda: now)
    assert failures(metrics, "job") == len(lives)
    return waited


@pytest.mark.parametrize("ends", [None, ValueError("bad"), PanicException("worse"), MemoryError()])
async def test_a_job_that_ends_is_counted_and_starts_again_later_and_later(
    ends: BaseException | None,
) -> None:
    assert await delays(*[0.0] * 8, ends=ends) == [1, 2, 4, 8, 16, 32, 60, 60]


async def test_a_job_that_ran_well_for_a_while_starts_again_soon() -> None:
    assert await delays(0, 0, 0, 100, 0, ends=None) == [1, 2, 4, 1, 2]


async def test_one_job_that_ends_leaves_the_others_alone(caplog: pytest.LogCaptureFixture) -> None:
    turns = 0

    async def good() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def bad() -> None:
        raise RuntimeError("out of luck")

    metrics = Metrics()
    async with running({"good": good, "bad": bad}, metrics):
        while failures(metrics, "bad") is None:  # noqa: ASYNC110 (another task)
            await asyncio.sleep(0)
        seen = turns
        for _ in range(5):
            await asyncio.sleep(0)
        assert turns > seen
    assert failures(metrics, "good") is None
    assert [record.job for record in caplog.records] == ["bad"]  # type: ignore[attr-defined]
    assert caplog.records[0].problem == "RuntimeError: out of luck"  # type: ignore[attr-defined]
