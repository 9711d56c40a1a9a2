"""Write judged reviews as case files that ``noderestrict replay`` reads.

A thread of its own writes: the path of an answer only puts a reference into a bounded queue. What
does not fit, and what the disk does not take, is counted and dropped. Only reviews of kinds with
secrets are taken apart, since that would hold up the other thread; all others are written as they
came.

Anybody may post reviews where clients need no certificate, and must not push out those of an API
server. So each address has files of its own, and a share of the queue; see ``Files``.
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
#: What one address may fill of it.
_SHARE_BYTES = _QUEUE_BYTES // 4
#: Files that each owner keeps, whoever else begins new ones.
_KEPT_FILES = 2
#: Who has no files of its own.
_OTHERS = "others"
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

_Judged = tuple[admission.Request, bytes, Allowed | Denied, str]


@dataclass(frozen=True, slots=True)
class CaptureOptions:
    """What is written, and where.

    Attributes:
        directory: made if it is not there.
        denied_only: leave out what was allowed.
        every: write one review of so many.
        files: how many are kept of all addresses together.
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
        self._waiting_of: Counter[str] = Counter()
        self._seen = 0
        self._files = Files(options)
        self._failing = False
        self._thread = threading.Thread(target=self._write_all, name="capture", daemon=True)
        self._thread.start()

    def offer(
        self, request: admission.Request, body: bytes, decision: Allowed | Denied, peer: str = ""
    ) -> None:
        """Take a review, if it is one of those that are wanted and there is room; never waits.

        Args:
            request: decoded from the body.
            body: of the review.
            decision: of the rules.
            peer: address of the client, "" if it is not known.
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
        """Write what has been taken, and stop."""
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
            except Exception as error:  # noqa: BLE001 (told and counted; the thread must go on)
                self._metrics.capture_dropped.inc()
                if not self._failing:
                    LOGGER.error("capture failed", extra={"error": brief(error)})
                self._failing = True
            else:
                self._metrics.captured.inc()
                self._failing = False
        self._files.close()


def _counted(body: bytes) -> int:
    """Return the bytes of the queue that a review takes, small ones for their number."""
    return max(len(body), _QUEUE_BYTES // _QUEUE)


class Files:
    """Case files in a directory, of bounded number and size, each of one owner.

    An owner is the address of a client. Half as many as there may be files, less one, have files of
    their own, those who came first; their names are in those of the files, so that a restart
    changes nothing. All others share theirs. Where the number is reached, who has most files gives
    up its oldest; so each keeps the two newest at least, and one alone has all.

    Args:
        options: see there.
    """

    def __init__(self, options: CaptureOptions) -> None:
        self._options = options
        self._number = 0
        self._open: dict[str, tuple[BinaryIO, int]] = {}

    def write(self, line: bytes, peer: str) -> None:
        """Write a line to a file of an address.

        Raises:
            OSError: the disk does not take it.
        """
        owner = self._owner(peer)
        _, size = self._open.get(owner, (None, 0))
        if owner not in self._open or size + len(line) > self._options.file_bytes:
            self._end(owner)
            self._open[owner] = self._begin(owner), 0
        file, size = self._open[owner]
        written = 0
        try:
            # Unbuffered: what has been written is on disk, and what has not raises here.
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
        """Return the files that are there, the oldest first."""
        return sorted(self._options.directory.glob(f"{_PREFIX}*.jsonl"))

    def _begin(self, owner: str) -> BinaryIO:
        directory = self._options.directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._make_room(owner)
        self._number += 1
        moment = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S%f")
        path = directory / f"{_PREFIX}{moment}-{self._number:06d}-{owner}.jsonl"
        # What is there already, a link above all, is not written to.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.fdopen(os.open(path, flags, 0o600), "wb", buffering=0)

    def _make_room(self, owner: str) -> None:
        """Remove files until one more may be begun."""
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
        """Close a file, without the part of a line that a full disk may have left."""
        file, size = self._open.pop(owner, (None, 0))
        if file is not None:
            with contextlib.suppress(OSError):
                file.truncate(size)
            file.close()


def _owner_of(file: Path) -> str:
    parts = file.stem.split("-", 3)
    return parts[3] if len(parts) > 3 else _OTHERS


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
