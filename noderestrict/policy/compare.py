"""Compare the existing with the new state, and report differences in bounded time and length.

A node chooses how large its objects are, so neither the work nor a message may grow with them when
the first few differences are enough.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar

_Item = TypeVar("_Item")
_ABSENT = object()
#: How many entries of a list a message shows.
SHOWN = 8


def listed(items: Iterable[str]) -> str:
    """Return the first few texts, with "…" if there are more; "" for none."""
    some = list(islice(items, SHOWN + 1))
    return ", ".join(some[:SHOWN]) + (", …" if len(some) > SHOWN else "")


def changed_keys(
    before: Mapping[str, str | None], after: Mapping[str, str | None]
) -> Iterator[str]:
    """Yield the keys that were added, changed or removed; null equals the empty value."""
    if before == after:
        return
    for key, value in after.items():
        was = before.get(key, _ABSENT)
        if was != value and (was is _ABSENT or (was or "") != (value or "")):
            yield key
    yield from (key for key in before if key not in after)


def first_difference(
    before: Sequence[_Item] | None,
    after: Sequence[_Item] | None,
    meaning: Callable[[_Item], Hashable],
) -> int | None:
    """Return the first index at which two lists differ; None if they are equal. None equals [].

    Args:
        before: the existing list.
        after: the new list.
        meaning: maps an item to a value; items with equal values are equal.
    """
    before, after = before or (), after or ()
    if before == after:
        return None
    for index, (was, becomes) in enumerate(zip(before, after, strict=False)):
        if was != becomes and meaning(was) != meaning(becomes):
            return index
    return None if len(before) == len(after) else min(len(before), len(after))
