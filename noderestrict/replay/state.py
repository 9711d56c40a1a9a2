"""Read cluster objects as ``kubectl get -o json`` writes them."""

from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from noderestrict.api import metav1
from noderestrict.api.resources import PLURALS, RESOURCES
from noderestrict.errors import NoderestrictError
from noderestrict.graph.edges import Vertex
from noderestrict.graph.graph import SOURCES, Graph
from noderestrict.policy.hostile import in_words
from noderestrict.policy.listers import MemoryListers
from noderestrict.policy.records import RECORDS
from noderestrict.replay.documents import documents
from noderestrict.replay.sources import (
    MAX_FILE_BYTES,
    MAX_LINE_BYTES,
    MIB,
    Unreadable,
    without_managed_fields,
)

_NULL = msgspec.Raw(b"null")
_Raw = bytes | msgspec.Raw

#: Others are skipped: nothing looks them up.
_READ = frozenset((*RECORDS, *SOURCES))


_AS_JSON = "get the objects themselves, with 'kubectl get -o json'"
#: Kinds that an API server may answer, or that replay reads elsewhere, with what to do.
_NOT_STATE = {
    "Table": f"it holds what kubectl prints; {_AS_JSON}",
    "PartialObjectMetadata": f"it holds metadata alone; {_AS_JSON}",
    "AdmissionReview": "give it to replay as a FILE",
    "SubjectAccessReview": "give it to replay as a FILE",
    "Config": "a kubeconfig is no cluster object",
}


class StateError(NoderestrictError, ValueError):
    """A cluster object cannot be read; the message names file, object and field."""


def load_state(
    files: Iterable[str],
    graph: Graph | None = None,
    max_bytes: int = MAX_FILE_BYTES,
    known: set[Vertex] | None = None,
) -> MemoryListers:
    """Return the objects of all files as listers; kinds that nothing looks up are ignored.

    Args:
        files: as ``kubectl get -o json`` writes them.
        graph: of the Node authorizer, filled too.
        max_bytes: limit for each file, unpacked.
        known: filled with all objects, also those that nothing looks up, such as Secrets.

    Raises:
        StateError: a file or an object in it cannot be read.
    """
    listers = MemoryListers()
    for raw, where, kind in _documents(files, max_bytes):
        add_objects(listers, raw, where, graph, kind, known)
    return listers


def read_objects(
    files: Iterable[str],
    structs: Mapping[str, type[msgspec.Struct]],
    max_bytes: int = MAX_FILE_BYTES,
) -> Iterator[tuple[str, Any]]:
    """Yield plural resource and Struct of each object of some resources in some files.

    Args:
        files: as ``kubectl get -o json`` writes them.
        structs: what to read of an object, by plural resource; other objects are ignored.
        max_bytes: limit for each file, unpacked.

    Raises:
        StateError: a file or an object in it cannot be read.
    """
    for raw, where, kind in _documents(files, max_bytes):
        try:
            for plural, item, at in _objects(raw, where, kind, structs):
                yield plural, decode_object(plural, item, at, structs[plural])
        except RecursionError:
            raise StateError(f"{where}: nested too deeply") from None


def _documents(files: Iterable[str], max_bytes: int) -> Iterator[tuple[bytes, str, str]]:
    """Yield each document of some files, with its place and its kind if it does not say."""
    for file in files:
        for document in documents(file, max_bytes):
            if isinstance(document, Unreadable):
                raise StateError(f"--state {document}")
            where = f"--state {file}" + (f":{document.line}" if document.line > 1 else "")
            yield document.raw, where, document.kind


def add_objects(
    listers: MemoryListers,
    raw: _Raw,
    where: str,
    graph: Graph | None = None,
    kind: str = "",
    known: set[Vertex] | None = None,
) -> None:
    """Add a List, an object of lists by plural resource, or one object to the listers.

    Args:
        listers: filled.
        raw: JSON.
        where: starts the message of an error.
        graph: filled too.
        kind: of the JSON if it does not say.
        known: filled with all objects, also those that nothing looks up.

    Raises:
        StateError: an object cannot be read.
    """
    try:
        for plural, item, at in _objects(raw, where, kind, _READ if known is None else RESOURCES):
            if known is not None:
                metadata = decode_object(plural, item, at, metav1.PartialObject).metadata
                known.add(RESOURCES[plural].key(metadata.namespace, metadata.name))
            if plural not in _READ:
                continue
            decoded = decode_object(plural, item, at)
            if graph is not None:
                graph.upsert(plural, decoded)
            if plural in RECORDS:
                listers.add(RECORDS[plural](decoded))
    except RecursionError:
        raise StateError(f"{where}: nested too deeply") from None


def decode_object(
    plural: str, raw: _Raw, where: str, struct: type[msgspec.Struct] | None = None
) -> Any:
    """Return an object as a Struct.

    Args:
        plural: its resource.
        raw: JSON.
        where: starts the message of an error.
        struct: what to read of it; None for what the table of resources says.

    Raises:
        StateError: it is not such an object, or has no name.
    """
    try:
        decoded: Any = msgspec.convert(_value(raw, where), struct or RESOURCES[plural].struct)
    except msgspec.ValidationError as error:
        raise StateError(f"{where}: {error}") from None
    if decoded.metadata is None or not decoded.metadata.name:
        raise StateError(f"{where}: metadata.name is missing")
    return decoded


def _objects(
    raw: _Raw, where: str, default_kind: str = "", wanted: Container[str] = _READ
) -> Iterator[tuple[str, _Raw, str]]:
    """Yield plural resource, JSON and place of each object of some resources."""
    try:
        fields = _decoded(raw, dict[str, msgspec.Raw], where)
    except msgspec.ValidationError:
        what = type(_value(raw, where)).__name__
        raise StateError(f"{where}: a {what} is not a cluster object") from None
    kind = _value(fields["kind"], where) if "kind" in fields else default_kind or None
    if isinstance(kind, str):
        if kind.endswith("List") and (items := _list(fields.get("items", _NULL), where)):
            for index, item in enumerate(items):
                at = f"{where}: items[{index}]"
                yield from _objects(item, at, kind.removesuffix("List"), wanted)
        elif (plural := _plural(kind, fields, where)) in wanted:
            yield plural, raw, f"{where} ({kind})"
        elif not kind.endswith("List"):
            _refuse_others(kind, raw, where)
        return
    known = [name for name in fields if name in wanted]
    if not known and fields:
        raise StateError(f"{where}: kind is {kind!r}; a List or cluster objects are needed")
    for plural in known:
        items = _list(fields[plural], f"{where}: {plural}")
        if items is None:
            raise StateError(f"{where}: {plural} is not a list")
        for index, item in enumerate(items):
            yield plural, item, f"{where}: {plural}[{index}]"


def _plural(kind: str, fields: Mapping[str, msgspec.Raw], where: str) -> str:
    """Return the resource of an object, "" for one that is not in the table.

    Kinds such as Node are also those of other groups, such as longhorn.io. Objects that people
    write say v1 where the API server would not.
    """
    plural = PLURALS.get(kind, "")
    version = _value(fields.get("apiVersion", _NULL), where)
    group = version.rpartition("/")[0] if isinstance(version, str) else ""
    return "" if plural and group not in ("", RESOURCES[plural].group) else plural


def _refuse_others(kind: str, raw: _Raw, where: str) -> None:
    """Raise StateError if an object is none of a cluster's, though it may look like one."""
    value = _value(raw, where)
    if kind == "Status":
        raise StateError(f"{where}: a Status is no cluster object: {value.get('message') or kind}")
    if kind in _NOT_STATE:
        raise StateError(f"{where}: kind is {kind!r}: {_NOT_STATE[kind]}")
    if str(value.get("apiVersion", "")).startswith("audit.k8s.io/") or "auditID" in value:
        raise StateError(f"{where}: an audit event is no cluster object; --audit-log reads it")


def _list(raw: msgspec.Raw, where: str) -> list[msgspec.Raw] | None:
    """Return the items of a list, none for null; None if it is not a list."""
    try:
        return _decoded(raw, list[msgspec.Raw] | None, where) or []
    except msgspec.ValidationError:
        return None


def _value(raw: _Raw, where: str) -> Any:
    if len(raw) > MAX_LINE_BYTES:
        raise StateError(f"{where}: over {MAX_LINE_BYTES // MIB} MiB, the limit for one object")
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raw = without_managed_fields(bytes(raw))
    try:
        return _decoded(raw, Any, where)
    except msgspec.ValidationError as error:
        raise StateError(f"{where}: {error}") from None


def _decoded(raw: _Raw, wanted: Any, where: str) -> Any:
    """Return a decoded value.

    Raises:
        msgspec.ValidationError: it is JSON of another type.
        StateError: it is not JSON.
    """
    try:
        return msgspec.json.decode(raw, type=wanted)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StateError(f"{where}: {in_words(error)}") from None
    except RecursionError:
        raise StateError(f"{where}: nested too deeply") from None
