"""Reports as documents."""

import json
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from noderestrict.cli import main
from noderestrict.replay.documents import changes

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
STATE = ("--state", str(EXAMPLES / "state.json"))
REVIEWS = [str(EXAMPLES / f"{name}-review.json") for name in ("mirror-pod", "own-pod-status")]
EVIL = "<script>alert(1)</script>|`x`\n# \x1b[31m"


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


def test_the_page_tells_verdict_rule_and_message_and_loads_nothing(
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


def test_a_page_of_an_audit_log_tells_who_and_what_could_not_be_judged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["replay", "--audit-log", str(EXAMPLES / "audit-log.jsonl"), "--output", "html"])
    page = Page(capsys.readouterr().out)
    assert "1not judged: no object" in page.text
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
