"""Paths of fields, as policy files write them.

A path is a list of steps from the top of an object:

    status.conditions                         a field, with everything below it
    metadata.annotations["example.com/x"]     a key that is no plain word
    metadata.annotations["example.com/*"]     any key that matches; * is any text
    spec.pools[*].size                        a field of every item of a list
    status.conditions[type=Ready]             the item of a list whose type is Ready

The last form compares two lists item by item, by that key, as the API server merges them.
"""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

#: Keys from the top of an object; "*" for any index, KEY=VALUE for an item by its key.
Steps = tuple[str, ...]

_STEP = re.compile(
    r"(?:^|\.)(?P<plain>[A-Za-z_$][A-Za-z0-9_-]*)"
    r'|\["(?P<quoted>[^"\\]+)"\]'
    r"|\[(?P<key>[A-Za-z][A-Za-z0-9]*)=(?P<value>[^\[\]\"]+)\]"
    r"|\[(?P<any>\*)\]"
)
_LONGEST = 512
_MOST_STEPS = 16
#: Regular expression of one step, for the JSON Schema.
PATTERN = (
    r'^[A-Za-z_$][A-Za-z0-9_-]*(\.[A-Za-z_$][A-Za-z0-9_-]*|\["[^"\\]+"\]'
    r'|\[[A-Za-z][A-Za-z0-9]*=[^\[\]"]+\]|\[\*\])*$'
)
#: The same for a path of one value.
EXACT_PATTERN = r'^[A-Za-z_$][A-Za-z0-9_-]*(\.[A-Za-z_$][A-Za-z0-9_-]*|\["[^"*\\]+"\])*$'


@dataclass(frozen=True, slots=True)
class FieldPath:
    """A path of fields that may match several.

    Attributes:
        steps: from the top of an object.
        lists: for each step that names an item by its key, the number of steps before it, and the
            key.
        text: as it was written.
    """

    steps: Steps
    lists: tuple[tuple[int, str], ...] = ()
    text: str = ""

    def matches(self, path: Steps) -> bool:
        """Return whether a path of the same length is meant."""
        return len(path) == len(self.steps) and all(map(is_meant, path, self.steps))

    def __str__(self) -> str:
        """Return the path as it was written."""
        return self.text


def is_meant(step: str, wanted: str) -> bool:
    """Return whether a step of a path is one that is wanted, in which ``*`` is any text."""
    return step == wanted or ("*" in wanted and fnmatchcase(step, _as_glob(wanted)))


def _as_glob(text: str) -> str:
    # Only * has a meaning of its own.
    return text.replace("[", "[[]").replace("?", "[?]")


def parse_path(text: str, *, exact: bool = False) -> FieldPath:
    """Return the path that a text writes.

    Args:
        text: as above.
        exact: the path must name one value: it has neither ``*`` nor items of lists.

    Raises:
        ValueError: it is not a path; the message says why.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"{text[:40]!r}… is longer than {_LONGEST} characters")
    steps: list[str] = []
    lists: list[tuple[int, str]] = []
    at = 0
    while at < len(text):
        found = _STEP.match(text, at)
        if found is None or (not steps and not (found["plain"] and found[0] == found["plain"])):
            raise ValueError(
                f"{text!r} is not a path of fields, such as status.conditions or "
                f'metadata.labels["x/*"]'
            )
        if exact and (found["any"] or found["key"] or "*" in (found["quoted"] or "")):
            raise ValueError(f"{text!r} must name one value: {found[0]!r} may match several")
        if found["key"]:
            lists.append((len(steps), found["key"]))
            steps.append(f"{found['key']}={found['value']}")
        else:
            steps.append(found["plain"] or found["quoted"] or "*")
        at = found.end()
    if not steps:
        raise ValueError("a path of fields is empty")
    if len(steps) > _MOST_STEPS:
        raise ValueError(f"{text[:40]!r}… has more than {_MOST_STEPS} steps")
    return FieldPath(tuple(steps), tuple(lists), text)
