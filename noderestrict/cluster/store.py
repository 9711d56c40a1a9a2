"""A store of the records of one resource, by namespace and name."""

from collections.abc import Callable
from itertools import chain
from typing import Any

from msgspec.structs import force_setattr, replace

from noderestrict.policy.records import RECORDS, NodeRecord, PodRecord, Record

# Limits for lists of names in an object. Honest objects rarely have 100 names; one of 1.5 MB can
# have tens of thousands, or a few that are that long.
_MOST_NAMES = 1_000
_MOST_CHARACTERS = 2**15
#: Of a Pod: what most pods have in common. A cluster has few different ones.
_COMMON = ("audiences", "csi_drivers", "migrated_drivers", "signers")
_MOST_COMMON = 10_000


class Store:
    """A sink that keeps the record of each object that rules look up.

    A record that is too large is kept without its lists. This is safe: no rule allows a request
    because a list lacks a name, and every denial is confirmed by a live lookup.
    """

    def __init__(self, plural: str) -> None:
        self._reduce = RECORDS[plural]
        self._slim = _SLIM.get(plural)
        self._records: dict[tuple[str, str], Record] = {}
        self._next: dict[tuple[str, str], Record] = {}
        self._common: dict[tuple[str, ...], tuple[str, ...]] = {}

    def __len__(self) -> int:
        return len(self._records)

    def get(self, namespace: str, name: str) -> Record | None:
        """Return a record; None if there is none."""
        return self._records.get((namespace, name))

    def held(self) -> set[tuple[str, str]]:
        """Return the namespace and name of every record."""
        return set(self._records)

    def begin(self) -> None:
        """Start to collect new content."""
        self._next = {}

    def add(self, value: Any) -> None:
        """Collect one object."""
        key, record = self._keyed(value)
        known = self._records.get(key)
        # A list that is read again must not double what is held.
        self._next[key] = known if known == record else record

    def discard(self, value: Any) -> None:
        """Drop one collected object."""
        self._next.pop(self._keyed(value)[0], None)

    def commit(self) -> None:
        """Replace the content in one step."""
        self._records, self._next = self._next, {}

    def upsert(self, value: Any) -> None:
        """Add or change one object."""
        key, record = self._keyed(value)
        self._records[key] = record

    def delete(self, value: Any) -> None:
        """Remove one object."""
        self._records.pop(self._keyed(value)[0], None)

    def _keyed(self, value: Any) -> tuple[tuple[str, str], Record]:
        record = self._reduce(value)
        if self._slim is not None:
            record = self._slim(record)
        if isinstance(record, PodRecord):
            self._share(record)
        return (getattr(record, "namespace", ""), record.name), record

    def _share(self, record: PodRecord) -> None:
        """Let a new record, which nobody else has yet, have its lists in common with others."""
        common = self._common
        if len(common) >= _MOST_COMMON:
            # Made-up names must not fill the memory; clearing loses only the sharing.
            common.clear()
        for field in _COMMON:
            if value := getattr(record, field):
                force_setattr(record, field, common.setdefault(value, value))


def _slim_pod(record: PodRecord) -> PodRecord:
    named = (
        record.audiences,
        record.csi_drivers,
        record.migrated_drivers,
        record.signers,
        record.claims,
    )
    if _too_much(tuple(chain.from_iterable(named))):
        return replace(
            record, audiences=(), csi_drivers=(), migrated_drivers=(), signers=(), claims=()
        )
    return record


def _slim_node(record: NodeRecord) -> NodeRecord:
    if _too_much(record.addresses):
        return replace(record, addresses=())
    return record


def _too_much(names: tuple[str, ...]) -> bool:
    return len(names) > _MOST_NAMES or sum(map(len, names)) > _MOST_CHARACTERS


_SLIM: dict[str, Callable[[Any], Record]] = {"pods": _slim_pod, "nodes": _slim_node}
