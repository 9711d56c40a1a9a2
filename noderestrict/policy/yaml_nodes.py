"""Read YAML that people write, and judge it before it is made into values."""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any


@cache
def settings_loader() -> Any:
    """Return a safe loader for which ``off`` and ``on`` are text: a mode is called ``off``."""
    # Imported here: most commands never need it.
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.yaml_implicit_resolvers = {
        first: [
            (tag, pattern)
            for tag, pattern in resolvers
            if not (first in "oO" and tag == "tag:yaml.org,2002:bool")
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return Loader


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
