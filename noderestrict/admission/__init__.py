"""AdmissionReview: bytes to decision to bytes, without sockets."""

from noderestrict.admission.review import (
    Request,
    ReviewError,
    UnscannedError,
    decode,
    encode,
    resource_path,
)
from noderestrict.admission.running import Run, inline
from noderestrict.admission.typed import TypedDecoder
from noderestrict.admission.verdict import judge

__all__ = [
    "Request",
    "ReviewError",
    "Run",
    "TypedDecoder",
    "UnscannedError",
    "decode",
    "encode",
    "inline",
    "judge",
    "resource_path",
]
