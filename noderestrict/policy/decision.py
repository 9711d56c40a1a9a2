"""What a rule can answer."""

import msgspec

from noderestrict.policy.text import printable


class Allowed(msgspec.Struct, frozen=True):
    """The request may pass; ``rule`` is the id of the rule that settled it, if one did."""

    rule: str = ""


class Denied(msgspec.Struct, frozen=True):
    """The request is refused.

    Attributes:
        code: 403, 404, or 500 for what may pass when it is tried again.
        reason: the machine-readable reason, ``Forbidden``, ``NotFound``, ``InternalError`` or "".
        message: for the requester: which object, field and value, and what to do instead. It names
            only what the requester sent: whoever asks must not learn what was looked up.
        rule: the id of the rule, such as ``pods/mirror-annotation``; the evaluation fills it in.
        detail: for the operator: what was found where something else was wanted, or "". It goes
            to the log and to offline reports, never into an answer.
    """

    code: int
    reason: str
    message: str
    rule: str = ""
    detail: str = ""

    @property
    def explanation(self) -> str:
        """The message with the detail, for the operator alone."""
        return f"{self.message} ({self.detail})" if self.detail else self.message


class Question(msgspec.Struct, frozen=True):
    """The cluster's authorizer decides.

    It is asked whether the requesting user may do ``request-serviceaccounts-token-audience`` on
    the resource named as the audience, with the name ``service_account``, in ``namespace``. Yes for
    any of ``audiences`` is allowed, no for all is ``otherwise``.
    """

    audiences: tuple[str, ...]
    service_account: str
    namespace: str
    otherwise: Denied


Decision = Allowed | Denied | Question

# Both texts name what a node chose; they end up in answers, logs and audit logs.
_LONGEST = 4096


def _cut(text: str) -> str:
    """Return a text as it is shown: printable, and not too long."""
    shown = printable(text[: _LONGEST + 1])
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"


def forbidden(message: str, detail: str = "", rule: str = "") -> Denied:
    """Refuse with 403 Forbidden; long texts are cut."""
    return Denied(403, "Forbidden", _cut(message), rule, _cut(detail))


def not_found(message: str, detail: str = "", rule: str = "") -> Denied:
    """Refuse with 404 NotFound, as the in-tree plugin passes a lister's NotFound through."""
    return Denied(404, "NotFound", _cut(message), rule, _cut(detail))


def retriable(message: str, detail: str = "", rule: str = "") -> Denied:
    """Refuse with 500, so that the kubelet tries again: the cluster may only be lagging."""
    return Denied(500, "InternalError", _cut(message), rule, _cut(detail))
