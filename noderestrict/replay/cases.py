"""Cases: reviews with what they depend on and what is expected of them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from noderestrict.replay.sources import (
    MAX_FILE_BYTES,
    MAX_LINE_BYTES,
    Document,
    Unreadable,
    documents,
    too_long,
)

_NULL = msgspec.Raw(b"null")


class Expectation(msgspec.Struct):
    """What a case must give; a code or reason that is absent may be any."""

    allowed: bool
    code: int | None = None
    reason: str | None = None


class AudienceGrant(msgspec.Struct, rename="pascal"):
    """What the cluster's authorizer would allow; ``*`` or "" stand for any."""

    audience: str
    namespace: str = ""
    service_account: str = ""


class _CaseLine(msgspec.Struct):
    id: str
    review: msgspec.Raw
    expect: Expectation | None = None
    state: msgspec.Raw = _NULL
    features: dict[str, bool] | None = None
    audienceGrants: list[AudienceGrant] | None = None  # noqa: N815 (the case file's name)
    apiAudiences: list[str] | None = None  # noqa: N815 (the case file's name)


class Event(msgspec.Struct):
    """A change of the cluster (op add, update, delete), or a question in between (op review)."""

    op: str
    kind: str = ""
    object: msgspec.Raw = _NULL
    subjectAccessReview: msgspec.Raw = _NULL  # noqa: N815 (the case file's name)
    expect: Expectation | None = None


class _QuestionsLine(msgspec.Struct):
    id: str
    subjectAccessReview: msgspec.Raw = _NULL  # noqa: N815 (the case file's name)
    subjectAccessReviews: list[msgspec.Raw] | None = None  # noqa: N815 (the case file's name)
    expect: Expectation | list[Expectation] | None = None
    events: list[Event] | None = None
    state: msgspec.Raw = _NULL
    features: dict[str, bool] | None = None


class _ResponseStatus(msgspec.Struct):
    code: int | None = None
    reason: str | None = None


class _Response(msgspec.Struct):
    allowed: bool
    status: _ResponseStatus | None = None


class _RequestHead(msgspec.Struct):
    uid: str = ""


class _Shape(msgspec.Struct):
    kind: Any = None
    review: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    subjectAccessReview: Any = None  # noqa: N815 (the case file's name)
    subjectAccessReviews: Any = None  # noqa: N815 (the case file's name)
    events: Any = None
    request: _RequestHead | None = None
    response: _Response | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One review to judge."""

    file: str
    line: int
    id: str
    review: bytes
    expect: Expectation | None = None
    #: JSON of cluster objects, all that the case sees; None for those that are given to all.
    state: bytes | None = None
    features: dict[str, bool] = field(default_factory=dict)
    audience_grants: tuple[AudienceGrant, ...] = ()
    api_audiences: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class QuestionsCase:
    """Questions to the Node authorizer: events with questions in between, then final ones."""

    file: str
    line: int
    id: str
    events: tuple[Event, ...]
    #: JSON of cluster objects; None for those that are given to all.
    state: bytes | None = None
    features: dict[str, bool] = field(default_factory=dict)


def cases(
    file: str, max_bytes: int = MAX_FILE_BYTES
) -> Iterator[Case | QuestionsCase | Unreadable]:
    """Yield every case of a file, and what in it is none.

    Args:
        file: ``-`` for stdin.
        max_bytes: of the unpacked file, unless it is named as JSON lines.
    """
    for document in documents(file, max_bytes):
        if isinstance(document, Unreadable):
            yield document
        elif len(document.raw) > MAX_LINE_BYTES:
            yield too_long(file, document.line)
        else:
            yield _case(document)


def _state(raw: msgspec.Raw) -> bytes | None:
    state = bytes(raw)
    return None if state == bytes(_NULL) else state


def _case(document: Document) -> Case | QuestionsCase | Unreadable:
    try:
        shape = msgspec.json.decode(document.raw, type=_Shape)
        if shape.review is not msgspec.UNSET:
            return _from_line(document)
        if shape.kind == "SubjectAccessReview":
            event = Event("review", subjectAccessReview=msgspec.Raw(document.raw))
            return QuestionsCase(document.file, document.line, str(document.line), (event,))
        if shape.subjectAccessReview or shape.subjectAccessReviews or shape.events:
            return _questions(document)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return Unreadable(document.file, document.line, str(error))
    except RecursionError:
        return Unreadable(document.file, document.line, "nested too deeply")
    if shape.kind != "AdmissionReview":
        return Unreadable(
            document.file,
            document.line,
            f"kind is {shape.kind!r}: neither a review nor a case with one",
        )
    expect = None
    if shape.response is not None:
        status = shape.response.status or _ResponseStatus()
        expect = Expectation(shape.response.allowed, status.code, status.reason)
    name = shape.request.uid if shape.request else ""
    return Case(document.file, document.line, name or str(document.line), document.raw, expect)


def _from_line(document: Document) -> Case:
    line = msgspec.json.decode(document.raw, type=_CaseLine)
    return Case(
        file=document.file,
        line=document.line,
        id=line.id,
        review=bytes(line.review),
        expect=line.expect,
        state=_state(line.state),
        features=line.features or {},
        audience_grants=tuple(line.audienceGrants or ()),
        api_audiences=None if line.apiAudiences is None else tuple(line.apiAudiences),
    )


def _questions(document: Document) -> QuestionsCase | Unreadable:
    line = msgspec.json.decode(document.raw, type=_QuestionsLine)
    reviews = list(line.subjectAccessReviews or ())
    if bytes(line.subjectAccessReview) != b"null":
        reviews.insert(0, line.subjectAccessReview)
    expected = line.expect if isinstance(line.expect, list) else [line.expect] * len(reviews)
    if len(expected) != len(reviews):
        return Unreadable(
            document.file,
            document.line,
            f"case {line.id!r}: {len(reviews)} questions, but {len(expected)} expectations",
        )
    final = (
        Event("review", subjectAccessReview=review, expect=expect)
        for review, expect in zip(reviews, expected, strict=True)
    )
    return QuestionsCase(
        document.file,
        document.line,
        line.id,
        (*(line.events or ()), *final),
        _state(line.state),
        line.features or {},
    )
