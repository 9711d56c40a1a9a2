"""Whole objects before and after a write, of any resource, as far as an audit log shows them.

``reconstruct`` tells what the rules for nodes read; policies of agents may read any field of any
resource.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from noderestrict.admission import Request
from noderestrict.graph.graph import SOURCES, Graph
from noderestrict.replay.audit.events import AuditEvent, logged_object, value_of
from noderestrict.replay.audit.objects import Key, LoggedObjects, Place, Version
from noderestrict.replay.audit.patches import FIXED, UNKNOWN, Object, Path, object_with, value_at
from noderestrict.replay.audit.reconstruct import patch_of
from noderestrict.replay.sources import MIB
from noderestrict.replay.state import StateError, decode_object

_MOST_BYTES = 256 * MIB
#: Lists whose items people know by this key.
KEYED = {"conditions": "type"}
#: Subresources whose requests and answers are the object itself.
_WHOLE = ("", "status", "ephemeralcontainers", "resize", "approval", "finalize")
#: They leave the object as it is.
_HARMLESS = ("exec", "attach", "portforward", "proxy", "log", "token", "eviction")


class _Meta(msgspec.Struct):
    name: str | None = None
    uid: str | None = None
    resourceVersion: str | None = None  # noqa: N815 (the API's name)


class _Object(msgspec.Struct):
    metadata: _Meta | None = None


_object = msgspec.json.Decoder(_Object)


@dataclass(frozen=True, slots=True)
class Whole:
    """The objects of a write.

    Attributes:
        new: after it; None if it has none, or the log does not show it.
        old: before it, likewise.
        named: paths that may have changed, where the object before is not known; else None.
        missing: what the log does not show, "" for nothing.
        rests_on: what the object before was inferred from, "" if it is known.
    """

    new: Object | None = None
    old: Object | None = None
    named: frozenset[Path] | None = None
    missing: str = ""
    rests_on: str = ""


class WholeObjects:
    """The objects that a log shows, as a whole.

    Args:
        graph: of what pods refer to, to which objects of the log are added.
        most_bytes: that the objects may take.
    """

    def __init__(self, graph: Graph, most_bytes: int = _MOST_BYTES) -> None:
        self._graph = graph
        self._logged = LoggedObjects(most_bytes)

    def of(self, event: AuditEvent, request: Request, place: Place) -> list[Whole]:
        """Return the objects of a write; several if one request deletes a collection.

        Args:
            event: of the write.
            request: without its objects.
            place: of the event.
        """
        sent = _shown(event.requestObject)
        answer = _shown(event.responseObject)
        if request.operation == "CONNECT" or request.sub_resource not in _WHOLE:
            return [Whole(new=sent)]
        missing = "" if sent or answer else _not_logged(event)
        if request.operation == "CREATE":
            # The answer has the name that the API server generated.
            return [Whole(new=answer or sent, missing=missing)]
        if request.operation == "DELETE":
            return self._deleted(event, request, place, answer)
        if event.verb == "patch":
            return [self._patched(event, request, place, answer)]
        return [self._replaced(event, request, place, sent, answer)]

    def see(self, event: AuditEvent, request: Request, place: Place) -> None:
        """Keep what an event shows of an object."""
        if not event.stored or request.sub_resource in _HARMLESS:
            return
        key = _key(request)
        version = None
        if request.sub_resource in _WHOLE and event.verb != "deletecollection":
            raw = logged_object(event.responseObject)
            if raw is None and request.operation == "CREATE":
                raw = logged_object(event.requestObject)
            if raw is not None:
                version, name = _version(raw)
                # The request does not say which name was generated.
                key = (*key[:2], key[2] or name)
        if version is not None:
            version.place = place
            self._logged.remember(key, version)
            self._add_edges(request, msgspec.Raw(version.raw))
        if (version is None and request.operation) or event.verb == "delete":
            self._logged.supersede(key)

    def _add_edges(self, request: Request, raw: msgspec.Raw) -> None:
        if request.resource in SOURCES:
            with contextlib.suppress(StateError):
                self._graph.upsert(
                    request.resource, decode_object(request.resource, raw, "audit log")
                )

    def _deleted(
        self, event: AuditEvent, request: Request, place: Place, answer: Object | None
    ) -> list[Whole]:
        if event.verb == "deletecollection":
            items = value_at(value_of(event.responseObject), ("items",))
            if isinstance(items, list):
                return [Whole(old=_plain(item)) for item in items if isinstance(item, dict)]
            return [Whole(missing=_not_logged(event))]
        if answer is not None:
            return [Whole(old=answer)]
        known = self._logged.latest(_key(request), place)
        if known is None:
            return [Whole(missing="the deleted object is not in the log")]
        uid = value_at(value_of(event.responseObject), ("details", "uid"))
        certain = bool(known.uid) and uid == known.uid and not known.superseded
        return [Whole(old=_plain(known.value), rests_on="" if certain else _as_shown(known))]

    def _replaced(
        self,
        event: AuditEvent,
        request: Request,
        place: Place,
        sent: Object | None,
        answer: Object | None,
    ) -> Whole:
        new = answer or sent
        if new is None:
            return Whole(missing=_not_logged(event))
        uid = _text(new, "uid") or _text(sent or {}, "uid")
        replaced = _text(sent or {}, "resourceVersion")
        known = self._logged.stored(_key(request), uid, replaced)
        if known is not None:
            return Whole(new, _plain(known.value))
        if answer is not None and replaced and _text(answer, "resourceVersion") == replaced:
            # Nothing was changed.
            return Whole(new, new)
        found = self._before(request, place, answer)
        if found is not None:
            return Whole(new, _plain(found.value), rests_on=_as_shown(found))
        return Whole(new, missing="the object before is not in the log")

    def _patched(
        self, event: AuditEvent, request: Request, place: Place, answer: Object | None
    ) -> Whole:
        before = self._before(request, place, answer)
        patch = patch_of(event, before, answer)
        named = None
        if patch is not None:
            sent = value_of(event.requestObject)
            named = frozenset(_named(_fields(patch.names().paths), sent, answer))
        if answer is None:
            if before is None or patch is None:
                return Whole(named=named, missing=_not_logged(event))
            old = _plain(before.value)
            try:
                new = patch.applied(old)
            except ValueError:
                return Whole(named=named, missing="the patch does not fit what the log shows")
            return Whole(new, old, rests_on=_as_shown(before))
        exact = None
        if patch is not None and (version := patch.precondition()):
            exact = self._logged.stored(_key(request), _text(answer, "uid"), version)
        same = self._logged.stored(
            _key(request), _text(answer, "uid"), _text(answer, "resourceVersion")
        )
        if same is not None and same.place is not None and same.place.precedes(place):
            # It was there before, so nothing was changed.
            return Whole(answer, answer)
        if exact is not None:
            return Whole(answer, _plain(exact.value))
        if before is not None:
            return Whole(answer, _plain(before.value), rests_on=_as_shown(before))
        if patch is None:
            return Whole(answer, missing="neither the patch nor the object before is in the log")
        rests_on = "what the patch does not name was as it is in the answer"
        old = _with_items(patch.before(answer), named or frozenset(), answer)
        return Whole(answer, old, named, rests_on=rests_on)

    def _before(self, request: Request, place: Place, answer: Object | None) -> Version | None:
        """Return the version before a write, if the log shows every change since."""
        key = _key(request)
        after = None
        if answer is not None:
            after = Version(_text(answer, "uid"), _text(answer, "resourceVersion"), b"{}")
        known = self._logged.latest(key, place) if after is None else None
        if after is not None:
            known = self._logged.preceding(key, after)
        return None if known is None or known.superseded else known


def _named(paths: Iterable[Path], patch: Any, after: Object | None) -> Iterator[Path]:
    """Yield the paths that a patch names; of a list that it merges, the items that it names.

    Args:
        paths: of all values in the patch.
        patch: as it was sent.
        after: the object after it, None if the log does not show it.
    """
    for path in paths:
        key = KEYED.get(path[-1])
        items = by_key(value_at(patch, path), key) if key is not None else None
        now = by_key(value_at(after, path), key) if key is not None else None
        outer = value_at(patch, path[:-1])
        ordered = isinstance(outer, dict) and f"$setElementOrder/{path[-1]}" in outer
        # Others would be gone if the patch had replaced the list.
        if items and (ordered or (now is not None and items.keys() < now.keys())):
            for name in items:
                yield (*path, f"{key}={name}")
        else:
            yield path


def _with_items(old: Object, named: frozenset[Path], after: Object) -> Object:
    """Return an object before a patch whose lists differ only by the items that the patch names."""
    for path in {path[:-1] for path in named}:
        key = KEYED.get(path[-1]) if path else None
        now = by_key(value_at(after, path), key) if key is not None else None
        if key is not None and now is not None:
            items = [
                {key: name, UNKNOWN: UNKNOWN} if (*path, f"{key}={name}") in named else item
                for name, item in now.items()
            ]
            old = object_with(old, path, items)
    return old


def by_key(items: Any, key: str) -> dict[str, Any] | None:
    """Return the items of a list by a key; None if it is no list of such items."""
    found: dict[str, Any] = {}
    for item in items if isinstance(items, list) else () if items is None else (None,):
        name = item.get(key) if isinstance(item, dict) else None
        if not isinstance(name, str) or not name or name in found or set(name) & set('[]"'):
            return None
        found[name] = item
    return found


def _key(request: Request) -> Key:
    return f"{request.resource}.{request.group}", request.namespace, request.name


def _version(raw: msgspec.Raw) -> tuple[Version | None, str]:
    """Return an object and its name."""
    try:
        metadata = _object.decode(raw).metadata or _Meta()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None, ""
    version = Version(metadata.uid or "", metadata.resourceVersion or "", bytes(raw))
    return version, metadata.name or ""


def _shown(raw: msgspec.Raw) -> Object | None:
    """Return a logged object, None if it is none."""
    if logged_object(raw) is None:
        return None
    value = value_of(raw)
    return _plain(value) if isinstance(value, dict) else None


def _plain(value: Object) -> Object:
    """Return an object without managedFields, which nobody writes on purpose."""
    metadata = value.get("metadata")
    if not isinstance(metadata, dict) or "managedFields" not in metadata:
        return value
    rest = {key: one for key, one in metadata.items() if key != "managedFields"}
    return {**value, "metadata": rest}


def _text(value: Object, key: str) -> str:
    found: Any = value_at(value, ("metadata", key))
    return found if isinstance(found, str) else ""


def _fields(paths: frozenset[Path]) -> frozenset[Path]:
    return frozenset(path for path in paths if path and path[:2] not in FIXED)


def _not_logged(event: AuditEvent) -> str:
    if event.truncated:
        return "the API server truncated the event: it holds no object"
    return f"level {event.level or 'of the log'} holds no object"


def _as_shown(version: Version) -> str:
    return f"the object before was as {version.place} shows it"
