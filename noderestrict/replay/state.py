"""Read cluster objects as ``kubectl get -o json`` writes them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from noderestrict.graph.graph import Graph
from noderestrict.graph.objects import PLURALS, RESOURCES
from noderestrict.policy.listers import RECORDS, MemoryListers
from noderestrict.replay.sources import Unreadable, documents

_PLURALS = {
    "Node": "nodes",
    "Pod": "pods",
    "ServiceAccount": "serviceaccounts",
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "PersistentVolume": "persistentvolumes",
    "CSIDriver": "csidrivers",
    **PLURALS,
}


class StateError(ValueError):
    """Cluster objects cannot be read; the message names file, object and field."""


def load_state(files: Iterable[str], graph: Graph | None = None) -> MemoryListers:
    """Return the objects of all files as listers; kinds that nothing looks up are skipped.

    Args:
        files: as ``kubectl get -o json`` writes them.
        graph: for the Node authorizer, filled too.

    Raises:
        StateError: a file or an object in it cannot be read.
    """
    listers = MemoryListers()
    for file in files:
        for document in documents(file):
            if isinstance(document, Unreadable):
                raise StateError(f"--state {document}")
            try:
                value = msgspec.json.decode(document.raw)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise StateError(f"--state {file}:{document.line}: {error}") from None
            if document.kind and isinstance(value, dict):
                value = {"kind": document.kind, **value}
            add_objects(listers, value, f"--state {file}", graph)
    return listers


def add_objects(listers: MemoryListers, value: Any, where: str, graph: Graph | None = None) -> None:
    """Add a List, an object of lists by plural resource, or one object to the listers.

    Raises:
        StateError: an object cannot be read; ``where`` starts the message.
    """
    for plural, item, at in _objects(value, where):
        decoded = convert_object(plural, item, at)
        if graph is not None:
            graph.upsert(plural, decoded)
        if plural in RECORDS:
            listers.add(RECORDS[plural][1](decoded))


def convert_object(plural: str, item: Any, where: str) -> Any:
    """Return an object as its Struct.

    Raises:
        StateError: it is none, or has no name; ``where`` starts the message.
    """
    struct = RECORDS[plural][0] if plural in RECORDS else RESOURCES[plural][1]
    try:
        decoded: Any = msgspec.convert(item, struct)
    except msgspec.ValidationError as error:
        raise StateError(f"{where}: {error}") from None
    if decoded.metadata is None or not decoded.metadata.name:
        raise StateError(f"{where}: metadata.name is missing")
    return decoded


def _objects(value: Any, where: str) -> Iterator[tuple[str, Any, str]]:
    if not isinstance(value, Mapping):
        raise StateError(f"{where}: a {type(value).__name__} is no cluster object")
    kind = value.get("kind")
    items = value.get("items")
    if isinstance(kind, str) and kind.endswith("List") and isinstance(items, list):
        for index, item in enumerate(items):
            if isinstance(item, Mapping) and "kind" not in item and kind != "List":
                item = {**item, "kind": kind.removesuffix("List")}
            yield from _objects(item, f"{where}: items[{index}]")
    elif isinstance(kind, str):
        if kind in _PLURALS:
            yield _PLURALS[kind], value, f"{where} ({kind})"
    else:
        known = [name for name in value if name in RECORDS or name in RESOURCES]
        if not known and value:
            raise StateError(f"{where}: kind is {kind!r}; a List or cluster objects are needed")
        for plural in known:
            items = value[plural]
            if not isinstance(items, list | None):
                raise StateError(f"{where}: {plural} is no list")
            for index, item in enumerate(items or ()):
                yield plural, item, f"{where}: {plural}[{index}]"
