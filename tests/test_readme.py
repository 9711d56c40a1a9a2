"""What the README shows is what the program does."""

import re
import shlex
from pathlib import Path

import pytest

from noderestrict.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(
    r"^\$ \.venv/bin/noderestrict (replay [^\n]*)\n(.*?)(?=^\$|^```)",
    README,
    re.MULTILINE | re.DOTALL,
)


def test_the_rule_table_lists_every_rule_and_no_other() -> None:
    code = "".join(
        path.read_text()
        for folder in ("policy/rules", "admission")
        for path in sorted((ROOT / "noderestrict" / folder).glob("*.py"))
    )
    rules = set(re.findall(r'"([a-z-]+/[a-z-]+)"', code)) | {
        f"{resource}/closed-world" for resource in ("pods", "persistentvolumeclaims")
    }
    documented = set(re.findall(r"^\| `([a-z-]+/[a-z-]+)` \|", README, re.MULTILINE))
    assert documented == rules


def test_there_are_replay_commands_to_check() -> None:
    assert len(COMMANDS) >= 3


@pytest.mark.parametrize(("command", "output"), COMMANDS)
def test_a_replay_command_prints_what_the_readme_shows(
    command: str,
    output: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    command, _, tail = command.partition(" | ")
    assert main(shlex.split(command)) == 0
    lines = capsys.readouterr().out.splitlines()
    if tail:
        assert tail == "tail -n 1"
        lines = lines[-1:]
    assert [line.rstrip() for line in lines] == [line.rstrip() for line in output.splitlines()]


def test_every_file_that_the_readme_names_is_there() -> None:
    for path in re.findall(r"\b((?:examples|tests|docs|manifests)/[\w./-]+\w)", README):
        assert (ROOT / path).exists(), path
