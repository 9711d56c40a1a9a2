"""Where evaluation runs: inline, or wherever the server puts slow calls."""

from collections.abc import Callable
from typing import Protocol, TypeVar

_T = TypeVar("_T")


class Run(Protocol):
    """Runs CPU-bound calls."""

    async def __call__(self, call: Callable[[], _T], /) -> _T:
        """Return what the call returns, or raise what it raises."""


async def inline(call: Callable[[], _T], /) -> _T:
    """Run a call inline."""
    return call()
