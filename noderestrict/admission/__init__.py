"""AdmissionReview: bytes to decision to bytes, without sockets."""

from noderestrict.admission.review import (
    Request,
    ReviewError,
    UnscannedError,
    decode,
    encode,
    resource_path,
)
from noderestrict.admission.typed import TypedDecoder
from noderestrict.admission.verdict import judge

__all__ = [
    "Request",
    "ReviewError",
    "TypedDecoder",
    "UnscannedError",
    "decode",
    "encode",
    "judge",
    "resource_path",
]
