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
    decode_fields,
    decode_quickly,
)
from noderestrict.agents.agents import Agents, InForce
from noderestrict.api import admissionv1, metav1
from noderestrict.policy.identity import NODE_USER_PREFIX
from noderestrict.policy.table import STRICT_RULE_IDS, row_for

#: group, resource, subresource, operation
_Target = tuple[str, str, str, str]
_Decoder = msgspec.json.Decoder[admissionv1.AdmissionReview[Any, Any]]

# If no other rule reads an object, the Struct of a strict rule is used.
_ALL = frozenset(STRICT_RULE_IDS)
# Callers choose these strings, so the cache must not grow with them.
_REMEMBERED = 100
_HEAD = 4096
_USERNAME = b'"username":"'
_NODE_USER = NODE_USER_PREFIX.encode()


class TypedDecoder:
    """Decodes reviews as ``decode`` does, but faster for resources seen before.

    Args:
        in_force: the agents; none if None. Their objects stay raw.
    """

    def __init__(self, in_force: InForce | None = None) -> None:
        self._in_force = in_force or InForce()
        self._known: dict[bytes, tuple[_Target, _Decoder]] = {}

    def decode(self, body: bytes) -> Request:
        """Decode an AdmissionReview; its objects may be Structs already.

        Raises:
            ReviewError: the bytes are something else.
        """
        try:
            return self.decode_quickly(body)
        except UnscannedError:
            return decode(body, self._in_force.agents)

    def decode_quickly(self, body: bytes) -> Request:
        """Decode an AdmissionReview that msgspec takes as it is, likewise.

        Raises:
            ReviewError: the bytes are something else.
            UnscannedError: ``decode`` must tell.
        """
        agents = self._in_force.agents
        if agents.all and _may_be_agent(body, agents):
            return _of_agent(body, agents)
        words = _words(body)
        known = self._known.get(words)
        if known is None:
            request = decode_quickly(body, agents)
            self._remember(words, _target(request))
            return request
        target, decoder = known
        try:
            request = checked(decoder.decode(body), agents)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ReviewError):
            # Decode in two passes, which distinguish undecodable objects from undecodable reviews.
            return decode_quickly(body, agents)
        if _target(request) == target and request.agent is None:
            return request
        return decode_quickly(body, agents)

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


def _of_agent(body: bytes, agents: Agents) -> Request:
    try:
        request = decode_fields(body, agents)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ReviewError):
        # As above.
        return decode_quickly(body, agents)
    return request if request.agent is not None else decode_quickly(body, agents)


def _may_be_agent(body: bytes, agents: Agents) -> bool:
    """Return whether the requester seems to be an agent, as ``_words`` it is only a guess."""
    start = body.find(_USERNAME, 0, _HEAD) + len(_USERNAME)
    if start < len(_USERNAME) or body.startswith(_NODE_USER, start):
        return False
    end = body.find(b'"', start, start + _HEAD)
    return end >= 0 and agents.may_be_one(body[start:end])


def _words(body: bytes) -> bytes:
    """Return the raw resource, subresource and operation of a review; b"" for none."""
    start = body.find(b'"resource":{', 0, _HEAD)
    end = body.find(b',"requestKind":', start, _HEAD)
    operation = body.find(b'"operation":"', end, _HEAD)
    if start < 0 or end < 0 or operation < 0:
        return b""
    return body[start:end] + body[operation : operation + 20]
