"""Decode an AdmissionReview and its objects in one pass.

Which Structs the objects need depends on the resource, which is known only after decoding. But the
API server writes the same strings for the same resource each time, so the Structs are cached by
these strings. The cache is only a guess: the decoded request shows whether it was right.
"""

from typing import Any, cast

import msgspec

from noderestrict.admission.decode import (
    Request,
    ReviewError,
    UnscannedError,
    checked,
    decode,
    decode_quickly,
)
from noderestrict.api import admissionv1, metav1
from noderestrict.policy.table import STRICT_RULE_IDS, row_for

#: group, resource, subresource, operation
_Target = tuple[str, str, str, str]
_Decoder = msgspec.json.Decoder[admissionv1.AdmissionReview[Any, Any]]

# If no other rule reads an object, the Struct of a strict rule is used.
_ALL = frozenset(STRICT_RULE_IDS)
# Callers choose these strings, so the cache must not grow with them.
_REMEMBERED = 100
_HEAD = 4096


class TypedDecoder:
    """Decodes reviews as ``decode`` does, but faster for resources seen before."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[_Target, _Decoder]] = {}

    def decode(self, body: bytes) -> Request:
        """Decode an AdmissionReview; its objects may be Structs already.

        Raises:
            ReviewError: the bytes are something else.
        """
        try:
            return self.decode_quickly(body)
        except UnscannedError:
            return decode(body)

    def decode_quickly(self, body: bytes) -> Request:
        """Decode an AdmissionReview that msgspec takes as it is, likewise.

        Raises:
            ReviewError: the bytes are something else.
            UnscannedError: ``decode`` must tell.
        """
        words = _words(body)
        known = self._known.get(words)
        if known is None:
            request = decode_quickly(body)
            self._remember(words, _target(request))
            return request
        target, decoder = known
        try:
            request = checked(decoder.decode(body))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ReviewError):
            # Decode in two passes, which distinguish undecodable objects from undecodable reviews.
            return decode_quickly(body)
        return request if _target(request) == target else decode_quickly(body)

    def _remember(self, words: bytes, target: _Target) -> None:
        row = row_for(*target, _ALL)
        if not words or len(self._known) >= _REMEMBERED or (row is not None and row.target.whole):
            return
        new, old = (row.target.new, row.target.old) if row is not None else (None, None)
        partial = metav1.PartialObject
        # The type checker cannot follow a type created here.
        review = cast("Any", admissionv1.AdmissionReview)[
            (new or partial) | None, (old or partial) | None
        ]
        self._known[words] = target, msgspec.json.Decoder(review)


def _target(request: Request) -> _Target:
    return request.group, request.resource, request.sub_resource, request.operation


def _words(body: bytes) -> bytes:
    """Return the raw resource, subresource and operation of a review; b"" for none."""
    start = body.find(b'"resource":{', 0, _HEAD)
    end = body.find(b',"requestKind":', start, _HEAD)
    operation = body.find(b'"operation":"', end, _HEAD)
    if start < 0 or end < 0 or operation < 0:
        return b""
    return body[start:end] + body[operation : operation + 20]
