"""The objects of a write before and after it, as far as an audit log shows them.

A log never shows the object before a write. Most of it follows: what a patch does not name was as
it is in the answer, and what a PUT replaced is the version that it names. For the rest there are
several possible objects, of which one is likely. A verdict is known if they all lead to it.
"""

from dataclasses import dataclass, replace
from typing import Any

import msgspec

from noderestrict.admission import Request
from noderestrict.policy.listers import Listers
from noderestrict.policy.table import Row
from noderestrict.replay.audit.apply import dropped_fields, is_applied
from noderestrict.replay.audit.events import AuditEvent, logged_object, value_of
from noderestrict.replay.audit.json_patch import JSONPatch
from noderestrict.replay.audit.merge_patch import MergePatch
from noderestrict.replay.audit.objects import Key, LoggedObjects, Place, Version, version_of
from noderestrict.replay.audit.patches import (
    MAPS,
    Names,
    Object,
    Patch,
    Path,
    object_with,
    value_at,
)

#: What an update cannot change, although admission of a mutating plugin sees it changed.
PUT_BACK: dict[tuple[str, str], Path] = {
    ("nodes", "status"): ("spec",),
    ("pods", "status"): ("spec",),
    ("persistentvolumeclaims", "status"): ("spec",),
}
#: What rules read of an object itself, without comparing it.
_READ_ALONE: dict[str, tuple[Path, ...]] = {
    "events": (("involvedObject",), ("regarding",)),
}
#: What rules that compare whole objects leave out.
_STATUS_ALONE = ("capacity", "conditions")
_ALL_PARTS: tuple[Path, ...] = (("metadata",), ("spec",), ("status",))


@dataclass(frozen=True, slots=True)
class Pair:
    """A new and an existing object, JSON; None for one that the request does not have."""

    new: msgspec.Raw | None = None
    old: msgspec.Raw | None = None


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """What the objects of a request may have been.

    Attributes:
        likely: is judged.
        others: are possible too.
        rests_on: why the first is likely.
        missing: what would exclude everything else, if an allowed verdict may be wrong without it;
            "" if a verdict is never worth less than inferred.
        later: whether a later part of the log may show it.
        more: other objects that the same request deletes.
        empty: whether the request is about no object at all.
    """

    likely: Pair
    others: tuple[Pair, ...] = ()
    rests_on: str = ""
    missing: str = ""
    later: bool = False
    more: tuple[Pair, ...] = ()
    empty: bool = False

    @property
    def parts(self) -> tuple[Pair, ...]:
        """All objects that the request is about."""
        return (self.likely, *self.more)


def reconstruct(
    event: AuditEvent,
    request: Request,
    row: Row | None,
    place: Place,
    logged: LoggedObjects,
    listers: Listers,
) -> Reconstruction:
    """Return the objects of a request that is no connection.

    Args:
        event: of the request.
        request: without its objects.
        row: of its rules.
        place: of the event.
        logged: the versions that the log shows.
        listers: tell the node of a pod.
    """
    write = _Write(event, request, row, place, logged, listers)
    if request.operation == "CREATE":
        return Reconstruction(Pair(new=write.sent or (write.answer if write.patches else None)))
    if request.operation == "DELETE":
        return write.deleted()
    if row is None or row.target.old is None:
        return Reconstruction(Pair(write.sent or write.answer))
    if not write.patches:
        return write.replaced()
    return write.patched()


def key_of(request: Request) -> Key:
    """Return the key of a request's object among the logged ones."""
    return request.resource, request.namespace, request.name


def patch_of(event: AuditEvent, before: Version | None, after: Object | None) -> Patch | None:
    """Return the patch of an event; None if the log does not show it, or it is malformed.

    Args:
        event: whose verb is patch.
        before: an earlier version of the object, None if there is none.
        after: the object after the patch, None if the log does not show it.
    """
    value = value_of(event.requestObject)
    try:
        if isinstance(value, list):
            return JSONPatch(value)
        if not isinstance(value, dict):
            return None
        dropped: frozenset[Path] = frozenset()
        if before is not None and is_applied(value, event.field_manager, after):
            dropped = dropped_fields(value, event.field_manager, before.value)
        return MergePatch(value, dropped)
    except (ValueError, RecursionError):
        return None


class _Write:
    """A write, with what the log shows of it."""

    def __init__(
        self,
        event: AuditEvent,
        request: Request,
        row: Row | None,
        place: Place,
        logged: LoggedObjects,
        listers: Listers,
    ) -> None:
        self._event, self._request, self._row = event, request, row
        self._place, self._logged, self._listers = place, logged, listers
        self._key = key_of(request)
        self.patches = event.verb == "patch"
        self.sent = logged_object(event.requestObject)
        self.answer = logged_object(event.responseObject)
        self._after: Version | None = None
        if self.answer is not None:
            self._after = version_of(request.resource, self.answer)
        self._put_back = PUT_BACK.get((request.resource, request.sub_resource))

    def deleted(self) -> Reconstruction:
        """Return the object that a request deleted: its answer, or what the log last showed."""
        if self._event.verb == "deletecollection":
            return self._deleted_collection()
        if self.answer is not None:
            return Reconstruction(Pair(old=self.answer))
        if self._row is None or self._row.target.old is None or self._row.target.old_may_lack:
            return Reconstruction(Pair())
        known = self._logged.latest(self._key, self._place)
        if known is None or known.shown is not None:
            return Reconstruction(
                Pair(), missing="the deleted object is not in the log", later=True
            )
        pair = Pair(old=msgspec.Raw(known.raw))
        uid = value_at(value_of(self._event.responseObject), ("details", "uid"))
        if known.uid and uid == known.uid:
            return Reconstruction(pair)
        rests_on = f"the object is the one that {known.place} shows"
        return Reconstruction(pair, rests_on=rests_on)

    def _deleted_collection(self) -> Reconstruction:
        """Return the objects of which each is judged by itself; none had no say of admission."""
        items = value_at(value_of(self._event.responseObject), ("items",))
        if isinstance(items, list):
            kind = self._row.target.kind if self._row else ""
            pairs = tuple(
                Pair(old=_raw({"kind": kind, **item})) for item in items if isinstance(item, dict)
            )
            if not pairs:
                return Reconstruction(Pair(), empty=True)
            return Reconstruction(pairs[0], more=pairs[1:])
        if self._event.selects_node(self._request.node or ""):
            spec = {"nodeName": self._request.node}
            kind = self._row.target.kind if self._row else ""
            return Reconstruction(Pair(old=_raw({"kind": kind, "spec": spec})))
        rests_on = "the log does not show that there was nothing to delete"
        return Reconstruction(Pair(), rests_on=rests_on)

    def replaced(self) -> Reconstruction:
        """Return the objects of a PUT, whose existing object is the version that it names."""
        if self.sent is None:
            return Reconstruction(Pair())
        sent = version_of(self._request.resource, self.sent)
        if sent is None:
            return Reconstruction(Pair(self.sent))
        after = self._after
        uid = sent.uid or (after.uid if after else "")
        known = self._logged.stored(self._key, uid, sent.resource_version)
        if known is None and after is not None and self._changed_nothing(after, sent):
            known = after
        if known is not None:
            return Reconstruction(Pair(self.sent, msgspec.Raw(known.raw)))
        old = self.sent
        if after is not None and self._put_back:
            given = value_at(after.value, self._put_back)
            old = _raw(object_with(sent.value, self._put_back, given))
        missing = (
            f"the object before is not in the log: version {sent.resource_version}"
            if sent.resource_version
            else "the object before is not in the log, and the request names no version of it"
        )
        return Reconstruction(Pair(self.sent, old), missing=missing, later=True)

    def _changed_nothing(self, after: Version, sent: Version) -> bool:
        return (
            not self._event.dry_run
            and bool(sent.resource_version)
            and after.resource_version == sent.resource_version
            and sent.uid in ("", after.uid)
        )

    def patched(self) -> Reconstruction:
        """Return the objects of a patch: what it does not name was as it is in the answer."""
        if self._after is not None and self.answer is not None:
            return self._patched(self._after, self.answer)
        return self._patched_unseen()

    def _patched(self, after: Version, answer: msgspec.Raw) -> Reconstruction:
        earlier = self._earlier(after)
        now = after.value
        patch = patch_of(self._event, earlier, now)
        if patch is None:
            return Reconstruction(Pair(answer, answer), missing=_no_patch(self._event), later=True)
        names = patch.names()
        applied = earlier is None and self._is_applied(now)
        fields = self._touched(names)
        shown = [field for field in fields if field[:1] != self._put_back]
        if not fields and not applied:
            return Reconstruction(Pair(answer, answer))
        was = patch.before(now)
        if self._put_back:
            was = object_with(was, self._put_back, value_at(now, self._put_back))
        new = self._new(patch, names, was, now)
        unchanged = Pair(_raw(new), _raw(now))
        if self._is_noop(after, names, fields):
            return Reconstruction(unchanged)
        exact = self._logged.stored(self._key, after.uid, self._version_before(patch, after))
        if exact is not None:
            return Reconstruction(Pair(_raw(new), _raw(self._restored(names, now, exact.value))))
        changed = Pair(_raw(new), _raw(was))
        if earlier is not None:
            restored = Pair(_raw(new), _raw(self._restored(names, now, earlier.value)))
            rests_on = f"what the patch names was before as {earlier.place} shows it"
            return Reconstruction(restored, (unchanged, changed), rests_on)
        missing = ""
        if applied:
            missing = "what the manager applied before is not in the log"
        elif any(map(names.hide, shown)):
            missing = "what the patch removes or replaces is not in the log"
        rests_on = "the object before is not in the log: the patch changed what it names"
        return Reconstruction(changed, (unchanged,), rests_on, missing, later=True)

    def _is_applied(self, after: Object | None) -> bool:
        return is_applied(value_of(self._event.requestObject), self._event.field_manager, after)

    def _new(self, patch: Patch, names: Names, was: Object, now: Object) -> Object:
        """Return the object as a plugin sees it, before anything else in the API server changes it.

        The API server puts back what a status must not change, and a mutating webhook may remove a
        label that the patch sets.
        """
        try:
            sent = patch.applied(was)
        except ValueError:
            return now
        new = now
        if self._put_back:
            new = object_with(new, self._put_back, value_at(sent, self._put_back))
        for path in names.paths:
            if path[:2] in MAPS and len(path) > len(path[:2]) and value_at(now, path) is None:
                new = object_with(new, path, value_at(sent, path))
        return new

    def _version_before(self, patch: Patch, after: Version) -> str:
        # A dry run answers with the version of the object that it left alone.
        return patch.precondition() or (after.resource_version if self._event.dry_run else "")

    def _is_noop(self, after: Version, names: Names, fields: list[Path]) -> bool:
        """Return whether the version was there before the request came.

        Of two requests with the same answer, one made the version. Where the clocks of two API
        servers cannot tell which, it is the first one that names the change.
        """
        known = self._logged.stored(self._key, after.uid, after.resource_version)
        if known is None or known.place is None or self._event.dry_run:
            return False
        if known.place.precedes(self._place):
            return True
        changed = {path for path in names.paths if any(path[: len(f)] == f for f in fields)}
        return (
            known.place.file != self._place.file
            and known.place.answered <= self._place.answered
            and (known.named is None or known.named >= changed)
        )

    def _earlier(self, after: Version) -> Version | None:
        """Return the version before, if the log shows every change since."""
        earlier = self._logged.preceding(self._key, after)
        return None if earlier is None or earlier.superseded else earlier

    def _restored(self, names: Names, now: Object, earlier: Object) -> Object:
        old = now
        for field in self._touched(names):
            if self._put_back is None or field[:1] != self._put_back:
                old = names.restore(field, old, earlier)
        return old

    def _touched(self, names: Names) -> list[Path]:
        """Return the fields that the rules read and a patch names."""
        row = self._row
        if row is None:
            return []
        if row.target.whole:
            touched = {
                path[:2]
                for path in names.paths
                if not (path[:1] == ("status",) and path[1:2] and path[1] in _STATUS_ALONE)
            }
            return sorted(touched)
        fields = [tuple(path.split(".")) for path in row.fields]
        fields += _READ_ALONE.get(row.target.resource, ())
        return [field for field in fields if names.touch(field)]

    def _patched_unseen(self) -> Reconstruction:
        """Return the objects of a patch whose answer the log does not show."""
        known = self._logged.latest(self._key, self._place)
        if known is not None and known.superseded:
            known = None
        patch = patch_of(self._event, known, None)
        row = self._row
        if patch is None or row is None:
            return Reconstruction(Pair())
        metadata = {"name": self._request.name, "namespace": self._request.namespace}
        before: Object = {"kind": row.target.kind, "metadata": metadata}
        if known is not None:
            before = known.value
        found = self._with_what_is_read_alone(before)
        if isinstance(found, Reconstruction):
            return found
        before, foreign = found
        names = patch.names()
        fields = self._touched(names)
        applied = (known is None or known.shown is not None) and self._is_applied(None)
        if not fields and not applied:
            pair = Pair(_raw(before), _raw(before))
            return self._unless_foreign(Reconstruction(pair), foreign)
        try:
            after = patch.applied(before)
        except ValueError:
            after = patch.applied_to_part(before)
        was = patch.before(after)
        unseen = names
        if known is not None:
            # Of a map that is replaced, the keys that are known were there.
            shown = names.where(lambda path: known.shows(path) or path in MAPS)
            for field in fields:
                was = shown.restore(field, was, known.value) if shown.touch(field) else was
            unseen = names.where(lambda path: not known.shows(path))
        unchanged, changed = Pair(_raw(after), _raw(after)), Pair(_raw(after), _raw(was))
        missing = ""
        if applied:
            missing = "what the manager applied before is not in the log"
        elif any(map(unseen.hide, fields)):
            missing = f"level {self._event.level} does not show what the patch removes or replaces"
        rests_on = (
            f"level {self._event.level}: the patch changed what it names"
            if known is None or unseen.paths
            else f"what the patch names was before as {known.place} shows it"
        )
        likely = Reconstruction(changed, (unchanged,), rests_on, missing, later=True)
        return self._unless_foreign(likely, foreign)

    def _with_what_is_read_alone(self, before: Object) -> Any:
        """Return the object with what rules read of it, and whether that may be another value."""
        request = self._request
        if request.resource == "events" and not any(
            value_at(before, path) for path in _READ_ALONE["events"]
        ):
            missing = f"level {self._event.level} does not show what the event is about"
            return Reconstruction(Pair(), missing=missing, later=True)
        if (request.resource, request.sub_resource) != ("pods", "status"):
            return before, None
        if value_at(before, ("spec", "nodeName")):
            return before, None
        pod = self._listers.pod(request.namespace, request.name)
        if pod is not None:
            return object_with(before, ("spec", "nodeName"), pod.node_name), None
        own = object_with(before, ("spec", "nodeName"), request.node)
        return own, object_with(before, ("spec", "nodeName"), "")

    def _unless_foreign(self, found: Reconstruction, foreign: Object | None) -> Reconstruction:
        if foreign is None:
            return found
        missing = f"level {self._event.level} does not show on which node the pod runs"
        return replace(
            found,
            others=(*found.others, Pair(found.likely.new, _raw(foreign))),
            missing=found.missing or missing,
            later=True,
        )


def _no_patch(event: AuditEvent) -> str:
    if event.truncated:
        return "the API server truncated the event: the patch is not in the log"
    return "the patch is not in the log"


def _raw(value: Object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
