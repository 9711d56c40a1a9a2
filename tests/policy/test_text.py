"""What others chose is shown without effect, wherever it is shown."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noderestrict import admission, authorization
from noderestrict.cli import main
from noderestrict.graph.rules import Opinion
from noderestrict.policy.decision import Denied, forbidden, not_found, retriable
from noderestrict.policy.listers import MemoryListers
from noderestrict.policy.settings import Settings
from noderestrict.policy.text import json_line, printable
from noderestrict.replay import reports

HOSTILE = "\x00\x1b[31m\r\n\x7f\x85\x9b2J\u200b\u200f\u061c\u2028\u2029\u202e\u2066\ufeff\U000e0041"


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_is_printable_in_the_end_and_printable_text_stays(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    shown.encode()
    if text.isprintable():
        assert shown == text


@given(st.recursive(st.text(st.characters(exclude_categories=())) | st.none() | st.integers(0, 9),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))  # fmt: skip
def test_any_value_is_one_printable_line_of_json(value: object) -> None:
    line = json_line(value)
    assert line.isprintable()
    assert json.loads(line) == value


@pytest.mark.parametrize("refuse", [forbidden, not_found, retriable])
def test_no_refusal_says_what_has_effect(refuse: object) -> None:
    denied = refuse(rule="r", message=f"a {HOSTILE} \ud800", detail=f"b {HOSTILE}")  # type: ignore[operator]
    assert denied.message.isprintable()
    assert denied.detail.isprintable()
    long = refuse(rule="r", message="\x85" * 100_000)  # type: ignore[operator]
    assert len(long.message) < 5000


def test_no_answer_to_a_review_says_what_has_effect() -> None:
    request = {
        "uid": "1",
        "operation": "UPDATE",
        "namespace": HOSTILE,
        "name": HOSTILE,
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "subResource": HOSTILE,
        "userInfo": {"username": f"system:node:{HOSTILE}", "groups": ["system:nodes"]},
    }
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    decoded = admission.decode(json.dumps(review).encode())
    decision = admission.evaluate(decoded, Settings.for_version(), MemoryListers())
    assert isinstance(decision, Denied)
    assert json.loads(admission.encode(decoded, decision))["response"]["status"][
        "message"
    ].isprintable()


def test_no_opinion_says_what_has_effect() -> None:
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {}}
    review = authorization.decode(json.dumps(body).encode())
    answer = authorization.encode(review, Opinion(allowed=False, reason=f"no {HOSTILE}"))
    assert json.loads(answer)["status"]["reason"].isprintable()


POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"namespace": f"ns{HOSTILE}", "name": HOSTILE},
    "spec": {
        "nodeName": f"n1{HOSTILE}",
        "volumes": [{"name": "v", "secret": {"secretName": f"s{HOSTILE}"}}],
    },
}


@pytest.mark.parametrize("output", ["table", "json", "dot"])
def test_no_view_of_the_graph_shows_what_has_effect(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, output: str
) -> None:
    state = tmp_path / "state.json"
    state.write_text(json.dumps({"kind": "List", "items": [POD]}))
    flags = ("--state", str(state), "--output", output)
    assert main(["graph", "reachable", f"n1{HOSTILE}", *flags]) == 0
    shown = capsys.readouterr().out
    assert "secret" in shown
    assert shown.replace("\n", "").isprintable()
    main(["graph", "why", f"n1{HOSTILE}", "secret", f"ns{HOSTILE}/other", *flags])
    main(["graph", "who", HOSTILE, "x", *flags])
    captured = capsys.readouterr()
    assert (captured.out + captured.err).replace("\n", "").isprintable()


@pytest.mark.parametrize("output", reports.NAMES)
def test_no_report_shows_what_has_effect(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, output: str
) -> None:
    request = {
        "uid": HOSTILE,
        "operation": "DELETE",
        "namespace": HOSTILE,
        "name": HOSTILE,
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "userInfo": {"username": f"system:node:{HOSTILE}", "groups": ["system:nodes"]},
        "oldObject": {"metadata": {"name": HOSTILE}},
    }
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    case = {"id": HOSTILE, "review": review}
    broken = {"id": HOSTILE, "review": {"kind": HOSTILE}}
    file = tmp_path / "cases.jsonl"
    file.write_text(f"{json.dumps(case)}\n{json.dumps(broken)}\n")
    state = tmp_path / "state.json"
    state.write_text('{"kind": "List", "items": []}')
    flags = (
        ("--output", output, "--explain") if output in ("table", "json") else ("--output", output)
    )
    main(["replay", "--state", str(state), *flags, str(file)])
    captured = capsys.readouterr()
    assert "\\x9b" in captured.out or "\\u009b" in captured.out
    assert (captured.out + captured.err).replace("\n", "").isprintable()
