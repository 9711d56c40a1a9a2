"""Cases: reviews with what they depend on and what is expected of them.

A case file is JSON lines. AdmissionReviews and SubjectAccessReviews are cases too, bare or as other
policy engines get and log them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from noderestrict.replay import envelopes
from noderestrict.replay.audit.read import is_event
from noderestrict.replay.documents import documents
from noderestrict.replay.envelopes import Found
from noderestrict.replay.sources import (
    MAX_FILE_BYTES,
    MAX_LINE_BYTES,
    Document,
    Unreadable,
    too_long,
)

_NULL = msgspec.Raw(b"null")
#: Of questions to other policy engines in each other.
_DEEPEST = 4


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


class _ReviewHead(msgspec.Struct):
    request: _RequestHead | None = None
    response: _Response | None = None


class _AccessStatus(msgspec.Struct):
    allowed: bool | None = None
    reason: str | None = None
    evaluationError: str | None = None  # noqa: N815 (the API's name)
    denied: bool | None = None


class _AccessMetadata(msgspec.Struct):
    managedFields: Any = None  # noqa: N815 (the API's name)


class _AccessHead(msgspec.Struct):
    status: _AccessStatus | None = None
    metadata: _AccessMetadata | None = None


_ADMISSION_V1 = msgspec.Raw(b'"admission.k8s.io/v1"')
_ADMISSION_V1BETA1 = b'"admission.k8s.io/v1beta1"'
_ADMISSION_REVIEW, _ACCESS_REVIEW = b'"AdmissionReview"', b'"SubjectAccessReview"'
_ACCESS = ("subjectAccessReview", "subjectAccessReviews", "events")
#: Members that lead to the review that another policy engine was asked about, or logs.
_QUESTIONS = ("input", "review")
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


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
        fields = _fields.decode(document.raw)
        found = _known(document, fields)
        if found is None:
            inner = next(envelopes.unwrap(document.raw, _match), None)
            if inner is not None and not inner.problem:
                inside = replace(document, raw=inner.raw)
                found = _known(inside, _fields.decode(inner.raw))
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
        return Unreadable(document.file, document.line, str(error))
    except RecursionError:
        return Unreadable(document.file, document.line, "nested too deeply")
    if found is not None:
        return found
    return Unreadable(document.file, document.line, _no_case(fields))


def _no_case(fields: Mapping[str, msgspec.Raw]) -> str:
    if is_event(fields):
        return "it is an audit event: give its file with --audit-log"
    kind = msgspec.json.decode(fields["kind"]) if "kind" in fields else None
    return f"kind is {kind!r}: neither a review nor a case with a review"


def _match(raw: bytes, fields: Mapping[str, msgspec.Raw]) -> Found | None:
    kind = bytes(fields.get("kind", b""))
    known = kind in (_ADMISSION_REVIEW, _ACCESS_REVIEW) or _is_request(fields)
    return Found(raw) if known or "request" in fields or "input" in fields else None


def _is_request(fields: Mapping[str, msgspec.Raw]) -> bool:
    """Return whether an object is the request of an AdmissionReview."""
    return "operation" in fields and "userInfo" in fields and "resource" in fields


def _known(
    document: Document, fields: Mapping[str, msgspec.Raw], depth: int = 0
) -> Case | AccessCase | Unreadable | None:
    """Return a document as a case; None if it is none."""
    kind = bytes(fields.get("kind", b""))
    asks = any(bytes(fields.get(name, b"null")) != b"null" for name in _ACCESS)
    if asks and "review" in fields and "id" in fields:
        raise ValueError("a case has a review or SubjectAccessReviews, not both")
    if "review" in fields and ("id" in fields or not (depth or "parameters" in fields)):
        return _review_case(document)
    if kind == _ACCESS_REVIEW:
        return _bare_access_case(document)
    if asks:
        return _access_case(document)
    if kind == _ADMISSION_REVIEW:
        return _bare_review_case(document, fields)
    if _is_request(fields):
        raw = msgspec.json.encode(
            {
                "apiVersion": _ADMISSION_V1,
                "kind": msgspec.Raw(_ADMISSION_REVIEW),
                "request": msgspec.Raw(document.raw),
            }
        )
        return _known(replace(document, raw=raw), _fields.decode(raw), depth + 1)
    if bytes(fields.get("request", b""))[:1] == b"{" and not kind:
        return _inside(document, fields["request"], depth)
    for name in _QUESTIONS:
        if bytes(fields.get(name, b""))[:1] == b"{" and depth < _DEEPEST:
            return _inside(document, fields[name], depth)
    return None


def _inside(
    document: Document, raw: msgspec.Raw, depth: int
) -> Case | AccessCase | Unreadable | None:
    inner = bytes(raw)
    return _known(replace(document, raw=inner), _fields.decode(inner), depth + 1)


def _bare_review_case(document: Document, fields: Mapping[str, msgspec.Raw]) -> Case:
    raw = document.raw
    if bytes(fields.get("apiVersion", b"")) == _ADMISSION_V1BETA1:
        # The members that are read here are the same.
        raw = msgspec.json.encode({**fields, "apiVersion": _ADMISSION_V1})
    head = msgspec.json.decode(raw, type=_ReviewHead)
    expect = None
    if head.response is not None:
        status = head.response.status or _ResponseStatus()
        expect = Expectation(head.response.allowed, status.code, status.reason)
    name = head.request.uid if head.request else ""
    return Case(document.file, document.line, name or str(document.line), raw, expect)


def _bare_access_case(document: Document) -> AccessCase:
    head = msgspec.json.decode(document.raw, type=_AccessHead)
    status = head.status
    expect = None
    if status is not None and status.allowed is not None:
        # An API server asks webhooks with an empty status, which Go writes as "not allowed".
        asked = head.metadata is not None and head.metadata.managedFields is None
        if status != _AccessStatus(allowed=False) or not asked:
            expect = Expectation(status.allowed)
    event = CaseEvent("review", subjectAccessReview=msgspec.Raw(document.raw), expect=expect)
    return AccessCase(document.file, document.line, str(document.line), (event,))


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
