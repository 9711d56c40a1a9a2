"""Write judged reviews as case files that ``noderestrict replay`` reads.

A thread of its own writes: the path of an answer only puts a reference into a bounded queue. What
does not fit, and what the disk does not take, is counted and dropped.
"""

import contextlib
import datetime as dt
import json
import queue
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noderestrict.policy.decision import Allowed, Denied
from noderestrict.telemetry.logs import LOGGER
from noderestrict.telemetry.metrics import Metrics

_QUEUE = 1000
_QUEUE_BYTES = 64 * 1024 * 1024
_STOP_SECONDS = 10.0
_PREFIX = "capture-"
#: By kind, what is removed: values that must not leave the API server.
_SENSITIVE: dict[str, tuple[tuple[str, ...], ...]] = {
    "Secret": (("data",), ("stringData",)),
    "TokenRequest": (("status", "token"),),
    "CertificateSigningRequest": (("spec", "request"), ("status", "certificate")),
    "PodCertificateRequest": (
        ("spec", "pkixPublicKey"),
        ("spec", "proofOfPossession"),
        ("spec", "stubPKCS10Request"),
        ("status", "certificateChain"),
    ),
}
#: Without these a verdict cannot be had again.
_JUDGED = ("CertificateSigningRequest",)
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True, slots=True)
class CaptureOptions:
    """What is written, and where.

    Attributes:
        directory: made if it is not there.
        denied_only: leave out what was allowed.
        every: write one review of so many.
        files: how many are kept; the oldest is removed first.
        file_bytes: after which a new file is begun.
    """

    directory: Path
    denied_only: bool = False
    every: int = 1
    files: int = 10
    file_bytes: int = 10 * 1024 * 1024


class Capture:
    """Takes judged reviews, and writes them.

    Args:
        options: see there.
        metrics: counted into.
    """

    def __init__(self, options: CaptureOptions, metrics: Metrics) -> None:
        self._options = options
        self._metrics = metrics
        self._queue: queue.Queue[tuple[bytes, Allowed | Denied] | None] = queue.Queue(_QUEUE)
        self._lock = threading.Lock()
        self._waiting = 0
        self._seen = 0
        self._number = 0
        self._file: Path | None = None
        self._size = 0
        self._failing = False
        self._thread = threading.Thread(target=self._write_all, name="capture", daemon=True)
        self._thread.start()

    def offer(self, body: bytes, decision: Allowed | Denied) -> None:
        """Take a review, if it is one of those that are wanted and there is room; never waits."""
        if self._options.denied_only and isinstance(decision, Allowed):
            return
        self._seen += 1
        if self._seen % self._options.every:
            return
        with self._lock:
            fits = self._waiting + len(body) <= _QUEUE_BYTES and not self._queue.full()
            if fits:
                self._waiting += len(body)
        if fits:
            self._queue.put_nowait((body, decision))
        else:
            self._metrics.capture_dropped.inc()

    def close(self) -> None:
        """Write what has been taken, and stop."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=_STOP_SECONDS)
        self._thread.join(_STOP_SECONDS)

    def _write_all(self) -> None:
        while (item := self._queue.get()) is not None:
            with self._lock:
                self._waiting -= len(item[0])
            try:
                self._write(case_line(*item))
            except (OSError, ValueError, RecursionError) as error:
                self._metrics.capture_dropped.inc()
                self._file = None
                if not self._failing:
                    LOGGER.error("capture failed", extra={"error": str(error)[:300]})
                self._failing = True
            else:
                self._metrics.captured.inc()
                self._failing = False

    def _write(self, line: bytes) -> None:
        if self._file is None or self._size + len(line) > self._options.file_bytes:
            self._begin()
        assert self._file is not None  # noqa: S101 (just begun)
        with self._file.open("ab") as file:
            file.write(line)
        self._size += len(line)

    def _begin(self) -> None:
        directory = self._options.directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._number += 1
        moment = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S%f")
        self._file = directory / f"{_PREFIX}{moment}-{self._number:06d}.jsonl"
        self._file.touch(mode=0o600)
        self._size = 0
        for old in sorted(directory.glob(f"{_PREFIX}*.jsonl"))[: -self._options.files]:
            old.unlink()


def case_line(body: bytes, decision: Allowed | Denied) -> bytes:
    """Return a review as a line of a case file, without what must stay secret.

    Raises:
        ValueError: the body is no JSON.
    """
    review = json.loads(body)
    request = review["request"]
    kind = (request.get("kind") or {}).get("kind")
    removed = [
        remove(value, kind)
        for value in (request.get("object"), request.get("oldObject"))
        if isinstance(value, dict)
    ]
    case: dict[str, Any] = {"id": request["uid"], "review": review}
    if not (any(removed) and kind in _JUDGED):
        case["expect"] = {"allowed": isinstance(decision, Allowed)}
        if isinstance(decision, Denied):
            case["expect"] |= {"code": decision.code, "reason": decision.reason}
    return json.dumps(case, separators=(",", ":")).encode() + b"\n"


def remove(value: dict[str, Any], kind: str | None) -> bool:
    """Remove what is secret from an object of a kind; tell whether there was anything."""
    found = False
    for *parents, last in _SENSITIVE.get(kind or "", ()):
        where: Any = value
        for parent in parents:
            where = where.get(parent) if isinstance(where, dict) else None
        if isinstance(where, dict) and last in where:
            del where[last]
            found = True
    metadata = value.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    if kind in _SENSITIVE and isinstance(annotations, dict):
        found |= annotations.pop(_LAST_APPLIED, None) is not None
    return found
