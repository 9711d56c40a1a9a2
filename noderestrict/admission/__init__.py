"""AdmissionReview: from bytes to a decision to bytes, without sockets."""

from noderestrict.admission.decode import (
    Request,
    ReviewError,
    UnscannedError,
    decode,
    resource_path,
)
from noderestrict.admission.encode import encode
from noderestrict.admission.evaluate import evaluate
from noderestrict.admission.running import Run, inline
from noderestrict.admission.typed_decoder import TypedDecoder

__all__ = [
    "Request",
    "ReviewError",
    "Run",
    "TypedDecoder",
    "UnscannedError",
    "decode",
    "encode",
    "evaluate",
    "inline",
    "resource_path",
]
