"""Read documents: JSON, JSON lines, arrays, Lists, YAML, each also as ``.gz``, and stdin."""

import gzip
import re
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from noderestrict.policy.text import printable

STDIN = "-"
_YAML = (".yaml", ".yml")
#: What PyYAML raises besides YAMLError, for values that are not of their tags; and what taking
#: apart a value of another shape than expected raises.
YAML_VALUE_ERRORS = (AttributeError, LookupError, TypeError, ValueError, RecursionError)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A place that cannot be read; the rest still is.

    Attributes:
        file: as given, ``-`` for stdin.
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
    """One JSON value with the place it comes from.

    Attributes:
        file: as given, ``-`` for stdin.
        line: counted from 1.
        raw: its JSON.
        kind: what it is if it does not say so: items of a typed list need not repeat it.
    """

    file: str
    line: int
    raw: bytes
    kind: str = ""


class _Head(msgspec.Struct):
    kind: Any = None
    items: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def read_bytes(file: str) -> bytes:
    """Return a file's bytes, unpacked if it is gzip; ``-`` is stdin.

    Raises:
        OSError: it cannot be read, or is broken gzip.
    """
    data = sys.stdin.buffer.read() if file == STDIN else Path(file).read_bytes()
    try:
        plain = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (EOFError, zlib.error) as error:
        raise OSError(f"broken gzip: {error}") from None
    return plain.removeprefix(_BYTE_ORDER_MARK)


def documents(file: str) -> Iterator[Document | Unreadable]:
    """Yield every document of a file; Lists and arrays give their items."""
    try:
        data = read_bytes(file)
    except OSError as error:
        yield Unreadable(file, 0, error.strerror or str(error))
        return
    if not data.strip():
        yield Unreadable(file, 0, "it is empty")
        return
    name = file.removesuffix(".gz")
    start = data.lstrip()[:1]
    if name.endswith(_YAML) or start not in (b"{", b"["):
        yield from _yaml(file, data)
        return
    if not name.endswith(".jsonl"):
        try:
            msgspec.json.decode(data, type=msgspec.Raw)
        except (msgspec.DecodeError, RecursionError) as error:
            first = data.lstrip().split(b"\n", 1)[0]
            if not _is_json(first):
                # One value over several lines: each of them would be an error of its own.
                yield Unreadable(file, _line_of(data, error), f"not JSON: {error}")
                return
        else:
            yield from _items(file, 1, data)
            return
    yield from _lines(file, data)


def _is_json(data: bytes) -> bool:
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _line_of(data: bytes, error: Exception) -> int:
    """Return the line that an error is on, 1 if it does not say."""
    at = re.search(r"\(byte (\d+)\)", str(error))
    return data.count(b"\n", 0, int(at[1])) + 1 if at else 1


def _lines(file: str, data: bytes) -> Iterator[Document | Unreadable]:
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            yield from _items(file, number, line)


def _items(file: str, line: int, raw: bytes) -> Iterator[Document | Unreadable]:
    try:
        if raw.lstrip()[:1] == b"[":
            for item in msgspec.json.decode(raw, type=list[msgspec.Raw]):
                yield Document(file, line, bytes(item))
            return
        head = msgspec.json.decode(raw, type=_Head)
        if isinstance(head.kind, str) and head.kind.endswith("List") and head.items:
            for item in msgspec.json.decode(head.items, type=list[msgspec.Raw]):
                yield Document(file, line, bytes(item), head.kind.removesuffix("List"))
            return
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        yield Unreadable(file, line, f"not JSON that can be judged: {error}")
        return
    except RecursionError:
        yield Unreadable(file, line, "nested too deeply")
        return
    yield Document(file, line, raw)


def _yaml(file: str, data: bytes) -> Iterator[Document | Unreadable]:
    found = False
    # Here, because most input is JSON, and the import costs start-up time.
    import yaml

    try:

        class Loader(yaml.SafeLoader):
            """Reads no aliases: a few of them can stand for more than fits into memory."""

            def compose_node(self, parent: Any, index: Any) -> Any:
                if self.check_event(yaml.AliasEvent):
                    mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
                    problem = "aliases are not read"
                    raise yaml.composer.ComposerError(None, None, problem, mark)
                return super().compose_node(parent, index)

        loader = Loader(data)
        # Timestamps stay the text that they are in JSON.
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
        yield Unreadable(file, 0, f"YAML that is no JSON: {error}")
    else:
        if not found:
            yield Unreadable(file, 0, "it holds nothing but null and comments")
