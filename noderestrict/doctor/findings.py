"""What a check finds."""

from dataclasses import dataclass

PASS, WARN, FAIL = "pass", "warn", "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a check.

    Attributes:
        status: ``pass``, ``warn`` or ``fail``.
        message: what was found.
        remedy: what to do about it, "" for nothing.
    """

    status: str
    message: str
    remedy: str = ""


def passed(message: str) -> Finding:
    """Return a finding that needs no action."""
    return Finding(PASS, message)


def warned(message: str, remedy: str) -> Finding:
    """Return a finding that may be intended, or that could not be checked."""
    return Finding(WARN, message, remedy)


def failed(message: str, remedy: str) -> Finding:
    """Return a finding that leaves the cluster unprotected, or will break it."""
    return Finding(FAIL, message, remedy)
