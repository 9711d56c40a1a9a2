"""The command line as a whole."""

import argparse
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from noderestrict.cli import COMMANDS, build_parser, main


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def ended(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    return exit_.value.code, *capsys.readouterr()


def test_the_known_commands_are_there() -> None:
    assert COMMANDS == (
        "agents", "certs", "completion", "doctor", "exposure", "graph", "render", "replay", "serve",
        "verify", "version",
    )  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = ended([command, "--help"], capsys)
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: noderestrict {command}")


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ended(["--help"], capsys)
    assert code == 0
    for command in COMMANDS:
        assert re.search(rf"^    {command}\s", out, re.MULTILINE)


def arguments_of(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from arguments_of(below)
        else:
            yield action


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_has_help(command: str) -> None:
    found = list(arguments_of(build_parser(command)[1][command]))
    assert [action.dest for action in found if not action.help] == []
    assert len(found) > 1


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_flag_is_exit_2(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = ended([command, "--no-such-flag"], capsys)
    assert (code, out) == (2, "")
    assert err.startswith(f"noderestrict {command}: unknown flag --no-such-flag")
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["--no-such-flag"]])
def test_without_a_known_command_the_error_says_where_help_is(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = ended(arguments, capsys)
    assert (code, out) == (2, "")
    assert err.endswith("see 'noderestrict --help'\n")
    assert err.count("\n") == 1


def test_the_module_runs_and_tells_its_version() -> None:
    done = python("-m", "noderestrict", "--version")
    assert done.returncode == 0
    first = done.stdout.splitlines()[0]
    assert first == f"noderestrict {importlib.metadata.version('noderestrict')}"


def test_the_exit_code_of_a_command_is_that_of_the_process() -> None:
    done = python("-m", "noderestrict", "replay", "no-such-file.json")
    assert done.returncode == 2
    assert "no-such-file.json: No such file or directory" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("heavy", ["aiohttp", "kubernetes_asyncio", "yaml", "cryptography"])
def test_help_and_replay_load_nothing_that_they_do_not_need(heavy: str) -> None:
    code = (
        "import sys\n"
        "from noderestrict.cli import main\n"
        "assert main(['replay', 'no-such-file.json']) == 2\n"
        f"sys.exit({heavy!r} in sys.modules)\n"
    )
    assert python("-c", code).returncode == 0


def test_a_pair_for_development_is_written_through_no_link(tmp_path: Path) -> None:
    def ended() -> str:
        # The state is not there, so that the command ends.
        command = [sys.executable, "-m", "noderestrict", "serve", "--dev", "--port", "0"]
        command += ["--metrics-address", "", "--state", "none.json"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        return done.stderr

    victim, elsewhere = tmp_path / "victim", tmp_path / "elsewhere"
    victim.write_text("keep me")
    elsewhere.mkdir()
    own = tmp_path / ".noderestrict-dev"
    own.symlink_to(elsewhere)
    assert "--dev: .noderestrict-dev: not a directory, or a link" in ended()
    assert list(elsewhere.iterdir()) == []
    own.unlink()
    own.mkdir(mode=0o700)
    for name in ("ca.crt", "tls.crt", "tls.key"):
        (own / name).symlink_to(victim)
    assert "none.json" in ended()
    assert victim.read_text() == "keep me"
    assert not any(path.is_symlink() for path in own.iterdir())
