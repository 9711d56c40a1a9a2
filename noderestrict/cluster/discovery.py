"""Which version of a resource the API server serves: newer resources moved through several."""

import time
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from typing import TypeVar

import msgspec

from noderestrict.api.resources import Resource
from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.objects import DECODE_ERRORS

_CALL_SECONDS = 5.0

_T = TypeVar("_T")


class _Version(msgspec.Struct):
    version: str = ""


class _Group(msgspec.Struct):
    versions: list[_Version] | None = None


class _Name(msgspec.Struct):
    name: str = ""


class _Resources(msgspec.Struct):
    resources: list[_Name] | None = None


class Discovery:
    """Finds the versions that an API server serves.

    Args:
        connection: to the API server.
        seconds: how long to keep an answer; an upgraded API server serves an older version for
            several releases.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        connection: Connection,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._seconds = seconds
        self._clock = clock
        self._found: dict[str, tuple[float, Resource | None]] = {}

    async def served(self, resource: Resource) -> Resource | None:
        """Return a resource in the newest known version that is served; None if none is.

        Raises:
            ClusterError: the API server did not answer.
        """
        if not resource.older_versions:
            return resource
        known = self._found.get(resource.plural)
        if known is not None and self._clock() - known[0] < self._seconds:
            return known[1]
        asked = self._clock()
        found = await self._look_up(resource)
        self._found[resource.plural] = asked, found
        return found

    async def _look_up(self, resource: Resource) -> Resource | None:
        group = await self._get(f"/apis/{resource.group}", _Group)
        served = {one.version for one in (group.versions if group else None) or ()}
        for version in (resource.version, *resource.older_versions):
            if version not in served:
                continue
            listed = await self._get(f"/apis/{resource.group}/{version}", _Resources)
            names = (one.name for one in (listed.resources if listed else None) or ())
            if resource.plural in names:
                return replace(resource, version=version)
        return None

    async def _get(self, path: str, kind: type[_T]) -> _T | None:
        try:
            body = await self._connection.get(path, seconds=_CALL_SECONDS)
        except ClusterError as error:
            if error.code == HTTPStatus.NOT_FOUND:
                return None
            raise
        try:
            return msgspec.json.decode(body, type=kind)
        except DECODE_ERRORS as error:
            raise ClusterError(f"{path}: {error}") from None
