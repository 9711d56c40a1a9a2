"""Objects whose managedFields no decoder takes, as anybody may store them."""

import json
from pathlib import Path
from typing import Any

import pytest

from noderestrict.cli import main
from tests.builders import node
from tests.poisoned import FIELDS, poisoned
from tests.replay.test_inputs import OTHER, OWN, Capture, run, write

KINDS = sorted(FIELDS)


def with_poison(value: Any, fields: str) -> bytes:
    """Return JSON in which each object with the name poisoned is."""
    text = json.dumps(value)
    return text.encode().replace(b'"@poison"', poisoned(node(), FIELDS[fields]))


def pod(name: str, secret: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "ns", "uid": name},
        "spec": {
            "nodeName": "n1",
            "volumes": [{"name": "s", "secret": {"secretName": secret}}],
        },
    }


@pytest.mark.parametrize("fields", KINDS)
@pytest.mark.parametrize("form", ["review.json", "review.jsonl", "case.jsonl", "list.json"])
def test_a_review_of_a_poisoned_object_is_judged_like_any_other(
    form: str, fields: str, tmp_path: Path, capsys: Capture
) -> None:
    request = {**OTHER["request"], "object": "@poison", "oldObject": "@poison"}
    bad: Any = {**OTHER, "request": request}
    if form == "case.jsonl":
        bad = {"id": "c", "review": bad}
    if form == "list.json":
        bad = {"kind": "List", "items": [OWN, bad]}
    data = with_poison(bad, fields)
    if form.endswith(".jsonl"):
        data += b"\n" + json.dumps(OWN).encode() + b"\n"
    code, out, err = run(capsys, write(tmp_path / form, data))
    assert (code, err) == (0, "")
    assert "1 denied" in out.splitlines()[-1]
    assert ("1 allowed" in out.splitlines()[-1]) == (form != "review.json")


@pytest.mark.parametrize("fields", KINDS)
@pytest.mark.parametrize("form", ["list", "lines", "one"])
def test_a_poisoned_pod_gives_what_it_gives_and_the_others_too(
    form: str, fields: str, tmp_path: Path, capsys: Capture
) -> None:
    bad = poisoned(pod("bad", "of-the-bad"), FIELDS[fields])
    good = json.dumps(pod("good", "of-the-good")).encode()
    data = {
        "list": b'{"kind":"PodList","metadata":{},"items":[' + bad + b"," + good + b"]}",
        "lines": bad + b"\n" + good + b"\n",
        "one": bad,
    }[form]
    state = write(tmp_path / "state.json", data)
    assert main(["graph", "reachable", "n1", "--state", str(state)]) == 0
    out = capsys.readouterr().out
    assert "secret ns/of-the-bad" in out
    assert ("secret ns/of-the-good" in out) == (form != "one")


@pytest.mark.parametrize("fields", KINDS)
def test_an_event_that_shows_a_poisoned_object_is_judged(
    fields: str, tmp_path: Path, capsys: Capture
) -> None:
    event = {
        "kind": "Event",
        "level": "RequestResponse",
        "stage": "ResponseComplete",
        "auditID": "a",
        "verb": "update",
        "user": OTHER["request"]["userInfo"],
        "objectRef": {"resource": "nodes", "name": "n2", "apiVersion": "v1"},
        "requestObject": "@poison",
        "responseObject": "@poison",
    }
    log = write(tmp_path / "audit.log", with_poison(event, fields) + b"\n")
    code, out, _ = run(capsys, "--audit-log", log)
    assert code == 0
    assert "1 denied" in out
