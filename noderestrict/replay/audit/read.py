"""Read the audit events of a file, in whatever form a cluster or a log pipeline hands them out."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from noderestrict.replay import envelopes
from noderestrict.replay.audit import cloud_logging, log_analytics
from noderestrict.replay.envelopes import Found
from noderestrict.replay.sources import MAX_LINE_BYTES, Document, Unreadable, opened
from noderestrict.replay.values import (
    CUT_OFF,
    LIST_CUT_OFF,
    TOO_LONG,
    Value,
    ValueReader,
    is_cut_off,
)

#: What an audit event, and an envelope with one, holds in each form.
_ID = b"auditID"
_MARKS = (_ID, b"audit.k8s.io", b"AuditId", b'"k8s.io"')
_NODE = b"system:node:"
#: Every event has a user, so one without is cut off.
_USER = b"username"
#: Reads of others that show objects; an entry of Cloud Logging may, too.
_SHOWS = (b"esponseObject", b"protoPayload")
#: Nothing but an audit event has one; kinds of audit.k8s.io also configure the log.
_IDS = (_ID, b"AuditId")
#: A node is the user, or is impersonated.
_BY_NODE = re.compile(rb'"username"\s*:\s*"system:node:')
_read = re.compile(rb'erb\\*"\s*:\s*\\*"(?:get|list|watch)\\*"')
#: Text that was packed shows neither.
_PACKED = (b'"awslogs"', b'"kinesis"', b'"MESSAGE":[', b'"MESSAGE": [', b'"MESSAGE" : [')
#: How gzip, and a JSON object, begin in base64.
_BASE64 = (b'"H4sI', b'"eyJ')
#: What is worth to be decoded.
_WORTH = (*_MARKS, _NODE, *_SHOWS, *_PACKED, *_BASE64)
_REVIEWS = (b"AdmissionReview", b"SubjectAccessReview")
#: Problems of one kind that are named one by one; further ones are counted.
_NAMED = 5
_MOST_PROBLEMS = 100
#: Values of a log.
_PROGRESS_EVERY = 500
#: Streams of a container runtime whose lines may be incomplete at the same time.
_MOST_STREAMS = 4


@dataclass(slots=True)
class Seen:
    """What some files hold.

    Attributes:
        bytes: unpacked.
        events: audit events.
        of_nodes: those of them that speak of nodes.
        others: lines and values that are none.
        others_of_nodes: those of them that speak of nodes.
    """

    bytes: int = 0
    events: int = 0
    of_nodes: int = 0
    others: int = 0
    others_of_nodes: int = 0


def is_audit_log(head: bytes) -> bool:
    """Return whether a file with such a start holds audit events rather than reviews."""
    if head and not head.strip(b"\0"):
        # Of a log that was truncated while it was written.
        return True
    marks = [at for mark in (*_MARKS, *_PACKED) if (at := head.find(mark)) >= 0]
    reviews = [at for mark in _REVIEWS if (at := head.find(mark)) >= 0]
    return bool(marks) and not (reviews and min(reviews) < min(marks))


def is_event(fields: Mapping[str, msgspec.Raw]) -> bool:
    """Return whether an object with such members is an audit event."""
    if "auditID" in fields:
        return "verb" in fields or "stage" in fields or "level" in fields
    return (
        bytes(fields.get("kind", b"")) == b'"Event"'
        and bytes(fields.get("apiVersion", b""))[:14] == b'"audit.k8s.io/'
    )


def is_empty_list(raw: bytes) -> bool:
    """Return whether JSON is an EventList without events."""
    try:
        fields = _fields.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return (
        bytes(fields.get("kind", b"")) == b'"EventList"'
        and bytes(fields.get("apiVersion", b"")).startswith(b'"audit.k8s.io/')
        and b"".join(bytes(fields.get("items", b"null")).split()) in (b"null", b"[]")
    )


def match(raw: bytes, fields: Mapping[str, msgspec.Raw]) -> Found | None:
    """Return an object as an audit event, None if it is none."""
    if is_event(fields):
        # The items of a list do not say their kind.
        return Found(raw if "kind" in fields else b'{"kind":"Event",' + raw.lstrip()[1:])
    if "protoPayload" in fields:
        event = cloud_logging.audit_event(raw)
        return None if event is None else Found(event, cloud_logging.LACKS)
    if "AuditId" in fields and "Verb" in fields:
        return Found(log_analytics.audit_event(fields))
    return None


def events(
    file: str,
    seen: Seen | None = None,
    progress: Callable[[], None] | None = None,
    users: Sequence[str] = (),
) -> Iterator[Document | Unreadable]:
    """Yield each audit event of a file that is a node's, a write or shows an object, in its order.

    Args:
        file: its path, ``-`` for stdin; plain or packed.
        seen: counts what the file holds, if given.
        progress: called now and then, if given.
        users: names, or what they begin with, of others whose reads are wanted too.
    """
    yield from _Reader(file, seen or Seen(), progress, users)


class _Reader:
    """Reads the events of a file."""

    def __init__(
        self,
        file: str,
        seen: Seen,
        progress: Callable[[], None] | None,
        users: Sequence[str] = (),
    ) -> None:
        self._readers = (_NODE, *(user.encode() for user in users))
        self._file = file
        self._seen = seen
        self._progress = progress
        # How often there was each problem, and how many of these are named one by one.
        self._counts: dict[str, tuple[int, int]] = {}
        self._events = 0
        self._first_other: Value | None = None
        # Per stream: the line of a long line of Docker's that comes in parts, and its parts.
        self._parts: dict[str, tuple[int, str]] = {}

    def __iter__(self) -> Iterator[Document | Unreadable]:
        """Yield each event, and what cannot be read."""
        values: ValueReader | None = None
        try:
            with opened(self._file) as stream:
                values = ValueReader(stream, envelopes.KEYS)
                before = 0
                for number, value in enumerate(values):
                    self._seen.bytes += values.bytes - before
                    before = values.bytes
                    if self._progress is not None and number % _PROGRESS_EVERY == 0:
                        self._progress()
                    yield from self._value(value)
                self._seen.bytes += values.bytes - before
        except OSError as error:
            yield Unreadable(self._file, 0, error.strerror or str(error))
            return
        for line, text in self._parts.values():
            yield from self._unwrapped(Value(line, text.encode(errors="replace")))
        yield from self._end()

    def _end(self) -> Iterator[Unreadable]:
        for problem, (count, named) in self._counts.items():
            if count > named:
                more = count - named
                yield Unreadable(self._file, 0, f"{more} more of these: {problem}", more)
        if not self._events and not self._counts and self._first_other is not None:
            yield Unreadable(self._file, 0, _no_events(self._first_other))

    def _value(self, value: Value) -> Iterator[Document | Unreadable]:
        raw = value.raw or value.prefix
        if value.problem in (TOO_LONG, LIST_CUT_OFF):
            yield from self._problem(value.line, value.problem)
            return
        if self._parts or (b'"log"' in raw and b'"stream"' in raw):
            for joined in self._joined(value):
                yield from self._whole(joined)
        else:
            yield from self._whole(value)

    def _whole(self, value: Value) -> Iterator[Document | Unreadable]:
        raw = value.raw or value.prefix
        if not any(mark in raw for mark in _WORTH):
            self._count_other(value)
        elif self._is_read_of_another(raw):
            self._count_events(1)
        else:
            yield from self._unwrapped(value)

    def _is_read_of_another(self, raw: bytes) -> bool:
        """Tell whether an event, which is not decoded for that, neither writes nor shows anything.

        That is, unless a node or another user made it whose reads are wanted.
        """
        return (
            not any(reader in raw for reader in self._readers)
            and _USER in raw
            and raw.count(_ID) == 1
            and _read.search(raw) is not None
            and not any(mark in raw for mark in _SHOWS)
        )

    def _unwrapped(self, value: Value) -> Iterator[Document | Unreadable]:
        raw = value.raw
        found = False
        try:
            if value.problem:
                yield from self._incomplete(value)
                return
            inner = envelopes.unwrap(raw, match) if raw else envelopes.quoted(value.prefix, match)
            for one in inner:
                if one.problem:
                    found = True
                    yield from self._incomplete(Value(value.line, one.raw, problem=one.problem))
                elif len(one.raw) > MAX_LINE_BYTES:
                    found = True
                    yield from self._problem(value.line, TOO_LONG)
                else:
                    found = True
                    self._count_events(1)
                    self._seen.of_nodes += _BY_NODE.search(one.raw) is not None
                    yield Document(self._file, value.line, one.raw, lacks=one.lacks)
        except ValueError as error:
            if not found and is_cut_off(raw):
                yield from self._incomplete(value)
            else:
                yield from self._problem(value.line, f"not an audit event: {error}")
            return
        if found or is_empty_list(raw):
            return
        if any(mark in (raw or value.prefix) for mark in _IDS):
            yield from self._problem(value.line, _unknown(value), named=1)
        else:
            self._count_other(value)

    def _incomplete(self, value: Value) -> Iterator[Unreadable]:
        """Name an event that is cut off; what never was one is only counted."""
        if any(mark in value.raw for mark in _MARKS) or _NODE in value.raw:
            yield from self._problem(value.line, "the audit event is cut off, and not judged")
        else:
            self._count_other(value)

    def _joined(self, value: Value) -> Iterator[Value]:
        """Yield a value; of a line that Docker split, the whole line once it is complete."""
        try:
            entry = _docker.decode(value.raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            yield value
            return
        line, before = self._parts.pop(entry.stream, (value.line, ""))
        if before and _new_event.match(entry.log):
            yield Value(line, before.encode(errors="replace"), problem=CUT_OFF)
            line, before = value.line, ""
        text = before + entry.log
        room = len(text) <= MAX_LINE_BYTES and len(self._parts) < _MOST_STREAMS
        if room and (entry.logtag == "P" or not (entry.logtag or _ends(text))):
            self._parts[entry.stream] = line, text
        else:
            yield Value(line, text.strip().encode(errors="replace")) if before else value

    def _problem(self, line: int, problem: str, named: int = _NAMED) -> Iterator[Unreadable]:
        if problem not in self._counts and len(self._counts) >= _MOST_PROBLEMS:
            # The log's writer chooses what is wrong with it.
            problem = "it cannot be read, as others before"
        count, _ = self._counts.get(problem, (0, 0))
        self._counts[problem] = count + 1, named
        if count < named:
            yield Unreadable(self._file, line, problem)

    def _count_events(self, count: int) -> None:
        self._events += count
        self._seen.events += count

    def _count_other(self, value: Value) -> None:
        self._seen.others += 1
        self._seen.others_of_nodes += _NODE in (value.raw or value.prefix)
        if self._first_other is None:
            self._first_other = value


class _DockerEntry(msgspec.Struct):
    log: str
    stream: str
    logtag: str = ""


_new_event = re.compile(r'\{"kind":"Event"')
_docker = msgspec.json.Decoder(_DockerEntry)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _ends(text: str) -> bool:
    """Return whether a line that does not say so is complete."""
    return text.endswith("\n") or not is_cut_off(text.encode(errors="replace"))


def _unknown(value: Value) -> str:
    if not value.raw:
        return "a line that is no JSON speaks of audit events; one JSON value per line is needed"
    return str(envelopes.unknown(value.raw, match))


def _no_events(first: Value) -> str:
    what = _unknown(first) if first.raw and not first.problem else "its first line is not JSON"
    if any(mark in first.raw for mark in _REVIEWS):
        what = "it holds reviews: leave out --audit-log"
    return f"it holds no audit events: {what}"
