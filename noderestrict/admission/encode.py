"""Encode the answer to an AdmissionReview."""

from collections.abc import Mapping, Sequence

import msgspec

from noderestrict.admission.decode import API_VERSION, Request
from noderestrict.api import admissionv1
from noderestrict.policy.decision import Allowed, Decision, Denied, Question

_encoder = msgspec.json.Encoder()
_ALLOWED = (
    b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview",'
    b'"response":{"uid":%b,"allowed":true}}'
)


def encode(
    request: Request,
    decision: Decision,
    warnings: Sequence[str] = (),
    audit_annotations: Mapping[str, str] | None = None,
) -> bytes:
    """Encode the answer to a request; an unanswered Question is denied."""
    if isinstance(decision, Allowed) and not warnings and not audit_annotations:
        # Nearly all answers differ only in the uid.
        return _ALLOWED % _encoder.encode(request.uid)
    if isinstance(decision, Question):
        decision = decision.otherwise
    status = None
    if isinstance(decision, Denied):
        status = admissionv1.Status(decision.code, decision.reason, decision.message)
    response = admissionv1.AdmissionResponse(
        uid=request.uid,
        allowed=isinstance(decision, Allowed),
        status=status,
        warnings=tuple(warnings),
        auditAnnotations=dict(audit_annotations) if audit_annotations else None,
    )
    return _encoder.encode(
        admissionv1.AdmissionReviewResponse(API_VERSION, "AdmissionReview", response)
    )
