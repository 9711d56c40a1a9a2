"""Reviews as they are captured: by other policy engines, by kubectl, in old versions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from noderestrict.cli import main
from tests.replay.test_inputs import OTHER, OWN, Capture, run, write

CASES = Path(__file__).parent / "cases"


def beta(review: dict[str, Any]) -> dict[str, Any]:
    return {**review, "apiVersion": "admission.k8s.io/v1beta1"}


CAPTURES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "v1beta1": beta,
    "input": lambda review: {"input": review},
    "input of v1beta1": lambda review: {"input": beta(review)},
    "input of a bare request": lambda review: {"input": review["request"]},
    "Gatekeeper input": lambda review: {"input": {"review": review["request"], "parameters": {}}},
    "Gatekeeper review": lambda review: {"review": review["request"], "parameters": {}},
    "OPA decision log": lambda review: {
        "labels": {"id": "a", "version": "1.0.0"},
        "decision_id": "b",
        "path": "system/main",
        "input": review,
        "result": {"response": {"allowed": True}},
        "timestamp": "2026-03-02T09:00:00Z",
        "type": "openpolicyagent.org/decision_logs",
    },
    "OPA console log": lambda review: {"level": "info", "msg": "Decision Log", "input": review},
    "request member": lambda review: {"request": review["request"]},
    "Kubewarden": lambda review: {"uid": "a", "request": review["request"], "settings": {}},
    "bare request": lambda review: review["request"],
    "a webhook's log": lambda review: {"time": 1, "message": json.dumps(review)},
    "a collector's log": lambda review: {"log": json.dumps({"input": review}) + "\n"},
}


@pytest.mark.parametrize("indent", [None, 2], ids=["lines", "one after another"])
@pytest.mark.parametrize("name", sorted(CAPTURES))
def test_reviews_are_found_in_what_engines_keep(
    name: str, indent: int | None, tmp_path: Path, capsys: Capture
) -> None:
    text = "\n".join(json.dumps(CAPTURES[name](one), indent=indent) for one in (OWN, OTHER))
    code, out, err = run(capsys, write(tmp_path / "a.json", text), "--output=json")
    assert (code, [json.loads(line)["allowed"] for line in out.splitlines()]) == (0, [True, False])
    assert "0 of 0 as expected" in err


def test_a_decision_of_another_engine_is_not_expected_of_these_rules(
    tmp_path: Path, capsys: Capture
) -> None:
    line = {"input": OTHER, "result": {"response": {"allowed": True, "uid": "a"}}}
    code, out, _ = run(capsys, write(tmp_path / "a.json", line))
    assert code == 0
    assert "0 of 0 as expected" in out


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_the_response_of_a_review_is_expected_in_every_version(
    version: str, tmp_path: Path, capsys: Capture
) -> None:
    answered = {**OTHER, "apiVersion": f"admission.k8s.io/{version}", "response": {"allowed": True}}
    code, out, _ = run(capsys, write(tmp_path / "a.json", answered))
    assert code == 1
    assert "0 of 1 as expected" in out


@pytest.mark.parametrize("separator", ["\n", "", " ", "\n\n"])
@pytest.mark.parametrize("name", ["a.json", "a"])
def test_reviews_one_after_another_are_read(
    name: str, separator: str, tmp_path: Path, capsys: Capture
) -> None:
    text = separator.join(json.dumps(one, indent=2) for one in (OWN, OTHER, OWN))
    code, out, _ = run(capsys, write(tmp_path / name, text))
    assert code == 0
    assert "3 cases: 2 allowed, 1 denied" in out


def test_reviews_one_after_another_on_a_line_are_read(tmp_path: Path, capsys: Capture) -> None:
    text = json.dumps(OWN) + json.dumps(OTHER) + "\n" + json.dumps(OWN) + "\n"
    for name in ("a.json", "a.jsonl"):
        code, out, _ = run(capsys, write(tmp_path / name, text))
        assert code == 0
        assert "3 cases: 2 allowed, 1 denied" in out


def test_the_captured_values_one_after_another_are_read(capsys: Capture) -> None:
    code, out, _ = run(capsys, CASES / "j03-concatenated.json")
    assert code == 0
    assert "2 cases: 1 allowed, 1 denied" in out


def access(**fields: Any) -> dict[str, Any]:
    attributes = {"namespace": "ns", "verb": "get", "resource": "secrets", "name": "s"}
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": "system:node:n1",
            "groups": ["system:nodes"],
            "resourceAttributes": attributes,
        },
        **fields,
    }


POD = {
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "ns", "uid": "1"},
    "spec": {"nodeName": "n1", "volumes": [{"name": "v", "secret": {"secretName": "s"}}]},
}
#: As an API server asks a webhook: Go writes the empty status.
ASKED: dict[str, Any] = {
    "metadata": {"creationTimestamp": None},
    "status": {"allowed": False},
}


@pytest.mark.parametrize(
    ("fields", "code", "as_expected"),
    [
        ({}, 0, "0 of 0"),
        ({"status": {}}, 0, "0 of 0"),
        ({"status": None}, 0, "0 of 0"),
        ({"status": {"allowed": True}}, 0, "1 of 1"),
        ({"status": {"allowed": False}}, 1, "0 of 1"),
        ({"status": {"allowed": False, "reason": "no"}, "metadata": {}}, 1, "0 of 1"),
        ({"status": {"allowed": False}, "metadata": {"managedFields": []}}, 1, "0 of 1"),
        (ASKED, 0, "0 of 0"),
    ],
)
def test_the_status_of_an_access_review_is_its_expectation(
    fields: dict[str, Any], code: int, as_expected: str, tmp_path: Path, capsys: Capture
) -> None:
    file = write(tmp_path / "a.json", access(**fields))
    state = write(tmp_path / "s.json", POD)
    found, out, _ = run(capsys, file, "--state", state)
    assert found == code
    assert f"{as_expected} as expected" in out


def test_the_captured_access_review_is_not_as_expected(capsys: Capture) -> None:
    code, out, _ = run(capsys, CASES / "j02-sar-with-status.json")
    assert code == 1
    assert "0 of 1 as expected, 1 not as expected" in out


def reachable(state: Path) -> int:
    return main(["graph", "reachable", "n1", "--state", str(state)])


TABLE = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "rows": []}
STATUS = {"kind": "Status", "status": "Failure", "message": "pods is forbidden", "code": 403}
EVENT = {"kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": "a", "verb": "get"}
NOT_STATE = [
    (STATUS, "a Status is no cluster object: pods is forbidden"),
    ({"kind": "Status"}, "a Status is no cluster object"),
    (TABLE, "kind is 'Table'"),
    ({"kind": "PartialObjectMetadataList", "items": [{"metadata": {}}]}, "PartialObjectMetadata"),
    (OWN, "kind is 'AdmissionReview'"),
    (access(), "kind is 'SubjectAccessReview'"),
    (EVENT, "an audit event is no cluster object"),
    ({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "items": [EVENT]}, "audit event"),
    ({"kind": "Config", "clusters": []}, "kubeconfig"),
]


@pytest.mark.parametrize(("value", "says"), NOT_STATE)
@pytest.mark.parametrize("wrap", [False, True], ids=["alone", "in a List"])
def test_what_is_no_state_is_refused_by_its_kind(
    wrap: bool, value: dict[str, Any], says: str, tmp_path: Path, capsys: Capture
) -> None:
    state = {"kind": "List", "items": [POD, value]} if wrap else value
    file = write(tmp_path / "s.json", state)
    assert reachable(file) == 2
    err = capsys.readouterr().err
    assert f"--state {file}" in err
    assert says in err
    assert len(err.splitlines()) == 1


def test_the_captured_status_is_refused(capsys: Capture) -> None:
    assert reachable(CASES / "j05-state-is-a-status.json") == 2
    assert "a Status is no cluster object: forbidden" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["List", "PodList", "NodeList"])
def test_a_list_without_items_is_empty(kind: str, tmp_path: Path, capsys: Capture) -> None:
    empty = write(tmp_path / "s.json", {"apiVersion": "v1", "items": None, "kind": kind})
    assert reachable(empty) == 0
    code, out, _ = run(capsys, "--state", empty, write(tmp_path / "a.json", OWN))
    assert code == 0
    assert "1 case" in out


def test_the_captured_list_without_items_is_empty() -> None:
    assert reachable(CASES / "j06-items-null.json") == 0


def test_core_events_are_no_audit_events(tmp_path: Path) -> None:
    event = {"kind": "Event", "apiVersion": "v1", "metadata": {"name": "e", "namespace": "ns"}}
    assert reachable(write(tmp_path / "s.json", {"kind": "List", "items": [POD, event]})) == 0
