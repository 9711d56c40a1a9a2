"""Reports."""

import json
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from noderestrict.cli import main
from noderestrict.replay import report as report_module
from noderestrict.replay import reports
from noderestrict.replay.cases import Expectation
from noderestrict.replay.changes import changes
from noderestrict.replay.report import Options
from noderestrict.replay.results import Result, Summary
from noderestrict.replay.sources import Unreadable

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
STATE = ("--state", str(EXAMPLES / "state.json"))
REVIEWS = [str(EXAMPLES / f"{name}-review.json") for name in ("mirror-pod", "own-pod-status")]
EVIL = "<script>alert(1)</script>|`x`\n# \x1b[31m"


DENIED = Result(
    id="case-1",
    uid="uid-1",
    node="n1",
    what="UPDATE nodes n2",
    allowed=False,
    code=403,
    reason="Forbidden",
    rule="nodes/own-name",
    message="not yours",
    lookups=("nodes n2 -> not found",),
    detail="it is another node",
    level="Request",
    user_agent="kubelet/v1.36",
    old=b'{"spec":{"a":"before"}}',
    new=b'{"spec":{"a":"after"}}',
)
ALLOWED = replace(DENIED, allowed=True, code=200, reason="", rule="", message="", detail="")
WRONGLY_ALLOWED = replace(ALLOWED, expect=Expectation(allowed=False, code=404), ok=False)
WRONGLY_DENIED = replace(DENIED, expect=Expectation(allowed=True), ok=False)
RIGHTLY_DENIED = replace(DENIED, expect=Expectation(allowed=False), ok=True)


def written(name: str, results: Sequence[Result], unreadable: int = 0, **options: Any) -> str:
    out = StringIO()
    summary = Summary()
    one = reports.create(name, Options(out, StringIO(), **options))
    for result in results:
        summary.count(result)
        one.write(result)
    for _ in range(unreadable):
        summary.count(Unreadable("a.json", 1, "broken"))
    one.end(summary)
    return out.getvalue()


def report(capsys: pytest.CaptureFixture[str], output: str, *files: str) -> str:
    main(["replay", *STATE, "--output", output, *files])
    return capsys.readouterr().out


@pytest.fixture
def evil(tmp_path: Path) -> str:
    review = json.loads((EXAMPLES / "mirror-pod-review.json").read_text())
    review["request"]["name"] = review["request"]["uid"] = EVIL
    review["request"]["operation"] = "UPDATE"
    review["request"]["oldObject"] = review["request"]["object"]
    review["request"]["object"] = {
        **review["request"]["oldObject"],
        "spec": {EVIL: EVIL, "nodeName": EVIL},
    }
    file = tmp_path / "evil.json"
    file.write_text(json.dumps(review))
    return str(file)


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for key, value in attrs if key in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_verdict_rule_and_message_and_loads_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = Page(report(capsys, "html", *REVIEWS))
    for text in (
        "denied 403",
        "worker-1",
        "pods/mirror-references",
        "database-password",
        "By rule",
    ):
        assert text in page.text
    assert page.links == []
    assert "script" not in page.tags


def test_a_page_of_an_audit_log_shows_who_and_what_could_not_be_judged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["replay", "--audit-log", str(EXAMPLES / "audit-log.jsonl"), "--output", "html"])
    page = Page(capsys.readouterr().out)
    assert "1not judged: not enough in the log" in page.text
    assert "By user agentgpu-feature-agent/0.4.12" in page.text
    assert "metadata.labels['node-role.kubernetes.io/gpu'](absent)" in page.text


def test_the_page_shows_what_changed(capsys: pytest.CaptureFixture[str], evil: str) -> None:
    page = Page(report(capsys, "html", evil))
    assert "spec.nodeName" in page.text
    assert "script" not in page.tags
    assert "\x1b" not in page.text


def test_markdown_and_junit_escape_what_a_node_chose(
    capsys: pytest.CaptureFixture[str], evil: str
) -> None:
    markdown = report(capsys, "markdown", evil)
    assert "<script>" not in markdown
    assert not [line for line in markdown.splitlines()[1:] if line.startswith("#")]
    suite = ET.fromstring(report(capsys, "junit", evil))
    assert suite.get("tests") == "1"


def test_junit_fails_what_is_not_as_expected(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    review = json.loads((EXAMPLES / "mirror-pod-review.json").read_text())
    case = {"id": "a", "review": review, "expect": {"allowed": True}}
    file = tmp_path / "cases.jsonl"
    file.write_text(json.dumps(case) + "\n" + json.dumps({**case, "expect": {"allowed": False}}))
    suite = ET.fromstring(report(capsys, "junit", str(file)))
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.get("message") == "denied 403, expected allowed"


def test_differences_are_fields_with_values() -> None:
    old = b'{"metadata":{"labels":{"a":"b","k8s.io/x":"1"},"managedFields":[1]},"l":[1,2]}'
    new = b'{"metadata":{"labels":{"a":"c"},"managedFields":[2]},"l":[1,3],"n":null}'
    assert changes(old, new) == [
        ("metadata.labels.a", '"b"', '"c"'),
        ("metadata.labels['k8s.io/x']", '"1"', "(absent)"),
        ("l[1]", "2", "3"),
        ("n", "(absent)", "null"),
    ]
    assert changes(b"null", new) == []
    assert changes(b"{", b"}") == []


def test_every_file_of_the_folder_is_an_output(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(reports.__file__).parent
    assert set(reports.NAMES) == {file.stem for file in folder.glob("[!_]*.py")}
    with pytest.raises(SystemExit):
        main(["replay", "a.json", "--output", "nope"])
    err = capsys.readouterr().err
    assert all(name in err for name in reports.NAMES)


@pytest.mark.parametrize("name", reports.NAMES)
def test_every_report_shows_what_was_denied_and_why(name: str) -> None:
    text = written(name, [ALLOWED, DENIED], fail_on_denied=True)
    for part in ("case-1", "403", "not yours", "it is another node"):
        assert part in text


CHOSEN_BY_NODES = ("id", "node", "what", "message", "detail", "user_agent", "rule", "level")


def with_evil(field: str) -> Result:
    value: Any = EVIL
    if field in ("old", "new"):
        value = json.dumps({"spec": {EVIL: EVIL, "a": EVIL}}).encode()
    return replace(DENIED, **{field: value})


@pytest.mark.parametrize("field", [*CHOSEN_BY_NODES, "old", "new"])
def test_the_page_shows_any_text_as_text(field: str) -> None:
    page, plain = Page(written("html", [with_evil(field)])), Page(written("html", [DENIED]))
    assert page.tags == plain.tags
    assert "<script>alert(1)</script>" in page.text
    assert "\x1b" not in page.text


@pytest.mark.parametrize("field", CHOSEN_BY_NODES)
def test_markdown_keeps_any_text_in_its_cell(field: str) -> None:
    text, plain = written("markdown", [with_evil(field)]), written("markdown", [DENIED])

    def cells(document: str) -> list[int]:
        return [line.replace("\\|", "").count("|") for line in document.splitlines()]

    assert cells(text) == cells(plain)
    assert "<" not in text
    assert "`x`" not in text.replace("\\`", "")
    assert "\x1b" not in text


def test_pages_count_denials_alone_and_show_what_is_not_as_expected() -> None:
    elsewhere = replace(DENIED, id="case-2", node="n2")
    results = [DENIED, elsewhere, elsewhere, ALLOWED, WRONGLY_ALLOWED]
    page = Page(written("html", results, unreadable=7)).text
    assert "5judged2allowed3denied1not as expected7unreadable" in page
    assert "By rulenodes/own-name3" in page
    assert "By noden22n11" in page
    assert "By user agentkubelet/v1.363" in page
    assert page.count("allowed, expected denied 404") == 1
    assert page.count("denied 403") == 3


@pytest.mark.parametrize("name", ["html", "markdown"])
def test_documents_show_a_bounded_number_of_denials_and_count_all(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_module, "_SHOWN", 2)
    text = written(name, [replace(DENIED, id=f"case-{number}") for number in range(5)])
    assert [f"case-{number}" in text for number in range(5)] == [True, True, False, False, False]
    assert "… and 3 more, counted above." in text
    assert ("By rule" in text and ">5</td>" in text) or "| 5 |" in text
    assert "more, counted above" not in written(name, [DENIED, DENIED])


def test_a_page_without_denials_says_so() -> None:
    page = Page(written("html", [ALLOWED]))
    assert "Nothing was denied." in page.text
    assert "By rule" not in page.text
    assert "case-1" not in page.text


@pytest.mark.parametrize(
    ("result", "fail_on_denied", "fails"),
    [
        (ALLOWED, True, False),
        (DENIED, False, False),
        (DENIED, True, True),
        (RIGHTLY_DENIED, False, False),
        (RIGHTLY_DENIED, True, True),
        (WRONGLY_DENIED, False, True),
        (WRONGLY_ALLOWED, False, True),
    ],
)
def test_junit_counts_each_failure_once(result: Result, fail_on_denied: bool, fails: bool) -> None:
    text = written("junit", [ALLOWED, result, ALLOWED], 2, fail_on_denied=fail_on_denied)
    suite = ET.fromstring(text)
    assert (suite.get("tests"), suite.get("errors")) == ("3", "2")
    assert suite.get("failures") == str(int(fails))
    cases = suite.findall("testcase")
    assert [len(case.findall("failure")) for case in cases] == [0, int(fails), 0]
    failure = suite.find("testcase/failure")
    if failure is not None:
        assert failure.get("type") == result.rule
        assert (failure.text or "") == result.explanation


def test_the_table_marks_what_is_not_as_expected() -> None:
    results = [RIGHTLY_DENIED, WRONGLY_DENIED, WRONGLY_ALLOWED]
    without_notes = [replace(one, level="") for one in (*results, ALLOWED)]
    first, second, third, fourth, last = written("table", without_notes).splitlines()
    assert "NOT AS EXPECTED" not in first
    assert "NOT AS EXPECTED (allowed)" in second
    assert "NOT AS EXPECTED (denied 404)" in third
    assert fourth.endswith("allowed")
    assert last == "4 cases: 2 allowed, 2 denied; 1 of 3 as expected, 2 not as expected"


def test_the_table_shows_what_was_assumed_for_a_denial() -> None:
    assert written("table", [DENIED]).count("\n    level Request\n") == 1
    assert "level Request" not in written("table", [ALLOWED])


def test_json_shows_notes_user_agent_and_what_was_expected() -> None:
    first, second, third = map(
        json.loads, written("json", [DENIED, WRONGLY_DENIED, RIGHTLY_DENIED]).splitlines()
    )
    assert (first["notes"], first["userAgent"]) == (["level Request"], "kubelet/v1.36")
    assert "expected" not in first
    assert (second["ok"], third["ok"]) == (False, True)
    assert second["expected"]["allowed"] is True


def test_changes_of_any_size_are_cut() -> None:
    old = json.dumps({f"f{number}": "a" * 1000 for number in range(100)}).encode()
    found = changes(old, b"{}")
    assert len(found) == 41
    assert found[-1][2] == "further fields differ"
    assert all(len(was) <= 201 for _, was, _ in found)


@pytest.mark.parametrize("colour", [False, True])
def test_the_table_has_colours_for_terminals_alone(colour: bool) -> None:
    assert ("\x1b[31mdenied 403" in written("table", [DENIED], colour=colour)) == colour
