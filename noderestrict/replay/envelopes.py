"""Take objects out of what log pipelines wrap around them, at any depth.

An envelope is known by the names of its members, so nobody has to say which it is. A string may
hold an object as text, with a prefix, or packed.
"""

import base64
import binascii
import io
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import msgspec

from noderestrict.policy.hostile import in_words
from noderestrict.policy.text import json_line
from noderestrict.replay.sources import MAX_LINE_BYTES, shallow
from noderestrict.replay.values import Keys, ValueReader

#: Members that lead to what a product wraps. Those of a later product may also be an earlier one's.
ENVELOPES: Mapping[str, str] = {
    "Kubernetes lists": "items",
    "Amazon CloudWatch": "events message results value @message",
    "Amazon CloudWatch subscriptions, Firehose, Kinesis": "logEvents Records kinesis data awslogs",
    "Azure diagnostics, Event Hub, Log Analytics": "records properties log body Body log_s "
    "tables rows",
    "Google Cloud Logging": "entries jsonPayload textPayload",
    "Elastic": "hits _source event original fields kubernetes audit json",
    "Loki": "data result streams values line",
    "Fluent Bit, Fluentd, Docker, CRI": "log",
    "Vector": "message",
    "Datadog": "data attributes logs content message",
    "journald, syslog": "MESSAGE msg",
    "OpenTelemetry": "resourceLogs scopeLogs logRecords body stringValue",
    "Splunk, Graylog, LogScale": "_raw result event full_message @rawstring",
}
_KEYS = frozenset(key for keys in ENVELOPES.values() for key in keys.split())
#: Those whose lists can be longer than fits into memory.
_LISTS = _KEYS - {"message", "log", "line", "msg", "MESSAGE", "fields", "original", "@message"}
#: For reading what is in an envelope of any size.
KEYS = Keys(
    frozenset(key.encode() for key in _KEYS), frozenset(key.encode() for key in _LISTS)
)  # fmt: skip
_DEEPEST = 12
_MOST_STEPS = 10_000
_base64 = re.compile(rb"[A-Za-z0-9+/_-]{32,}={0,2}\s*")
#: A string in a string, as logfmt and CSV write it.
_quoted = re.compile(r'"(\{(?:\\"|"")(?:[^"\\]|\\.|"")*\})"', re.DOTALL)
_plain_key = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items = msgspec.json.Decoder(list[msgspec.Raw])
_string = msgspec.json.Decoder(str)

#: Returns JSON of the object that is looked for, if these are its members.
Match = Callable[[bytes, Mapping[str, msgspec.Raw]], "Found | None"]


@dataclass(frozen=True, slots=True)
class Found:
    """What an envelope held.

    Attributes:
        raw: its JSON.
        lacks: what the envelope leaves out, and what is taken instead.
        problem: why it is incomplete, "" if it is not.
    """

    raw: bytes
    lacks: str = ""
    problem: str = ""


def unwrap(raw: bytes, match: Match, depth: int = 0) -> Iterator[Found]:
    """Yield each object that matches, in an object, its known members, and so on.

    Args:
        raw: JSON.
        match: tells the objects that are looked for from envelopes.
        depth: of envelopes so far.

    Raises:
        ValueError: the JSON cannot be decoded.
    """
    if depth > _DEEPEST:
        return
    begin = raw[:1]
    try:
        if begin == b"{":
            yield from _object(raw, match, depth)
        elif begin == b"[":
            yield from _list(raw, match, depth)
        elif begin == b'"':
            yield from _text(_string.decode(raw), match, depth)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"unexpected JSON: {in_words(error)}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _object(raw: bytes, match: Match, depth: int) -> Iterator[Found]:
    raw = shallow(raw)
    fields = _fields.decode(raw)
    found = match(raw, fields)
    if found is not None:
        yield found
        return
    for key in _KEYS.intersection(fields) if len(fields) > len(_KEYS) else fields:
        if key in _KEYS:
            yield from unwrap(bytes(fields[key]), match, depth + 1)


def _list(raw: bytes, match: Match, depth: int) -> Iterator[Found]:
    items = _items.decode(raw)
    if items and all(item.isdigit() and len(item) < 4 for item in map(bytes, items)):
        # journald's form of text that holds bytes it does not like.
        data = bytes(int(bytes(item)) % 256 for item in items)
        yield from _text(data.decode(errors="replace"), match, depth)
        return
    for item in items:
        yield from unwrap(bytes(item), match, depth + 1)


def _text(text: str, match: Match, depth: int) -> Iterator[Found]:
    data = text.strip().encode(errors="replace")
    if data[:2] == b'{"' and data[-1:] == b"}" and b"}{" not in data:
        yield from unwrap(data, match, depth + 1)
        return
    if b"{" not in data:
        if _base64.fullmatch(data):
            yield from _text(_unpacked(data), match, depth + 1)
        return
    for value in ValueReader(io.BytesIO(data), KEYS):
        if value.problem:
            yield Found(value.raw, problem=value.problem)
        elif value.raw:
            yield from unwrap(value.raw, match, depth + 1)
        else:
            yield from quoted(value.prefix, match, depth + 1)


def quoted(text: bytes, match: Match, depth: int = 0) -> Iterator[Found]:
    """Yield what matches in the quoted strings of a line without JSON."""
    for part in _quoted.finditer(text.decode(errors="replace")):
        inner = part[1]
        if '\\"' in inner[:3]:
            try:
                inner = _string.decode(f'"{inner}"')
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue
        else:
            inner = inner.replace('""', '"')
        yield from _text(inner, match, depth + 1)


def _unpacked(data: bytes) -> str:
    """Return the text that a base64 string holds, "" if it holds none."""
    try:
        plain = base64.b64decode(data.translate(bytes.maketrans(b"-_", b"+/")), validate=False)
        if plain[:2] == b"\x1f\x8b":
            plain = zlib.decompressobj(31).decompress(plain, MAX_LINE_BYTES)
        return plain.decode()
    except (binascii.Error, zlib.error, UnicodeDecodeError):
        return ""


@dataclass(frozen=True, slots=True)
class Unknown:
    """An envelope that is not known.

    Attributes:
        keys: of its members.
        path: in jq's language, of the object in it; "" if there is none.
    """

    keys: tuple[str, ...]
    path: str

    def __str__(self) -> str:
        """Return what it is, and how to unwrap it."""
        keys = ", ".join(map(json_line, self.keys[:20]))
        example = f", for example with jq -c '{self.path}'" if self.path else ""
        return f"an unknown envelope with the keys {keys or '(none)'}: unwrap it first{example}"


def unknown(raw: bytes, match: Match) -> Unknown:
    """Return the keys of an object, and where in it something matches."""
    try:
        fields = _fields.decode(shallow(raw))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Unknown((), "")
    steps = [_MOST_STEPS]
    return Unknown(tuple(fields), _path(raw, match, "", steps) or "")


def _path(raw: bytes, match: Match, path: str, steps: list[int]) -> str | None:
    steps[0] -= 1
    if steps[0] < 0 or path.count(".") > _DEEPEST:
        return None
    try:
        begin = raw[:1]
        if begin == b'"' and b"{" in raw:
            text = _string.decode(raw).strip()
            return _path(text.encode(errors="replace"), match, f"{path} | fromjson", steps)
        if begin == b"[":
            for item in _items.decode(raw)[:10]:
                if found := _path(bytes(item), match, f"{path or '.'}[]", steps):
                    return found
        if begin != b"{":
            return None
        fields = _fields.decode(shallow(raw))
        if match(raw, fields) is not None:
            return path or "."
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    for key, value in fields.items():
        joint = " | " if path.endswith("fromjson") else ""
        if found := _path(bytes(value), match, f"{path}{joint}{_step(key)}", steps):
            return found
    return None


def _step(key: str) -> str:
    return f".{key}" if _plain_key.fullmatch(key) else f".{json_line(key)}"
