"""The newest objects of a log; whoever writes the log chooses how many and how large."""

from collections import OrderedDict

import msgspec

from noderestrict.replay.sources import MIB

#: Enough for a large cluster.
_MOST_OBJECTS = 20_000
_MOST_BYTES = 256 * MIB

#: group and resource, namespace, name
Key = tuple[str, str, str]


class LoggedObjects:
    """Objects as JSON; the oldest make room for new ones."""

    def __init__(self) -> None:
        self._objects: OrderedDict[Key, bytes] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._objects)

    def get(self, key: Key) -> msgspec.Raw | None:
        """Return an object, None if the log has not shown it."""
        known = self._objects.get(key)
        return None if known is None else msgspec.Raw(known)

    def remember(self, key: Key, raw: msgspec.Raw) -> None:
        """Keep an object in place of an earlier version."""
        self.forget(key)
        # A copy: the original keeps its whole line in memory.
        self._objects[key] = bytes(raw)
        self._bytes += len(raw)
        while len(self._objects) > _MOST_OBJECTS or self._bytes > _MOST_BYTES:
            self._bytes -= len(self._objects.popitem(last=False)[1])

    def forget(self, key: Key) -> None:
        """Drop an object."""
        self._bytes -= len(self._objects.pop(key, b""))
