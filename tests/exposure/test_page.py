"""The page loads nothing, shows names as they are, and holds what its script needs."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from noderestrict.cli import main
from noderestrict.exposure.findings import Findings
from noderestrict.exposure.reports import told_how
from noderestrict.exposure.steps import TITLES
from tests.exposure.clusters import account, granted, object_of, pod, rule, to_account
from tests.exposure.test_exposure import BASE
from tests.survey.clusters import written

HOSTILE = "<script>alert(1)</script>"
OBJECTS = [
    *BASE,
    object_of("Node", HOSTILE),
    account("x", "</script><b>"),
    pod("p9", HOSTILE, "x", "</script><b>"),
    *granted(to_account("s"), rule([""], ["pods/exec"], ["create"])),
]


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self._script: dict[str, str | None] | None = None
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.ids += (value or "" for key, value in attrs if key == "id")
        if tag == "script":
            self._script = dict(attrs)

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self.scripts.append((self._script, data))
            self._script = None


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    state = written(tmp_path_factory.mktemp("page"), *OBJECTS)
    found = {}
    for output in ("html", "json"):
        with pytest.MonkeyPatch.context() as patch:
            printed: list[str] = []
            patch.setattr("builtins.print", lambda text, **_: printed.append(text))  # noqa: B023
            assert (
                main(["exposure", "--state", state, "--set-up", "in-tree", "--output", output]) == 0
            )
        found[output] = "".join(printed)
    return found


@pytest.fixture(scope="module")
def page(outputs: dict[str, str]) -> Page:
    return Page(outputs["html"])


def data_of(page: Page) -> Any:
    return json.loads(next(text for attrs, text in page.scripts if attrs.get("id") == "data"))


def test_the_browser_runs_the_pages_own_script_alone(page: Page, outputs: dict[str, str]) -> None:
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', outputs["html"])
    (script,) = [text for attrs, text in page.scripts if attrs.get("type") is None]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )
    assert "innerHTML" not in script
    assert not re.search(r"\b(src|href)=\"?(https?:|//)", outputs["html"])


def test_names_are_shown_as_they_are_and_do_nothing(page: Page, outputs: dict[str, str]) -> None:
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 2
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in outputs["html"]
    assert HOSTILE in [node["name"] for node in data_of(page)["nodes"]]


def test_all_nodes_are_in_the_table_worst_first_without_the_script(
    page: Page, outputs: dict[str, str]
) -> None:
    findings = msgspec.json.decode(outputs["json"], type=Findings)
    rows = [attrs for tag, attrs in page.tags if tag == "tr" and "data-row" in attrs]
    assert len(rows) == len(findings.nodes) + len(findings.control_planes)
    assert findings.nodes[0].cluster_steps is not None
    assert data_of(page)["nodes"][0]["name"] == findings.nodes[0].name


def test_the_script_has_every_path_of_the_report(page: Page, outputs: dict[str, str]) -> None:
    findings = msgspec.json.decode(outputs["json"], type=Findings)
    data = data_of(page)
    for node, shown in zip((*findings.nodes, *findings.control_planes), data["nodes"], strict=True):
        assert [list(way.path) for way in node.ways] == [way[3] for way in shown["ways"]]
    for step, shown in zip(findings.steps, data["steps"], strict=True):
        start, end, by, costs, requests, how = shown
        assert data["things"][start] == [step.start.kind, step.start.namespace, step.start.name]
        assert data["things"][end] == [step.end.kind, step.end.namespace, step.end.name]
        assert (by, costs, len(requests)) == (step.by, step.costs, len(step.requests))
        assert data["texts"][how] == told_how(step)


def test_everything_that_falls_has_a_title(page: Page) -> None:
    data = data_of(page)
    assert {kind for kind, _, _ in data["things"]} <= set(data["titles"]) == set(TITLES)


def test_what_the_script_looks_for_is_in_the_page(page: Page) -> None:
    (script,) = [text for attrs, text in page.scripts if attrs.get("type") is None]
    wanted = set(re.findall(r'byId\("([a-z-]+)"\)', script))
    assert len(wanted) > 8
    assert wanted <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_it_is_written_for_screen_readers(page: Page) -> None:
    headings = [tag for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == "h1"
    assert headings.count("h1") == 1
    for tag, attrs in page.tags:
        if tag == "th":
            assert attrs.get("scope") in ("row", "col")
        if attrs.get("class") in ("scroll", "scroll tall"):
            # What scrolls can be reached with the keyboard, and says what it is.
            assert attrs.get("tabindex") == "0"
            assert attrs.get("aria-label")
    assert "main" in [tag for tag, _ in page.tags]


def test_the_page_is_printed_with_what_changed(tmp_path: Path, capsys: Any) -> None:
    state = written(tmp_path, *BASE)
    main(["exposure", "--state", state, "--set-up", "in-tree", "--output", "json"])
    (tmp_path / "before.json").write_text(capsys.readouterr().out)
    state = written(tmp_path, *OBJECTS)
    baseline = ("--baseline", str(tmp_path / "before.json"))
    main(["exposure", "--state", state, "--set-up", "in-tree", "--output", "html", *baseline])
    out = capsys.readouterr().out
    assert "Since the baseline" in out
    assert "cluster-admin in 3 steps" in out
