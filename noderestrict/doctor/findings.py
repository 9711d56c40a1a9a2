"""What a check has found."""

from dataclasses import dataclass

PASS, WARN, FAIL = "pass", "warn", "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One result.

    Attributes:
        check: its name.
        status: ``pass``, ``warn`` or ``fail``.
        message: what was found.
        remedy: what to do, "" for nothing.
    """

    check: str
    status: str
    message: str
    remedy: str = ""


def passed(check: str, message: str) -> Finding:
    """Return that a check found nothing wrong."""
    return Finding(check, PASS, message)


def warned(check: str, message: str, remedy: str) -> Finding:
    """Return what may be wanted, or could not be checked."""
    return Finding(check, WARN, message, remedy)


def failed(check: str, message: str, remedy: str) -> Finding:
    """Return what leaves the cluster open, or will break it."""
    return Finding(check, FAIL, message, remedy)
