"""Which fields an update changes, and paths that stand for many of them."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from noderestrict.agents.paths import parse_path
from noderestrict.replay.audit.patches import Object, Path
from noderestrict.replay.audit.whole import KEYED, by_key

#: The API server changes these with every write.
_BOOKKEEPING = frozenset(
    ("metadata", key)
    for key in (
        "creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid",
    )
)  # fmt: skip
_PLAIN = re.compile(r"[A-Za-z_$][A-Za-z0-9_-]*")
#: Keys with the same prefix that make a pattern, and fields of one object that make it the object.
_FEWEST_ALIKE = 3
_MOST_APART = 8
#: As deep as a path may be.
_DEEPEST = 16


def changed(old: Object, new: Object) -> frozenset[Path]:
    """Return the paths at which two objects differ; null, missing and empty are equal.

    A list differs as a whole, but for conditions, which differ by their type.
    """
    return frozenset(_differences(old, new, ()))


def _differences(old: Any, new: Any, path: Path) -> Iterator[Path]:
    if path in _BOOKKEEPING or (_is_empty(old) and _is_empty(new)):
        return
    deep = len(path) >= _DEEPEST
    objects = all(one is None or isinstance(one, dict) for one in (old, new))
    if objects and not deep:
        for key in {**(old or {}), **(new or {})}:
            yield from _differences((old or {}).get(key), (new or {}).get(key), (*path, key))
        return
    item_key = KEYED.get(path[-1]) if path else None
    if item_key is not None and not deep:
        was, becomes = by_key(old, item_key), by_key(new, item_key)
        if was is not None and becomes is not None:
            for name in {**was, **becomes}:
                if was.get(name) != becomes.get(name):
                    yield (*path, f"{item_key}={name}")
            return
    if type(old) is not type(new) or old != new:
        yield path


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, dict | list | str) and not value)


@dataclass(frozen=True, slots=True)
class Field:
    """A path of a policy file.

    Attributes:
        text: as the file writes it.
        count: updates that changed something below it.
        stands_for: how many paths it was generalised from; 1 for one that was seen itself.
    """

    text: str
    count: int
    stands_for: int = 1


@dataclass(slots=True)
class _Node:
    """A step of the paths that were seen."""

    count: int = 0
    ends: bool = False
    steps: dict[str, "_Node"] = field(default_factory=dict)

    @property
    def leaves(self) -> int:
        return self.ends + sum(one.leaves for one in self.steps.values())


def generalised(seen: Mapping[Path, int]) -> list[Field]:
    """Return paths that cover all that were seen, and as little else as seems right.

    Keys with the same prefix become one pattern, such as ``metadata.annotations["x/*"]``, if there
    are at least three. An object of which more than eight fields changed is named as a whole.

    Args:
        seen: how often each path changed.
    """
    root = _Node()
    for path, count in seen.items():
        node = root
        node.count += count
        for step in path:
            node = node.steps.setdefault(step, _Node())
            node.count += count
        node.ends = True
    return sorted(_fields(root, ()), key=lambda one: one.text)


def _fields(node: _Node, path: Path) -> Iterator[Field]:
    if node.ends:
        yield Field(_text(path), node.count, node.leaves)
        return
    patterns = Counter(step.partition("/")[0] for step in node.steps if "/" in step)
    alike = {prefix for prefix, count in patterns.items() if count >= _FEWEST_ALIKE}
    apart = [step for step in node.steps if step.partition("/")[0] not in alike or "/" not in step]
    keys = [step for step in apart if not _can_be_written(step, path)]
    too_many = len(apart) > _MOST_APART and bool(path)
    if (keys or too_many) and path:
        yield Field(_text(path), node.count, node.leaves)
        return
    for prefix in sorted(alike):
        found = [one for step, one in node.steps.items() if step.startswith(f"{prefix}/")]
        if set(prefix) & set('"\\*'):
            yield Field(_text(path), node.count, node.leaves)
            return
        count, leaves = sum(one.count for one in found), sum(one.leaves for one in found)
        yield Field(_text((*path, f"{prefix}/*")), count, leaves)
    for step in apart:
        yield from _fields(node.steps[step], (*path, step))


def _can_be_written(step: str, path: Path) -> bool:
    try:
        parse_path(_text((*(path or ("x",)), step)))
    except ValueError:
        return False
    # A star in a key would match others, and a file holds no text that cannot be seen.
    return "*" not in step and step.isprintable()


def _text(path: Path) -> str:
    """Return a path as a policy file writes it."""
    text = ""
    for at, step in enumerate(path):
        key = KEYED.get(path[at - 1]) if at else None
        if key is not None and step.startswith(f"{key}="):
            text += f"[{step}]"
        elif _PLAIN.fullmatch(step):
            text += f".{step}" if text else step
        else:
            text += f'["{step}"]'
    return text
