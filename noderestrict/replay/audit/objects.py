"""The objects that a log shows; whoever writes the log chooses how many and how large.

A stored version of an object is identified by its uid and resourceVersion, so the order in which a
log shows versions does not matter. Only what rules compare is kept.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import msgspec

from noderestrict.policy.rules import pods
from noderestrict.policy.table import table
from noderestrict.replay.audit.patches import Object, Path
from noderestrict.replay.sources import MIB

#: Enough for a large cluster: what is kept of a Node takes about 1 KiB.
_MOST_BYTES = 32 * MIB
#: What a version takes beside its JSON, bytes.
_OVERHEAD = 700
#: Of one object: a client seldom writes one that has changed more often since it was read.
_MOST_VERSIONS = 4

#: group and resource, namespace, name
Key = tuple[str, str, str]


#: The fields that rules compare of the status of a pod.
_COMPARED_STATUS = tuple(
    field.removeprefix("status.")
    for field in table()[pods.UPDATE_STATUS.key].fields
    if field.startswith("status.")
)


class _Object(msgspec.Struct, omit_defaults=True):
    kind: str
    metadata: Object
    apiVersion: str = ""  # noqa: N815 (the API's name)


class _Node(_Object):
    spec: Object | None = None


class _PodSpec(msgspec.Struct, omit_defaults=True):
    nodeName: str | None = None  # noqa: N815 (the API's name)


class _Slice(_Object):
    spec: _PodSpec | None = None


class _Event(_Object):
    involvedObject: Any = None  # noqa: N815 (the API's name)
    regarding: Any = None


_PodStatus: Any = msgspec.defstruct(
    "_PodStatus", [(field, Any, None) for field in _COMPARED_STATUS], omit_defaults=True
)
_Pod = msgspec.defstruct("_Pod", [("status", _PodStatus | None, None)], bases=(_Slice,))


#: What rules read of the existing object, by resource; the rest is not kept.
_READ: dict[str, Any] = {
    "nodes": _Node,
    "pods": _Pod,
    "persistentvolumeclaims": Object,
    "resourceslices": _Slice,
    "events": _Event,
}
_WRONG_TYPES = (AttributeError, TypeError)
_decoders = {resource: msgspec.json.Decoder(read) for resource, read in _READ.items()}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a log shows a request.

    Attributes:
        file: of the log.
        line: in the file.
        received: when the request came, seconds.
        answered: when it was answered, seconds.
    """

    file: str
    line: int
    received: float
    answered: float

    def precedes(self, other: "Place") -> bool:
        """Return whether the request was answered before the other one came.

        Clocks of API servers differ, so requests in different files must be a second apart.
        """
        if self.file != other.file:
            return self.answered + 1 <= other.received
        return self.line < other.line and (
            self.answered <= other.received or self.answered == other.answered
        )

    def is_before(self, other: "Place") -> bool:
        """Return whether the request was answered before the other one, as far as clocks tell."""
        if self.answered == other.answered:
            return self.file == other.file and self.line < other.line
        return self.answered < other.answered

    def __str__(self) -> str:
        """Return the place as people write it."""
        return f"{self.file}:{self.line}"


@dataclass(slots=True)
class Version:
    """What rules read of an object, as it was stored once.

    Attributes:
        uid: of the object, "" if the log does not show it.
        resource_version: likewise.
        raw: JSON, in which managedFields are those of applied configurations alone.
        superseded: whether somebody changed or deleted the object after this, and the log does not
            show what it became.
        place: where the log shows it first.
        named: what the request there may have changed, None for anything.
        shown: paths of all that the log shows of it, None for everything.
    """

    uid: str
    resource_version: str
    raw: bytes
    superseded: bool = False
    place: Place | None = None
    named: frozenset[Path] | None = None
    shown: frozenset[Path] | None = None

    def shows(self, path: Path) -> bool:
        """Return whether the log shows the value at a path, or that there is none."""
        shown = self.shown
        return shown is None or any(path[:length] in shown for length in range(1, len(path) + 1))

    @property
    def value(self) -> Object:
        """The object, decoded anew."""
        value: Object = msgspec.json.decode(self.raw)
        return value

    @property
    def number(self) -> int | None:
        """The resourceVersion as a number, which grows with each write; None if it is none."""
        return int(self.resource_version) if self.resource_version.isdecimal() else None


def version_of(resource: str, raw: msgspec.Raw) -> Version | None:
    """Return what rules read of an object; None if no rule compares such objects, or it is none."""
    decoder = _decoders.get(resource)
    if decoder is None:
        return None
    try:
        read = msgspec.to_builtins(decoder.decode(raw))
        metadata = read["metadata"]
        managed = metadata.pop("managedFields", None)
        if managed is not None:
            applies = [one for one in managed if one.get("operation") == "Apply"]
            metadata["managedFields"] = applies
        uid, version = metadata.get("uid"), metadata.get("resourceVersion")
        return Version(
            uid if isinstance(uid, str) else "",
            version if isinstance(version, str) else "",
            msgspec.json.encode(read),
        )
    except (msgspec.MsgspecError, UnicodeError, RecursionError, LookupError, *_WRONG_TYPES):
        return None


def compared(path: Path) -> bool:
    """Return whether rules may compare what is at a path; of a status that is little."""
    return path[0] != "status" or (len(path) > 1 and path[1] in _COMPARED_STATUS)


class LoggedObjects:
    """The newest versions of objects; those that were shown long ago make room for new ones.

    Args:
        most_bytes: that they may take; 0 for what is usual.
    """

    def __init__(self, most_bytes: int = 0) -> None:
        self._most_bytes = most_bytes or _MOST_BYTES
        self._objects: OrderedDict[Key, list[Version]] = OrderedDict()
        #: By resource, uid and resourceVersion.
        self._stored: dict[tuple[str, str, str], Version] = {}
        self._bytes = 0

    def __len__(self) -> int:
        """Return how many objects there are."""
        return len(self._objects)

    def latest(self, key: Key, place: Place) -> Version | None:
        """Return the version that the log showed last before a place; None if it showed none."""
        for known in reversed(self._objects.get(key, ())):
            if known.place is not None and known.place.is_before(place):
                return known
        return None

    def stored(self, key: Key, uid: str, resource_version: str) -> Version | None:
        """Return the version of an object that has this uid and resourceVersion."""
        if not uid or not resource_version:
            return None
        return self._stored.get((key[0], uid, resource_version))

    def preceding(self, key: Key, after: Version) -> Version | None:
        """Return the newest known version of the same object that is older than another one.

        It may be one of which the log shows only how a patch made it of the one before.
        """
        newest = after.number
        if not after.uid or newest is None:
            return None
        found: Version | None = None
        highest = -1
        follows = False
        for known in self._objects.get(key, ()):
            number = known.number
            if known.uid != after.uid:
                follows = False
            elif number is not None:
                follows = highest < number < newest
                if follows:
                    found, highest = known, number
            elif follows:
                found = known
        return found

    def remember(self, key: Key, version: Version) -> None:
        """Keep a version that was stored, unless it is known."""
        known = self.stored(key, version.uid, version.resource_version)
        if known is not None:
            # What was done in between has changed nothing.
            known.superseded = False
            return
        versions = self._objects.setdefault(key, [])
        self._objects.move_to_end(key)
        versions.append(version)
        if version.uid and version.resource_version:
            self._stored[key[0], version.uid, version.resource_version] = version
        self._bytes += len(version.raw) + _OVERHEAD
        if len(versions) > _MOST_VERSIONS:
            self._drop(key, versions.pop(0))
        while self._bytes > self._most_bytes:
            oldest, dropped = self._objects.popitem(last=False)
            for one in dropped:
                self._drop(oldest, one)

    def _drop(self, key: Key, version: Version) -> None:
        whole = (key[0], version.uid, version.resource_version)
        if self._stored.get(whole) is version:
            del self._stored[whole]
        self._bytes -= len(version.raw) + _OVERHEAD

    def supersede(self, key: Key) -> None:
        """Note that somebody has changed or deleted an object, and the log does not show how."""
        if known := self._objects.get(key):
            known[-1].superseded = True
