"""Judged reviews on disk."""

import datetime as dt
import json
import resource
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from noderestrict import admission
from noderestrict.cli import main
from noderestrict.policy.decision import Allowed, forbidden
from noderestrict.serving.capture import Capture, CaptureOptions, Files, case_line
from noderestrict.telemetry.metrics import Metrics
from tests.serving.clients import BAD, EXAMPLES, GOOD
from tests.serving.tls import SECONDS, serving

DENIED = forbidden("no", rule="pods/mirror-references")
GOOD_REQUEST, BAD_REQUEST = admission.decode(GOOD), admission.decode(BAD)


def captured(directory: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for file in sorted(directory.glob("*.jsonl"))
        for line in file.read_text().splitlines()
    ]


def exposed(metrics: Metrics, name: str) -> float:
    value = metrics.registry.get_sample_value(name)
    assert value is not None
    return value


def test_what_a_server_captured_replays_as_it_was_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = str(EXAMPLES / "state.json")
    directory = tmp_path / "captured"
    flags = ("--state", state, "--capture", str(directory))
    (tmp_path / "tls").mkdir()
    with serving(tmp_path / "tls", *flags, state=False) as server:
        for _ in range(20):
            server.request("/validate", BAD)
            server.request("/validate", GOOD)
        # Nothing is lost on shutdown.
        assert server.stop() == 0
    files = [str(file) for file in directory.glob("*.jsonl")]
    assert main(["replay", "--state", state, *files]) == 0
    assert "40 cases: 20 allowed, 20 denied; 40 of 40 as expected" in capsys.readouterr().out


def test_only_refusals_or_one_of_n_are_taken(tmp_path: Path) -> None:
    denied = Capture(CaptureOptions(tmp_path / "denied", denied_only=True), Metrics())
    tenth = Capture(CaptureOptions(tmp_path / "tenth", every=10), Metrics())
    for capture in (denied, tenth):
        for _ in range(50):
            capture.offer(GOOD_REQUEST, GOOD, Allowed())
            capture.offer(BAD_REQUEST, BAD, DENIED)
        capture.close()
    assert {case["expect"]["allowed"] for case in captured(tmp_path / "denied")} == {False}
    assert len(captured(tmp_path / "denied")) == 50
    assert len(captured(tmp_path / "tenth")) == 10


def test_files_are_rotated_and_the_oldest_removed(tmp_path: Path) -> None:
    line = case_line(BAD_REQUEST, BAD, DENIED)
    options = CaptureOptions(tmp_path, files=3, file_bytes=3 * len(line))
    capture = Capture(options, Metrics())
    for _ in range(30):
        capture.offer(BAD_REQUEST, BAD, DENIED)
    capture.close()
    assert len(list(tmp_path.iterdir())) == 3
    assert len(captured(tmp_path)) == 9


API_SERVER, ATTACKER = "10.0.0.1", "10.9.9.9"
EVIDENCE, NOISE = "real", "fake"


def line_of(uid: str) -> bytes:
    review = json.loads(BAD)
    review["request"]["uid"] = uid
    body = json.dumps(review).encode()
    return case_line(admission.decode(body), body, DENIED)


def posted(files: Files, peer: str, uid: str, reviews: int) -> None:
    """Write so many reviews of a peer."""
    line = line_of(uid)
    for _ in range(reviews):
        files.write(line, peer)


#: Ten files of ten lines.
TEN = 10 * len(line_of(EVIDENCE))


def kept(directory: Path) -> Counter[str]:
    return Counter(case["review"]["request"]["uid"] for case in captured(directory))


def test_one_address_alone_has_all_files(tmp_path: Path) -> None:
    files = Files(CaptureOptions(tmp_path, files=10, file_bytes=TEN))
    posted(files, API_SERVER, EVIDENCE, 300)
    files.close()
    assert len(list(tmp_path.iterdir())) == 10
    assert kept(tmp_path)[EVIDENCE] == 100


def test_nobody_pushes_out_what_an_api_server_sent(tmp_path: Path) -> None:
    options = CaptureOptions(tmp_path, files=10, file_bytes=TEN)
    files = Files(options)
    posted(files, API_SERVER, EVIDENCE, 12)
    posted(files, ATTACKER, NOISE, 2000)
    assert kept(tmp_path)[EVIDENCE] == 12
    # Nor does who has many addresses.
    for number in range(200):
        posted(files, f"10.9.9.{number}", NOISE, 20)
        posted(files, f"fd00::{number:x}", NOISE, 20)
    assert kept(tmp_path)[EVIDENCE] == 12
    # Nor a restart in between.
    files.close()
    again = Files(options)
    for number in range(200):
        posted(again, f"10.8.8.{number}", NOISE, 20)
    assert kept(tmp_path)[EVIDENCE] == 12
    # What it sends itself replaces its oldest file of two.
    posted(again, API_SERVER, EVIDENCE, 5)
    again.close()
    assert kept(tmp_path)[EVIDENCE] == 7
    assert len(list(tmp_path.iterdir())) == 10


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_few_files_are_never_exceeded(tmp_path: Path, number: int) -> None:
    files = Files(CaptureOptions(tmp_path, files=number, file_bytes=TEN))
    for peer in range(100):
        posted(files, f"10.0.0.{peer % 7}", NOISE, 10)
        assert len(list(tmp_path.iterdir())) <= number
    files.close()


def test_one_address_fills_no_more_than_its_share_of_the_queue(tmp_path: Path) -> None:
    metrics = Metrics()
    capture = Capture(CaptureOptions(tmp_path), metrics)
    capture.close()
    for _ in range(1000):
        capture.offer(BAD_REQUEST, BAD, DENIED, ATTACKER)
    assert exposed(metrics, "noderestrict_capture_dropped_total") >= 700
    capture.offer(BAD_REQUEST, BAD, DENIED, API_SERVER)
    assert capture._queue.qsize() <= 300
    last = capture._queue.queue[-1]
    assert last is not None
    assert last[-1] == API_SERVER


def test_a_server_gives_each_address_its_own_files(tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    with serving(tmp_path / "tls", "--capture", str(tmp_path / "captured")) as server:
        server.request("/validate", BAD)
        assert server.stop() == 0
    (file,) = (tmp_path / "captured").iterdir()
    assert file.stem.endswith("-127.0.0.1")


def test_a_link_in_the_directory_is_not_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("keep me")
    directory = tmp_path / "captured"
    directory.mkdir()

    class Stopped(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> "Stopped":
            return cls(2026, 1, 1, tzinfo=tz)

    monkeypatch.setattr(dt, "datetime", Stopped)
    (directory / "capture-20260101T000000000000-000001-others.jsonl").symlink_to(secret)
    files = Files(CaptureOptions(directory))
    with pytest.raises(FileExistsError):
        files.write(b"line", "")
    assert secret.read_text() == "keep me"


def test_a_disk_that_takes_nothing_hurts_nobody(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    metrics = Metrics()
    capture = Capture(CaptureOptions(file / "below"), metrics)
    for _ in range(5):
        capture.offer(BAD_REQUEST, BAD, DENIED)
    capture.close()
    assert exposed(metrics, "noderestrict_capture_dropped_total") == 5
    assert exposed(metrics, "noderestrict_captured_reviews_total") == 0


def test_a_review_that_cannot_be_taken_apart_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bytes:
        raise AttributeError("nobody thought of it")

    metrics = Metrics()
    capture = Capture(CaptureOptions(tmp_path), metrics)
    with monkeypatch.context() as patched:
        patched.setattr("noderestrict.serving.capture.case_line", broken)
        capture.offer(BAD_REQUEST, BAD, DENIED)
        written(metrics, 1)
    capture.offer(BAD_REQUEST, BAD, DENIED)
    capture.close()
    assert len(captured(tmp_path)) == 1
    assert exposed(metrics, "noderestrict_capture_dropped_total") == 1


def test_what_does_not_fit_is_dropped_and_counted(tmp_path: Path) -> None:
    metrics = Metrics()
    capture = Capture(CaptureOptions(tmp_path), metrics)
    capture._thread.join(0)
    for _ in range(20_000):
        capture.offer(BAD_REQUEST, BAD, DENIED)
    capture.close()
    written = exposed(metrics, "noderestrict_captured_reviews_total")
    dropped = exposed(metrics, "noderestrict_capture_dropped_total")
    assert written + dropped == 20_000
    assert len(captured(tmp_path)) <= written


def test_the_bytes_that_wait_are_bounded(tmp_path: Path) -> None:
    metrics = Metrics()
    capture = Capture(CaptureOptions(tmp_path), metrics)
    capture.close()
    for _ in range(20):
        capture.offer(BAD_REQUEST, b"x" * (8 * 1024 * 1024), DENIED)
    assert capture._waiting == 64 * 1024 * 1024
    assert exposed(metrics, "noderestrict_capture_dropped_total") == 12


def written(metrics: Metrics, reviews: int) -> None:
    """Wait until so many reviews are on disk, or dropped."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        done = exposed(metrics, "noderestrict_captured_reviews_total") + exposed(
            metrics, "noderestrict_capture_dropped_total"
        )
        if done == reviews:
            return
        time.sleep(0.01)
    raise AssertionError(f"{done} of {reviews}")


def test_half_a_line_of_a_full_disk_is_taken_back(tmp_path: Path) -> None:
    metrics = Metrics()
    capture = Capture(CaptureOptions(tmp_path), metrics)
    capture.offer(BAD_REQUEST, BAD, DENIED)
    written(metrics, 1)
    line = len(case_line(BAD_REQUEST, BAD, DENIED))
    _, unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (line + line // 2, unlimited))
    try:
        capture.offer(BAD_REQUEST, BAD, DENIED)
        written(metrics, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
    capture.offer(BAD_REQUEST, BAD, DENIED)
    capture.close()
    assert len(captured(tmp_path)) == 2
    assert exposed(metrics, "noderestrict_capture_dropped_total") == 1


@pytest.mark.parametrize("indent", [None, 2])
def test_a_review_is_written_as_it_came_on_one_line(indent: int | None) -> None:
    body = json.dumps(json.loads(GOOD), indent=indent).encode() + b"\n"
    line = case_line(GOOD_REQUEST, body, Allowed())
    assert line.count(b"\n") == 1
    case = json.loads(line)
    assert case["review"] == json.loads(GOOD)
    assert case["id"] == GOOD_REQUEST.uid
    assert case["expect"] == {"allowed": True}


def review(kind: str, value: dict[str, Any]) -> bytes:
    request = {
        "uid": "1",
        "operation": "UPDATE",
        "resource": {"resource": "things"},
        "kind": {"version": "v1", "kind": kind} if kind else None,
        "object": value,
        "oldObject": value,
    }
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    return json.dumps(review).encode()


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("Secret", {"data": {"a": "hunter2"}, "stringData": {"a": "hunter2"}}),
        ("TokenRequest", {"status": {"token": "hunter2"}}),
        ("CertificateSigningRequest", {"spec": {"request": "hunter2"}}),
        ("PodCertificateRequest", {"spec": {"stubPKCS10Request": "hunter2"}}),
        (
            "Secret",
            {"metadata": {"annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": "hunter2"}}},
        ),
    ],
)  # fmt: skip
def test_what_is_secret_is_not_written(kind: str, value: dict[str, Any], told: bool) -> None:
    # The kind is the review's word, or, without one, the object's own.
    body = review(kind if told else "", {"kind": kind, **value})
    line = case_line(admission.decode(body), body, Allowed())
    assert b"hunter2" not in line
    assert ("expect" in json.loads(line)) is (kind != "CertificateSigningRequest")
