"""What a check finds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

PASS, WARN, FAIL, UNKNOWN = "pass", "warn", "fail", "unknown"
STATUSES = {
    PASS: "all is well",
    WARN: "it may be intended",
    FAIL: "the cluster is unprotected, or will break",
    UNKNOWN: "it could not be checked",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a check.

    Attributes:
        status: ``pass``, ``warn``, ``fail`` or ``unknown``.
        message: what was found.
        remedy: what to do about it, "" for nothing.
        command: what to type to do that, one command a line, "" if no command does it. Words in
            capitals stand for what only the operator knows.
        patch: operations of a JSON Patch (RFC 6902) that turn what is installed into what was
            rendered; one finding after the other, if there are several about an object.
    """

    status: str
    message: str
    remedy: str = ""
    command: str = ""
    patch: tuple[Mapping[str, Any], ...] = field(default=(), compare=False)


def passed(message: str) -> Finding:
    """Return a finding that needs no action."""
    return Finding(PASS, message)


def warned(message: str, remedy: str, command: str = "") -> Finding:
    """Return a finding that may be intended."""
    return Finding(WARN, message, remedy, command)


def failed(
    message: str, remedy: str, command: str = "", patch: tuple[Mapping[str, Any], ...] = ()
) -> Finding:
    """Return a finding that leaves the cluster unprotected, or will break it."""
    return Finding(FAIL, message, remedy, command, patch)


def unknown(message: str, remedy: str, command: str = "") -> Finding:
    """Return a finding that says what could not be checked."""
    return Finding(UNKNOWN, message, remedy, command)


def exit_code(findings: Iterable[Finding]) -> int:
    """Return 1 if a finding is a failure, else 2 if something could not be checked, else 0."""
    statuses = {finding.status for finding in findings}
    return 1 if FAIL in statuses else 2 if UNKNOWN in statuses else 0
