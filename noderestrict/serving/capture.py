"""Write judged reviews as case files that ``noderestrict replay`` reads.

A thread of its own writes: the path of an answer only puts a reference into a bounded queue. What
does not fit, and what the disk does not take, is counted and dropped. Only reviews of kinds with
secrets are taken apart, since that would hold up the other thread; all others are written as they
came.
"""

import contextlib
import datetime as dt
import json
import queue
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from noderestrict import admission
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

_Judged = tuple[admission.Request, bytes, Allowed | Denied]


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
        self._queue: queue.Queue[_Judged | None] = queue.Queue(_QUEUE)
        self._lock = threading.Lock()
        self._waiting = 0
        self._seen = 0
        self._number = 0
        self._file: BinaryIO | None = None
        self._size = 0
        self._failing = False
        self._thread = threading.Thread(target=self._write_all, name="capture", daemon=True)
        self._thread.start()

    def offer(self, request: admission.Request, body: bytes, decision: Allowed | Denied) -> None:
        """Take a review, if it is one of those that are wanted and there is room; never waits.

        Args:
            request: decoded from the body.
            body: of the review.
            decision: of the rules.
        """
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
            self._queue.put_nowait((request, body, decision))
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
                self._waiting -= len(item[1])
            try:
                self._write(case_line(*item))
            except (OSError, ValueError, RecursionError) as error:
                self._metrics.capture_dropped.inc()
                self._end()
                if not self._failing:
                    LOGGER.error("capture failed", extra={"error": str(error)[:300]})
                self._failing = True
            else:
                self._metrics.captured.inc()
                self._failing = False
        self._end()

    def _write(self, line: bytes) -> None:
        if self._file is None or self._size + len(line) > self._options.file_bytes:
            self._end()
            self._file = self._begin()
        # Unbuffered: what has been written is on disk, and what has not raises here.
        if self._file.write(line) != len(line):
            raise OSError("the disk is full")
        self._size += len(line)

    def _begin(self) -> BinaryIO:
        directory = self._options.directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._number += 1
        moment = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S%f")
        path = directory / f"{_PREFIX}{moment}-{self._number:06d}.jsonl"
        path.touch(mode=0o600)
        self._size = 0
        for old in sorted(directory.glob(f"{_PREFIX}*.jsonl"))[: -self._options.files]:
            old.unlink()
        return path.open("wb", buffering=0)

    def _end(self) -> None:
        """Close the file, without the part of a line that a full disk may have left."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.truncate(self._size)
            file.close()


def case_line(request: admission.Request, body: bytes, decision: Allowed | Denied) -> bytes:
    """Return a review as a line of a case file, without what must stay secret.

    Args:
        request: decoded from the body.
        body: of the review.
        decision: of the rules.

    Raises:
        ValueError: the body is no JSON.
    """
    kind = request.kind[1] if request.kind else ""
    judged_by = False
    if not kind or kind in _SENSITIVE:
        body, judged_by = _without_secrets(body, kind)
    case: dict[str, Any] = {
        "id": request.uid,
        # One line; JSON has line ends only between its tokens.
        "review": msgspec.Raw(body.replace(b"\n", b" ").strip()),
    }
    if not judged_by:
        case["expect"] = {"allowed": isinstance(decision, Allowed)}
        if isinstance(decision, Denied):
            case["expect"] |= {"code": decision.code, "reason": decision.reason}
    return msgspec.json.encode(case) + b"\n"


def _without_secrets(body: bytes, kind: str) -> tuple[bytes, bool]:
    """Return a review without what must stay secret, and whether a verdict depends on that."""
    review = json.loads(body)
    judged_by = False
    for field in ("object", "oldObject"):
        value = review["request"].get(field)
        if isinstance(value, dict):
            kind_of_value = kind or str(value.get("kind"))
            judged_by |= remove(value, kind_of_value) and kind_of_value in _JUDGED
    return json.dumps(review, separators=(",", ":")).encode(), judged_by


def remove(value: dict[str, Any], kind: str) -> bool:
    """Remove what is secret from an object of a kind; tell whether there was anything."""
    found = False
    for *parents, last in _SENSITIVE.get(kind, ()):
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
