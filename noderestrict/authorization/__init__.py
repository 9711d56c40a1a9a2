"""SubjectAccessReview: from bytes to an opinion to bytes, without sockets."""

from noderestrict.authorization.decode import Review, ReviewError, decode
from noderestrict.authorization.encode import encode
from noderestrict.authorization.evaluate import (
    evaluate,
    evaluate_agent,
    reach_review,
    reached,
)

__all__ = [
    "Review",
    "ReviewError",
    "decode",
    "encode",
    "evaluate",
    "evaluate_agent",
    "reach_review",
    "reached",
]
