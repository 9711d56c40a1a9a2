"""Read documents: JSON, JSON lines, arrays, Lists, YAML, each also as ``.gz``, and stdin.

Captures and audit logs hold what callers sent, and gzip may unpack to a thousand times its size, so
every read is bounded.
"""

import contextlib
import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from noderestrict.api import scanner
from noderestrict.policy.text import printable

STDIN = "-"
MIB = 1024 * 1024
#: Limit for a file that is read as a whole, unpacked.
MAX_FILE_BYTES = 512 * MIB
#: Limit for a line and for a review, which holds two objects of up to 3 MiB each.
MAX_LINE_BYTES = 32 * MIB
#: A value takes far more memory than its comma does: any document may hold this many, and a larger
#: one as many as are usual for its size.
_VALUES = 2_000_000
_BYTES_PER_VALUE = 16
#: Each MiB of YAML costs about a second and 100 MiB of memory.
_MAX_YAML_BYTES = 16 * MIB
_MAX_YAML_VALUES = 500_000
_CHUNK = MIB
#: Audit logs compress 10 to 50 times; gzip can reach 1,000.
_MAX_RATIO = 200
_PACKED = b"\x1f\x8b"
_YAML = (".yaml", ".yml")
#: What PyYAML raises besides YAMLError for a value that does not match its tag, and what code that
#: takes apart a value of an unexpected shape raises.
YAML_VALUE_ERRORS = (
    ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError,
)  # fmt: skip
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_START = re.compile(rb"\S")
# Lone surrogates, which the API server stores and msgspec rejects.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# Free-form JSON of any depth that no rule reads: in an object, a review, a case, an audit event.
_MANAGED_FIELDS = tuple(
    (*path, b"metadata", b"managedFields")
    for path in (
        (),
        (b"request", b"object"),
        (b"request", b"oldObject"),
        (b"review", b"request", b"object"),
        (b"review", b"request", b"oldObject"),
        (b"requestObject",),
        (b"responseObject",),
    )
)
# On Python 3.11 callers count towards the depth that msgspec accepts; this is more than any later
# decoding of the same document has.
_CALLERS = 100
#: No decoder objects to the depth of so few brackets.
_HARMLESS = 500


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A place in a file that cannot be read; the rest of the file still is.

    Attributes:
        file: its path, ``-`` for stdin.
        line: counted from 1, 0 for the whole file.
        problem: what is wrong with it.
    """

    file: str
    line: int
    problem: str

    def __str__(self) -> str:
        """Return the place with its problem."""
        where = f"{self.file}:{self.line}" if self.line else self.file
        return printable(f"{where}: {self.problem}")


@dataclass(frozen=True, slots=True)
class Document:
    """One JSON value, and where it comes from.

    Attributes:
        file: its path, ``-`` for stdin.
        line: counted from 1.
        raw: its JSON.
        kind: its kind if it does not say, as in a typed list.
    """

    file: str
    line: int
    raw: bytes
    kind: str = ""


class _Head(msgspec.Struct):
    kind: Any = None
    items: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Counted:
    """A stream that counts the bytes read from it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.bytes = 0

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        data = self._stream.read(size)
        self.bytes += len(data)
        return data


class _Unpacked(io.RawIOBase):
    """The content of a gzip stream, up to a multiple of its size."""

    def __init__(self, packed: BinaryIO, max_ratio: int | None) -> None:
        self._packed = _Counted(packed)
        self._max_ratio = max_ratio
        self._gzip = gzip.GzipFile(fileobj=cast("BinaryIO", self._packed))
        self._bytes = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with the next bytes, and return their number.

        Raises:
            OSError: the stream unpacks to more than any log does.
        """
        data = self._gzip.read1(len(buffer))
        buffer[: len(data)] = data
        self._bytes += len(data)
        most = (self._max_ratio or self._bytes) * self._packed.bytes
        if self._bytes > MAX_FILE_BYTES and self._bytes > most:
            raise OSError(f"it unpacks to over {self._max_ratio} times its size")
        return len(data)


@contextlib.contextmanager
def opened(file: str, max_ratio: int | None = _MAX_RATIO) -> Iterator[BinaryIO]:
    """Open a file, unpacked if it is gzip; ``-`` is stdin.

    Args:
        file: its path.
        max_ratio: a large file may unpack to this many times its size; None for no limit.

    Raises:
        OSError: the file cannot be read, now or later, or its gzip is broken.
    """
    with contextlib.ExitStack() as stack:
        if file == STDIN:
            plain: io.BufferedReader[Any] = io.BufferedReader(cast("Any", sys.stdin.buffer))
            stack.callback(plain.detach)
        else:
            plain = io.BufferedReader(stack.enter_context(Path(file).open("rb", buffering=0)))
        try:
            if plain.peek(2)[:2] != _PACKED:
                yield plain
                return
            unpacked = io.BufferedReader(_Unpacked(plain, max_ratio), _CHUNK)
            if unpacked.peek(2)[:2] == _PACKED:
                raise OSError("packed twice: unpack it once")
            yield unpacked
        except (EOFError, zlib.error) as error:
            raise OSError(f"broken gzip: {error}") from None


def lines(stream: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Yield each line with its number, counted from 1; None for one that is too long."""
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) <= MAX_LINE_BYTES:
            yield number, line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(_CHUNK)
        yield number, None


def too_long(file: str, line: int) -> Unreadable:
    """Return the problem of a line that is too long, or of a document that starts there."""
    return Unreadable(file, line, f"it has over {MAX_LINE_BYTES // MIB} MiB, the limit")


def _read(file: str, max_bytes: int) -> bytes | bytearray:
    data = bytearray()
    with opened(file, None) as stream:
        while chunk := stream.read(_CHUNK):
            data += chunk
            if len(data) > max_bytes:
                raise OSError(
                    f"it has over {max_bytes // MIB} MiB unpacked; --max-file-mib allows more"
                )
    if data.startswith(_BYTE_ORDER_MARK):
        del data[: len(_BYTE_ORDER_MARK)]
    return data


def documents(file: str, max_bytes: int = MAX_FILE_BYTES) -> Iterator[Document | Unreadable]:
    """Yield every document of a file; Lists and arrays give their items.

    Args:
        file: ``-`` for stdin.
        max_bytes: limit for the unpacked file, unless its name says JSON lines.
    """
    try:
        if file.removesuffix(".gz").endswith(".jsonl"):
            with opened(file) as stream:
                yield from _json_lines(file, stream)
        else:
            yield from _documents(file, _read(file, max_bytes))
    except OSError as error:
        yield Unreadable(file, 0, error.strerror or str(error))


def _documents(file: str, data: bytes | bytearray) -> Iterator[Document | Unreadable]:
    start = _START.search(data)
    if start is None:
        yield Unreadable(file, 0, "it is empty")
        return
    if file.removesuffix(".gz").endswith(_YAML) or start[0] not in (b"{", b"["):
        yield from _yaml(file, data)
        return
    try:
        _decode_below(data, _CALLERS)
    except (msgspec.DecodeError, RecursionError) as error:
        if isinstance(error, RecursionError) or _SURROGATE.search(data):
            yield from _deep(file, bytes(data))
            return
        end = data.find(b"\n", start.start())
        if not _is_json(data[start.start() : end if end >= 0 else None]):
            # One value over several lines: each of them would be an error of its own.
            yield Unreadable(file, _line_of(data, error), f"not JSON: {error}")
            return
        yield from _json_lines(file, io.BytesIO(data))
    else:
        yield from _items(file, 1, data)


def _deep(file: str, data: bytes) -> Iterator[Document | Unreadable]:
    """Yield the documents of a file that no decoder accepts as a whole."""
    try:
        kind = scanner.members(data, (b"kind",)).get(b"kind", b"null")
        if kind.endswith(b'List"'):
            splitter = scanner.ListSplitter(MAX_LINE_BYTES)
            splitter.add(data)
            name = str(msgspec.json.decode(kind)).removesuffix("List")
            for item in splitter.split(last=True):
                yield Document(file, 1, shallow(item), name)
            return
    except (scanner.ScanError, msgspec.DecodeError):
        # Not one value, but perhaps one on each line.
        yield from _json_lines(file, io.BytesIO(data))
    else:
        yield from _items(file, 1, shallow(data))


def shallow(data: bytes | bytearray) -> bytes:
    """Return JSON, without managedFields if the decoder rejects it with them."""
    if data.count(b"{") + data.count(b"[") > _HARMLESS or _SURROGATE.search(data):
        try:
            _decode_below(data, _CALLERS)
        except (msgspec.DecodeError, RecursionError):
            return without_managed_fields(bytes(data))
    return bytes(data)


def without_managed_fields(data: bytes) -> bytes:
    """Return an object, review, case or audit event without the managedFields of its objects."""
    try:
        return scanner.cut(data, _MANAGED_FIELDS)
    except scanner.ScanError:
        return data


def _decode_below(data: bytes | bytearray, callers: int) -> None:
    if callers:
        _decode_below(data, callers - 1)
    else:
        msgspec.json.decode(data, type=msgspec.Raw)


def _is_json(data: bytes | bytearray) -> bool:
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _line_of(data: bytes | bytearray, error: Exception) -> int:
    """Return the line of an error, 1 if the error does not say."""
    at = re.search(r"\(byte (\d+)\)", str(error))
    return data.count(b"\n", 0, int(at[1])) + 1 if at else 1


def _json_lines(file: str, stream: BinaryIO) -> Iterator[Document | Unreadable]:
    empty = True
    for number, line in lines(stream):
        if line is None:
            empty = False
            yield too_long(file, number)
            continue
        text = line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
        if text.strip():
            empty = False
            yield from _items(file, number, shallow(text))
    if empty:
        yield Unreadable(file, 0, "it is empty")


def _items(file: str, line: int, raw: bytes | bytearray) -> Iterator[Document | Unreadable]:
    values = max(_VALUES, len(raw) // _BYTES_PER_VALUE)
    if raw.count(b",") > values:
        yield Unreadable(file, line, f"it holds over {values} values, the limit")
        return
    start = _START.search(raw)
    try:
        if start is not None and start[0] == b"[":
            for item in msgspec.json.decode(raw, type=list[msgspec.Raw]):
                yield Document(file, line, bytes(item))
            return
        head = msgspec.json.decode(raw, type=_Head)
        if isinstance(head.kind, str) and head.kind.endswith("List") and head.items:
            for item in msgspec.json.decode(head.items, type=list[msgspec.Raw]):
                yield Document(file, line, bytes(item), head.kind.removesuffix("List"))
            return
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        yield Unreadable(file, line, f"unexpected JSON: {error}")
        return
    except RecursionError:
        yield Unreadable(file, line, "nested too deeply")
        return
    yield Document(file, line, bytes(raw))


def _yaml(file: str, data: bytes | bytearray) -> Iterator[Document | Unreadable]:
    if len(data) > _MAX_YAML_BYTES or sum(map(data.count, b",\n")) > _MAX_YAML_VALUES:
        yield Unreadable(
            file,
            0,
            f"YAML over {_MAX_YAML_BYTES // MIB} MiB or {_MAX_YAML_VALUES} lines is not supported; "
            f"use JSON",
        )
        return
    found = False
    # Imported here: most input is JSON, and the import slows start-up.
    import yaml

    try:

        class Loader(yaml.SafeLoader):
            """Rejects aliases: a few of them can expand to more than fits into memory."""

            def compose_node(self, parent: Any, index: Any) -> Any:
                if self.check_event(yaml.AliasEvent):
                    mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
                    problem = "aliases are not supported"
                    raise yaml.composer.ComposerError(None, None, problem, mark)
                return super().compose_node(parent, index)

        loader = Loader(bytes(data))
        # Timestamps stay text, as in JSON.
        loader.yaml_implicit_resolvers = {
            key: [entry for entry in entries if entry[0] != "tag:yaml.org,2002:timestamp"]
            for key, entries in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }
        while loader.check_node() and (node := loader.get_node()) is not None:
            line = node.start_mark.line + 1
            value = loader.construct_document(node)
            if value is not None:
                found = True
                yield from _items(file, line, msgspec.json.encode(value))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or getattr(error, "reason", "not YAML")
        yield Unreadable(file, mark.line + 1 if mark else 0, f"neither JSON nor YAML: {problem}")
    except YAML_VALUE_ERRORS as error:
        yield Unreadable(file, 0, f"YAML that JSON cannot express: {error}")
    else:
        if not found:
            yield Unreadable(file, 0, "it holds nothing but null and comments")
