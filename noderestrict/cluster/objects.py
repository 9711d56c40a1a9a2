"""Decode objects of the cluster, so that an undecodable object affects only itself."""

import asyncio
from dataclasses import dataclass
from typing import Any

import msgspec

from noderestrict.api import scanner

#: Free-form JSON that only the API server and its authors understand.
MANAGED_FIELDS = (b"metadata", b"managedFields")
#: What msgspec raises for JSON that it cannot decode, or cannot decode as the given type.
DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

#: Anything longer takes milliseconds to decode, and is decoded in a thread.
LONG = 2**16


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An undecodable object.

    Attributes:
        namespace: "" for none.
        name: "" if the name cannot be read either.
        version: its resourceVersion, None if unknown.
        problem: why it is undecodable.
    """

    namespace: str
    name: str
    version: str | None
    problem: str


class _VersionMeta(msgspec.Struct, gc=False):
    resourceVersion: str | None = None  # noqa: N815 (the API's name)


class _Versioned(msgspec.Struct, gc=False):
    metadata: _VersionMeta | None = None


_versions = msgspec.json.Decoder(_Versioned)


class ObjectDecoder:
    """Decodes the objects of one resource.

    Args:
        struct: of one object.
    """

    def __init__(self, struct: type[msgspec.Struct]) -> None:
        self._decoder = msgspec.json.Decoder(struct)

    def quick(self, raw: bytes | msgspec.Raw) -> Any:
        """Return the object; None if ``decode`` is needed."""
        if len(raw) > LONG:
            return None
        try:
            return self._decoder.decode(raw)
        except DECODE_ERRORS:
            return None

    async def decode(self, raw: bytes | msgspec.Raw) -> Any:
        """Return the object, or an Unreadable; works in a thread.

        Raises:
            ScanError: the input is not JSON.
        """
        value, _ = await self.decode_versioned(raw)
        return value

    async def decode_versioned(self, raw: bytes | msgspec.Raw) -> tuple[Any, str | None]:
        """Return the object, or an Unreadable, with its resourceVersion; works in a thread.

        Raises:
            ScanError: the input is not JSON.
        """
        return await asyncio.to_thread(self._decode, bytes(raw))

    def _decode(self, raw: bytes) -> tuple[Any, str | None]:
        try:
            return self._decoder.decode(raw), version_of(raw)
        except DECODE_ERRORS:
            pass
        try:
            rest = scanner.cut(raw, (MANAGED_FIELDS,))
            return self._decoder.decode(rest), version_of(rest)
        except (*DECODE_ERRORS, scanner.ScanError) as error:
            problem = str(error)
        scanner.check(raw)
        lost = Unreadable(*_identity(raw), problem)
        return lost, lost.version


def version_of(raw: bytes | msgspec.Raw) -> str | None:
    """Return the resourceVersion of an object; None if it is missing or unreadable."""
    try:
        meta = _versions.decode(raw).metadata
    except DECODE_ERRORS:
        return None
    return meta.resourceVersion if meta else None


def tree(raw: bytes) -> Any:
    """Return an object or a list of objects as plain values.

    If msgspec cannot decode it whole, managedFields are left out. Objects of a list that are still
    undecodable are left out too.

    Raises:
        ScanError: the input is not JSON, or not an object that msgspec can decode.
    """
    try:
        return msgspec.json.decode(raw)
    except DECODE_ERRORS:
        pass
    try:
        return msgspec.json.decode(scanner.cut(raw, (MANAGED_FIELDS,)))
    except DECODE_ERRORS:
        pass
    if not scanner.members(raw, (b"items",)):
        raise scanner.ScanError("it is an object that cannot be decoded")
    splitter = scanner.ListSplitter()
    splitter.add(raw)
    items = []
    for item in splitter.split(last=True):
        try:
            items.append(msgspec.json.decode(scanner.cut(item, (MANAGED_FIELDS,))))
        except (*DECODE_ERRORS, scanner.ScanError):
            continue
    return {"items": items}


class _IdentityMeta(msgspec.Struct, gc=False):
    namespace: str | None = None
    name: str | None = None


_identities = msgspec.json.Decoder(_IdentityMeta)


def _identity(raw: bytes) -> tuple[str, str, str | None]:
    """Return the namespace, name and resourceVersion of an object, as far as readable."""
    try:
        metadata = scanner.members(raw, (b"metadata",)).get(b"metadata", b"{}")
        meta = scanner.cut(metadata, (MANAGED_FIELDS[1:],))
        found = _identities.decode(meta)
    except (*DECODE_ERRORS, scanner.ScanError):
        return "", "", None
    return found.namespace or "", found.name or "", version_of(b'{"metadata":%b}' % meta)
