"""Input that is unusual or broken, and what reports show of it."""

import gzip
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict.api.resources import ObjectKey
from noderestrict.cli import main
from noderestrict.policy.records import NodeRecord
from noderestrict.replay import reports
from noderestrict.replay.state import load_state
from tests.builders import node, obj, review, token_request, update_node

OWN = json.loads(update_node(node(), node()))
OTHER = json.loads(review("nodes", "UPDATE", name="n2", new=node(), old=node()))
SECRET = "c3VwZXItc2VjcmV0"

Capture = pytest.CaptureFixture[str]

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(capsys: Capture, *arguments: object) -> tuple[int, str, str]:
    code = main(["replay", *map(str, arguments)])
    return code, *capsys.readouterr()


def write(path: Path, value: Any) -> Path:
    """Write bytes as they are, text as UTF-8, a list as JSON lines, anything else as JSON."""
    if isinstance(value, list):
        value = "".join(json.dumps(line) + "\n" for line in value)
    elif not isinstance(value, bytes | str):
        value = json.dumps(value)
    path.write_bytes(value.encode() if isinstance(value, str) else value)
    return path


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def case(review: Any, **fields: Any) -> dict[str, Any]:
    return {"id": "c", "review": review, **fields}


FORMS = {
    "one document": json.dumps(OWN).encode(),
    "a document over many lines": json.dumps(OWN, indent=2).encode(),
    "an array over many lines": json.dumps([OWN], indent=2).encode(),
    "an AdmissionReviewList": json.dumps({"kind": "AdmissionReviewList", "items": [OWN]}).encode(),
    "JSON lines of arrays": (json.dumps([OWN]) + "\n").encode(),
    "JSON lines with Windows line ends": (json.dumps(OWN) + "\r\n").encode(),
    "no newline at the end": json.dumps(case(OWN)).encode(),
    "YAML": yaml.safe_dump(OWN).encode(),
    "YAML with empty documents": b"---\n---\n" + yaml.safe_dump(OWN).encode() + b"---\n",
    "YAML of a case": yaml.safe_dump(case(OWN)).encode(),
    "YAML of a List": yaml.safe_dump({"kind": "List", "items": [OWN]}).encode(),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("form", sorted(FORMS))
def test_every_form_is_known_on_stdin_by_its_content(
    form: str, packed: bool, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    stdin(monkeypatch, gzip.compress(FORMS[form]) if packed else FORMS[form])
    code, out, err = run(capsys, "-")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].startswith("1 case: 1 allowed, 0 denied; 0 of 0 as expected")


def test_a_date_in_yaml_stays_text(tmp_path: Path, capsys: Capture) -> None:
    text = yaml.safe_dump(OWN).replace("metadata:", "metadata:\n      uid: 2026-01-01", 1)
    code, _, err = run(capsys, write(tmp_path / "a.yaml", text))
    assert (code, err) == (0, "")


def test_an_empty_list_holds_no_cases(tmp_path: Path, capsys: Capture) -> None:
    code, out, _ = run(capsys, write(tmp_path / "a.json", {"kind": "List", "items": []}))
    assert code == 0
    assert out.startswith("0 cases")


def test_several_files_are_one_report(tmp_path: Path, capsys: Capture) -> None:
    first, second = write(tmp_path / "1.json", OWN), write(tmp_path / "2.jsonl", [OTHER, OWN])
    code, out, _ = run(capsys, first, second)
    assert code == 0
    assert out.splitlines()[-1].startswith("3 cases: 2 allowed, 1 denied")


BROKEN = {
    "text": (b"\xff\xfe\x00\x01", "Expected `object`, got `str`"),
    "yaml.yaml": (b"a: \x80\x81", "invalid start byte"),
    "tag.yaml": (b"!!python/object:os.system {}", "yaml"),
    "alias.yaml": (b"&a [*a]", "alias"),
    "tab.yaml": (b"a:\n\t- b", "character"),
    "bool.yaml": (b"a: !!bool x", "YAML that JSON cannot express"),
    "time.yaml": (b"a: !!timestamp x", "YAML that JSON cannot express"),
    "int.yaml": (b"a: !!int ''", "YAML that JSON cannot express"),
    "cut.json.gz": (gzip.compress(json.dumps(OWN).encode())[:-12], "gzip"),
    "tail.json.gz": (gzip.compress(json.dumps(OWN).encode()) + b"tail", "gzip"),
    "blank.json": (b" \n\t\n", "it is empty"),
    "null.json": (b"null", "nothing but null"),
    "comment.yaml": (b"# nothing\n---\n", "nothing but null"),
    "number.json": (b"5", "int"),
    "items.json": (b'{"kind": "List", "items": 5}', "int"),
    "kind.json": (b'{"kind": "Pod"}', "kind is 'Pod'"),
    "deep.jsonl": (b'{"kind": ' * 50_000, "deep"),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_broken_file_is_named_and_others_are_judged(
    name: str, tmp_path: Path, capsys: Capture
) -> None:
    data, problem = BROKEN[name]
    broken, good = write(tmp_path / name, data), write(tmp_path / "good.json", OWN)
    code, out, err = run(capsys, broken, good)
    assert code == 2
    assert err.startswith(f"noderestrict replay: {broken}:")
    assert problem in err.removeprefix(f"noderestrict replay: {broken}:")
    assert "Traceback" not in err
    *_, unreadable, last = out.splitlines()
    assert "1 case: 1 allowed" in last
    assert unreadable.endswith("unreadable")


@pytest.mark.parametrize("depth", [500, *range(930, 1010, 5), 3000])
def test_no_depth_of_nesting_ends_the_run(depth: int, tmp_path: Path, capsys: Capture) -> None:
    deep = json.dumps(OWN).replace('"labels": {}', '"x": ' + "[" * depth + "]" * depth)
    code, out, _ = run(capsys, write(tmp_path / "a.jsonl", deep + "\n" + json.dumps(OWN) + "\n"))
    assert code in (0, 2)
    assert "allowed" in out.splitlines()[-1]


NOT_CASES = {
    "no id": {"review": OWN},
    "expect is a list": case(OWN, expect=[]),
    "expect without allowed": case(OWN, expect={"code": 403}),
    "features are no gates": case(OWN, features={"PodCertificateRequest": "yes"}),
    "an unknown gate": case(OWN, features={"Nope": True}),
    "grants without audience": case(OWN, audienceGrants=[{"Namespace": "ns"}]),
    "audiences are no list": case(OWN, apiAudiences="a"),
    "state is text": case(OWN, state="x"),
    "state has a number for a list": case(OWN, state={"pods": 5}),
    "state has an object without a name": case(OWN, state={"pods": [{"metadata": {}}]}),
    "review is null": case(None),
    "review is no review": case({"kind": "Pod"}),
    "review has no request": case({**OWN, "request": None}),
    "response without allowed": {**OWN, "response": {}},
}


@pytest.mark.parametrize("name", sorted(NOT_CASES))
def test_what_is_no_case_is_named_by_its_line_and_others_are_judged(
    name: str, tmp_path: Path, capsys: Capture
) -> None:
    file = write(tmp_path / "a.jsonl", [OWN, NOT_CASES[name], OTHER])
    code, out, err = run(capsys, file)
    assert code == 2
    assert err.startswith(f"noderestrict replay: {file}:2: ")
    assert len(err.splitlines()) == 1
    assert out.splitlines()[-1].startswith("2 cases: 1 allowed, 1 denied")
    assert out.splitlines()[-2] == "1 unreadable"


def test_a_case_with_reviews_of_both_kinds_loses_neither_in_silence(
    tmp_path: Path, capsys: Capture
) -> None:
    both = {"id": "x", "review": OWN, "subjectAccessReview": {"kind": "SubjectAccessReview"}}
    code, _, err = run(capsys, write(tmp_path / "a.jsonl", [both]))
    assert code == 2
    assert "a.jsonl:1: a case has a review or SubjectAccessReviews, not both" in err


def test_a_problem_that_quotes_a_long_name_stays_readable(tmp_path: Path, capsys: Capture) -> None:
    request = {**OWN["request"], "uid": "x" * 100_000}
    code, _, err = run(capsys, write(tmp_path / "a.json", {**OWN, "request": request}))
    assert (code, len(err) < 5_000) == (2, True)
    assert "request.uid has 100000 characters" in err


def test_a_kind_of_another_group_is_another_kind(tmp_path: Path) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "uid": "u1"}}
    other = {"apiVersion": "longhorn.io/v1beta2", "kind": "Node",
             "metadata": {"name": "n1", "namespace": "longhorn-system", "uid": "u2"}}  # fmt: skip
    state = write(tmp_path / "s.json", {"kind": "List", "items": [node, other]})
    found = load_state([str(state)]).get(ObjectKey("nodes", "", "n1"))
    assert isinstance(found, NodeRecord)
    assert found.uid == "u1"


@pytest.mark.parametrize("name", ["s.json", "s.yaml", "s.jsonl"])
def test_a_part_of_a_list_is_not_taken_for_all_of_it(
    name: str, tmp_path: Path, capsys: Capture
) -> None:
    part = {
        "kind": "PodList",
        "metadata": {"continue": "abc"},
        "items": [{"metadata": {"name": "a"}}],
    }
    file = write(tmp_path / name, json.dumps(part))
    code, _, err = run(capsys, write(tmp_path / "a.json", OWN), "--state", file)
    assert code == 2
    assert f"--state {file}" in err
    assert "it is only a part of a list, since metadata.continue is set" in err


def test_the_line_of_a_yaml_document_is_where_it_starts(tmp_path: Path, capsys: Capture) -> None:
    text = yaml.safe_dump(OWN) + "---\nkind: Pod\n"
    file = write(tmp_path / "a.yaml", text)
    _, out, err = run(capsys, file)
    assert f"{file}:{text.splitlines().index('kind: Pod') + 1}: kind is 'Pod'" in err
    assert "1 case: 1 allowed" in out


EXPECTATIONS = [
    (OWN, {"allowed": True}, 0),
    (OWN, {"allowed": False}, 1),
    (OWN, {"allowed": False, "code": 403}, 1),
    (OTHER, {"allowed": False}, 0),
    (OTHER, {"allowed": False, "code": 403, "reason": "Forbidden"}, 0),
    (OTHER, {"allowed": False, "code": 404}, 1),
    (OTHER, {"allowed": False, "code": 403, "reason": "NotFound"}, 1),
    (OTHER, {"allowed": True}, 1),
    (OTHER, None, 0),
]


@pytest.mark.parametrize(("judged", "expect", "code"), EXPECTATIONS)
def test_the_exit_code_tells_whether_all_is_as_expected(
    judged: Any, expect: Any, code: int, tmp_path: Path, capsys: Capture
) -> None:
    found, out, _ = run(capsys, write(tmp_path / "a.jsonl", [case(judged, expect=expect)]))
    assert found == code
    assert ("NOT AS EXPECTED" in out) == (code == 1)
    total = 0 if expect is None else 1
    assert f"{total - code} of {total} as expected, {code} not as expected" in out


def test_fail_on_denied_gives_way_to_unreadable_input(tmp_path: Path, capsys: Capture) -> None:
    denied, allowed = write(tmp_path / "d.json", OTHER), write(tmp_path / "a.json", OWN)
    assert run(capsys, allowed, "--fail-on-denied")[0] == 0
    assert run(capsys, denied, "--fail-on-denied")[0] == 1
    assert run(capsys, denied, tmp_path / "none", "--fail-on-denied")[0] == 2


TOKEN = json.loads(token_request("p1", "p1-uid", "vault"))
TOKEN_STATE = {
    "pods": [
        {
            "metadata": {"namespace": "ns", "name": "p1", "uid": "p1-uid"},
            "spec": {"nodeName": "n1", "serviceAccountName": "sa1"},
        }
    ],
    "serviceaccounts": [{"metadata": {"namespace": "ns", "name": "sa1", "uid": "sa1-uid"}}],
}


@pytest.mark.parametrize(
    ("fields", "allowed"),
    [
        ({}, False),
        ({"audienceGrants": []}, False),
        ({"audienceGrants": [{"Audience": "vault"}]}, True),
        ({"audienceGrants": [{"Audience": "*"}]}, True),
        ({"audienceGrants": [{"Audience": "other"}]}, False),
        ({"audienceGrants": [{"Audience": "other"}, {"Audience": "vault"}]}, True),
        ({"audienceGrants": [{"Audience": "*", "Namespace": "ns"}]}, True),
        ({"audienceGrants": [{"Audience": "*", "Namespace": "other"}]}, False),
        ({"audienceGrants": [{"Audience": "*", "ServiceAccount": "sa1"}]}, True),
        ({"audienceGrants": [{"Audience": "*", "ServiceAccount": "sa2"}]}, False),
        ({"features": {"ServiceAccountNodeAudienceRestriction": False}}, True),
    ],
)
def test_a_case_says_which_audiences_the_cluster_grants(
    fields: Any, allowed: bool, tmp_path: Path, capsys: Capture
) -> None:
    line = case(TOKEN, state=TOKEN_STATE, expect={"allowed": allowed}, **fields)
    code, out, _ = run(capsys, write(tmp_path / "a.jsonl", [line]))
    assert code == 0, out


def test_the_default_audience_is_that_of_the_case_then_of_the_flag(
    tmp_path: Path, capsys: Capture
) -> None:
    bare = json.loads(token_request("p1", "p1-uid"))
    pod = json.loads(json.dumps(TOKEN_STATE["pods"][0]))
    pod["spec"]["volumes"] = [{"projected": {"sources": [{"serviceAccountToken": {}}]}}]
    bare["request"]["object"]["spec"]["audiences"] = ["https://issuer"]
    line = case(bare, state={**TOKEN_STATE, "pods": [pod]})
    plain = write(tmp_path / "plain.jsonl", [line])
    own = write(tmp_path / "own.jsonl", [{**line, "apiAudiences": ["https://issuer"]}])
    assert "1 denied" in run(capsys, plain)[1]
    assert "1 allowed" in run(capsys, own)[1]
    assert "1 allowed" in run(capsys, plain, "--api-audiences", "https://issuer")[1]
    assert "1 allowed" in run(capsys, own, "--api-audiences", "other")[1]


def test_the_state_of_a_case_is_all_that_it_sees(tmp_path: Path, capsys: Capture) -> None:
    state = write(tmp_path / "state.json", TOKEN_STATE)
    grants = [{"Audience": "*"}]
    lines = [
        case(TOKEN, audienceGrants=grants, expect={"allowed": True}),
        case(TOKEN, audienceGrants=grants, state=None, expect={"allowed": True}),
        case(TOKEN, audienceGrants=grants, state={}, expect={"allowed": False}),
        case(TOKEN, audienceGrants=grants, state={"nodes": []}, expect={"allowed": False}),
        case(TOKEN, audienceGrants=grants, expect={"allowed": True}),
    ]
    code, out, _ = run(capsys, write(tmp_path / "a.jsonl", lines), "--state", state)
    assert code == 0, out


@pytest.mark.parametrize("form", ["json", "yaml", "gz", "two files", "two flags"])
def test_state_is_read_in_every_form(form: str, tmp_path: Path, capsys: Capture) -> None:
    pods, accounts = ({key: TOKEN_STATE[key]} for key in ("pods", "serviceaccounts"))
    both = json.dumps(TOKEN_STATE)
    arguments = {
        "json": lambda: ["--state", write(tmp_path / "s.json", both)],
        "yaml": lambda: ["--state", write(tmp_path / "s.yaml", yaml.safe_dump(TOKEN_STATE))],
        "gz": lambda: ["--state", write(tmp_path / "s.json.gz", gzip.compress(both.encode()))],
        "two files": lambda: [
            "--state", write(tmp_path / "1.json", pods), write(tmp_path / "2.json", accounts)
        ],
        "two flags": lambda: [
            "--state", write(tmp_path / "1.json", pods),
            "--state", write(tmp_path / "2.json", accounts),
        ],
    }[form]()  # fmt: skip
    line = case(TOKEN, audienceGrants=[{"Audience": "*"}], expect={"allowed": True})
    code, out, _ = run(capsys, write(tmp_path / "a.jsonl", [line]), *arguments)
    assert code == 0, out


BAD_STATE = {
    "missing.json": (None, "No such file"),
    "empty.json": (b"", "it is empty"),
    "number.json": (b'{"pods": 5}', "pods is not a list"),
    "member.json": (b'{"pods": [5]}', "pods[0]"),
    "utf8.json": (b'{"kind":"Pod","metadata":{"name":"a"},"zz":"\xff"}', "0xff"),
    "range.json": (b'{"kind":"Pod","metadata":{"name":"a"},"zz":1e999}', "out of range"),
    "items.json": (b'{"kind":"PodList","items":[{"metadata":{}}]}', "metadata.name is missing"),
    "cut.json.gz": (gzip.compress(b'{"kind":"List","items":[]}')[:-9], "gzip"),
    "field.yaml": (b"kind: Pod\nmetadata: {name: [a]}", "metadata.name"),
    "bytes.yaml": (b"kind: \x80", "invalid start byte"),
}


@pytest.mark.parametrize("name", sorted(BAD_STATE))
def test_bad_state_is_exit_2_and_names_the_file(name: str, tmp_path: Path, capsys: Capture) -> None:
    data, says = BAD_STATE[name]
    state = tmp_path / name if data is None else write(tmp_path / name, data)
    code, out, err = run(capsys, write(tmp_path / "a.json", OWN), "--state", state)
    assert (code, out) == (2, "")
    assert str(state) in err
    assert says in err


JSON_KEYS = {
    "id", "uid", "node", "user", "operation", "resource", "namespace", "name", "file", "line",
    "time", "level", "userAgent", "dryRun", "alreadyRefused", "decision", "certainty", "restsOn",
    "allowed", "code", "reason", "rule", "message",
}  # fmt: skip


@pytest.mark.parametrize("explain", [False, True])
def test_json_output_has_the_same_keys_for_every_verdict(
    explain: bool, tmp_path: Path, capsys: Capture
) -> None:
    file = write(tmp_path / "a.jsonl", [OWN, OTHER, case(OTHER, expect={"allowed": True})])
    code, out, err = run(capsys, file, "--output=json", *(["--explain"] if explain else []))
    own, other, expected = map(json.loads, out.splitlines())
    keys = JSON_KEYS | ({"lookups"} if explain else set())
    assert set(own) == set(other) == keys
    assert set(expected) == keys | {"expected", "ok"}
    assert (own["allowed"], own["code"], own["message"]) == (True, 200, "")
    assert (other["allowed"], other["code"], other["reason"]) == (False, 403, "Forbidden")
    assert expected["ok"] is False
    assert err.startswith("3 cases: ")
    assert code == 1


def test_explain_shows_what_was_looked_up_and_what_was_found(
    tmp_path: Path, capsys: Capture
) -> None:
    lines = [case(TOKEN, state=TOKEN_STATE), case(TOKEN, state={}), case(OWN)]
    _, out, _ = run(capsys, write(tmp_path / "a.jsonl", lines), "--explain", "--show=all")
    assert "pods ns/p1 -> PodRecord(" in out
    assert "pods ns/p1 -> not found" in out
    assert "no lookup was needed" in out


@pytest.mark.parametrize("flags", [[], ["--explain"], ["--output=json", "--explain"]])
def test_no_output_shows_what_objects_hold(
    flags: list[str], tmp_path: Path, capsys: Capture
) -> None:
    env = [{"name": "PASSWORD", "value": SECRET}]
    pod = obj(
        "pods",
        metadata={"name": "p1", "namespace": "ns", "uid": "p1-uid"},
        spec={"nodeName": "n1", "containers": [{"name": "c", "env": env, "args": [SECRET]}]},
    )
    secret = obj("secrets", metadata={"name": "s"}, data={"password": SECRET})
    config = {"last-applied": SECRET}
    lines = [
        json.loads(body)
        for body in (
            review("secrets", "CREATE", name="s", namespace="ns", new=secret),
            review("secrets", "UPDATE", name="s", namespace="ns", new=secret, old={"data": SECRET}),
            review("pods", "CREATE", name="p1", namespace="ns", new=pod),
            review("pods", "CREATE", name="p1", namespace="ns", new={**pod, "spec": SECRET}),
            review("pods", "DELETE", name="p1", namespace="ns", old=pod),
            review("nodes", "UPDATE", name="n2", new=node(metadata={"annotations": config})),
            review("serviceaccounts", "CREATE", sub="token", name="s", namespace="ns", new=secret),
        )
    ]
    unreadable = [
        case(secret),
        secret,
        case(OWN, state=[secret]),
        case(OWN, state={"pods": SECRET}),
    ]
    state = write(tmp_path / "s.json", {"kind": "List", "items": [pod, secret]})
    file = write(tmp_path / "a.jsonl", [*lines, *unreadable])
    _, out, err = run(capsys, file, "--state", state, *flags)
    assert f"{len(lines)} cases" in out + err
    assert SECRET not in out + err
    write(state, {"kind": "Pod", "metadata": {"name": "p", "labels": SECRET}})
    code, out, err = run(capsys, file, "--state", state, *flags)
    assert code == 2
    assert SECRET not in out + err


@pytest.mark.parametrize("flags", [[], ["--explain"]], ids=["table", "explained"])
@pytest.mark.parametrize("where", ["id", "name", "label"])
def test_a_name_cannot_forge_lines_or_colours_of_the_table(
    where: str, flags: list[str], tmp_path: Path, capsys: Capture
) -> None:
    forged = "x\n9 cases: 9 allowed, 0 denied\r\x1b[2J\x1b]0;title\x07\u202e"
    line = json.loads(json.dumps(case(OTHER)))
    if where == "id":
        line["id"] = forged
    elif where == "name":
        line["review"]["request"]["name"] = forged
    else:
        new = node({f"node-restriction.kubernetes.io/{forged}": forged})
        line["review"] = json.loads(update_node(node(), new))
    _, plain, _ = run(capsys, write(tmp_path / "a.jsonl", [case(OTHER)]), *flags)
    _, out, _ = run(capsys, write(tmp_path / "a.jsonl", [line]), *flags)
    assert "1 denied" in out
    assert len(out.splitlines()) == len(plain.splitlines())
    assert out.replace("\n", "").isprintable()


def test_a_reader_that_stops_early_is_no_error(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [OWN] * 5000)
    replay = subprocess.Popen(
        [sys.executable, "-m", "noderestrict", "replay", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert replay.stdout is not None
    replay.stdout.readline()
    replay.stdout.close()
    assert replay.stderr is not None
    errors = replay.stderr.read()
    replay.stderr.close()
    assert replay.wait() == 0
    assert errors == b""


def test_a_typo_in_indented_json_is_one_problem_on_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "review.json"
    file.write_text('{\n  "kind": "AdmissionReview",\n  "request": {\n    "uid": oops\n  }\n}\n')
    assert main(["replay", str(file)]) == 2
    problems = [line for line in capsys.readouterr().err.splitlines() if str(file) in line]
    assert len(problems) == 1
    assert f"{file}:4: not JSON" in problems[0]


def test_a_byte_order_mark_is_no_part_of_the_json(tmp_path: Path) -> None:
    file = tmp_path / "review.json"
    file.write_bytes(b"\xef\xbb\xbf" + (EXAMPLES / "own-pod-status-review.json").read_bytes())
    assert main(["replay", "--state", str(EXAMPLES / "state.json"), str(file)]) == 0


def test_yaml_aliases_are_refused_before_they_grow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    file = tmp_path / "bomb.yaml"
    file.write_text("\n".join(lines))
    assert main(["replay", str(file)]) == 2
    assert f"{file}:2: neither JSON nor YAML: aliases are not supported" in capsys.readouterr().err


@pytest.mark.parametrize("output", reports.NAMES)
def test_every_report_tells_the_operator_what_the_requester_is_not_told(
    output: str, tmp_path: Path, capsys: Capture
) -> None:
    elsewhere = json.loads(json.dumps(TOKEN_STATE).replace('"n1"', '"another.node"'))
    file = write(tmp_path / "a.jsonl", [case(TOKEN, state=elsewhere, expect={"allowed": True})])
    explain = ["--explain"] if output == "table" else []
    _, out, _ = run(capsys, file, f"--output={output}", *explain)
    assert "another" in out
    if output == "json":
        line = json.loads(out)
        assert "another.node" not in line["message"]
        assert line["detail"] == "the pod has spec.nodeName 'another.node'"
