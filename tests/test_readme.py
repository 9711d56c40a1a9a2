"""What the README shows is what the program does."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from noderestrict.cli import main
from noderestrict.policy.table import RULE_IDS
from tests import reference
from tests.serving.tls import serving

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = {
    path: path.read_text() for path in (*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md")))
}
COMMANDS = [
    found
    for text in PAGES.values()
    for found in re.findall(
        r"^\$ \.venv/bin/noderestrict ((?:replay|graph|agents (?:find|learn)|exposure) [^\n]*)\n"
        r"(.*?)(?=^\$|^```)",
        text,
        re.MULTILINE | re.DOTALL,
    )
]


def test_the_tables_are_those_of_the_code_and_the_tests() -> None:
    page = reference.RULES_PAGE.read_text()
    assert reference.with_tables(page) == page, "run make docs"
    documented = re.findall(r"^\| `([a-z-]+/[a-z-]+)` \|", page, re.MULTILINE)
    assert documented == list(RULE_IDS)


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize(("command", "output"), COMMANDS)
def test_a_command_prints_what_the_documentation_shows(
    command: str,
    output: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    command, _, tail = command.partition(" | ")
    differs = re.search(r"[1-9][0-9]* not as expected", output) is not None
    # The agents of the examples are there to be found, and do more than a relation explains.
    assert main(shlex.split(command)) == int(differs or command.startswith("agents "))
    lines = capsys.readouterr().out.splitlines()
    if tail.startswith("head -n "):
        lines = lines[: int(tail.removeprefix("head -n "))]
    elif tail:
        assert tail == "tail -n 1"
        lines = lines[-1:]
    assert [line.rstrip() for line in lines] == [line.rstrip() for line in output.splitlines()]


def test_the_policy_of_the_examples_is_the_one_that_is_learned(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    (command,) = {command for command, _ in COMMANDS if command.startswith("agents learn")}
    main(shlex.split(command))
    assert capsys.readouterr().out == (ROOT / "examples" / "agents-learned.yaml").read_text()


def test_the_server_answers_what_the_readme_shows(tmp_path: Path) -> None:
    shown = re.findall(r"^\$ curl .*@(\S+) https://\S+\n(\{.*\})$", README, re.MULTILINE)
    assert len(shown) == 2
    with serving(tmp_path, "--state", str(ROOT / "examples/state.json"), state=False) as server:
        for file, answer in shown:
            assert server.request("/validate", (ROOT / file).read_bytes())[1].decode() == answer


def test_every_file_that_the_readme_names_is_there() -> None:
    named = [
        path
        for text in PAGES.values()
        for path in re.findall(r"(?<![/\w])((?:examples|tests|docs|manifests)/[\w./-]+\w)", text)
    ]
    assert len(named) > 10
    for path in named:
        assert (ROOT / path).exists(), path


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    outside = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", outside, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}


def test_every_link_between_pages_leads_somewhere() -> None:
    links = [
        (page, *target.partition("#")[::2])
        for page, text in PAGES.items()
        for target in re.findall(r"\]\((?!https?://)([^)]+)\)", text)
    ]
    assert len(links) > 5
    for page, path, anchor in links:
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name}: {path}"
        if anchor:
            assert anchor in anchors(target.read_text()), f"{page.name}: {path}#{anchor}"


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    docs = ROOT / "docs"
    site = tomllib.loads((docs / "zensical.toml").read_text())
    linked = set(re.findall(r"[\w/-]+\.md", str(site["project"]["nav"])))
    assert linked == {
        str(path.relative_to(docs)) for path in (*docs.glob("*.md"), *docs.glob("reference/*.md"))
    }


@pytest.mark.parametrize("page", reference.PAGES)
def test_the_reference_is_that_of_the_code(page: str) -> None:
    assert (reference.FOLDER / page).read_text() == reference.PAGES[page](), "run make docs"
