"""kubectl completes the command line of its plugin, by what we print for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from noderestrict.cli import COMMANDS
from noderestrict.cli.kubectl_complete import Directive, complete, main
from noderestrict.graph.views import REACHED
from tests.cli.walk import LEAVES, flags_of


def words(*line: str) -> set[str]:
    return {word for word, _ in complete(line).candidates}


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ([""], {*COMMANDS}),
        (["re"], {"render", "replay"}),
        (["certs", "re"], {"renew"}),
        (["graph", ""], {"why", "who", "reachable"}),
        (["graph", "who", ""], {*REACHED}),
        (["graph", "who", "sec"], {"secrets"}),
        (["graph", "who", "secret", ""], set()),
        (["render", "po"], {"policies"}),
        (["doctor", "--kubeconfig", "f", "--output", ""], {"json", "table"}),
        (["doctor", "--output=j"], {"--output=json"}),
        (["doctor", "-o", "t"], {"table"}),
        (["doctor", "--expect-mode", "wa"], {"warn"}),
        (["doctor", "--server-us"], {"--server-user"}),
        # Nobody knows what follows.
        (["doctor", "--server-user", ""], set()),
        (["nonsense", ""], set()),
        (["doctor", "--nonsense", "--outp"], {"--output"}),
        (["replay", "--", "--outp"], set()),
    ],
)
def test_commands_flags_and_values_are_completed(line: list[str], offered: set[str]) -> None:
    assert words(*line) == offered


@pytest.mark.parametrize("command", LEAVES)
def test_every_flag_is_completed_with_what_it_does(command: str) -> None:
    found = dict(complete([*command.split(), "-"]).candidates)
    assert found.keys() >= {
        name for action in flags_of(LEAVES[command]) for name in action.option_strings
    }
    assert all(found.values())


@pytest.mark.parametrize(
    ("line", "directive"),
    [
        (["replay", ""], Directive.FILES),
        (["replay", "a.json", "b"], Directive.FILES),
        (["doctor", "--kubeconfig", ""], Directive.FILES),
        (["doctor", "--kubeconfig=a"], Directive.FILES),
        (["render", ""], Directive.DIRECTORIES),
        (["doctor", ""], Directive.NO_FILES),
        (["doctor", "--output", ""], Directive.NO_FILES),
    ],
)
def test_the_shell_completes_paths(line: list[str], directive: Directive) -> None:
    assert complete(line).directive == directive


def test_contexts_come_from_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text("#!/bin/sh\n[ $2 = get-contexts ] && printf 'prod\\nplay\\ntest\\n'\n")
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert words("doctor", "--context", "p") == {"prod", "play"}
    assert words("doctor", "--namespace", "") == set()
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert words("doctor", "--context", "") == set()


def test_it_prints_what_cobra_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["kubectl_complete-noderestrict", "graph", "wh"])
    assert main() == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert {line.partition("\t")[0] for line in lines} == {"who", "why"}
    assert all(line.partition("\t")[2] for line in lines)
    assert last == ":4"


def test_it_is_beside_the_plugin() -> None:
    path = Path(sys.executable).parent / "kubectl_complete-noderestrict"
    done = subprocess.run([path, "vers"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0].startswith("version")
