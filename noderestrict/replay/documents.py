"""Read documents: JSON, JSON lines, values one after another, arrays, Lists and YAML."""

import io
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import msgspec

from noderestrict.api import scanner
from noderestrict.policy.hostile import in_words
from noderestrict.replay.sources import (
    BYTE_ORDER_MARK,
    CALLERS,
    MAX_FILE_BYTES,
    MAX_LINE_BYTES,
    MIB,
    SURROGATE,
    Document,
    Unreadable,
    decode_below,
    lines,
    opened,
    shallow,
    too_long,
)
from noderestrict.replay.values import Keys, ValueReader

#: A value takes far more memory than its comma does: any document may hold this many, and a larger
#: one as many as are usual for its size.
_VALUES = 2_000_000
_BYTES_PER_VALUE = 16
#: Each MiB of YAML costs about a second and 100 MiB of memory.
_MAX_YAML_BYTES = 16 * MIB
_MAX_YAML_VALUES = 500_000
_YAML = (".yaml", ".yml")
#: What PyYAML raises besides YAMLError for a value that does not match its tag, and what code that
#: takes apart a value of an unexpected shape raises.
YAML_VALUE_ERRORS = (
    ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError,
)  # fmt: skip
_START = re.compile(rb"\S")
_GOES_ON = (
    "it is only a part of a list, since metadata.continue is set: get all of it, without a limit"
)


class _Head(msgspec.Struct):
    kind: Any = None
    items: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    metadata: msgspec.Raw = msgspec.Raw(b"null")


class _ListMetadata(msgspec.Struct):
    after: str | None = msgspec.field(name="continue", default=None)


def _read(file: str, max_bytes: int) -> bytes | bytearray:
    data = bytearray()
    with opened(file, None) as stream:
        while chunk := stream.read(MIB):
            data += chunk
            if len(data) > max_bytes:
                raise OSError(
                    f"it has over {max_bytes // MIB} MiB unpacked; --max-file-mib allows more"
                )
    if data.startswith(BYTE_ORDER_MARK):
        del data[: len(BYTE_ORDER_MARK)]
    return data


def documents(file: str, max_bytes: int = MAX_FILE_BYTES) -> Iterator[Document | Unreadable]:
    """Yield every document of a file; Lists and arrays give their items.

    Args:
        file: ``-`` for stdin.
        max_bytes: limit for the unpacked file, unless its name says JSON lines.
    """
    try:
        if _plain_name(file).endswith(".jsonl"):
            with opened(file) as stream:
                yield from _json_lines(file, stream)
        else:
            yield from _documents(file, _read(file, max_bytes))
    except OSError as error:
        yield Unreadable(file, 0, error.strerror or str(error))


def _plain_name(file: str) -> str:
    return file.removesuffix(".gz").removesuffix(".zst")


def _documents(file: str, data: bytes | bytearray) -> Iterator[Document | Unreadable]:
    start = _START.search(data)
    if start is None:
        yield Unreadable(file, 0, "it is empty")
        return
    if _plain_name(file).endswith(_YAML) or start[0] not in (b"{", b"["):
        yield from _yaml(file, data)
        return
    try:
        decode_below(data, CALLERS)
    except (msgspec.DecodeError, RecursionError) as error:
        if isinstance(error, RecursionError) or SURROGATE.search(data):
            yield from _deep(file, bytes(data))
            return
        end = data.find(b"\n", start.start())
        if not _is_json(data[start.start() : end if end >= 0 else None]):
            # Each line of a value over several would be an error of its own.
            if found := _one_after_another(data):
                for line, raw in found:
                    yield from _items(file, line, shallow(raw))
                return
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


def _one_after_another(data: bytes | bytearray) -> list[tuple[int, bytes]]:
    """Return the values of a file with their lines, none if it holds but one or something else."""
    found = []
    for value in ValueReader(io.BytesIO(data), Keys()):
        if value.prefix.strip() or value.problem:
            return []
        found.append((value.line, value.raw))
    return found if len(found) > 1 else []


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
        text = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
        if text.strip():
            empty = False
            yield from _items(file, number, shallow(text))
    if empty:
        yield Unreadable(file, 0, "it is empty")


def _items(
    file: str, line: int, raw: bytes | bytearray, *, in_line: bool = False
) -> Iterator[Document | Unreadable]:
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
            # Go writes a list without items as null.
            for item in msgspec.json.decode(head.items, type=list[msgspec.Raw] | None) or ():
                yield Document(file, line, bytes(item), head.kind.removesuffix("List"))
            if _goes_on(head.metadata):
                yield Unreadable(file, line, _GOES_ON)
            return
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        if not in_line and (found := _one_after_another(raw)):
            for _, value in found:
                yield from _items(file, line, value, in_line=True)
            return
        yield Unreadable(file, line, f"unexpected JSON: {in_words(error)}")
        return
    except RecursionError:
        yield Unreadable(file, line, "nested too deeply")
        return
    yield Document(file, line, bytes(raw))


def _goes_on(metadata: msgspec.Raw) -> bool:
    """Return whether a list is but the first part of one."""
    try:
        found = msgspec.json.decode(metadata, type=_ListMetadata | None)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return bool(found and found.after)


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
