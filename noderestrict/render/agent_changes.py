"""Say in CEL that an update changes only fields that may change, as ``agents.changed`` does.

Both objects are walked along the paths of these fields; what is beside the paths has to be equal.
No expression calls itself, so an empty value equals a missing one only on the paths, right beside
them, and in the sections of an object, such as its spec. Elsewhere they differ.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from noderestrict.agents.changed import BOOKKEEPING
from noderestrict.agents.paths import FieldPath, Steps, is_meant, parse_path
from noderestrict.policy.cel import MOST_KEYS
from noderestrict.render.agent_cel import ALL, at, every, matches, some, text

#: How many keys and items of lists are visited if each takes another walk.
MOST_WALKS = 50
#: Steps below a pattern, and below an item of a list by its key: each takes macros, and an
#: expression takes few of them in each other.
_MOST_STEPS, _MOST_STEPS_OF_ITEM = 2, 1
#: Characters of a test; an API server compiles 100,000.
_LONGEST = 95_000
#: Names of variables: the object before and after, {} for none; and the list of both.
OLD, NEW, _BOTH = "old", "new", "both"
_NOTHING, _PLACES = "nothing", "places"
#: The variables that a test reads.
VARIABLES = {
    OLD: "oldObject == null ? dyn({}) : dyn(oldObject)",
    NEW: "object == null ? dyn({}) : dyn(object)",
    _BOTH: f"[variables.{OLD}, variables.{NEW}]",
    # What equals a missing value.
    _NOTHING: "[dyn(null), dyn([]), dyn({})]",
    _PLACES: f"[{', '.join(map(str, range(MOST_WALKS)))}]",
}
#: Why a policy does not tell which fields change.
TOO_DEEP = "paths too deep inside of lists, or of what a pattern names, for an expression"
_NO_WORD = re.compile(r"[^A-Za-z0-9]+")


@dataclass(frozen=True, slots=True)
class _Place:
    """A place in both objects.

    Attributes:
        path: that leads to it; None where no list has items with keys.
        free: the rest of each path to what may change; () is all that is here.
        depth: how many macros are around it; ends the names in them. 0 for variables.
        deep: whether an empty value equals a missing one also in the objects beside the paths.
    """

    path: Steps | None
    free: tuple[Steps, ...]
    depth: int = 0
    deep: bool = False

    def below(self, step: str) -> "_Place":
        """Return the place to which a step leads; a pattern leads to where it matches itself."""
        path = None if self.path is None else (*self.path, step)
        free = tuple(path[1:] for path in self.free if is_meant(step, path[0]))
        return _Place(path, free, self.depth + 1)

    def beside(self) -> "_Place":
        """Return a place below this one to which no path leads."""
        return _Place(None, (), self.depth + 1)

    @property
    def is_free(self) -> bool:
        """Whether all that is here may change."""
        return () in self.free

    @property
    def most(self) -> int:
        """How many keys of an object are visited."""
        walks = self.deep or any(ALL in one and not self.below(one).is_free for one in self.names)
        return MOST_WALKS if walks or self.depth else MOST_KEYS

    @property
    def own(self) -> list[str]:
        """The names of values that are variables: an expression takes few macros in each other."""
        return [
            name
            for name in self.names
            if not self.depth and ALL not in name and not self.below(name).is_free
        ]

    @property
    def names(self) -> list[str]:
        """The first steps of paths."""
        return list(dict.fromkeys(path[0] for path in self.free))


class Changes:
    """Writes tests of updates.

    Attributes:
        variables: what they read, by name.
    """

    def __init__(self) -> None:
        self.variables = dict(VARIABLES)
        self._named: dict[Steps, str] = {(): ""}

    def only(self, name: str, fields: Sequence[str]) -> bool:
        """Define a test that nothing else changes; return False if no expression tells.

        Args:
            name: of the variable with the test.
            fields: paths of what may change, beside what the API server itself changes.
        """
        paths = [parse_path(field) for field in fields]
        if any(_is_too_deep(path) for path in paths):
            return False
        walk = _Walk({path.steps[:count]: key for path in paths for count, key in path.lists})
        top = _Place((), (*(path.steps for path in paths), *BOOKKEEPING), deep=True)
        tests: dict[str, str] = {}
        places = [top]
        for place in places:
            path = place.path or ()
            both = self._variable(path)
            test = walk.same(place, both) if path else walk.objects(place, both)
            own = f"{name}{self._named[path]}"
            tests[own] = f"{both}[0] == {both}[1] || {test}" if path else test
            places += [replace(place.below(one), depth=0) for one in place.own]
        tests[name] = "\n&& ".join((tests.pop(name), *(f"variables.{one}" for one in tests)))
        if max(map(len, tests.values())) > _LONGEST:
            return False
        self.variables.update(tests)
        return True

    def _variable(self, path: Steps) -> str:
        """Return the list of both values at a path, as a variable."""
        if path not in self._named:
            word = "".join(one[:1].upper() + one[1:] for one in _NO_WORD.split("-".join(path)))
            name = f"{word}{len(self._named)}" if word in self._named.values() else word
            self._named[path] = name
            whole = self._variable(path[:-1])
            self.variables[f"{_BOTH}{name}"] = _both(
                [
                    (f"type({one}) == map && {text(path[-1])} in {one}", at(one, path[-1:]))
                    for one in (f"{whole}[0]", f"{whole}[1]")
                ]
            )
        return f"variables.{_BOTH}{self._named[path]}"


class _Walk:
    """Writes one test.

    Values come as a list of both: the one before, and the one after. Each is {} if it is empty or
    missing.

    Args:
        lists: paths of lists that are compared item by item, and the key of their items.
    """

    def __init__(self, lists: dict[Steps, str]) -> None:
        self._lists = lists

    def objects(self, place: _Place, both: str) -> str:
        """Return a test that two objects are the same but for what may change, and ``own``."""
        one, key, inner = (f"{name}{place.depth}" for name in "okv")
        passed = [name for name in place.names if name in place.own or place.below(name).is_free]
        same = [
            every(matches(key, name), self.same(place.below(name), inner))
            for name in place.names
            if name not in passed
        ]
        if place.deep:
            same.append(self.same(place.beside(), inner))
        values = [(f"{key} in {both}[{index}]", f"{both}[{index}][{key}]") for index in (0, 1)]
        (old_there, old), (new_there, new) = values
        tests = [
            *(matches(key, name) for name in passed),
            f"{old_there} && {new_there} && {old} == {new}",
        ]
        if same:
            different = " || ".join((f"{inner}[0] == {inner}[1]", *same))
            tests.append(f"[{_both(values)}].all({inner}, {different})")
        else:
            tests.append(f"({_value(*values[0])}) == ({_value(*values[1])})")
        few = f"size({one}) <= {place.most}"
        return f"{both}.all({one}, {few} && {one}.all({key}, {' || '.join(tests)}))"

    def same(self, place: _Place, both: str) -> str:
        """Return a test that two values that differ are the same but for what may change."""
        one = f"m{place.depth}"
        found = [every(f"{both}.all({one}, type({one}) == map)", self.objects(place, both))]
        key = None if place.path is None else self._lists.get(place.path)
        if key is not None:
            found.append(self._items(place, key, both))
        elif (below := place.below(ALL)).free:
            found.append(self._places(below, both))
        return some(found) if len(found) > 1 else found[0]

    def _places(self, below: _Place, both: str) -> str:
        """Return a test that lists of one length have the same items but for what may change."""
        place, inner = f"n{below.depth}", f"v{below.depth}"
        size = every(
            f"{both}.all({inner}, type({inner}) == list)",
            f"size({both}[0]) == size({both}[1]) && size({both}[0]) <= {MOST_WALKS}",
        )
        if below.is_free:
            return size
        pair = _both([("", f"{both}[{index}][{place}]") for index in (0, 1)])
        same = f"{inner}[0] == {inner}[1] || {self.same(below, inner)}"
        tests = f"{place} >= size({both}[0]) || [{pair}].all({inner}, {same})"
        return every(size, f"variables.{_PLACES}.all({place}, {tests})")

    def _items(self, place: _Place, key: str, both: str) -> str:
        """Return a test that lists have the same items but for what may change, by their key."""
        one, other, item, its, inner = (f"{name}{place.depth}" for name in "lmijv")
        value, other_value = f"{item}[{text(key)}]", f"{its}[{text(key)}]"
        has_key = f"type({item}) == map && {text(key)} in {item} && type({value}) == string"
        keyed = every(
            f"type({one}) == list && size({one}) <= {MOST_WALKS}",
            f"{one}.all({item}, {has_key})",
            f"{one}.all({item}, {one}.exists_one({its}, {other_value} == {value}))",
        )
        free = [_is_item(value, key, name) for name in place.names if place.below(name).is_free]
        same = [
            every(_is_item(value, key, name), self.same(place.below(name), inner))
            for name in place.names
            if not place.below(name).is_free
        ]
        alike = f"{its} == {item}"
        if same:
            alike += f" || [[{its}, {item}]].all({inner}, {' || '.join(same)})"
        held = f"{other} != {{}} && {other}.exists({its}, {other_value} == {value} && ({alike}))"
        # Each item of one list is in the other one, and the same there.
        tests = " || ".join((*free, f"{both}.all({other}, {held})"))
        return every(
            f"{both}.all({one}, {one} == {{}} || {keyed})",
            f"{both}.all({one}, {one} == {{}} || {one}.all({item}, {tests}))",
        )


def _is_too_deep(path: FieldPath) -> bool:
    """Return whether a path leads through too much that an expression has to go through."""
    lists = {count for count, _ in path.lists}
    last = len(path.steps) - 1
    several = [n for n, step in enumerate(path.steps) if ALL in step or n in lists]
    if not several:
        return False
    most = _MOST_STEPS_OF_ITEM if several[0] in lists else _MOST_STEPS
    return last - several[0] > most or any(n < last or n in lists for n in several[1:])


def _value(there: str, value: str) -> str:
    """Return a value, {} if it is empty or missing."""
    return f"{every(there, f'!({value} in variables.{_NOTHING})')} ? {value} : {{}}"


def _both(values: Sequence[tuple[str, str]]) -> str:
    """Return the list of two values, each given with a test that it is there."""
    return f"[{', '.join(_value(*one) for one in values)}]"


def _is_item(value: str, key: str, step: str) -> str:
    """Return a test that the value of an item's key is the one that a step names."""
    name, _, wanted = step.partition("=")
    if name == key:
        return matches(value, wanted)
    return matches(f"({text(f'{key}=')} + {value})", step)
