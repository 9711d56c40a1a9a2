"""SubjectAccessReview: bytes to opinion to bytes, without sockets."""

from noderestrict.authorization.review import Review, ReviewError, decode, encode, judge

__all__ = ["Review", "ReviewError", "decode", "encode", "judge"]
