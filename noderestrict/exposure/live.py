"""Read a live cluster, as far as we may; of Secrets, metadata at most."""

from collections.abc import AsyncIterator

import msgspec

from noderestrict.api import corev1
from noderestrict.api.metav1 import ObjectMeta, PartialObject
from noderestrict.api.resources import RESOURCES
from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.load import load
from noderestrict.cluster.objects import DECODE_ERRORS
from noderestrict.cluster.pages import ListMeta
from noderestrict.cluster.server_info import server_version
from noderestrict.exposure.world import HIDDEN, STRUCTS, Reader, World
from noderestrict.survey.objects import NotSeen

_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
_PAGE_SIZE = "500"
_SECRETS = "secrets"
BY_REFERENCE = (
    "Secrets are known by what refers to them; --secrets lists all of them, without their data. "
    "The right to list them reads their data anyway."
)


async def from_cluster(connection: Connection, *, secrets: bool = False) -> World:
    """Return a live cluster.

    Args:
        connection: to the API server.
        secrets: whether to list Secrets, as a Table with their metadata.

    Raises:
        ClusterError: no API server answered.
    """
    reader = Reader()
    loaded = await load(
        connection, {plural: struct for plural, struct in STRUCTS.items() if plural != _SECRETS}
    )
    for plural, objects in loaded.objects.items():
        if plural not in loaded.problems:
            reader.resources.add(plural)
        for value in objects:
            reader.add(plural, value)
    not_seen = [
        NotSeen(plural, why, HIDDEN[plural])
        for plural, why in loaded.problems.items()
        if plural in HIDDEN
    ]
    if secrets:
        try:
            async for secret in _secrets(connection):
                reader.add(_SECRETS, secret)
            reader.resources.add(_SECRETS)
        except ClusterError as error:
            not_seen.append(NotSeen(_SECRETS, str(error), "Secrets that nothing refers to"))
    try:
        reader.world.minor, _ = await server_version(connection)
    except ClusterError as error:
        not_seen.append(NotSeen("version", str(error), "whose rules about nodes hold"))
    reader.world.not_seen = not_seen
    if not secrets:
        reader.world.notes.append(BY_REFERENCE)
    return reader.finish()


class _Column(msgspec.Struct):
    name: str


class _Row(msgspec.Struct):
    cells: list[object]
    object: PartialObject


class _Table(msgspec.Struct):
    kind: str
    metadata: ListMeta
    columnDefinitions: list[_Column] | None = None  # noqa: N815 (the API's name)
    rows: list[_Row] | None = None


async def _secrets(connection: Connection) -> AsyncIterator[corev1.SecretType]:
    """Yield all Secrets with their types, without their data.

    Raises:
        ClusterError: they could not be read.
    """
    path = RESOURCES[_SECRETS].list_path
    query = {"limit": _PAGE_SIZE, "includeObject": "Metadata"}
    while True:
        body = await connection.get(path, query, accept=_TABLE)
        try:
            table = msgspec.json.decode(body, type=_Table)
        except DECODE_ERRORS as error:
            raise ClusterError(f"GET {path}: not a Table: {error}") from None
        names = [column.name for column in table.columnDefinitions or ()]
        at = names.index("Type") if "Type" in names else None
        for row in table.rows or ():
            metadata = row.object.metadata or ObjectMeta()
            kind = row.cells[at] if at is not None and at < len(row.cells) else None
            yield corev1.SecretType(metadata=metadata, type=str(kind) if kind else None)
        if not table.metadata.continue_:
            return
        query["continue"] = table.metadata.continue_
