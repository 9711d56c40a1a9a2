"""Cases: reviews with what they depend on and what is expected of them.

A case file is JSON lines; plain AdmissionReviews and SubjectAccessReviews are cases too.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from noderestrict.replay.documents import documents
from noderestrict.replay.sources import (
    MAX_FILE_BYTES,
    MAX_LINE_BYTES,
    Document,
    Unreadable,
    too_long,
)

_NULL = msgspec.Raw(b"null")


class Expectation(msgspec.Struct):
    """The verdict that a case expects; without a code or reason, any will do."""

    allowed: bool
    code: int | None = None
    reason: str | None = None


class AudienceGrant(msgspec.Struct, rename="pascal"):
    """What the cluster's authorizer would allow; ``*`` and "" mean any."""

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


class CaseEvent(msgspec.Struct):
    """A change of the cluster (op add, update, delete) or a SubjectAccessReview (op review)."""

    op: str
    kind: str = ""
    object: msgspec.Raw = _NULL
    subjectAccessReview: msgspec.Raw = _NULL  # noqa: N815 (the case file's name)
    expect: Expectation | None = None


class _AccessLine(msgspec.Struct):
    id: str
    subjectAccessReview: msgspec.Raw = _NULL  # noqa: N815 (the case file's name)
    subjectAccessReviews: list[msgspec.Raw] | None = None  # noqa: N815 (the case file's name)
    expect: Expectation | list[Expectation] | None = None
    events: list[CaseEvent] | None = None
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
    """An AdmissionReview to judge.

    Attributes:
        file: it comes from, ``-`` for stdin.
        line: in the file, counted from 1.
        id: the case's own, else the review's uid, else the line.
        review: JSON.
        expect: the verdict, None if none is expected.
        state: JSON of the only cluster objects that the case sees; None for the shared ones.
        features: feature gates, over the given ones.
        audience_grants: what the cluster's authorizer would allow.
        api_audiences: of the API server; None for the given ones.
    """

    file: str
    line: int
    id: str
    review: bytes
    expect: Expectation | None = None
    state: bytes | None = None
    features: dict[str, bool] = field(default_factory=dict)
    audience_grants: tuple[AudienceGrant, ...] = ()
    api_audiences: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class AccessCase:
    """SubjectAccessReviews to judge, with the changes of the cluster before and between them.

    Attributes:
        file: it comes from, ``-`` for stdin.
        line: in the file, counted from 1.
        id: the case's own, else the line.
        events: in order.
        state: JSON of the only cluster objects that the case sees; None for the shared ones.
        features: feature gates, over the given ones.
    """

    file: str
    line: int
    id: str
    events: tuple[CaseEvent, ...]
    state: bytes | None = None
    features: dict[str, bool] = field(default_factory=dict)


def cases(file: str, max_bytes: int = MAX_FILE_BYTES) -> Iterator[Case | AccessCase | Unreadable]:
    """Yield every case of a file, and every place in it that is not a case.

    Args:
        file: its path, ``-`` for stdin.
        max_bytes: limit for the unpacked file, unless its name says JSON lines.
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


def _case(document: Document) -> Case | AccessCase | Unreadable:
    try:
        shape = msgspec.json.decode(document.raw, type=_Shape)
        if shape.review is not msgspec.UNSET:
            return _review_case(document)
        if shape.kind == "SubjectAccessReview":
            event = CaseEvent("review", subjectAccessReview=msgspec.Raw(document.raw))
            return AccessCase(document.file, document.line, str(document.line), (event,))
        if shape.subjectAccessReview or shape.subjectAccessReviews or shape.events:
            return _access_case(document)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return Unreadable(document.file, document.line, str(error))
    except RecursionError:
        return Unreadable(document.file, document.line, "nested too deeply")
    if shape.kind != "AdmissionReview":
        return Unreadable(
            document.file,
            document.line,
            f"kind is {shape.kind!r}: neither a review nor a case with a review",
        )
    expect = None
    if shape.response is not None:
        status = shape.response.status or _ResponseStatus()
        expect = Expectation(shape.response.allowed, status.code, status.reason)
    name = shape.request.uid if shape.request else ""
    return Case(document.file, document.line, name or str(document.line), document.raw, expect)


def _review_case(document: Document) -> Case:
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


def _access_case(document: Document) -> AccessCase | Unreadable:
    line = msgspec.json.decode(document.raw, type=_AccessLine)
    reviews = list(line.subjectAccessReviews or ())
    if bytes(line.subjectAccessReview) != b"null":
        reviews.insert(0, line.subjectAccessReview)
    expected = line.expect if isinstance(line.expect, list) else [line.expect] * len(reviews)
    if len(expected) != len(reviews):
        return Unreadable(
            document.file,
            document.line,
            f"case {line.id!r}: {len(reviews)} reviews, but {len(expected)} expectations",
        )
    final = (
        CaseEvent("review", subjectAccessReview=review, expect=expect)
        for review, expect in zip(reviews, expected, strict=True)
    )
    return AccessCase(
        document.file,
        document.line,
        line.id,
        (*(line.events or ()), *final),
        _state(line.state),
        line.features or {},
    )
