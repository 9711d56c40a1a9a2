"""Read files with cluster objects; the data of Secrets is dropped."""

from collections.abc import Iterable

from noderestrict.exposure.world import HIDDEN, RARE, STRUCTS, Reader, World
from noderestrict.replay.sources import MAX_FILE_BYTES
from noderestrict.replay.state import read_objects
from noderestrict.survey.files import files_of
from noderestrict.survey.objects import NotSeen


def from_files(
    paths: Iterable[str], minor: int | None = None, max_bytes: int = MAX_FILE_BYTES
) -> World:
    """Return the cluster whose objects some files hold.

    Args:
        paths: files as ``kubectl get -o json`` writes them, and folders of such files.
        minor: of the API server that they come from, None if it is not known.
        max_bytes: limit for each file, unpacked.

    Raises:
        StateError: a file cannot be read.
    """
    reader = Reader()
    reader.world.minor = minor
    for plural, value in read_objects(files_of(paths), STRUCTS, max_bytes):
        reader.add(plural, value)
    reader.world.not_seen = [
        NotSeen(plural, "the files hold none", hidden)
        for plural, hidden in HIDDEN.items()
        if plural not in reader.resources and plural not in RARE
    ]
    reader.world.notes += [
        f"The files hold no {plural}; if the cluster has any, it is hidden: {HIDDEN[plural]}."
        for plural in RARE
        if plural not in reader.resources
    ]
    return reader.finish()
