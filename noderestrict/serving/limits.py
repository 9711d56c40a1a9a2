"""Limits on what is in flight, so that load causes neither memory growth nor late answers."""

import resource
from dataclasses import dataclass, replace

from noderestrict.telemetry.logs import LOGGER

MAX_BODY_BYTES = 8 * 1024 * 1024


#: File descriptors for all but client connections: watches, lookups, captures, certificates.
_OTHER_FILES = 128


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one server.

    Attributes:
        requests: answered at a time.
        body_bytes: of one request.
        total_bytes: of what was received and is not answered yet.
        connections: open at a time.
        metrics_connections: open at a time on the metrics port.
        header_seconds: from the first byte of a request, or from connecting, to the end of its
            headers; also between requests on a connection that carried no review.
        body_seconds: from the headers to the end of the body.
        answer_seconds: for a client to read its answers.
        idle_seconds: between requests on a connection; longer than the API server's 90 s.
        age_seconds: at most, after which an answer ends a connection that carries reviews; 0 for
            never.
    """

    requests: int = 512
    body_bytes: int = MAX_BODY_BYTES
    total_bytes: int = 128 * 1024 * 1024
    connections: int = 2048
    metrics_connections: int = 64
    header_seconds: float = 10
    body_seconds: float = 10
    answer_seconds: float = 10
    idle_seconds: float = 120
    age_seconds: float = 600

    @property
    def files(self) -> int:
        """File descriptors that these limits need."""
        return self.connections + self.metrics_connections + _OTHER_FILES

    @property
    def fresh(self) -> int:
        """Most connections that carried no review yet."""
        return max(1, self.connections // 3)

    def within(self, files: int) -> "Limits":
        """Return limits that fit into so many file descriptors and leave some for other files."""
        if files >= self.files:
            return self
        metrics = min(self.metrics_connections, max(1, files // 8))
        connections = files - metrics - min(_OTHER_FILES, files // 4)
        return replace(self, connections=max(2, connections), metrics_connections=metrics)

    def on_metrics_port(self) -> "Limits":
        """Return the limits of the metrics port."""
        return replace(self, connections=self.metrics_connections, total_bytes=self.body_bytes)


class InFlight:
    """Requests and bytes in flight, against the limits.

    Attributes:
        requests: whose body has arrived, being answered; large ones do not count.
        large: those with a large body, which wait in a lane of their own.
        bytes: received, and not answered yet.
        most_bytes: their limit.
    """

    __slots__ = ("_most_requests", "bytes", "large", "most_bytes", "requests")

    def __init__(self, limits: Limits) -> None:
        self._most_requests = limits.requests
        self.most_bytes = limits.total_bytes
        self.requests = 0
        self.large = 0
        self.bytes = 0

    @property
    def all_requests(self) -> int:
        """Requests being answered, large ones included."""
        return self.requests + self.large

    def enter(self, large: bool = False) -> bool:  # noqa: FBT001, FBT002 (per request, so cheap)
        """Count a request in, if there are not too many; return whether it was."""
        if large:
            self.large += 1
        elif self.requests >= self._most_requests:
            return False
        else:
            self.requests += 1
        return True

    def leave(self, large: bool = False) -> None:  # noqa: FBT001, FBT002 (as above)
        """Count it out."""
        if large:
            self.large -= 1
        else:
            self.requests -= 1


def within_open_files(limits: Limits) -> Limits:
    """Raise the soft RLIMIT_NOFILE as far as it helps; return limits that fit within it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = resource.RLIM_INFINITY
    if soft != infinite and soft < limits.files:
        soft = limits.files if hard == infinite else min(limits.files, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == infinite or soft >= limits.files:
        return limits
    fitting = limits.within(soft)
    LOGGER.warning(
        "RLIMIT_NOFILE is low: fewer connections are accepted",
        extra={"files": soft, "wanted": limits.files, "connections": fitting.connections},
    )
    return fitting


def parse_timeout(text: str) -> float | None:
    """Return the seconds of a Go duration such as ``1m30s``; None for anything else."""
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


# "ms" before "m": the first unit that fits is taken.
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
