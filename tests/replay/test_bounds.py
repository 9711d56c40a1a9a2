"""Input that is larger than it looks: exit code 2 and one line that names the file, no more."""

import gzip
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from noderestrict.replay import sources
from noderestrict.replay.audit.read import events
from tests.replay.test_inputs import OTHER, OWN, Capture, run, stdin, write

GIB = 1024**3
MIB = 1024**2
#: Three GiB of each in three MB of gzip.
FILLINGS = {"text": b'"', "arrays": b"[", "objects": b"{},", "lines": b"\n"}
GOOD = (json.dumps(OWN) + "\n").encode()


def bomb(filling: bytes, total: int = 3 * GIB, start: bytes = b"[") -> bytes:
    """Return gzip of one member after another, which is made in no time."""
    part = filling * (16 * MIB // len(filling))
    return gzip.compress(start) + gzip.compress(part, 1) * (total // len(part))


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (2 * GIB, 2 * GIB))


@pytest.mark.parametrize(
    ("filling", "name", "command"),
    [
        ("objects", "a.json.gz", ["replay"]),
        ("text", "a.yaml.gz", ["replay"]),
        ("text", "a.json.gz", ["replay", "--state"]),
        ("arrays", "a.json.gz", ["graph", "reachable", "n1", "--state"]),
    ],
)
def test_a_file_that_unpacks_to_gigabytes_is_named_in_one_line(
    filling: str, name: str, command: list[str], tmp_path: Path
) -> None:
    file, good = write(tmp_path / name, bomb(FILLINGS[filling])), write(tmp_path / "good", OWN)
    more = [str(good)] if command[-1] == "--state" and command[0] == "replay" else []
    done = subprocess.run(
        [sys.executable, "-m", "noderestrict", *command, str(file), *more],
        capture_output=True, text=True, check=False, preexec_fn=limited,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert f"{file}: it has over 512 MiB unpacked; --max-file-mib" in done.stderr


def test_a_file_of_any_size_is_read_where_that_is_allowed(tmp_path: Path, capsys: Capture) -> None:
    file = write(tmp_path / "a.json.gz", gzip.compress(b" " * 2 * MIB + GOOD))
    code, out, err = run(capsys, file, "--max-file-mib=1")
    assert (code, f"{file}: it has over 1 MiB unpacked" in err) == (2, True)
    assert "1 case: 1 allowed" in run(capsys, file, "--max-file-mib=3")[1]
    state = write(tmp_path / "s.json.gz", gzip.compress(b" " * 2 * MIB + b"{}"))
    code, out, err = run(capsys, "--max-file-mib=1", "--state", state, file)
    assert (code, out, f"--state {state}: it has over 1 MiB" in err) == (2, "", True)


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "²", ""])
def test_a_bound_is_a_number(value: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(capsys, "a.json", f"--max-file-mib={value}")
    assert "--max-file-mib" in capsys.readouterr().err


LONG = GOOD + b" " * (sources.MAX_LINE_BYTES + 5) + b"\n" + GOOD


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_line_that_is_too_long_is_named_and_the_others_are_judged(
    packed: bool, tmp_path: Path, capsys: Capture
) -> None:
    data = gzip.compress(LONG, 1) if packed else LONG
    file = write(tmp_path / ("a.jsonl.gz" if packed else "a.jsonl"), data)
    code, out, err = run(capsys, file)
    assert code == 2
    assert err == f"noderestrict replay: {file}:2: it has over 32 MiB, the limit\n"
    assert out.splitlines() == [
        "1 unreadable",
        "2 cases: 2 allowed, 0 denied; 0 of 0 as expected, 0 not as expected",
    ]


def logged(review: dict[str, dict[str, object]], audit_id: str) -> bytes:
    request = review["request"]
    event = {
        "kind": "Event",
        "level": "RequestResponse",
        "stage": "ResponseComplete",
        "auditID": audit_id,
        "verb": "update",
        "user": request["userInfo"],
        "objectRef": {"resource": "nodes", "name": request["name"], "apiVersion": "v1"},
        "requestObject": request["object"],
    }
    return json.dumps(event).encode() + b"\n"


@pytest.mark.parametrize("where", ["file", "gzip", "stdin", "gzip on stdin"])
def test_a_line_of_an_audit_log_that_is_too_long_is_named_and_the_others_are_judged(
    where: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = b'{"kind":"Event",' + b" " * sources.MAX_LINE_BYTES + b"}\n"
    data = logged(OTHER, "a") + long + logged(OTHER, "b")
    data = gzip.compress(data, 1) if "gzip" in where else data
    file = "-" if "stdin" in where else str(write(tmp_path / "audit.log", data))
    stdin(monkeypatch, data)
    code, out, err = run(capsys, "--audit-log", file)
    assert code == 2
    assert f"noderestrict replay: {file}:2: it has over 32 MiB, the limit\n" in err
    assert "2 cases: 0 allowed, 2 denied" in out


@pytest.mark.parametrize("command", ["replay", "state", "audit"])
def test_what_is_packed_twice_is_said_to_be(command: str, tmp_path: Path, capsys: Capture) -> None:
    file = write(tmp_path / "a.json.gz", gzip.compress(gzip.compress(GOOD)))
    flags: dict[str, list[object]] = {
        "replay": [file], "state": ["--state", file, file], "audit": ["--audit-log", file],
    }  # fmt: skip
    code, _, err = run(capsys, *flags[command])
    assert code == 2
    assert f"{file}: packed twice: unpack it once" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"[" + b"1," * 2_500_000 + b"1]", "it holds over 2000000 values"),
        (b'{"kind":"List","items":[' + b"{}," * 2_500_000 + b"{}]}", "over 2000000 values"),
        (b'{"kind":"Pod","x":"' + b"a" * sources.MAX_LINE_BYTES + b'"}', "over 32 MiB"),
    ],
)  # fmt: skip
def test_a_document_with_too_much_in_it_is_one_problem(
    data: bytes, says: str, tmp_path: Path, capsys: Capture
) -> None:
    file = write(tmp_path / "a.json", data)
    alone: list[object] = [file]
    for arguments in (alone, ["--state", file, write(tmp_path / "good", OWN)]):
        code, _, err = run(capsys, *arguments)
        assert code == 2
        assert len(err.splitlines()) == 1
        assert str(file) in err
        assert says in err


@pytest.mark.parametrize(
    "text", [b"- " * 9 * MIB, b"a\n" * 600_000, b"x: [" + b"1," * 600_000 + b"]"]
)
def test_yaml_that_would_take_minutes_is_not_read(
    text: bytes, tmp_path: Path, capsys: Capture
) -> None:
    code, _, err = run(capsys, write(tmp_path / "a.yaml", text))
    assert code == 2
    assert "YAML over 16 MiB or 500000 lines is not supported; use JSON" in err


@pytest.mark.parametrize("value", ["1" * 30, "0x" + "f" * 40, "1:" * 200 + "1", "1" * 5000])
def test_a_number_of_any_size_in_yaml_is_no_traceback(
    value: str, tmp_path: Path, capsys: Capture
) -> None:
    code, _, err = run(capsys, write(tmp_path / "a.yaml", f"kind: {value}\n"))
    assert code == 2
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("depth", [100, 300, 495, 2000])
def test_lists_of_lists_end_in_a_problem_or_their_objects(
    depth: int, tmp_path: Path, capsys: Capture
) -> None:
    nested = b'{"kind":"List","items":[' * depth + b"]}" * depth
    state, good = write(tmp_path / "s.json", nested), write(tmp_path / "good", OWN)
    code, _, err = run(capsys, "--state", state, good)
    assert code in (0, 2)
    assert "Traceback" not in err


@pytest.mark.parametrize("command", [["--audit-log"], []], ids=["audit log", "JSON lines"])
def test_a_stream_that_unpacks_to_gigabytes_of_lines_is_ended(
    command: list[str], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", MIB // 8)
    file = write(tmp_path / "a.jsonl.gz", bomb(FILLINGS["lines"], 64 * MIB, start=b"\n"))
    code, _, err = run(capsys, *command, file)
    assert code == 2
    assert f"{file}: it unpacks to over 200 times its size" in err


def test_a_device_without_an_end_is_bounded_too(capsys: Capture) -> None:
    code, _, err = run(capsys, "/dev/zero", "--max-file-mib=1")
    assert code == 2
    assert "/dev/zero: it has over 1 MiB" in err


def test_what_a_log_shows_is_kept_within_a_bound(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from noderestrict.policy.listers import MemoryListers
    from noderestrict.policy.settings import Settings
    from noderestrict.replay.audit import log as audit
    from noderestrict.replay.audit import objects

    monkeypatch.setattr(objects, "_MOST_BYTES", 100_000)
    log = audit.AuditLog(Settings.for_version(), MemoryListers())
    shown = {"kind": "Node", "spec": {"x": "a" * 1000}}
    line: Callable[[int], str] = lambda number: json.dumps(  # noqa: E731
        {
            "kind": "Event", "stage": "ResponseComplete", "verb": "create", "auditID": "a",
            "objectRef": {"resource": "nodes", "name": f"n{number}"},
            "responseObject": shown | {"metadata": {"uid": f"u{number}", "resourceVersion": "1"}},
        }
    )  # fmt: skip
    file = write(tmp_path / "audit.log", "\n".join(map(line, range(1000))) + "\n")
    assert list(log.results(events(str(file)))) == []
    assert 40 < len(log._logged) < 100
