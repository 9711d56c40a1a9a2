"""Judge YAML before it is made into values."""

import math
from collections.abc import Sequence
from typing import Any


def unfolded(node: Any) -> float:
    """Return how long a YAML node is with its aliases replaced by what they stand for."""
    return _unfolded(node, {})


def _unfolded(node: Any, known: dict[int, float]) -> float:
    if id(node) in known:
        return known[id(node)]
    # A node that holds itself is infinite.
    known[id(node)] = math.inf
    if isinstance(node.value, str):
        length = 1.0 + len(node.value)
    else:
        # A sequence has items, a mapping has pairs of key and value.
        parts = (part for entry in node.value for part in _parts(entry))
        length = 1.0 + sum(_unfolded(part, known) for part in parts)
    known[id(node)] = length
    return length


def _parts(entry: Any) -> Sequence[Any]:
    return entry if isinstance(entry, tuple) else (entry,)
