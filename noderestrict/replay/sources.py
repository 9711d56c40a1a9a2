"""Open files and stdin, whatever they are packed with.

Captures and audit logs hold what callers sent, and gzip may unpack to a thousand times its size, so
every read is bounded.
"""

import codecs
import contextlib
import functools
import gzip
import importlib
import io
import re
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

import msgspec

from noderestrict.api import scanner
from noderestrict.policy.text import printable

STDIN = "-"
MIB = 1024 * 1024
#: Limit for a file that is read as a whole, unpacked.
MAX_FILE_BYTES = 512 * MIB
#: Limit for a line and for a review, which holds two objects of up to 3 MiB each.
MAX_LINE_BYTES = 32 * MIB
_CHUNK = MIB
#: Audit logs compress 10 to 50 times; gzip can reach 1,000.
_MAX_RATIO = 200
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
#: Where Python, or a package, unpacks Zstandard.
_ZSTD_MODULES = ("compression.zstd", "backports.zstd")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
#: As PowerShell writes text.
_UTF_16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
#: Enough to see what a file holds.
_HEAD_BYTES = 65_536
# Lone surrogates, which the API server stores and msgspec rejects.
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
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
CALLERS = 100
_LONGEST_PROBLEM = 2_000
#: No decoder objects to the depth of so few brackets.
_HARMLESS = 500


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A place in a file that cannot be read; the rest of the file still is.

    Attributes:
        file: its path, ``-`` for stdin.
        line: counted from 1, 0 for the whole file.
        problem: what is wrong with it.
        count: how many places it stands for.
    """

    file: str
    line: int
    problem: str
    count: int = 1

    def __str__(self) -> str:
        """Return the place with its problem."""
        where = f"{self.file}:{self.line}" if self.line else self.file
        # It may quote what somebody else chose.
        problem = self.problem
        if len(problem) > _LONGEST_PROBLEM:
            half = _LONGEST_PROBLEM // 2
            problem = f"{problem[:half]}...{problem[-half:]}"
        return printable(f"{where}: {problem}")


@dataclass(frozen=True, slots=True)
class Document:
    """One JSON value, and where it comes from.

    Attributes:
        file: its path, ``-`` for stdin.
        line: counted from 1.
        raw: its JSON.
        kind: its kind if it does not say, as in a typed list.
        lacks: what its form leaves out, and what is taken instead; "" for nothing.
    """

    file: str
    line: int
    raw: bytes
    kind: str = ""
    lacks: str = ""


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
    """The content of a packed stream, up to a multiple of its size."""

    def __init__(self, packed: BinaryIO, max_ratio: int | None, unpacker: Any) -> None:
        self._packed = _Counted(packed)
        self._max_ratio = max_ratio
        self._unpacker = unpacker(self._packed)
        self._bytes = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with the next bytes, and return their number.

        Raises:
            OSError: the stream unpacks to more than any log does.
        """
        data = self._unpacker.read1(len(buffer))
        buffer[: len(data)] = data
        self._bytes += len(data)
        most = (self._max_ratio or self._bytes) * self._packed.bytes
        if self._bytes > MAX_FILE_BYTES and self._bytes > most:
            raise OSError(f"it unpacks to over {self._max_ratio} times its size")
        return len(data)


class _Recoded(io.RawIOBase):
    """A stream of UTF-16, as UTF-8."""

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
        self._rest = b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with the next bytes, and return their number."""
        while not self._rest:
            data = self._stream.read(_HEAD_BYTES)
            self._rest = self._decoder.decode(data, final=not data).encode()
            if not data:
                break
        part, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


def _gzip_file(stream: _Counted) -> Any:
    return gzip.GzipFile(fileobj=cast("BinaryIO", stream))


def _zstd_file(stream: _Counted) -> Any:
    for name in _ZSTD_MODULES:
        with contextlib.suppress(ImportError):
            return _ZstdReader(stream, importlib.import_module(name))
    raise OSError(
        "it is packed with Zstandard: install noderestrict[zstd], or unpack it with 'zstd -d'"
    )


class _ZstdReader:
    """Unpacks a Zstandard stream, with ``read1`` as gzip's."""

    def __init__(self, stream: _Counted, zstd: Any) -> None:
        self._file = zstd.ZstdFile(stream)
        self._error = zstd.ZstdError

    def read1(self, size: int) -> bytes:
        """Return the next bytes.

        Raises:
            OSError: the stream is broken.
        """
        try:
            return bytes(self._file.read1(size))
        except self._error as error:
            raise OSError(f"broken Zstandard: {error}") from None


_UNPACKERS = {_GZIP: _gzip_file, _ZSTD: _zstd_file}


#: What cannot be unpacked here, by how it begins.
_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"PK\x03\x04": "zip"}


def _refuse_others(start: bytes) -> None:
    for magic, name in _OTHERS.items():
        if start.startswith(magic):
            raise OSError(f"it is packed with {name}: unpack it first, or pack it with gzip")


def _unpacker(start: bytes) -> Any:
    return next((make for magic, make in _UNPACKERS.items() if start.startswith(magic)), None)


@functools.lru_cache(maxsize=1)
def _buffered(stdin: TextIO) -> "io.BufferedReader[Any]":
    """Return stdin with one buffer for all who look at it: what was only seen can still be read."""
    return io.BufferedReader(cast("Any", stdin.buffer), _HEAD_BYTES)


@contextlib.contextmanager
def opened(file: str, max_ratio: int | None = _MAX_RATIO) -> Iterator[BinaryIO]:
    """Open a file, unpacked if it is packed and in UTF-8 if it is UTF-16; ``-`` is stdin.

    Args:
        file: its path.
        max_ratio: a large file may unpack to this many times its size; None for no limit.

    Raises:
        OSError: the file cannot be read, now or later, or its packing is broken or unknown.
    """
    with contextlib.ExitStack() as stack:
        if file == STDIN:
            plain = _buffered(sys.stdin)
        else:
            plain = io.BufferedReader(stack.enter_context(Path(file).open("rb", buffering=0)))
        try:
            _refuse_others(plain.peek(6))
            unpacker = _unpacker(plain.peek(4))
            if unpacker is not None:
                plain = io.BufferedReader(_Unpacked(plain, max_ratio, unpacker), _CHUNK)
                if _unpacker(plain.peek(4)) is not None:
                    raise OSError("packed twice: unpack it once")
            encoding = _UTF_16.get(plain.peek(2)[:2])
            if encoding is not None:
                plain.read(2)
                plain = io.BufferedReader(_Recoded(plain, encoding), _CHUNK)
            yield plain
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            what = "Zstandard" if unpacker is _zstd_file else "gzip"
            raise OSError(f"broken {what}: {error}") from None


def head(file: str) -> bytes:
    """Return the first bytes of a file, unpacked, for a look at what it holds.

    Args:
        file: its path; stdin can still be read from its start.

    Returns:
        b"" if it cannot be read, which is said when it is, or is a pipe, which gives it only once.
    """
    try:
        if file != STDIN:
            if not Path(file).is_file():
                return b""
            with opened(file) as stream:
                return stream.read(_HEAD_BYTES)
        start = _buffered(sys.stdin).peek(_HEAD_BYTES)
        unpacker = _unpacker(start)
        if unpacker is not None:
            start = bytes(unpacker(io.BytesIO(start)).read1(_HEAD_BYTES))
        encoding = _UTF_16.get(start[:2])
        return start if encoding is None else start[2:].decode(encoding, errors="replace").encode()
    except (OSError, EOFError, zlib.error):
        return b""


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


def shallow(data: bytes | bytearray) -> bytes:
    """Return JSON, without managedFields if the decoder rejects it with them."""
    if data.count(b"{") + data.count(b"[") > _HARMLESS or SURROGATE.search(data):
        try:
            decode_below(data, CALLERS)
        except (msgspec.DecodeError, RecursionError):
            return without_managed_fields(bytes(data))
    return bytes(data)


def without_managed_fields(data: bytes) -> bytes:
    """Return an object, review, case or audit event without the managedFields of its objects."""
    try:
        return scanner.cut(data, _MANAGED_FIELDS)
    except scanner.ScanError:
        return data


def decode_below(data: bytes | bytearray, callers: int) -> None:
    """Decode JSON, with room for more callers than now.

    Raises:
        RecursionError, msgspec.DecodeError: it is nested too deeply, or not JSON.
    """
    if callers:
        decode_below(data, callers - 1)
    else:
        msgspec.json.decode(data, type=msgspec.Raw)
