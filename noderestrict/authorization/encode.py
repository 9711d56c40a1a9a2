"""Encode the answer to a SubjectAccessReview."""

import msgspec

from noderestrict.api import authorizationv1
from noderestrict.authorization.decode import KIND, Review
from noderestrict.graph.rules import Opinion
from noderestrict.policy.text import printable

_encoder = msgspec.json.Encoder()


def encode(review: Review, opinion: Opinion) -> bytes:
    """Encode the answer."""
    status = authorizationv1.SubjectAccessReviewStatus(opinion.allowed, printable(opinion.reason))
    return _encoder.encode(
        authorizationv1.SubjectAccessReviewAnswer(review.api_version, KIND, status)
    )
