"""Write judged reviews as case files that ``noderestrict replay`` reads.

Its own thread writes; answering a request only puts a reference into a bounded queue. Reviews that
do not fit, and those that cannot be written, are dropped and counted. Only reviews of kinds with
secrets are parsed, because that blocks the event loop; all others are written as they arrived.

Where clients need no certificate, anybody may post reviews, and must not push out those of an API
server. So each address has its own files and a share of the queue; see ``Files``.
"""

import contextlib
import datetime as dt
import json
import os
import queue
import re
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from noderestrict import admission
from noderestrict.policy.decision import Allowed, Denied
from noderestrict.policy.hostile import brief
from noderestrict.telemetry.logs import LOGGER
from noderestrict.telemetry.metrics import Metrics

_QUEUE = 1000
_QUEUE_BYTES = 64 * 1024 * 1024
#: Most of it that one address may use.
_SHARE_BYTES = _QUEUE_BYTES // 4
#: Files that an owner keeps, however many files the others start.
_KEPT_FILES = 2
#: Owner of the files of all clients that have none of their own.
_OTHERS = "others"
_STOP_SECONDS = 10.0
_PREFIX = "capture-"
#: By kind, the fields that are removed because they hold secrets.
_SENSITIVE: dict[str, tuple[tuple[str, ...], ...]] = {
    "Secret": (("data",), ("stringData",)),
    "TokenRequest": (("status", "token"),),
    "TokenReview": (("spec", "token"),),
    "CertificateSigningRequest": (("spec", "request"), ("status", "certificate")),
    "PodCertificateRequest": (
        ("spec", "pkixPublicKey"),
        ("spec", "proofOfPossession"),
        ("spec", "stubPKCS10Request"),
        ("status", "certificateChain"),
    ),
}
#: Kinds whose verdict depends on the fields that are removed.
_JUDGED = ("CertificateSigningRequest",)
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

_Judged = tuple[admission.Request, bytes, Allowed | Denied, str]


@dataclass(frozen=True, slots=True)
class CaptureOptions:
    """What is written, and where.

    Attributes:
        directory: created if missing.
        denied_only: whether to skip what was allowed.
        every: write one review in so many.
        files: most files to keep, of all addresses together.
        file_bytes: size at which a new file is started.
    """

    directory: Path
    denied_only: bool = False
    every: int = 1
    files: int = 10
    file_bytes: int = 10 * 1024 * 1024


class Capture:
    """Writes judged reviews.

    Args:
        options: what to write, and where.
        metrics: counted into.
    """

    def __init__(self, options: CaptureOptions, metrics: Metrics) -> None:
        self._options = options
        self._metrics = metrics
        self._queue: queue.Queue[_Judged | None] = queue.Queue(_QUEUE)
        self._lock = threading.Lock()
        self._waiting = 0
        self._waiting_of: Counter[str] = Counter()
        self._seen = 0
        self._files = Files(options)
        self._failing = False
        self._thread = threading.Thread(target=self._write_all, name="capture", daemon=True)
        self._thread.start()

    def offer(
        self, request: admission.Request, body: bytes, decision: Allowed | Denied, peer: str = ""
    ) -> None:
        """Queue a review, if it is to be written and fits; never blocks.

        Args:
            request: decoded from the body.
            body: of the review.
            decision: of the rules.
            peer: address of the client, "" if unknown.
        """
        if self._options.denied_only and isinstance(decision, Allowed):
            return
        self._seen += 1
        if self._seen % self._options.every:
            return
        with self._lock:
            size = _counted(body)
            fits = self._waiting + len(body) <= _QUEUE_BYTES and not self._queue.full()
            if peer and self._waiting_of[peer] + size > _SHARE_BYTES:
                fits = False
            if fits:
                self._waiting += len(body)
                self._waiting_of[peer] += size
        if fits:
            self._queue.put_nowait((request, body, decision, peer))
        else:
            self._metrics.capture_dropped.inc()

    def close(self) -> None:
        """Write what is queued, and stop."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=_STOP_SECONDS)
        self._thread.join(_STOP_SECONDS)

    def _write_all(self) -> None:
        while (item := self._queue.get()) is not None:
            request, body, decision, peer = item
            with self._lock:
                self._waiting -= len(body)
                self._waiting_of[peer] -= _counted(body)
                if self._waiting_of[peer] <= 0:
                    del self._waiting_of[peer]
            try:
                self._files.write(case_line(request, body, decision), peer)
            except Exception as error:  # noqa: BLE001 (logged and counted; the thread must continue)
                self._metrics.capture_dropped.inc()
                if not self._failing:
                    LOGGER.error("capture failed", extra={"error": brief(error)})
                self._failing = True
            else:
                self._metrics.captured.inc()
                self._failing = False
        self._files.close()


def _counted(body: bytes) -> int:
    """Return the bytes of the queue that a review uses; a small one uses one slot's worth."""
    return max(len(body), _QUEUE_BYTES // _QUEUE)


class Files:
    """Case files in a directory, limited in number and size, each with one owner.

    An owner is the address of a client. The first files / 2 - 1 clients own files; file names
    contain the owner, so a restart changes nothing. All other clients share the files of one more
    owner. At the limit, the owner with most files loses its oldest: everyone keeps at least the two
    newest, and a single client may use all.

    Args:
        options: limits and directory.
    """

    def __init__(self, options: CaptureOptions) -> None:
        self._options = options
        self._number = 0
        self._open: dict[str, tuple[BinaryIO, int]] = {}

    def write(self, line: bytes, peer: str) -> None:
        """Write a line to a file of an address.

        Raises:
            OSError: it cannot be written.
        """
        owner = self._owner(peer)
        _, size = self._open.get(owner, (None, 0))
        if owner not in self._open or size + len(line) > self._options.file_bytes:
            self._end(owner)
            self._open[owner] = self._begin(owner), 0
        file, size = self._open[owner]
        written = 0
        try:
            # Unbuffered: what cannot be written raises here.
            written = file.write(line)
        finally:
            if written != len(line):
                self._end(owner)
        if written != len(line):
            raise OSError("the disk is full")
        self._open[owner] = file, size + len(line)

    def close(self) -> None:
        """Close all files."""
        for owner in list(self._open):
            self._end(owner)

    def _owner(self, peer: str) -> str:
        """Return whose files an address writes to."""
        name = re.sub(r"[^0-9A-Za-z.]", "_", peer)
        if name in self._open:
            return name
        owners = {*self._open, *map(_owner_of, self._present())} - {_OTHERS}
        has_room = len(owners) < self._options.files // _KEPT_FILES - 1
        return name if name and (name in owners or has_room) else _OTHERS

    def _present(self) -> list[Path]:
        """Return the existing files, oldest first."""
        return sorted(self._options.directory.glob(f"{_PREFIX}*.jsonl"))

    def _begin(self, owner: str) -> BinaryIO:
        directory = self._options.directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._make_room(owner)
        self._number += 1
        moment = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S%f")
        path = directory / f"{_PREFIX}{moment}-{self._number:06d}-{owner}.jsonl"
        # Never write to an existing file, least of all through a link.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.fdopen(os.open(path, flags, 0o600), "wb", buffering=0)

    def _make_room(self, owner: str) -> None:
        """Remove files until one more may be started."""
        files = self._present()
        while len(files) >= self._options.files:
            counts = Counter(map(_owner_of, files))
            most = max(counts, key=lambda one: counts[one])
            gives = owner if counts[owner] >= counts[most] else most
            oldest = next(file for file in files if _owner_of(file) == gives)
            if counts[gives] == 1:
                # Its only file, which may be open.
                self._end(gives)
            oldest.unlink(missing_ok=True)
            files.remove(oldest)

    def _end(self, owner: str) -> None:
        """Close a file, and cut off the partial line that a full disk may have left."""
        file, size = self._open.pop(owner, (None, 0))
        if file is not None:
            with contextlib.suppress(OSError):
                file.truncate(size)
            file.close()


def _owner_of(file: Path) -> str:
    parts = file.stem.split("-", 3)
    return parts[3] if len(parts) > 3 else _OTHERS


def case_line(request: admission.Request, body: bytes, decision: Allowed | Denied) -> bytes:
    """Return a review as a line of a case file, without secrets.

    Args:
        request: decoded from the body.
        body: of the review.
        decision: of the rules.

    Raises:
        ValueError: the body is not JSON.
    """
    kind = request.kind[1] if request.kind else ""
    judged_by = False
    if not kind or kind in _SENSITIVE:
        body, judged_by = _without_secrets(body, kind, whole=request.agent is not None)
    case: dict[str, Any] = {
        "id": request.uid,
        # One line: JSON has line feeds only between tokens.
        "review": msgspec.Raw(body.replace(b"\n", b" ").strip()),
    }
    if not judged_by:
        case["expect"] = {"allowed": isinstance(decision, Allowed)}
        if isinstance(decision, Denied):
            case["expect"] |= {"code": decision.code, "reason": decision.reason}
    return msgspec.json.encode(case) + b"\n"


def _without_secrets(body: bytes, kind: str, *, whole: bool) -> tuple[bytes, bool]:
    """Return a review without secrets, and whether its verdict depends on one.

    Args:
        body: of the review.
        kind: of its objects, "" if it does not say.
        whole: whether all fields of the objects may matter, as those of an agent do.
    """
    review = json.loads(body)
    judged_by = False
    for field in ("object", "oldObject"):
        value = review["request"].get(field)
        if isinstance(value, dict):
            kind_of_value = kind or str(value.get("kind"))
            judged_by |= remove(value, kind_of_value) and (whole or kind_of_value in _JUDGED)
    return json.dumps(review, separators=(",", ":")).encode(), judged_by


def remove(value: dict[str, Any], kind: str) -> bool:
    """Remove the secrets from an object of a kind; return whether there were any."""
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
