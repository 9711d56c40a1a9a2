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
    fields_decoder,
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
#: An API server writes the user right after the operation.
_NEAR = 80
# Decoding in two passes distinguishes undecodable objects from undecodable reviews.
_TWO_PASSES = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ReviewError)


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
        operation, user = _places(body)
        if body.startswith(_NODE_USER, user):
            return self._of_node(body, body[operation:user], agents)
        if agents.all and agents.may_be_one(body[user : body.find(b'"', user, user + _HEAD)]):
            return _of_agent(body, agents)
        return decode_quickly(body, agents)

    def _of_node(self, body: bytes, operation: bytes, agents: Agents) -> Request:
        words = _resource(body) + operation
        known = self._known.get(words)
        if known is None:
            request = decode_quickly(body, agents)
            self._remember(words, _target(request))
            return request
        target, decoder = known
        try:
            request = checked(decoder.decode(body), agents)
        except _TWO_PASSES:
            return decode_quickly(body, agents)
        # The policies of agents take no Structs.
        if _target(request) == target and request.agent is None:
            return request
        return decode_quickly(body, agents)

    def _remember(self, words: bytes, target: _Target) -> None:
        row = row_for(*target, _ALL)
        if len(self._known) >= _REMEMBERED or (row is not None and row.target.whole):
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
        request = checked(fields_decoder.decode(body), agents)
    except _TWO_PASSES:
        return decode_quickly(body, agents)
    return request if request.agent is not None else decode_quickly(body, agents)


def _places(body: bytes) -> tuple[int, int]:
    """Return where the operation and the name of the user seem to begin."""
    operation = body.find(b'"operation":"', 0, _HEAD)
    return operation, body.find(_USERNAME, operation, operation + _NEAR) + len(_USERNAME)


def _resource(body: bytes) -> bytes:
    """Return the raw resource and subresource of a review; b"" if they are not seen."""
    start = body.find(b'"resource":{', 0, _HEAD)
    end = body.find(b',"requestKind":', start, _HEAD)
    return b"" if start < 0 or end < 0 else body[start:end]
