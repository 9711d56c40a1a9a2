"""The answers of a rule."""

import msgspec

from noderestrict.policy.text import printable


class Allowed(msgspec.Struct, frozen=True):
    """The request is allowed; ``rule`` is the id of the rule that decided it, if one did."""

    rule: str = ""


class Denied(msgspec.Struct, frozen=True):
    """The request is denied.

    Attributes:
        code: 403, 404, or 500 if the request may be allowed on a retry.
        reason: the machine-readable reason, ``Forbidden``, ``NotFound``, ``InternalError`` or "".
        message: for the requester: object, field, value and what to do instead. It names only what
            the requester sent, because the requester must not learn what was looked up.
        rule: the id of the rule, such as ``pods/mirror-annotation``; evaluation fills it in.
        detail: for the operator: the value found instead, or "". It goes to the log and to offline
            reports, never into an answer.
    """

    code: int
    reason: str
    message: str
    rule: str = ""
    detail: str = ""

    @property
    def explanation(self) -> str:
        """The message with the detail, for the operator only."""
        return f"{self.message} ({self.detail})" if self.detail else self.message


class Question(msgspec.Struct, frozen=True):
    """The cluster's authorizer decides.

    The request is allowed if the requesting user may use the verb on any of the resources.

    Attributes:
        verb: made up for this question, as the resources are.
        group: API group of the resources.
        resources: audiences or signers, in the form that roles name them in.
        name: of the service account.
        namespace: of the service account.
        otherwise: the denial if the answer is no.
    """

    verb: str
    group: str
    resources: tuple[str, ...]
    name: str
    namespace: str
    otherwise: Denied


Decision = Allowed | Denied | Question

# Both texts contain what a node chose, and end up in answers, logs and audit logs.
_LONGEST = 4096


def _cut(text: str) -> str:
    """Return a text made printable and cut to a maximum length."""
    shown = printable(text[: _LONGEST + 1])
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"


def forbidden(message: str, detail: str = "", rule: str = "") -> Denied:
    """Deny with 403 Forbidden; long texts are cut."""
    return Denied(403, "Forbidden", _cut(message), rule, _cut(detail))


def not_found(message: str, detail: str = "", rule: str = "") -> Denied:
    """Deny with 404 NotFound, as the in-tree plugin passes on a lister's NotFound."""
    return Denied(404, "NotFound", _cut(message), rule, _cut(detail))


def retriable(message: str, detail: str = "", rule: str = "") -> Denied:
    """Deny with 500, so that the kubelet retries: a store may only be lagging."""
    return Denied(500, "InternalError", _cut(message), rule, _cut(detail))
