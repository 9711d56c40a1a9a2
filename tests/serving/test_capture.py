"""Judged reviews on disk."""

import json
from pathlib import Path
from typing import Any

import pytest

from noderestrict.cli import main
from noderestrict.policy.decision import Allowed, forbidden
from noderestrict.serving.capture import Capture, CaptureOptions, case_line
from noderestrict.telemetry.metrics import Metrics
from tests.serving.clients import BAD, EXAMPLES, GOOD
from tests.serving.tls import serving

DENIED = forbidden("pods/mirror-references", "no")


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
            capture.offer(GOOD, Allowed())
            capture.offer(BAD, DENIED)
        capture.close()
    assert {case["expect"]["allowed"] for case in captured(tmp_path / "denied")} == {False}
    assert len(captured(tmp_path / "denied")) == 50
    assert len(captured(tmp_path / "tenth")) == 10


def test_files_are_rotated_and_the_oldest_removed(tmp_path: Path) -> None:
    options = CaptureOptions(tmp_path, files=3, file_bytes=3 * len(case_line(BAD, DENIED)))
    capture = Capture(options, Metrics())
    for _ in range(30):
        capture.offer(BAD, DENIED)
    capture.close()
    assert len(list(tmp_path.iterdir())) == 3
    assert len(captured(tmp_path)) == 9


def test_a_disk_that_takes_nothing_hurts_nobody(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    metrics = Metrics()
    capture = Capture(CaptureOptions(file / "below"), metrics)
    for _ in range(5):
        capture.offer(BAD, DENIED)
    capture.close()
    assert exposed(metrics, "noderestrict_capture_dropped_total") == 5
    assert exposed(metrics, "noderestrict_captured_reviews_total") == 0


def test_what_does_not_fit_is_dropped_and_counted(tmp_path: Path) -> None:
    metrics = Metrics()
    capture = Capture(CaptureOptions(tmp_path), metrics)
    capture._thread.join(0)
    for _ in range(20_000):
        capture.offer(BAD, DENIED)
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
        capture.offer(b"x" * (8 * 1024 * 1024), DENIED)
    assert capture._waiting == 64 * 1024 * 1024
    assert exposed(metrics, "noderestrict_capture_dropped_total") == 12


def review(kind: str, value: dict[str, Any]) -> bytes:
    request = {"uid": "1", "kind": {"kind": kind}, "object": value, "oldObject": value}
    return json.dumps({"request": request}).encode()


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
def test_what_is_secret_is_not_written(kind: str, value: dict[str, Any]) -> None:
    line = case_line(review(kind, value), Allowed())
    assert b"hunter2" not in line
    assert ("expect" in json.loads(line)) is (kind != "CertificateSigningRequest")
