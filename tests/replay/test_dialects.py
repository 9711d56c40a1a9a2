"""Audit logs in every form: what is read, and what is said where something cannot be."""

import base64
import bz2
import gzip
import io
import json
import lzma
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from noderestrict.cli import replay as replay_command
from noderestrict.graph.graph import Graph
from noderestrict.policy.listers import MemoryListers
from noderestrict.policy.settings import Settings
from noderestrict.replay import reports, sources, values
from noderestrict.replay.audit import read
from noderestrict.replay.audit.read import Seen, events
from noderestrict.replay.envelopes import KEYS
from noderestrict.replay.report import Options
from noderestrict.replay.run import Run
from noderestrict.replay.sources import MIB, Document, Unreadable
from noderestrict.replay.values import Keys, Value, ValueReader
from tests.replay.test_inputs import OWN, Capture, run, stdin, write

HERE = Path(__file__).parent
DIALECTS = sorted(path for path in (HERE / "dialects").iterdir() if path.suffix != ".md")
CASES = HERE / "audit" / "cases"
LINES = (HERE / "dialects" / "audit-v1-lines-2026-11.log").read_bytes()
FIRST, SECOND, THIRD = (line + b"\n" for line in LINES.splitlines())
EVENT = json.loads(FIRST)


@pytest.mark.parametrize("path", DIALECTS, ids=lambda path: path.name)
@pytest.mark.parametrize("flag", ["--audit-log", None])
def test_every_dialect_is_read_without_a_word_about_it(
    flag: str | None, path: Path, capsys: Capture
) -> None:
    code, out, err = run(capsys, *filter(None, (flag, path)), "--output=json")
    verdicts = [json.loads(line)["allowed"] for line in out.splitlines()]
    assert (code, verdicts) == (0, [False, True, False]), err
    assert "audit log: 3 events, 3 writes of nodes judged" in err


@pytest.mark.parametrize("name", ["b01", "b03", "c01", "c03", "c05", "c07"])
def test_wrapped_events_are_read_wherever_they_stand(name: str, capsys: Capture) -> None:
    (path,) = CASES.glob(f"{name}-*")
    code, out, _ = run(capsys, "--audit-log", path)
    assert code == 0
    assert "3 cases: 1 allowed, 2 denied" in out


@pytest.mark.parametrize("path", DIALECTS, ids=lambda path: path.name)
def test_every_dialect_is_read_from_stdin(
    path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(monkeypatch, path.read_bytes())
    code, out, _ = run(capsys, "-")
    assert code == 0
    assert "3 cases: 1 allowed, 2 denied" in out


def found(path: Path) -> list[Document | Unreadable]:
    return list(events(str(path)))


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("cri-partial-lines-2026-11.log", [1, 5, 9]),
        ("docker-json-file-partial-lines-2026-11.log", [1, 3, 5]),
        ("klog-between-2026-11.log", [2, 4, 5]),
        ("cloudwatch-filter-log-events-2026-11.json", [3, 10, 17]),
        ("audit-v1-array-one-item-a-line-2026-11.json", [2, 3, 4]),
        ("firehose-concatenated-2026-11.json", [1, 1, 1]),
    ],
)
def test_the_line_of_an_event_is_where_it_starts(name: str, lines: list[int]) -> None:
    assert [one.line for one in found(HERE / "dialects" / name)] == lines


@pytest.mark.parametrize("path", DIALECTS, ids=lambda path: path.name)
def test_an_event_says_what_its_dialect_leaves_out(path: Path) -> None:
    lacks = {one.lacks for one in found(path) if isinstance(one, Document)}
    read_only = path.name.startswith(("cloud-logging-read", "cloud-logging-sink"))
    assert (lacks != {""}) == read_only
    assert all("groups" in text for text in lacks if text)


def test_the_last_event_of_a_log_that_ends_within_a_line_of_parts_is_named(tmp_path: Path) -> None:
    cri = b"2026-03-02T09:00:00.0Z stdout P " + FIRST[:200] + b"\n"
    (one,) = found(write(tmp_path / "a.log", cri))
    assert isinstance(one, Unreadable)
    assert "cut off" in one.problem
    docker = json.dumps({"log": FIRST[:200].decode(), "stream": "stdout"}).encode()
    (one,) = found(write(tmp_path / "b.log", docker + b"\n"))
    assert isinstance(one, Unreadable)
    assert "cut off" in one.problem


def zipped(data: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("audit.log", data)
    return packed.getvalue()


def envelope(line: bytes, *keys: str, text: bool = True) -> bytes:
    value: Any = line.decode().strip() if text else json.loads(line)
    for key in reversed(keys):
        value = {"date": 1, key: value}
    return json.dumps(value).encode() + b"\n"


@pytest.mark.parametrize("before", [b"", FIRST], ids=["alone", "after events that are read"])
@pytest.mark.parametrize(
    ("keys", "text", "path"),
    [
        (("our-wrapper",), True, '."our-wrapper" | fromjson'),
        (("outer", "inner"), True, ".outer.inner | fromjson"),
        (("outer", "inner"), False, ".outer.inner"),
    ],
)
def test_an_unknown_envelope_is_exit_2_with_its_keys_and_a_way_out(
    keys: tuple[str, ...], text: bool, path: str, before: bytes, tmp_path: Path, capsys: Capture
) -> None:
    wrapped = [envelope(line, *keys, text=text) for line in (SECOND, THIRD)]
    file = write(tmp_path / "audit.log", before + b"".join(wrapped))
    code, _, err = run(capsys, "--audit-log", file)
    assert code == 2
    line = 2 if before else 1
    assert f'{file}:{line}: an unknown envelope with the keys "date", "{keys[0]}"' in err
    assert f"jq -c '{path}'" in err


def test_no_way_out_is_named_that_leads_nowhere(tmp_path: Path, capsys: Capture) -> None:
    file = write(
        tmp_path / "audit.log", b'{"results": [[{"field": "verb"}]], "status": "Complete"}'
    )
    code, _, err = run(capsys, "--audit-log", file)
    assert code == 2
    assert 'an unknown envelope with the keys "results", "status": unwrap it first\n' in err


@pytest.mark.parametrize("items", ["[]", "null", None])
def test_a_list_without_events_is_an_empty_log(
    items: str | None, tmp_path: Path, capsys: Capture
) -> None:
    rest = "" if items is None else f', "items": {items}'
    text = f'{{"kind": "EventList", "apiVersion": "audit.k8s.io/v1"{rest}}}'
    code, out, err = run(capsys, "--audit-log", write(tmp_path / "a.json", text.encode()))
    assert (code, "0 cases" in out, "unwrap" in err) == (0, True, False)


def test_a_list_of_anything_else_is_no_audit_log(tmp_path: Path, capsys: Capture) -> None:
    text = b'{"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "items": [{"kind": "x"}]}'
    code, _, err = run(capsys, "--audit-log", write(tmp_path / "a.json", text))
    assert (code, "it holds no audit events" in err) == (2, True)


@pytest.mark.parametrize(
    "wrapped",
    [
        json.dumps({"MESSAGE": list(SECOND)}),
        json.dumps({"MESSAGE": list(SECOND)}, indent=1),
        json.dumps({"records": [{"data": base64.b64encode(gzip.compress(SECOND)).decode()}]}),
        json.dumps({"records": [{"data": base64.b64encode(SECOND).decode()}]}),
    ],
    ids=["bytes", "indented bytes", "packed", "base64"],
)
def test_an_event_that_no_text_shows_is_read_among_others(wrapped: str, tmp_path: Path) -> None:
    file = write(tmp_path / "a.log", FIRST + wrapped.encode() + b"\n" + THIRD)
    found = list(events(str(file)))
    ids = [json.loads(one.raw)["auditID"][-1] for one in found if isinstance(one, Document)]
    assert ids == ["1", "2", "3"]


ENTRY = json.loads((HERE / "dialects" / "cloud-logging-read-2026-11.json").read_bytes())[0]


@pytest.mark.parametrize(
    ("of", "path"),
    [
        *((EVENT, (field,)) for field in ("stage", "user", "userAgent", "stageTimestamp")),
        (EVENT, ("objectRef", "namespace")),
        (EVENT, ("objectRef", "apiGroup")),
        (EVENT, ("responseStatus", "code")),
        (ENTRY, ("insertId",)),
        (ENTRY, ("protoPayload", "requestMetadata")),
        (ENTRY, ("protoPayload", "requestMetadata", "callerIp")),
    ],
)
def test_a_null_is_as_good_as_nothing(
    of: dict[str, Any], path: tuple[str, ...], tmp_path: Path, capsys: Capture
) -> None:
    """As Go reads it, and as pipelines write what a table has no value for."""
    *outer, last = path
    lacking = json.loads(json.dumps(of))
    inner = lacking
    for step in outer:
        inner = inner[step]
    inner.pop(last, None)
    said = [run(capsys, "--audit-log", write(tmp_path / "a.log", [lacking]), "--output=json")]
    inner[last] = None
    said.append(run(capsys, "--audit-log", write(tmp_path / "a.log", [lacking]), "--output=json"))
    assert said[0][:2] == said[1][:2]
    assert "not an audit event" not in said[1][2]


def test_the_way_out_of_an_unknown_envelope_leads_out(tmp_path: Path, capsys: Capture) -> None:
    jq = pytest.importorskip("shutil").which("jq")
    if jq is None:
        pytest.skip("jq is not installed")
    file = write(tmp_path / "a.log", envelope(FIRST, "a b", "c") + envelope(SECOND, "a b", "c"))
    err = run(capsys, "--audit-log", file)[2]
    program = err.partition("jq -c '")[2].partition("'")[0]
    plain = subprocess.run([jq, "-c", program, file], capture_output=True, check=True).stdout
    code, out, _ = run(capsys, "--audit-log", write(tmp_path / "b.log", plain))
    assert code == 0
    assert "2 cases" in out


def test_many_lines_in_an_unknown_envelope_are_one_problem(tmp_path: Path) -> None:
    many = found(write(tmp_path / "a.log", envelope(SECOND, "wrapper") * 1000))
    assert [isinstance(one, Unreadable) and one.count for one in many] == [1, 999]


@pytest.mark.parametrize("cut", [150, 500, -2, -30])
def test_a_cut_off_event_is_said_to_be_one_and_the_others_are_judged(
    cut: int, tmp_path: Path, capsys: Capture
) -> None:
    file = write(tmp_path / "audit.log", FIRST + SECOND[:cut] + b"\n" + THIRD)
    code, out, err = run(capsys, "--audit-log", file)
    assert code == 2
    assert f"{file}:2: the audit event is cut off, and not judged" in err
    assert "2 cases: 0 allowed, 2 denied" in out


@pytest.mark.parametrize("end", [b",", b"{", b"[", b":", b"20", b'"Re'])
@pytest.mark.parametrize("wrap", [False, True], ids=["bare", "wrapped"])
def test_wherever_an_event_is_cut_off_nothing_else_is_lost(
    end: bytes, wrap: bool, tmp_path: Path
) -> None:
    at = SECOND.index(end, 300) + len(end)
    cut = SECOND[:at] + b"\n"
    line = envelope(cut, "message") if wrap else cut
    first, second, third = found(write(tmp_path / "audit.log", FIRST + line + THIRD))
    assert isinstance(first, Document)
    assert isinstance(second, Unreadable)
    assert (second.line, "cut off" in second.problem) == (2, True)
    assert isinstance(third, Document)
    assert third.line == 3


@pytest.mark.parametrize("end", [b'"message": "', b'"timestamp"', b"        {", b"},"])
@pytest.mark.parametrize("after", [b"", b"oops"], ids=["cut off", "broken"])
def test_a_document_that_is_cut_off_gives_what_it_holds(
    end: bytes, after: bytes, tmp_path: Path
) -> None:
    data = (HERE / "dialects" / "cloudwatch-filter-log-events-2026-11.json").read_bytes()
    cut = data[: data.rindex(end)] if end != b"}," else data[: data.rindex(end) + len(end)]
    *read_, problem = found(write(tmp_path / "a.json", cut + after))
    assert [isinstance(one, Document) for one in read_] == [True, True]
    assert isinstance(problem, Unreadable)
    assert "cut off" in problem.problem


OTHER_LINES = [
    b"I0302 09:00:00 some text about system:node:n1\n",
    b'{"msg":"user system:node:n1"}\n',
]


@pytest.mark.parametrize("line", OTHER_LINES)
def test_other_lines_that_speak_of_nodes_are_counted(line: bytes, tmp_path: Path) -> None:
    seen = Seen()
    list(events(str(write(tmp_path / "a.log", line + FIRST + line)), seen))
    assert (seen.events, seen.others, seen.others_of_nodes) == (1, 2, 2)


@pytest.mark.parametrize("line", OTHER_LINES)
def test_a_log_of_nothing_but_other_lines_is_no_all_clear(
    line: bytes, tmp_path: Path, capsys: Capture
) -> None:
    code, _, err = run(capsys, "--audit-log", write(tmp_path / "a.log", line))
    assert code == 2
    assert "it holds no audit events" in err


def test_reviews_given_as_an_audit_log_are_said_to_be_reviews(
    tmp_path: Path, capsys: Capture
) -> None:
    code, _, err = run(capsys, "--audit-log", write(tmp_path / "a.json", OWN))
    assert code == 2
    assert "it holds reviews: leave out --audit-log" in err


def test_an_audit_event_among_reviews_is_said_to_be_one(tmp_path: Path, capsys: Capture) -> None:
    code, out, err = run(capsys, write(tmp_path / "a.jsonl", [OWN, EVENT]))
    assert code == 2
    assert "a.jsonl:2: it is an audit event: give its file with --audit-log" in err
    assert "1 case" in out


def test_reviews_and_audit_logs_are_told_apart_in_one_run(tmp_path: Path, capsys: Capture) -> None:
    reviews, log = write(tmp_path / "a.json", OWN), write(tmp_path / "a.log", LINES)
    code, out, _ = run(capsys, reviews, log)
    assert code == 0
    assert "4 cases: 2 allowed, 2 denied" in out


def test_a_claim_about_audit_in_a_review_does_not_make_it_a_log() -> None:
    claim = json.dumps({**OWN, "x": {"auditID": "audit.k8s.io"}}).encode()
    assert not read.is_audit_log(claim)
    assert read.is_audit_log(FIRST + claim)


def test_zstandard_without_its_package_is_one_line(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_ZSTD_MODULES", ("no_such_module",))
    file = HERE / "dialects" / "audit-v1-lines-2026-11.log.zst"
    code, _, err = run(capsys, "--audit-log", file)
    assert code == 2
    assert f"{file}: it is packed with Zstandard: install noderestrict[zstd]" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress, zipped])
@pytest.mark.parametrize("flag", [("--audit-log",), ()])
def test_what_is_packed_otherwise_is_told(
    pack: Callable[[bytes], bytes], flag: tuple[str, ...], tmp_path: Path, capsys: Capture
) -> None:
    file = write(tmp_path / "a.log", pack(LINES))
    code, _, err = run(capsys, *flag, file)
    assert code == 2
    assert f"{file}: it is packed with " in err


@pytest.mark.parametrize("cut", [-5, 40])
def test_broken_zstandard_is_named(cut: int, tmp_path: Path, capsys: Capture) -> None:
    data = (HERE / "dialects" / "audit-v1-lines-2026-11.log.zst").read_bytes()
    broken = data[:cut] if cut < 0 else data[:cut] + bytes(20) + data[cut + 20 :]
    file = write(tmp_path / "a.zst", broken)
    code, _, err = run(capsys, "--audit-log", file)
    assert code == 2
    assert f"{file}: broken Zstandard" in err


def test_a_log_is_read_as_it_arrives() -> None:
    """The lists of a document of any size are taken apart without holding it."""
    item = json.dumps({"message": FIRST.decode()}).encode()

    class Endless(io.RawIOBase):
        """Gives a document of 64 MiB, and counts what was taken of it."""

        taken = 0
        rest = b'{"events":['

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            if not self.rest and self.taken < 64 * MIB:
                self.rest = (item + b",") * 100
            part, self.rest = self.rest[: len(buffer)], self.rest[len(buffer) :]
            buffer[: len(part)] = part
            self.taken += len(part)
            return len(part)

    stream = Endless()
    ahead = 0
    given = 0
    for value in ValueReader(io.BufferedReader(stream), KEYS):
        given += len(value.raw) + 1
        ahead = max(ahead, stream.taken - given)
    assert given > 60 * MIB
    assert ahead < 3 * MIB


def read_values(data: bytes) -> list[Value]:
    keys = Keys(frozenset([b"data"]), frozenset([b"events"]))
    return list(ValueReader(io.BytesIO(data), keys))


def test_values_are_taken_wherever_they_start_and_end() -> None:
    value = b'{"a":{"b":[1,"}{\\"["]}}'
    forms: Iterable[tuple[bytes, int]] = (
        (value, 1),
        (value * 3, 3),
        (value + b" " + value, 2),
        (b"x " + value + b"\r\n\r\n\0" + value, 2),
        (b"[" + value + b",\n" + value + b"]\n" + value, 3),
        (b'{"events":[' + value + b"," + value + b"]}\n", 1),
        (b'{"events":[\n' + value + b"," + value + b'],\n"c":1}' + value, 3),
        (b'{"data":{"events":[\n' + value + b"]}}", 1),
        (b"[pod/a/b] " + value, 1),
        (b"[12.3] " + value, 1),
    )
    for data, count in forms:
        assert len(read_values(data)) == count, data
        assert all(not one.problem for one in read_values(data)), data


@pytest.mark.parametrize("size", [2 * MIB, 5 * MIB])
def test_a_long_line_is_one_value(size: int) -> None:
    value = b'{"a":"' + b"x" * size + b'"}'
    assert [one.raw for one in read_values(value + b"\n" + value)] == [value, value]
    assert [one.raw for one in read_values(b"prefix " + value + b"\n")] == [value]


@pytest.mark.parametrize("prefix", [b"", b"prefix "])
def test_a_value_over_the_limit_is_named_and_the_next_is_read(
    prefix: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "MAX_LINE_BYTES", 3 * MIB)
    long = prefix + b'{"a":"' + b"x" * (6 * MIB) + b'"}\n'
    first, second = read_values(long + b'{"b":1}\n')
    assert (first.raw, first.line, first.problem) == (b"", 1, values.TOO_LONG)
    assert (second.raw, second.line) == (b'{"b":1}', 2)


@pytest.mark.parametrize("make", [gzip.compress, bytes], ids=["gzip", "plain"])
def test_looking_at_stdin_takes_nothing_of_it(
    make: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(monkeypatch, make(LINES * 200))
    assert sources.head("-").startswith(FIRST)
    with sources.opened("-") as stream:
        assert stream.read() == LINES * 200


def test_a_pipe_is_told_apart_and_read(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "noderestrict", "replay", "-"],
        input=LINES, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"3 cases: 1 allowed, 2 denied" in done.stdout


@pytest.mark.parametrize("depth", [20, 5000])
def test_no_depth_of_envelopes_ends_the_run(depth: int, tmp_path: Path, capsys: Capture) -> None:
    deep = b'{"data":' * depth + FIRST.strip() + b"}" * depth + b"\n"
    code, out, err = run(capsys, "--audit-log", write(tmp_path / "a.log", deep + SECOND))
    assert code == 2
    assert "1 case" in out
    assert "Traceback" not in err


def test_a_pipe_with_a_name_is_read_once_and_says_what_it_holds(tmp_path: Path) -> None:
    script = f"cat {HERE}/dialects/audit-v1-lines-2026-11.log"
    replay = f"{sys.executable} -m noderestrict replay"
    shell = ["bash", "-c", f"{replay} <({script}); {replay} --audit-log <({script})"]
    done = subprocess.run(shell, capture_output=True, text=True, check=False)
    assert "it is an audit event: give its file with --audit-log" in done.stderr
    assert done.returncode == 0
    assert "3 cases: 1 allowed, 2 denied" in done.stdout


def event(**fields: Any) -> dict[str, Any]:
    return {**EVENT, **fields}


READ = event(verb="get", objectRef={"resource": "nodes", "name": "worker-1"})
UNDECIDED = event(objectRef={"resource": "nodes", "name": "worker-1", "apiVersion": "v1"})
CONFLICT = event(responseStatus={"code": 409})
RECEIVED = event(stage="RequestReceived")


@pytest.mark.parametrize(
    ("logged", "why"),
    [
        ([READ], "of 1 events of nodes, 1 no write, or incomplete"),
        ([UNDECIDED, READ], "of 2 events of nodes, 1 undecided (--explain says why), 1 no write"),
        ([CONFLICT], "of 1 events of nodes, 1 409 Conflict"),
        ([RECEIVED], "only at stage RequestReceived"),
    ],
)
@pytest.mark.parametrize("wrap", [False, True], ids=["bare", "wrapped"])
def test_a_log_of_nodes_without_a_verdict_is_no_all_clear(
    wrap: bool, logged: list[Any], why: str, tmp_path: Path, capsys: Capture
) -> None:
    lines = [{"message": json.dumps(one)} for one in logged] if wrap else logged
    code, out, err = run(capsys, "--audit-log", write(tmp_path / "a.log", lines))
    assert code == 2
    assert why in err
    assert "0 cases" in out


def test_a_log_without_nodes_is_an_all_clear(tmp_path: Path, capsys: Capture) -> None:
    admin = event(user={"username": "admin"})
    code, out, err = run(capsys, "--audit-log", write(tmp_path / "a.log", [admin]))
    assert (code, "0 cases" in out) == (0, True)
    assert "noderestrict replay:" not in err


class Clock:
    now = 0.0

    def __call__(self) -> float:
        self.now += 0.01
        return self.now


@pytest.mark.parametrize("terminal", [False, True])
def test_long_input_shows_its_progress_now_and_then(
    terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stderr(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    stderr = Stderr()
    monkeypatch.setattr(sys, "stderr", stderr)
    show = replay_command._Terminal(explain=False, clock=Clock())
    out, notes = io.StringIO(), io.StringIO()
    report = reports.create("table", Options(out, notes))
    settings = Settings.for_version()
    replay = Run(
        settings, MemoryListers(), Graph(most_edges=None), report, show.problem, show.progress
    )
    show.follow(replay)
    for _ in range(20_000):
        show.progress()
    assert stderr.getvalue() == ""
    replay.seen.bytes, replay.seen.events = 5_000_000, 1_234
    for _ in range(20_000):
        show.progress()
    shown = stderr.getvalue().count("5 MB and 1,234 audit events read, 0 cases judged, 0 denied")
    # Two hundred seconds.
    assert shown == pytest.approx(400 if terminal else 3, abs=10 if terminal else 0)
    assert (stderr.getvalue().count("\n") == 0) == terminal
    show.clear_progress()
    assert stderr.getvalue().endswith("\r\x1b[K") == terminal


def test_a_policy_and_other_lines_in_a_log_are_counted_and_said(
    tmp_path: Path, capsys: Capture
) -> None:
    policy = {"kind": "Policy", "apiVersion": "audit.k8s.io/v1", "rules": []}
    lines = json.dumps(policy).encode() + b"\n" + b"".join(OTHER_LINES)
    code, out, err = run(capsys, "--audit-log", write(tmp_path / "a.log", LINES + lines))
    assert (code, "3 cases" in out) == (0, True)
    assert "audit log: 3 other lines or values are no audit events, 2 of which speak of" in err


@pytest.mark.parametrize("value", [5, None, [], {"serviceName": 5}])
def test_no_value_in_an_envelope_ends_the_run(value: Any, tmp_path: Path, capsys: Capture) -> None:
    odd = {"outer": {"protoPayload": value, "auditID": "a"}, "AuditId": value, "Verb": value}
    lines = [{"protoPayload": value}, {"outer": odd}, odd, {"log": value, "stream": value}]
    file = write(tmp_path / "a.log", json.dumps(EVENT) + "\n" + "\n".join(map(json.dumps, lines)))
    code, out, err = run(capsys, "--audit-log", file)
    assert code == 2
    assert "1 case" in out
    assert "Traceback" not in err


def test_problems_of_any_number_are_named_in_a_bounded_one(tmp_path: Path) -> None:
    bad = b"".join(b'{"auditID":"a","x":' + b" " * n + b"oops}\n" for n in range(1000))
    problems = found(write(tmp_path / "a.log", LINES + bad))[3:]
    assert sum(one.count for one in problems if isinstance(one, Unreadable)) == 1000
    assert len(problems) < 200
