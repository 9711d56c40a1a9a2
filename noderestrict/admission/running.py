"""Where judging runs: at once, or where who serves it puts what takes long."""

from collections.abc import Callable
from typing import Protocol, TypeVar

_T = TypeVar("_T")


class Run(Protocol):
    """Runs calls that need nothing but the processor."""

    async def __call__(self, call: Callable[[], _T], /) -> _T:
        """Return what the call returns, or raise what it raises."""


async def inline(call: Callable[[], _T], /) -> _T:
    """Run a call here and now."""
    return call()
