"""Read files with cluster objects for a survey."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from noderestrict.replay.sources import MAX_FILE_BYTES
from noderestrict.replay.state import StateError, read_objects
from noderestrict.survey.objects import HIDDEN, STRUCTS, NotSeen, Objects

_SUFFIXES = (".json", ".jsonl", ".yaml", ".yml")
_PACKED = (".gz", ".zst")


def from_files(
    paths: Iterable[str], minor: int | None = None, max_bytes: int = MAX_FILE_BYTES
) -> Objects:
    """Return the objects of some files.

    Args:
        paths: files as ``kubectl get -o json`` writes them, and folders of such files.
        minor: of the API server that they come from, None if it is not known.
        max_bytes: limit for each file, unpacked.

    Raises:
        StateError: a file cannot be read.
    """
    found = Objects(minor=minor)
    seen: set[tuple[str, str, str]] = set()
    for plural, value in read_objects(files_of(paths), STRUCTS, max_bytes):
        metadata = value.metadata
        key = plural, metadata.namespace or "", metadata.name or ""
        # The same list may be in two files.
        if key not in seen:
            seen.add(key)
            found.by_resource[plural].append(value)
    found.not_seen = [
        NotSeen(plural, "the files hold none", HIDDEN[plural])
        for plural, objects in found.by_resource.items()
        if not objects
    ]
    return found


def files_of(paths: Iterable[str]) -> Sequence[str]:
    """Return files, and all of those in folders that may hold objects.

    Raises:
        StateError: a folder holds none.
    """
    files: list[str] = []
    for path in paths:
        folder = Path(path)
        if not folder.is_dir():
            files.append(path)
            continue
        inside = sorted(str(one) for one in folder.rglob("*") if _may_hold_objects(one))
        if not inside:
            raise StateError(f"--state {path}: the folder holds no {', '.join(_SUFFIXES)}")
        files += inside
    return files


def _may_hold_objects(path: Path) -> bool:
    name = path.name
    for packed in _PACKED:
        name = name.removesuffix(packed)
    return name.endswith(_SUFFIXES) and path.is_file()
