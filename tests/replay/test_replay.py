"""The replay command on every form of input."""

import gzip
import io
import json
import sys
from pathlib import Path

import pytest
import yaml

from noderestrict.cli import main
from tests.admission.test_review import hostile


def review(*, allowed: bool) -> dict[str, object]:
    value = hostile()
    if allowed:
        value["request"]["userInfo"] = {"username": "admin"}  # type: ignore[index]
    return value


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["replay", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def write(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


DENIED, ALLOWED = review(allowed=False), review(allowed=True)
LINES = json.dumps(DENIED) + "\n\n" + json.dumps(ALLOWED) + "\n"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", LINES.encode()),
        ("a.json", json.dumps([DENIED, ALLOWED], indent=2).encode()),
        ("a.json", json.dumps({"kind": "List", "items": [DENIED, ALLOWED]}).encode()),
        ("a.yaml", yaml.safe_dump_all([DENIED, ALLOWED]).encode()),
        ("a.jsonl.gz", gzip.compress(LINES.encode())),
        ("a.yaml.gz", gzip.compress(yaml.safe_dump_all([DENIED, ALLOWED]).encode())),
        ("no-ending", LINES.encode()),
        ("a.jsonl", b"".join(json.dumps({"id": "x", "review": r}).encode() + b"\n"
                             for r in (DENIED, ALLOWED))),
    ],
)  # fmt: skip
def test_every_form_of_input_is_read(
    name: str, data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, write(tmp_path / name, data))
    assert code == 0
    assert out.splitlines()[-1].startswith("2 cases: 1 allowed, 1 denied")


def test_stdin_is_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LINES.encode())))
    code, out, _ = run(capsys, "-")
    assert code == 0
    assert "2 cases" in out


def test_a_response_in_the_review_is_its_expectation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {**DENIED, "response": {"uid": "u1", "allowed": False, "status": {"code": 403}}}
    bad = {**DENIED, "response": {"uid": "u1", "allowed": True}}
    code, out, _ = run(
        capsys, write(tmp_path / "a.jsonl", json.dumps(good) + "\n" + json.dumps(bad))
    )
    assert code == 1
    assert "NOT AS EXPECTED (allowed)" in out
    assert "1 of 2 as expected, 1 not as expected" in out


def test_json_output_is_one_object_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = {"id": "c1", "review": DENIED, "expect": {"allowed": False, "code": 403}}
    code, out, err = run(
        capsys, write(tmp_path / "a.jsonl", json.dumps(case)), "--output", "json", "--explain"
    )
    (line,) = map(json.loads, out.splitlines())
    assert code == 0
    assert line["id"] == "c1"
    assert line["uid"] == "u1"
    assert (line["allowed"], line["code"], line["reason"]) == (False, 403, "Forbidden")
    assert line["rule"] == "nodes/own-name" or line["rule"].startswith("nodes/")
    assert "n2" in line["message"]
    assert line["expected"] == {"allowed": False, "code": 403, "reason": None}
    assert line["ok"] is True
    assert line["lookups"] == []
    assert "1 case:" in err


def test_a_bad_line_is_named_and_the_others_are_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(
        tmp_path / "a.jsonl",
        json.dumps(DENIED) + "\nnonsense\n{}\n" + json.dumps({"id": "x", "review": {}}) + "\n"
        + json.dumps(ALLOWED),
    )  # fmt: skip
    code, out, err = run(capsys, file)
    assert code == 2
    assert [f"{file}:{line}: " in err for line in (2, 3, 4)] == [True] * 3
    assert "2 cases: 1 allowed, 1 denied" in out
    assert "3 unreadable" in out


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("empty.json", b""),
        ("a.gz", b"\x1f\x8b broken"),
        ("a.yaml", b"a: [b"),
        ("a.jsonl", b"\xff\xfe\x00"),
        ("a.json", b"[" * 100_000),
    ],
)
def test_an_unreadable_file_is_exit_2_and_named(
    name: str, data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / name, data)
    code, _, err = run(capsys, file)
    assert code == 2
    assert str(file) in err


def test_missing_files_and_directories_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, tmp_path / "none.json", tmp_path)
    assert code == 2
    assert "none.json: No such file" in err
    assert f"{tmp_path}: Is a directory" in err


def test_fail_on_denied_is_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "a.jsonl", LINES)
    assert run(capsys, file)[0] == 0
    assert run(capsys, file, "--fail-on-denied")[0] == 1


def delete_pod() -> dict[str, object]:
    value = hostile()
    value["request"] = {
        **value["request"],  # type: ignore[dict-item]
        "operation": "DELETE",
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "namespace": "ns",
        "name": "p",
        "object": None,
        "oldObject": None,
    }
    return value


POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"namespace": "ns", "name": "p", "uid": "1"},
    "spec": {"nodeName": "n1"},
}


@pytest.mark.parametrize("order", ["state first", "files first"])
def test_state_answers_look_ups_and_explain_shows_them(
    order: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "a.json", json.dumps(delete_pod()))
    state = write(tmp_path / "state.json", json.dumps({"kind": "List", "items": [POD]}))
    arguments = ["--state", state, file] if order == "state first" else [file, "--state", state]
    code, out, _ = run(capsys, *arguments, "--explain", "--show=all", "--fail-on-denied")
    assert code == 0
    assert "pods ns/p" in out


def test_a_case_brings_its_own_state_gates_and_audiences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = {
        "id": "own",
        "review": delete_pod(),
        "state": {"pods": [POD]},
        "features": {"PodCertificateRequest": True},
        "apiAudiences": ["a"],
        "audienceGrants": [{"Audience": "*"}],
        "expect": {"allowed": True},
    }
    code, out, _ = run(capsys, write(tmp_path / "a.jsonl", json.dumps(case)))
    assert code == 0, out


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("{", "state.json"),
        ('{"kind": "Pod", "metadata": {"name": 5}}', "$.metadata.name"),
        ('{"kind": "Pod", "metadata": {}}', "metadata.name is missing"),
        ("[5]", "int is not a cluster object"),
    ],
)
def test_bad_state_is_a_usage_error_that_names_it(
    state: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "a.jsonl", LINES)
    code, _, err = run(capsys, file, "--state", write(tmp_path / "state.json", state))
    assert code == 2
    assert says in err
    assert "state.json" in err


@pytest.mark.parametrize(
    ("flag", "value", "says"),
    [
        ("--feature-gates", "Nope=true", "unknown feature gate 'Nope'"),
        ("--feature-gates", "x", "'x' is not NAME=true"),
        ("--kubernetes-version", "2.0", "'2.0'"),
    ],
)
def test_a_bad_flag_is_exit_2_and_named(
    flag: str, value: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["replay", "-", flag, value])
    assert exit_.value.code == 2
    assert says in capsys.readouterr().err


def test_no_input_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys)
    assert code == 2
    assert "FILE" in err


def test_an_unknown_gate_in_a_case_is_unreadable_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = {"id": "c", "review": DENIED, "features": {"Nope": True}}
    code, _, err = run(capsys, write(tmp_path / "a.jsonl", json.dumps(case)))
    assert code == 2
    assert "Nope" in err
