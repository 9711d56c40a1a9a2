"""What a rule can answer."""

import msgspec


class Allowed(msgspec.Struct, frozen=True):
    """The request may pass; ``rule`` is the id of the rule that settled it, if one did."""

    rule: str = ""


class Denied(msgspec.Struct, frozen=True):
    """The request is refused.

    Attributes:
        code: 403, 404, or 500 for what may pass when it is tried again.
        reason: the machine-readable reason, ``Forbidden``, ``NotFound``, ``InternalError`` or "".
        message: which object, field and value, and what to do instead.
        rule: the id of the rule, such as ``pods/mirror-annotation``.
    """

    code: int
    reason: str
    message: str
    rule: str


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

# A message names what the node chose; it ends up in answers, logs and audit logs.
_LONGEST_MESSAGE = 4096


def _denied(code: int, reason: str, message: str, rule: str) -> Denied:
    if len(message) > _LONGEST_MESSAGE:
        message = f"{message[:_LONGEST_MESSAGE]}…"
    return Denied(code, reason, message, rule)


def forbidden(rule: str, message: str) -> Denied:
    """Refuse with 403 Forbidden; a long message is cut."""
    return _denied(403, "Forbidden", message, rule)


def not_found(rule: str, message: str) -> Denied:
    """Refuse with 404 NotFound, as the in-tree plugin passes a lister's NotFound through."""
    return _denied(404, "NotFound", message, rule)


def retriable(rule: str, message: str) -> Denied:
    """Refuse with 500, so that the kubelet tries again: the cluster may only be lagging."""
    return _denied(500, "InternalError", message, rule)
