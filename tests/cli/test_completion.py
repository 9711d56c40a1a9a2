"""Shells complete commands, flags and values; bash is really asked."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from noderestrict.cli import COMMANDS, main
from noderestrict.cli.completion import script
from noderestrict.graph.views import REACHED
from tests.cli.process import SECONDS
from tests.cli.walk import LEAVES, flags_of


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scripts")
    for shell in ("bash", "zsh", "fish"):
        (folder / shell).write_text(script(shell))
    return folder


def completed(scripts: Path, line: str, cwd: Path | None = None) -> set[str]:
    """Return what bash offers at the end of a command line, by the function that it would call."""
    words = shlex.split(line) + ([""] if line.endswith(" ") else [])
    code = (
        "set -u\n"
        f"source {scripts / 'bash'}\n"
        "registered=$(complete -p noderestrict)\n"
        'function=$(sed -E "s/.*-F ([^ ]+).*/\\1/" <<< "$registered")\n'
        f"COMP_WORDS=({shlex.join(words)})\n"
        f"COMP_CWORD={len(words) - 1}\n"
        'set +u; "$function" noderestrict\n'
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", code],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS,
    )
    return set(done.stdout.split("\n")) - {""}


def test_commands_are_completed(scripts: Path) -> None:
    assert completed(scripts, "noderestrict ") == set(COMMANDS)
    assert completed(scripts, "noderestrict re") == {"render", "replay"}
    assert completed(scripts, "noderestrict certs re") == {"renew"}
    assert completed(scripts, "noderestrict graph ") == {"why", "who", "reachable"}
    assert completed(scripts, "noderestrict render po") == {"policies"}


@pytest.mark.parametrize("command", LEAVES)
def test_the_flags_of_every_command_are_completed(command: str, scripts: Path) -> None:
    flags = {name for action in flags_of(LEAVES[command]) for name in action.option_strings}
    assert completed(scripts, f"noderestrict {command} --") == {
        name for name in flags if name.startswith("--")
    }


def test_values_are_completed(scripts: Path) -> None:
    assert completed(scripts, "noderestrict replay --output j") == {"json", "junit"}
    assert completed(scripts, "noderestrict replay -o ") == {
        "html", "json", "junit", "markdown", "policyreport", "table",
    }  # fmt: skip
    assert completed(scripts, "noderestrict render policies --mode ") == {"audit", "deny", "warn"}
    assert completed(scripts, "noderestrict graph who ") == set(REACHED)
    assert completed(scripts, "noderestrict graph why node-1 sec") == {"secrets"}
    assert completed(scripts, "noderestrict completion ") == {"bash", "zsh", "fish"}


def test_files_and_folders_are_completed(scripts: Path, tmp_path: Path) -> None:
    (tmp_path / "review.json").touch()
    (tmp_path / "reviews").mkdir()
    both = {"review.json", "reviews"}
    assert completed(scripts, "noderestrict replay rev", tmp_path) == both
    assert completed(scripts, "noderestrict serve --state rev", tmp_path) == both
    assert completed(scripts, "noderestrict serve --tls-dir rev", tmp_path) == {"reviews"}
    assert completed(scripts, "noderestrict render policies rev", tmp_path) == {"reviews"}


#: Types into an interactive bash: what is computed, such as mark2, is no echo of the input.
TYPIST = """
import os, pty, sys
pid, fd = pty.fork()
if pid == 0:
    os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], {**os.environ, "TERM": "dumb"})
def until(text):
    seen = b""
    while text not in seen:
        seen += os.read(fd, 4096)
os.write(fd, b'noderestrict() { echo "got:$*"; }; source ' + sys.argv[1].encode())
os.write(fd, b" && echo mark$((1 + 1))\\n")
until(b"mark2")
os.write(fd, b"noderestrict exp\\t--baseli\\tx --fail-on cl\\t\\n")
until(b"got:exposure --baseline x --fail-on cluster-admin")
os.write(fd, b"exit\\n")
"""


def test_a_terminal_completes_with_the_tab_key(scripts: Path) -> None:
    command = [sys.executable, "-c", TYPIST, str(scripts / "bash")]
    subprocess.run(command, check=True, timeout=SECONDS, capture_output=True)


def test_the_scripts_are_of_our_program_even_for_the_plugin_of_kubectl(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/kubectl-noderestrict"])
    for shell in ("bash", "zsh", "fish"):
        assert main(["completion", shell]) == 0
        assert "kubectl noderestrict" not in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_can_read_its_script(shell: str, scripts: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run(
        [shell, "-n", str(scripts / shell)], capture_output=True, check=False, timeout=SECONDS
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_zsh_and_fish_know_every_command_and_flag(scripts: Path) -> None:
    zsh, fish = (scripts / "zsh").read_text(), (scripts / "fish").read_text()
    assert zsh.startswith("#compdef noderestrict\n")
    for command, parser in LEAVES.items():
        last = command.split()[-1]
        assert f"-a {last} " in fish, command
        for action in flags_of(parser):
            name = action.option_strings[-1]
            assert name in zsh
            assert f"-l {name.removeprefix('--')}" in fish
