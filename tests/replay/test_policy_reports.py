"""Policy reports, as dashboards of policy engines read them."""

import datetime as dt
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict.cli import main
from noderestrict.replay import report as report_module
from noderestrict.replay.cases import Expectation
from noderestrict.replay.reports import policyreport
from noderestrict.replay.results import Certainty, NotJudged, Result, Undecided
from tests.replay.test_reports import (
    ALLOWED,
    DENIED,
    EVIL,
    EXAMPLES,
    RIGHTLY_DENIED,
    STATE,
    WRONGLY_ALLOWED,
    written,
)

Object = dict[str, Any]
TEXT, FLAG, NUMBER = str, bool, int
#: The schema of wgpolicyk8s.io/v1alpha2: a type, the values of an enumeration, the fields of an
#: object, or [what a list holds]. A field with ! must be there.
REFERENCE = dict.fromkeys(
    ("apiVersion", "fieldPath", "kind", "name", "namespace", "resourceVersion", "uid"), TEXT
)
SCHEMA: Object = {
    "apiVersion!": ("wgpolicyk8s.io/v1alpha2",),
    "kind!": ("PolicyReport", "ClusterPolicyReport"),
    "metadata!": {
        "name!": TEXT,
        "namespace": TEXT,
        "labels": {"*": TEXT},
        "annotations": {"*": TEXT},
    },
    "scope": REFERENCE,
    "summary": dict.fromkeys(("pass", "fail", "warn", "error", "skip"), NUMBER),
    "results": [
        {
            "policy!": TEXT,
            "rule": TEXT,
            "category": TEXT,
            "message": TEXT,
            "source": TEXT,
            "scored": FLAG,
            "properties": {"*": TEXT},
            "resources": [REFERENCE],
            "result": ("pass", "fail", "warn", "error", "skip"),
            "severity": ("high", "low", "medium"),
            "timestamp": {"seconds!": NUMBER, "nanos!": NUMBER},
        }
    ],
}


def check(value: Any, schema: Any, where: str = "") -> None:
    """Check a value, as an API server does that prunes nothing."""
    if isinstance(schema, tuple):
        assert value in schema, where
    elif isinstance(schema, list):
        for number, one in enumerate(value):
            check(one, schema[0], f"{where}[{number}]")
    elif isinstance(schema, dict):
        known = {name.rstrip("!"): inner for name, inner in schema.items()}
        assert {name[:-1] for name in schema if name.endswith("!")} <= set(value), where
        for name, one in value.items():
            assert name in known or "*" in known, f"{where}.{name}"
            check(one, known.get(name, known.get("*")), f"{where}.{name}")
    else:
        assert type(value) is schema, (where, value)


def parsed(text: str) -> list[Object]:
    """Return all documents, once each is found valid."""
    documents = list(yaml.safe_load_all(text))
    for document in documents:
        check(document, SCHEMA, document["kind"])
        assert ("namespace" in document["metadata"]) == (document["kind"] == "PolicyReport")
        counts = Counter(one["result"] for one in document["results"])
        counts["error"] = document["summary"]["error"]
        assert {name: counts[name] for name in document["summary"]} == document["summary"]
    return documents


POD = replace(
    DENIED,
    what="UPDATE pods/status shop/web",
    resource="pods/status",
    namespace="shop",
    name="web",
    rule="pods/status-own",
    time="2026-03-02T09:00:00.25Z",
)
UNDECIDED = Undecided(
    id="u", node="n1", what="UPDATE nodes n1", resource="nodes", name="n1", missing="the object"
)


def results(*found: Result | Undecided | NotJudged, **options: Any) -> list[Object]:
    """Return what the only document of a report has."""
    (document,) = parsed(written("policyreport", found, **options))
    listed: list[Object] = document["results"]
    return listed


def test_each_namespace_has_a_report_and_the_cluster_one() -> None:
    other = replace(POD, namespace="bank", what="UPDATE pods/status bank/web")
    documents = parsed(written("policyreport", [POD, replace(DENIED, resource="nodes"), other]))
    assert [one["metadata"].get("namespace") for one in documents] == [None, "bank", "shop"]
    assert [one["summary"]["fail"] for one in documents] == [1, 1, 1]


def test_a_result_says_what_was_asked_by_whom_and_why_it_fails() -> None:
    *_, document = parsed(written("policyreport", [POD], kubernetes="1.36"))
    assert document["metadata"]["annotations"] == {"noderestrict.io/rules": "1.36"}
    (result,) = document["results"]
    properties = result.pop("properties")
    moment = dt.datetime(2026, 3, 2, 9, tzinfo=dt.UTC)
    assert result == {
        "source": "noderestrict",
        "policy": "noderestrict",
        "rule": "pods/status-own",
        "severity": "high",
        "category": "Node isolation",
        "result": "fail",
        "scored": True,
        "message": "not yours (it is another node)",
        "resources": [{"apiVersion": "v1", "kind": "Pod", "namespace": "shop", "name": "web"}],
        "timestamp": {"seconds": int(moment.timestamp()), "nanos": 250_000_000},
    }
    wanted = {"node": "n1", "verdict": "denied 403", "cases": "1", "userAgent": "kubelet/v1.36"}
    assert wanted.items() <= properties.items()


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (DENIED, "fail"),
        (RIGHTLY_DENIED, "fail"),
        (ALLOWED, "pass"),
        (WRONGLY_ALLOWED, "fail"),
        (replace(ALLOWED, expect=Expectation(allowed=True), ok=True), "pass"),
        (replace(DENIED, certainty=Certainty.INFERRED), "warn"),
        (replace(ALLOWED, certainty=Certainty.INFERRED), "pass"),
        (replace(DENIED, already_refused=True), "skip"),
        (UNDECIDED, "skip"),
    ],
)
def test_a_case_has_a_result_in_the_words_of_the_format(
    found: Result | Undecided, expected: str
) -> None:
    (result,) = results(found)
    assert result["result"] == expected
    assert result["scored"] == (expected in ("pass", "fail"))


def test_a_strict_rule_is_less_severe_and_without_a_rule_there_is_no_severity() -> None:
    strict, allowed = results(replace(DENIED, rule="nodes/finalizers"), ALLOWED)
    assert strict["severity"] == "medium"
    assert not {"rule", "severity"} & set(allowed)


def test_similar_cases_are_one_result_with_their_number() -> None:
    later = replace(DENIED, id="case-2", time="2026-03-02T10:00:00Z")
    first = replace(DENIED, time="2026-03-02T09:00:00Z")
    (result,) = results(first, later, replace(later, id="case-3"))
    assert result["properties"]["cases"] == "3"
    assert result["properties"]["firstSeen"] == "2026-03-02T09:00:00Z"
    assert result["properties"]["lastSeen"] == "2026-03-02T10:00:00Z"


def test_what_is_allowed_takes_no_room_from_what_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_module, "_SHOWN", 3)
    allowed = [replace(ALLOWED, what=f"UPDATE nodes n{number}") for number in range(10)]
    (document,) = parsed(written("policyreport", [*allowed, DENIED]))
    assert (document["summary"]["pass"], document["summary"]["fail"]) == (3, 1)


def test_places_that_could_not_be_read_are_errors_of_the_cluster() -> None:
    documents = parsed(written("policyreport", [POD], 2))
    assert [one["summary"]["error"] for one in documents] == [2, 0]


@pytest.mark.parametrize("namespace", [EVIL, "Not-A-Namespace", "a" * 64, "-a", "a/b", "ａ"])
def test_no_report_is_made_for_a_namespace_that_cannot_be(namespace: str) -> None:
    (result,) = results(replace(POD, namespace=namespace, name=EVIL, message=EVIL))
    assert "\x1b" not in json.dumps(result["message"])
    assert result["resources"][0]["name"].isprintable()


@pytest.mark.parametrize(
    ("resource", "new", "expected"),
    [
        ("leases", b"{}", ("coordination.k8s.io/v1", "Lease")),
        ("serviceaccounts/token", b'{"kind":"TokenRequest"}', ("v1", "ServiceAccount")),
        ("widgets", b'{"apiVersion":"a.io/v1","kind":"Widget"}', ("a.io/v1", "Widget")),
        ("widgets", b"null", (None, "widgets")),
        ("widgets/scale", b'{"apiVersion":"autoscaling/v1","kind":"Scale"}', (None, "widgets")),
    ],
)
def test_a_reference_names_the_kind(
    resource: str, new: bytes, expected: tuple[str | None, str]
) -> None:
    (result,) = results(replace(DENIED, resource=resource, new=new, old=b"null"))
    (reference,) = result["resources"]
    assert (reference.get("apiVersion"), reference["kind"]) == expected


@pytest.mark.parametrize("time", ["", "yesterday", "2026-03-02T09:00:00", "9999-99-99T00:00:00Z"])
def test_without_a_time_there_is_no_timestamp(time: str) -> None:
    (result,) = results(replace(DENIED, time=time))
    assert "timestamp" not in result


def test_every_resource_that_the_rules_judge_has_a_kind() -> None:
    from noderestrict.policy.table import table

    for group, resource, _, _ in table():
        version, kind = policyreport._KINDS[resource]
        assert version.rpartition("/")[0] == group
        assert kind.lower().rstrip("s") in (resource.rstrip("s"), resource.removesuffix("es"))


def test_an_audit_log_becomes_valid_reports(capsys: pytest.CaptureFixture[str]) -> None:
    log = str(EXAMPLES / "audit-log.jsonl")
    assert main(["replay", log, "--output", "policyreport"]) == 0
    documents = parsed(capsys.readouterr().out)
    sums = Counter[str]()
    for document in documents:
        for one in document["results"]:
            sums[one["result"]] += int(one["properties"]["cases"])
    # As the summary says: 10 allowed, 5 denied, 1 undecided.
    assert (sums["pass"], sums["fail"] + sums["warn"], sums["skip"]) == (10, 5, 1)


def test_input_without_cases_is_an_empty_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "none.jsonl"
    file.write_text("")
    main(["replay", *STATE, "--output", "policyreport", str(file)])
    (document,) = parsed(capsys.readouterr().out)
    assert document["results"] == []
