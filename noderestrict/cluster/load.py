"""Read whole resources of a cluster once, as far as we may."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from noderestrict.api.resources import RESOURCES
from noderestrict.api.scanner import ScanError
from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.objects import DECODE_ERRORS, ObjectDecoder, Unreadable
from noderestrict.cluster.pages import pages

_PAGE_SIZE = 500
_MOST_NAMED = 3


@dataclass(slots=True)
class Loaded:
    """The objects of some resources.

    Attributes:
        objects: by plural resource; empty for what could not be read.
        problems: why a resource, or some objects of it, could not be read.
    """

    objects: dict[str, list[Any]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


async def load(connection: Connection, structs: Mapping[str, type[msgspec.Struct]]) -> Loaded:
    """Return all objects of some resources; one that cannot be read costs only itself.

    Args:
        connection: to the API server.
        structs: what to read of an object, by plural resource.

    Raises:
        ClusterError: nothing at all could be read, because no API server answered.
    """
    loaded = Loaded()
    for plural, struct in structs.items():
        objects: list[Any] = []
        loaded.objects[plural] = objects
        try:
            await _read(connection, plural, struct, objects, loaded.problems)
        except ClusterError as error:
            if not error.code and not any(loaded.objects.values()):
                raise
            loaded.problems[plural] = str(error)
        except (*DECODE_ERRORS, ScanError) as error:
            loaded.problems[plural] = f"GET {RESOURCES[plural].list_path}: {error}"
    return loaded


async def _read(
    connection: Connection,
    plural: str,
    struct: type[msgspec.Struct],
    objects: list[Any],
    problems: dict[str, str],
) -> None:
    decoder = ObjectDecoder(struct)
    lost: list[Unreadable] = []
    async for part in pages(connection, RESOURCES[plural].list_path, _PAGE_SIZE):
        for raw in part.items:
            value = decoder.quick(raw)
            if value is None:
                value = await decoder.decode(raw)
            if isinstance(value, Unreadable):
                lost.append(value)
            else:
                objects.append(value)
        await asyncio.sleep(0)
    if lost:
        names = ", ".join(
            f"{one.namespace}/{one.name}".strip("/") or "?" for one in lost[:_MOST_NAMED]
        )
        more = f" and {len(lost) - _MOST_NAMED} more" if len(lost) > _MOST_NAMED else ""
        problems[plural] = f"{plural} {names}{more} cannot be decoded: {lost[0].problem}"
