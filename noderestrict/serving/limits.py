"""Bounds on what is in flight, so that load never becomes memory or late answers."""

from dataclasses import dataclass

MAX_BODY_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one server.

    Attributes:
        requests: answered at a time.
        body_bytes: of one request.
        total_bytes: of the bodies of all requests at a time.
        connections: open at a time; further ones are closed at once.
        header_seconds: from connecting to the end of the first request's headers.
        body_seconds: from the headers to the end of the body.
        idle_seconds: between requests of a connection; more than the API server's 90 s.
    """

    requests: int = 512
    body_bytes: int = MAX_BODY_BYTES
    total_bytes: int = 128 * 1024 * 1024
    connections: int = 4096
    header_seconds: float = 10
    body_seconds: float = 10
    idle_seconds: float = 120


class Budget:
    """What is in flight, against the limits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.requests = 0
        self.bytes = 0

    def enter(self, size: int) -> str | None:
        """Count in a request with a body of so many bytes, or return the limit that refuses it."""
        if self.requests >= self._limits.requests:
            return "requests"
        if self.bytes + size > self._limits.total_bytes:
            return "bytes"
        self.requests += 1
        self.bytes += size
        return None

    def leave(self, size: int) -> None:
        """Count it out."""
        self.requests -= 1
        self.bytes -= size


def parse_timeout(text: str) -> float | None:
    """Return the seconds of a Go duration such as ``1m30s`` or ``300ms``; None if it is none."""
    seconds = 0.0
    rest = text
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        number, rest = rest[:digits], rest[digits:]
        unit = next((unit for unit in _UNITS if rest.startswith(unit)), None)
        if unit is None or number.count(".") > 1 or not number.strip("."):
            return None
        seconds += float(number) * _UNITS[unit]
        rest = rest[len(unit) :]
    return seconds if text else None


# Longer units first: "ms" before "m".
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
