"""How an object in the cluster differs from the rendered one.

Each difference is an operation of a JSON Patch (RFC 6902). One after the other, they turn what is
installed into what was rendered. What an API server fills in by default is no difference, nor is
what a cluster is free to choose: the registry of the image, more replicas, resources, other labels
and annotations.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import msgspec

from noderestrict.doctor.defaults import completed, is_known

#: Characters of a value in a message.
_LONGEST = 200
#: Their order says nothing. Lists of objects are never compared by their order.
_SETS = frozenset(
    ("add", "apiGroups", "apiVersions", "dnsNames", "drop", "ipAddresses", "nonResourceURLs",
     "operations", "policyTypes", "resourceNames", "resources", "usages", "validationActions",
     "verbs")
)  # fmt: skip
#: What tells elements of a list apart; the first that they have.
_IDENTITIES = ("name", "mountPath", "key", "topologyKey")
_OUTSIDE = ("apiVersion", "kind", "status")
_METADATA = ("annotations", "labels")
#: Elements without a name that are looked at for the one that is most alike.
_MOST_COMPARED = 50
_MISSING: Any = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that differs.

    Attributes:
        path: JSON pointer; "" for the whole object.
        installed: the value in the cluster, UNSET if there is none.
        rendered: the value that was rendered, UNSET if there is none.
        within: the name of the list element that the path leads through, "" for none.
        problem: what is wrong, instead of the two values.
    """

    path: str
    installed: Any = _MISSING
    rendered: Any = _MISSING
    within: str = ""
    problem: str = ""

    @property
    def field(self) -> str:
        """The last step of the path."""
        return self.path.rpartition("/")[2]

    @property
    def is_addition(self) -> bool:
        """Whether nothing is installed of it."""
        return self.installed is _MISSING

    @property
    def is_surplus(self) -> bool:
        """Whether nothing was rendered for it."""
        return self.rendered is _MISSING

    def operation(self) -> dict[str, Any]:
        """Return what mends it."""
        if self.is_surplus:
            return {"op": "remove", "path": self.path}
        verb = "add" if self.is_addition else "replace"
        return {"op": verb, "path": self.path, "value": self.rendered}

    @property
    def text(self) -> str:
        """Path and both values on one line."""
        if self.problem:
            return f"{self.path} {self.problem}"
        if not self.path:
            return "is missing" if self.is_addition else "should not exist"
        rendered = "not rendered" if self.is_surplus else f"rendered as {_shown(self.rendered)}"
        return f"{self.path} is {_shown(self.installed)}, {rendered}"

    def __str__(self) -> str:
        """Return where it is and what differs, on one line."""
        return f"{self.within}: {self.text}" if self.within else self.text


def differences(
    installed: Mapping[str, Any] | None, rendered: Mapping[str, Any] | None
) -> list[Difference]:
    """Return how an object differs from the rendered one.

    Args:
        installed: what the cluster has; None if it does not exist.
        rendered: what was rendered; None if it must not exist.
    """
    if installed is None or rendered is None:
        if installed is rendered:
            return []
        return [Difference("", _or_unset(installed), _or_unset(rendered))]
    kind = str(rendered.get("kind"))
    before, after = (completed(without_empty(_inner(one)), kind) for one in (installed, rendered))
    # Of a kind that others define, no default is known: only what was rendered counts.
    return list(_Comparison(exact=is_known(kind)).objects(installed, before, after, "", ""))


def _inner(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of an object counts: managedFields may be too deep to look at."""
    found = {key: one for key, one in value.items() if key not in _OUTSIDE}
    metadata = value.get("metadata") or {}
    found["metadata"] = {key: metadata.get(key) for key in _METADATA}
    return found


def _or_unset(value: Any) -> Any:
    return _MISSING if value is None else value


def without_empty(value: Any) -> Any:
    """Return a value without fields that are null, empty objects or empty lists."""
    if isinstance(value, Mapping):
        kept = ((key, without_empty(one)) for key, one in value.items())
        return {key: one for key, one in kept if one not in (None, {}, [])}
    return [without_empty(one) for one in value] if isinstance(value, list) else value


class _Comparison:
    """Compares what is installed, with all defaults, with what was rendered.

    Args:
        exact: whether fields that were not rendered are differences.
    """

    def __init__(self, *, exact: bool) -> None:
        self._exact = exact

    def objects(
        self,
        raw: Mapping[str, Any],
        installed: Mapping[str, Any],
        rendered: Mapping[str, Any],
        path: str,
        within: str,
        *,
        exact: bool | None = None,
    ) -> Iterator[Difference]:
        """Yield the differences of two objects.

        Args:
            raw: the installed one, without defaults: what operations apply to.
            installed: the same with defaults, without empty fields.
            rendered: what was rendered, with defaults, without empty fields.
            path: of the objects.
            within: as in ``Difference``.
            exact: whether fields that were not rendered are differences; None as elsewhere.
        """
        exact = self._exact if exact is None else exact
        for key in sorted(installed.keys() | rendered.keys()):
            at = f"{path}/{_escaped(key)}"
            if key == "metadata":
                yield from self._metadata(raw, installed, rendered.get(key) or {}, at, within)
            elif _is_choice(key, installed.get(key), rendered.get(key)):
                continue
            elif key not in rendered:
                if exact and key in raw:
                    yield Difference(at, raw[key], within=within)
            elif key not in raw:
                if installed.get(key) != rendered[key]:
                    yield Difference(at, rendered=rendered[key], within=within)
            else:
                yield from self._values(
                    key, raw[key], installed.get(key), rendered[key], at, within
                )

    def _metadata(
        self,
        raw: Mapping[str, Any],
        installed: Mapping[str, Any],
        rendered: Mapping[str, Any],
        path: str,
        within: str,
    ) -> Iterator[Difference]:
        """Yield labels and annotations that are missing or changed; others may be added."""
        wanted = {field: rendered[field] for field in _METADATA if field in rendered}
        given, found = raw.get("metadata"), installed.get("metadata") or {}
        if not isinstance(given, Mapping):
            if wanted:
                yield Difference(path, _or_unset(given), wanted, within)
            return
        for field, value in wanted.items():
            at = f"{path}/{field}"
            if isinstance(found.get(field), Mapping):
                yield from self.objects(given[field], found[field], value, at, within, exact=False)
            else:
                yield Difference(at, _or_unset(given.get(field)), value, within)

    def _values(
        self, key: str, raw: Any, installed: Any, rendered: Any, path: str, within: str
    ) -> Iterator[Difference]:
        if installed == rendered:
            return
        if all(isinstance(one, Mapping) for one in (raw, installed, rendered)):
            yield from self.objects(raw, installed, rendered, path, within)
        elif all(isinstance(one, list) for one in (raw, installed, rendered)):
            yield from self._lists(key, raw, installed, rendered, path, within)
        else:
            yield Difference(path, raw, rendered, within)

    def _lists(
        self,
        key: str,
        raw: Sequence[Any],
        installed: Sequence[Any],
        rendered: Sequence[Any],
        path: str,
        within: str,
    ) -> Iterator[Difference]:
        ordered = key not in _SETS and not any(isinstance(one, Mapping) for one in rendered)
        pairing = _in_order if ordered else _by_identity
        pairs, removed, added = pairing(installed, rendered)
        for index, wanted in pairs:
            yield from self._values(
                key, raw[index], installed[index], wanted, f"{path}/{index}",
                _name_of(wanted) or within,
            )  # fmt: skip
        # From the end, so that the indexes of the others stay.
        for index in sorted(removed, reverse=True):
            yield Difference(f"{path}/{index}", raw[index], within=_name_of(raw[index]) or within)
        for at, wanted in added:
            place = "-" if at is None else at
            yield Difference(f"{path}/{place}", rendered=wanted, within=_name_of(wanted) or within)


#: Indexes and rendered values of elements that belong together, indexes of those to remove, and
#: what to add then, at an index or at the end.
_Pairing = tuple[list[tuple[int, Any]], list[int], list[tuple[int | None, Any]]]


def _in_order(installed: Sequence[Any], rendered: Sequence[Any]) -> _Pairing:
    pairs: list[tuple[int, Any]] = []
    removed: list[int] = []
    added: list[tuple[int | None, Any]] = []
    before, after = ([_normal(one) for one in each] for each in (installed, rendered))
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    for tag, start, end, first, last in matcher.get_opcodes():
        if tag == "equal":
            continue
        both = min(end - start, last - first)
        pairs += [(start + step, rendered[first + step]) for step in range(both)]
        removed += range(start + both, end)
        # What comes before has its final length by then.
        added += [(first + step, rendered[first + step]) for step in range(both, last - first)]
    return pairs, removed, added


def _by_identity(installed: Sequence[Any], rendered: Sequence[Any]) -> _Pairing:
    """Pair elements that are equal, else those with the same name, else those most alike."""
    left = dict(enumerate(rendered))
    free = dict(enumerate(installed))
    pairs: list[tuple[int, Any]] = []
    for what in (_normal, _identity):
        places: dict[Any, list[int]] = {}
        for index, one in free.items():
            if (known := what(one)) is not None:
                places.setdefault(known, []).append(index)
        for number, wanted in list(left.items()):
            if indexes := places.get(what(wanted)):
                index = indexes.pop(0)
                del left[number], free[index]
                if what is _identity:
                    pairs.append((index, wanted))
    for number, wanted in list(left.items()):
        if _identity(wanted) is None and isinstance(wanted, Mapping):
            alike = [
                index
                for index, one in itertools.islice(free.items(), _MOST_COMPARED)
                if _identity(one) is None and isinstance(one, Mapping)
            ]
            if alike:
                index = max(alike, key=lambda one: _likeness(installed[one], wanted))
                pairs.append((index, left.pop(number)))
                del free[index]
    return pairs, list(free), [(None, one) for one in left.values()]


def _likeness(one: Mapping[str, Any], other: Mapping[str, Any]) -> int:
    """Return how many fields are the same."""
    return sum(
        key in other and _normal({key: value}) == _normal({key: other[key]})
        for key, value in one.items()
    )


def _identity(value: Any) -> tuple[str, str] | None:
    if not isinstance(value, Mapping):
        return None
    for field in _IDENTITIES:
        if isinstance(found := value.get(field), str):
            return field, found
    return None


def _name_of(value: Any) -> str:
    identity = _identity(value)
    return "" if identity is None else identity[1]


def _normal(value: Any, key: str = "") -> str:
    """Return a text that is the same for all ways to write a value."""
    return json.dumps(_sorted(value, key), sort_keys=True)


def _sorted(value: Any, key: str = "") -> Any:
    if isinstance(value, Mapping):
        return {name: _sorted(one, name) for name, one in value.items()}
    if isinstance(value, list):
        if key in _SETS or any(isinstance(one, Mapping) for one in value):
            return sorted(map(_normal, value))
        return [_sorted(one) for one in value]
    return value


def _is_choice(key: str, installed: Any, rendered: Any) -> bool:
    """Tell whether a value is one of those that a cluster may choose instead."""
    match key:
        case "image":
            return _image(installed) == _image(rendered)
        case "replicas":
            return isinstance(installed, int) and installed >= (rendered or 0)
        case "resources":
            # Of a container: a list of them belongs to a rule.
            return not isinstance(installed, list) and not isinstance(rendered, list)
    return key in ("imagePullPolicy", "imagePullSecrets")


def _image(value: Any) -> str:
    """Return name and tag of an image, wherever it comes from."""
    return str(value).rpartition("/")[2].partition("@")[0]


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _shown(value: Any) -> str:
    if value is _MISSING:
        return "not set"
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
