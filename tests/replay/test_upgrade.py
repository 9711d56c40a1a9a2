"""``replay`` with two releases: which verdicts an upgrade changes."""

import json
from pathlib import Path
from typing import Any

import pytest

from noderestrict.cli import main
from tests.builders import node, obj, review, update_node

OWNERS = [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}]


PCR = "podcertificaterequests"


@pytest.fixture
def reviews(tmp_path: Path) -> str:
    """Return a file with one change that only newer plugins deny, and one that none does."""
    denied = update_node(node(), node(metadata={"ownerReferences": OWNERS}))
    file = tmp_path / "reviews.jsonl"
    file.write_bytes(denied + b"\n" + update_node(node(), node()) + b"\n")
    return str(file)


def replay(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[Any]]:
    """Return the exit code and what is reported on each case."""
    code = main(["replay", "--output", "json", *arguments])
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("rules", "allowed"),
    [("1.30", True), ("1.33.3", True), ("1.33.4", False), ("1.33", False), ("latest", False)],
)
def test_a_fix_counts_from_its_patch_release_on(
    reviews: str, rules: str, allowed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    _, found = replay(capsys, reviews, "--rules", rules)
    assert [one["allowed"] for one in found] == [allowed, True]


def test_two_releases_show_what_changes(reviews: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = replay(capsys, reviews, "--rules", "1.30", "--rules", "1.34")
    assert code == 1
    assert [one["ok"] for one in found] == [False, True]
    assert found[0]["expected"]["allowed"] is True
    assert found[0]["rule"] == "nodes/owner-references"


def test_nothing_changes_between_equal_releases(
    reviews: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay(capsys, reviews, "--rules", "1.34", "--rules", "1.35")[0] == 0


def test_a_release_brings_its_gates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "review.json"
    file.write_bytes(review(PCR, "DELETE", name="r", namespace="ns", old=obj(PCR)))
    _, (before,) = replay(capsys, str(file), "--rules", "1.36")
    _, (after,) = replay(capsys, str(file), "--rules", "1.37")
    _, (given,) = replay(capsys, str(file), "--rules", "1.37", "--kubernetes-version", "1.36.2")
    assert [one["rule"].partition("/")[2] for one in (before, after, given)] == [
        "gate",
        "only-create",
        "gate",
    ]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (("1.38",), "'1.38': the newest rules known are those of 1.37"),
        (("1.24",), "'1.24': the oldest version known is 1.25"),
        (("new",), "'new' is not a version"),
        (("1.33", "1.34", "1.35"), "two releases at most"),
    ],
)
def test_a_bad_release_is_named(
    reviews: str, rules: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [part for one in rules for part in ("--rules", one)]
    try:
        code: object = main(["replay", reviews, *flags])
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert message in capsys.readouterr().err
