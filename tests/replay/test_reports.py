"""Reports."""

import json
import os
import re
import subprocess
import sys
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
from noderestrict.replay.results import Certainty, NotJudged, Result, Summary, Undecided
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


Found = Result | Undecided | NotJudged


def written(name: str, results: Sequence[Found], unreadable: int = 0, **options: Any) -> str:
    out = StringIO()
    summary = Summary()
    one = reports.create(name, Options(out, StringIO(), **options))
    for result in results:
        summary.count(result)
        if isinstance(result, Result):
            one.write(result)
        else:
            one.leave(result)
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
    assert "1undecided" in page.text
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
    text = written(name, [ALLOWED, DENIED], fail_on_denied=True, explain=True)
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
    cases = page.partition("Cases")[2].partition("all-")[2] or page
    assert len(re.findall("allowed, expected denied 404 n1", cases)) == 1
    assert len(re.findall("denied 403 n", cases)) == 2
    assert "2 timesdenied 403 n2" in cases


@pytest.mark.parametrize("name", ["html", "markdown", "table"])
def test_documents_show_a_bounded_number_of_kinds_and_count_all(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_module, "_SHOWN", 2)
    kinds = [replace(DENIED, name=f"n-{n}", what=f"UPDATE nodes n-{n}") for n in range(5)]
    text = written(name, kinds)
    assert [f"n-{number}" in text for number in range(5)] == [True, True, False, False, False]
    assert " and 3 more, counted " in text
    assert re.search(r"By rule.*>5</td>|\| 5 \||  5  nodes/own-name", text, re.DOTALL)
    assert "more, counted" not in written(name, kinds[:2])


@pytest.mark.parametrize("name", ["html", "markdown", "table"])
def test_what_differs_in_nothing_but_its_id_is_shown_once_with_its_count(name: str) -> None:
    repeats = [replace(DENIED, id=f"case-{n}", uid=str(n), line=n) for n in range(1234)]
    text = Page(written(name, repeats)).text
    shown = {"html": "1,234 times", "markdown": "| 1234 |", "table": "1234×"}[name]
    assert shown in text
    assert text.count("UPDATE nodes") == 1
    other = replace(DENIED, message="something else")
    assert Page(written(name, [*repeats, other])).text.count("UPDATE nodes") == 2


def test_a_page_without_denials_says_so() -> None:
    page = Page(written("html", [ALLOWED]))
    assert "Nothing was denied." in page.text
    assert "By rule" not in page.text
    assert "case-1" not in page.text


@pytest.mark.parametrize(
    ("result", "fail_on_denied", "fails"),
    [
        (ALLOWED, True, False),
        (DENIED, False, True),
        (DENIED, True, True),
        (replace(DENIED, already_refused=True), False, False),
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


UNDECIDED = Undecided(
    id="case-u", node="n1", user="system:node:n1", what="UPDATE nodes n1", operation="UPDATE",
    resource="nodes", name="n1", file="audit.log", line=7, time="2026-03-02T09:00:01Z",
    user_agent="kubelet/v1.36", level="Metadata", missing="level Metadata holds no object",
    rule="nodes/labels",
)  # fmt: skip
NOT_JUDGED = NotJudged(id="case-n", node="n1", what="UPDATE nodes n1", why="409 Conflict")


def test_the_table_marks_what_is_not_as_expected_and_shows_it_first() -> None:
    results = [ALLOWED, RIGHTLY_DENIED, WRONGLY_DENIED, WRONGLY_ALLOWED]
    _, first, one, second, two, rest, three, *_, last = written("table", results).splitlines()
    assert first == "NOT AS EXPECTED (allowed)"
    assert one.startswith("denied 403")
    assert second == "NOT AS EXPECTED (denied 404)"
    assert two.startswith("allowed")
    assert rest == "AS EXPECTED, OR NOTHING EXPECTED"
    assert three.startswith("denied 403")
    assert last == "4 cases: 2 allowed, 2 denied; 1 of 3 as expected, 2 not as expected"


def test_the_table_shows_the_refused_first_and_allowed_ones_on_demand() -> None:
    refused_already = replace(DENIED, already_refused=True, node="n3")
    found: list[Found] = [ALLOWED, UNDECIDED, refused_already, DENIED, ALLOWED]
    _, first, second, third, *rest = written("table", found).splitlines()
    assert first.startswith("denied 403  n1")
    assert second.startswith("undecided   n1")
    assert third.startswith("denied 403  n3")
    assert third.endswith("already refused")
    assert not any(line.startswith("allowed") for line in rest)
    shown = written("table", found, show_all=True).splitlines()
    assert shown[4].startswith("allowed     n1")
    assert "2×" in shown[4]


LONG = replace(
    DENIED, node="ip-10-0-0-1.eu-central-1.compute.internal", namespace="kube-system",
    operation="UPDATE", resource="pods/status", name="aws-node-termination-handler-abcde-12345",
    rule="pods/status-extended-resource-claim", user_agent="agent/" + "1" * 300,
)  # fmt: skip


@pytest.mark.parametrize("results", [[LONG], [LONG, WRONGLY_DENIED], [LONG] * 100_000, [DENIED]])
@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_table_fits_the_terminal(results: list[Result], width: int) -> None:
    more: list[Found] = [replace(UNDECIDED, dry_run=True), NOT_JUDGED]
    text = written("table", [*results, *more], unreadable=3, width=width)
    assert max(map(len, text.splitlines())) <= width
    if width == 200:
        assert "…" not in "".join(line for line in text.splitlines() if "agent/" not in line)


def test_names_are_cut_in_the_middle() -> None:
    line = written("table", [LONG]).splitlines()[1]
    assert re.search(r"denied 403  ip-\S+…\w+rnal  UPD.*…\w*tatus  kube-\w*…-12345  pods/", line), (
        line
    )
    short = written("table", [replace(LONG, rule="nodes/own-name")]).splitlines()[1]
    assert short.endswith("  nodes/own-name")


def test_the_table_sums_by_rule_node_and_user_agent() -> None:
    other = replace(DENIED, node="n2", rule="nodes/labels", user_agent="curl")
    text = written("table", [DENIED, DENIED, other, ALLOWED, replace(DENIED, already_refused=True)])
    assert "DENIED BY RULE\n  2  nodes/own-name\n  1  nodes/labels\n" in text
    assert "DENIED BY NODE\n  2  n1\n  1  n2\n" in text
    assert "DENIED BY USER AGENT\n  2  kubelet/v1.36\n  1  curl\n" in text
    assert "DENIED BY" not in written("table", [ALLOWED])


def test_the_table_explains_on_demand() -> None:
    placed = replace(
        DENIED, file="audit.log", line=3, certainty=Certainty.INFERRED, rests_on="the patch"
    )
    text = written("table", [placed, UNDECIDED], explain=True)
    for part in ("not yours (it is another node)", "level Request", "inferred: the patch"):
        assert f"\n    {part}\n" in text
    assert "audit.log:3" in text
    assert "nodes n2 -> not found" in text
    assert "undecided: level Metadata holds no object" in text
    assert "audit.log:7" in text
    assert "level Request" not in written("table", [placed])


def test_a_plain_terminal_gets_ascii() -> None:
    text = written("table", [LONG, LONG], plain=True)
    assert text.isascii()
    assert "..." in text
    assert "2x" in text


def test_json_shows_who_asked_for_what_and_what_the_decision_rests_on() -> None:
    placed = replace(
        DENIED, user="system:node:n1", operation="UPDATE", resource="nodes", name="n2",
        file="audit.log", line=3, time="2026-03-02T09:00:00Z", certainty=Certainty.INFERRED,
        rests_on="the patch changed what it names",
    )  # fmt: skip
    first, second, third, fourth, fifth = map(
        json.loads,
        written(
            "json", [placed, WRONGLY_DENIED, RIGHTLY_DENIED, UNDECIDED, NOT_JUDGED]
        ).splitlines(),
    )
    wanted = {
        "node": "n1", "user": "system:node:n1", "operation": "UPDATE", "resource": "nodes",
        "namespace": "", "name": "n2", "file": "audit.log", "line": 3,
        "time": "2026-03-02T09:00:00Z", "decision": "denied", "certainty": "inferred",
        "restsOn": "the patch changed what it names", "userAgent": "kubelet/v1.36",
        "level": "Request", "dryRun": False, "alreadyRefused": False,
    }  # fmt: skip
    assert {key: first[key] for key in wanted} == wanted
    assert "expected" not in first
    assert (second["ok"], third["ok"]) == (False, True)
    assert second["expected"]["allowed"] is True
    assert (fourth["decision"], fourth["certainty"]) == ("undecided", "undecided")
    assert (fourth["missing"], fourth["line"]) == ("level Metadata holds no object", 7)
    assert (fifth["decision"], fifth["why"]) == ("not judged", "409 Conflict")


def test_a_page_says_what_was_read_and_what_would_decide_the_rest() -> None:
    early = replace(DENIED, time="2026-03-02T09:00:00Z", level="Request")
    text = written(
        "html", [early, UNDECIDED], sources=("cp1.log", "cp2.log"), version="1.2.3",
        kubernetes="1.36",
    )  # fmt: skip
    page = Page(text)
    for part in (
        "Time2026-03-02T09:00:00Z to 2026-03-02T09:00:01Z",
        "Sourcescp1.log, cp2.log",
        "RulesKubernetes 1.36",
        "Versionnoderestrict 1.2.3",
        "To decide it, this is missing: level Metadata holds no object",
    ):
        assert part in page.text
    assert page.links == []
    assert "script" not in page.tags


def test_a_page_filters_by_what_its_cases_have() -> None:
    text = written("html", [DENIED, replace(DENIED, node="<n2>"), UNDECIDED])
    choices = dict(re.findall(r'<option value="([a-z]+-\d+)">([^<]*)</option>', text))
    assert sorted(choices.values()) == sorted(
        ["denied 403", "undecided", "nodes/own-name", "nodes/labels", "n1", "&lt;n2&gt;"]
    )
    for one in choices:
        assert f'body:has(option[value="{one}"]:checked) details:not(.{one})' in text
        assert re.search(rf'<details class="[^"]*\b{one}\b', text)


def test_junit_skips_what_is_undecided() -> None:
    suite = ET.fromstring(written("junit", [DENIED, UNDECIDED, NOT_JUDGED]))
    assert [suite.get(key) for key in ("tests", "failures", "skipped")] == ["2", "1", "1"]
    skipped = suite.find("testcase/skipped")
    assert skipped is not None
    assert "level Metadata holds no object" in (skipped.get("message") or "")


@pytest.mark.parametrize("name", reports.NAMES)
def test_a_report_in_any_encoding_is_still_one(name: str) -> None:
    report_class = reports.create(name, Options(StringIO(), StringIO()))
    odd = replace(DENIED, name="é\U0001f600", what="UPDATE nodes é\U0001f600", message="é…")
    text = written(name, [odd], explain=True)
    narrow = text.encode("ascii", report_class.on_unencodable).decode("ascii")
    if name == "json":
        assert json.loads(narrow) == json.loads(text)
    elif name == "junit":
        assert ET.tostring(ET.fromstring(narrow)) == ET.tostring(ET.fromstring(text))
    elif name == "html":
        assert Page(narrow).text == Page(text).text


@pytest.mark.parametrize("name", reports.NAMES)
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_terminal_and_no_full_disk_is_a_traceback(name: str, encoding: str) -> None:
    command = [sys.executable, "-m", "noderestrict", "replay", str(EXAMPLES / "audit-log.jsonl")]
    command += ["--output", name]
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, check=False, env=env)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    if encoding == "ascii":
        assert done.stdout.isascii()
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
        assert done.returncode == 2
        assert done.stderr == (
            b"noderestrict replay: cannot write the output: No space left on device\n"
        )


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "2>/dev/full", "| true"])
def test_closed_outputs_are_no_traceback(closed: str) -> None:
    command = f"{sys.executable} -m noderestrict replay {EXAMPLES}/audit-log.jsonl {closed}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, check=False
    )
    assert done.returncode in (0, 2)
    assert b"Traceback" not in done.stderr


def test_changes_of_any_size_are_cut() -> None:
    old = json.dumps({f"f{number}": "a" * 1000 for number in range(100)}).encode()
    found = changes(old, b"{}")
    assert len(found) == 41
    assert found[-1][2] == "further fields differ"
    assert all(len(was) <= 201 for _, was, _ in found)


@pytest.mark.parametrize("colour", [False, True])
def test_the_table_has_colours_for_terminals_alone(colour: bool) -> None:
    assert ("\x1b[31mdenied 403" in written("table", [DENIED], colour=colour)) == colour
