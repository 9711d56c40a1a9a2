"""The objects that a rule may look up."""

from collections.abc import Iterable
from typing import Any

from noderestrict.api.resources import RESOURCES, ObjectKey
from noderestrict.errors import NoderestrictError
from noderestrict.policy.records import (
    ClaimRecord,
    CSIDriverRecord,
    NodeRecord,
    PodRecord,
    Record,
    ServiceAccountRecord,
    VolumeRecord,
)


class LookupUnavailableError(NoderestrictError):
    """A lookup could not be made: the review is answered 500, neither refused nor allowed."""


class Listers:
    """Lookups of cluster objects, which return None for unknown objects.

    A subclass provides the records, in ``get``.
    """

    def get(self, key: ObjectKey) -> Any:
        """Return the record of an object; None if the object is unknown.

        Raises:
            LookupUnavailableError: the lookup failed.
        """
        raise NotImplementedError

    def node(self, name: str) -> NodeRecord | None:
        """Return the Node of this name."""
        found: NodeRecord | None = self.get(ObjectKey("nodes", "", name))
        return found

    def pod(self, namespace: str, name: str) -> PodRecord | None:
        """Return the Pod of this namespace and name."""
        found: PodRecord | None = self.get(ObjectKey("pods", namespace, name))
        return found

    def service_account(self, namespace: str, name: str) -> ServiceAccountRecord | None:
        """Return the ServiceAccount of this namespace and name."""
        key = ObjectKey("serviceaccounts", namespace, name)
        found: ServiceAccountRecord | None = self.get(key)
        return found

    def persistent_volume_claim(self, namespace: str, name: str) -> ClaimRecord | None:
        """Return the PersistentVolumeClaim of this namespace and name."""
        key = ObjectKey("persistentvolumeclaims", namespace, name)
        found: ClaimRecord | None = self.get(key)
        return found

    def persistent_volume(self, name: str) -> VolumeRecord | None:
        """Return the PersistentVolume of this name."""
        found: VolumeRecord | None = self.get(ObjectKey("persistentvolumes", "", name))
        return found

    def csi_driver(self, name: str) -> CSIDriverRecord | None:
        """Return the CSIDriver of this name."""
        found: CSIDriverRecord | None = self.get(ObjectKey("csidrivers", "", name))
        return found


class MemoryListers(Listers):
    """Listers over records in memory, for replay, tests and ``serve --state``."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._records: dict[ObjectKey, Record] = {}
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Add a record, replacing one of the same resource, namespace and name."""
        resource = RESOURCES[record.resource]
        self._records[resource.key(getattr(record, "namespace", ""), record.name)] = record

    def remove(self, key: ObjectKey) -> None:
        """Remove the record of an object, if there is one."""
        self._records.pop(key, None)

    def get(self, key: ObjectKey) -> Record | None:
        """Return the record of an object; None if there is none."""
        return self._records.get(key)
