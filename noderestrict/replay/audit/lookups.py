"""Cluster objects that a log shows, for the rules that look something up.

A log shows an object when somebody writes it, which may be before or after the request that needs
it, and another object may have had the name in between. A uid that the request names settles that.
"""

from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec.structs import replace

from noderestrict.api import corev1
from noderestrict.api.resources import RESOURCES, ObjectKey
from noderestrict.policy.listers import Listers
from noderestrict.policy.records import RECORDS, PodRecord, Record, pod_record
from noderestrict.replay.sources import MIB
from noderestrict.replay.state import StateError, decode_object

_MOST_LEARNED = 200_000
_MOST_LEARNED_BYTES = 1024 * MIB


#: Random characters that the API server adds to a generateName.
_GENERATED = 5


class _Metadata(msgspec.Struct):
    prefix: str = msgspec.field(default="", name="generateName")


class _Spec(msgspec.Struct):
    automountServiceAccountToken: bool | None = None  # noqa: N815 (the API's name)


class _NewPod(msgspec.Struct):
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    spec: _Spec = msgspec.field(default_factory=_Spec)


_pod = msgspec.json.Decoder(corev1.Pod)
_new_pod = msgspec.json.Decoder(_NewPod)


@dataclass(slots=True)
class _Named:
    """Records of objects of one name, by uid; "" if the log does not show it."""

    by_uid: dict[str, Record] = field(default_factory=dict)
    newest: str = ""


class LoggedListers(Listers):
    """Lookups in the objects that a log shows, then in others.

    Attributes:
        uids: of the objects that the request at hand means, by resource; "" or missing for any.
        node_suffices: whether the request depends on nothing of a pod but its node.
        hindsight: whether the whole log has been read: a name then stands for an object only if no
            other one ever had it.
        missed: what was looked up for the request at hand and not found.
        by_name: what was found by its name alone.

    Args:
        others: the objects that are given beside the log.
    """

    def __init__(self, others: Listers) -> None:
        self._others = others
        self._names: dict[ObjectKey, _Named] = {}
        self._bound: dict[ObjectKey, _Named] = {}
        #: As they were asked for, by namespace and name or generateName; None if that differs.
        self._made: dict[tuple[str, str], PodRecord | None] = {}
        self._learned = 0
        self._bytes = 0
        self.uids: dict[str, str] = {}
        self.node_suffices = False
        self.hindsight = False
        self.missed: list[ObjectKey] = []
        self.by_name: list[ObjectKey] = []

    def about(self, uids: dict[str, str], *, node_suffices: bool) -> None:
        """Start with the lookups of another request."""
        self.uids, self.node_suffices = uids, node_suffices
        self.missed, self.by_name = [], []

    def get(self, key: ObjectKey) -> Any:
        """Look an object up."""
        wanted = self.uids.get(key.resource, "")
        found: Any = self._found(self._names.get(key), wanted)
        bound: Any = self._found(self._bound.get(key), wanted)
        if isinstance(found, PodRecord) and not found.node_name:
            # The log shows it before it was bound.
            same = bound is not None and bound.uid in ("", found.uid)
            found = replace(found, node_name=bound.node_name) if same else None
        if found is None and bound is not None:
            found = bound if self.node_suffices else self._as_made(bound)
        if found is None:
            found = self._others.get(key)
            if wanted and getattr(found, "uid", "") != wanted:
                found = None
        if found is None:
            self.missed.append(key)
        elif not wanted:
            self.by_name.append(key)
        return found

    def _found(self, named: _Named | None, wanted: str) -> Record | None:
        if named is None:
            return None
        if wanted:
            return named.by_uid.get(wanted)
        if self.hindsight and len(named.by_uid) > 1:
            return None
        return named.by_uid[named.newest]

    def _as_made(self, bound: PodRecord) -> PodRecord | None:
        """Return a bound pod with what was asked for when it was made; None if that is not known.

        Its name is the one asked for, or begins with its generateName.
        """
        for name in (bound.name, bound.name[:-_GENERATED]):
            made = self._made.get((bound.namespace, name))
            if made is not None:
                self.by_name.append(ObjectKey("pods", bound.namespace, bound.name))
                return replace(made, name=bound.name, uid=bound.uid, node_name=bound.node_name)
        return None

    def has(self, key: ObjectKey, uid: str) -> bool:
        """Return whether the log shows an object of this uid."""
        named = self._names.get(key)
        return named is not None and uid in named.by_uid

    def learn(self, resource: str, raw: msgspec.Raw) -> None:
        """Keep what rules look up of an object, within bounds."""
        if resource not in RECORDS:
            return
        self._bytes += len(raw)
        if self._is_full():
            return
        try:
            record = RECORDS[resource](decode_object(resource, raw, "audit log"))
        except StateError:
            return
        self._keep(self._names, record)

    def make(self, namespace: str, raw: msgspec.Raw) -> None:
        """Keep what a request to create a pod asks for, where the log does not show the answer.

        The ServiceAccount plugin adds the default token, unless the pod opts out.
        """
        try:
            pod = _pod.decode(raw)
            asked = _new_pod.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        name = (pod.metadata.name if pod.metadata else "") or asked.metadata.prefix
        if self._is_full() or not name:
            return
        record = pod_record(pod)
        opts_out = asked.spec.automountServiceAccountToken is False
        if not opts_out and "" not in record.audiences:
            record = replace(record, audiences=(*record.audiences, ""))
        record = replace(record, namespace=namespace, name="", uid="", node_name="")
        key = (namespace, name)
        self._learned += key not in self._made
        self._made[key] = record if self._made.get(key, record) == record else None

    def bind(self, namespace: str, name: str, uid: str, node: str) -> None:
        """Keep the node of a pod of which the log shows nothing else."""
        if not self._is_full():
            self._keep(self._bound, PodRecord(namespace, name, uid, node))

    def _is_full(self) -> bool:
        return self._learned >= _MOST_LEARNED or self._bytes >= _MOST_LEARNED_BYTES

    def _keep(self, names: dict[ObjectKey, _Named], record: Record) -> None:
        resource = RESOURCES[record.resource]
        key = resource.key(getattr(record, "namespace", ""), record.name)
        named = names.setdefault(key, _Named())
        uid = getattr(record, "uid", "")
        known = named.by_uid.get(uid)
        if isinstance(known, PodRecord) and isinstance(record, PodRecord):
            # A pod stays where it is bound; events of several API servers may overtake each other.
            record = replace(record, node_name=record.node_name or known.node_name)
        self._learned += known is None
        named.by_uid[uid] = record
        named.newest = uid
