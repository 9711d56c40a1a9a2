"""Encode the answer to a SubjectAccessReview."""

import msgspec

from noderestrict.api import authorizationv1
from noderestrict.authorization.decode import KIND, Review
from noderestrict.graph.rules import Opinion
from noderestrict.policy.text import printable

_LONGEST_REASON = 2048

_encoder = msgspec.json.Encoder()


def encode(review: Review, opinion: Opinion) -> bytes:
    """Encode the answer; a long reason, which quotes what a node chose, is cut."""
    reason = printable(opinion.reason[:_LONGEST_REASON])
    status = authorizationv1.SubjectAccessReviewStatus(opinion.allowed, reason, opinion.denied)
    return _encoder.encode(
        authorizationv1.SubjectAccessReviewAnswer(review.api_version, KIND, status)
    )
