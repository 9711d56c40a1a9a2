"""Ratios of interleaved measurements, with how sure they are."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

_RESAMPLES = 2000


@dataclass(frozen=True)
class Ratio:
    """A ratio, and between which values it lies with a probability of 95 %."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return it as a cell of a table."""
        return f"{self.value:.2f} ({self.low:.2f}–{self.high:.2f})"


def ratio(ones: Sequence[float], others: Sequence[float]) -> Ratio:
    """Return the geometric mean of paired ratios, and its interval by bootstrap.

    Args:
        ones: one for each round.
        others: likewise, from the same rounds; what falls on a whole round cancels out.
    """
    logs = [math.log(one / other) for one, other in zip(ones, others, strict=True)]
    draw = random.Random(0)
    means = sorted(
        math.fsum(draw.choices(logs, k=len(logs))) / len(logs) for _ in range(_RESAMPLES)
    )
    low, high = means[_RESAMPLES * 25 // 1000], means[_RESAMPLES * 975 // 1000 - 1]
    return Ratio(math.exp(math.fsum(logs) / len(logs)), math.exp(low), math.exp(high))
