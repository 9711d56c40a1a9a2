"""Whatever standard input, output and error are, nobody sees a traceback."""

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from noderestrict.cli import main
from tests.cli.process import ROOT, STATE, shell

FULL = "cannot write the output: No space left on device\n"


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[int, str]]:
    """Return a function that runs a command in this process: exit code and standard error.

    Standard error takes any character, as that of a process does.
    """
    monkeypatch.setattr(sys, "argv", ["noderestrict"])
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.chdir(tmp_path)

    def call(command: str) -> tuple[int, str]:
        errors = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace")
        monkeypatch.setattr(sys, "stderr", errors)
        try:
            code = main(command.split())
        except SystemExit as left:
            code = int(left.code or 0)
        errors.seek(0)
        return code, errors.read()

    return call


@pytest.mark.parametrize(
    "command", ["--help", "version --output json", "certs check --directory nowhere"]
)
def test_a_full_disk_is_an_error_in_one_line(command: str, tmp_path: Path) -> None:
    done = shell(f"$nr {command} > /dev/full", tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 2
    assert done.stderr.endswith(FULL.encode())
    assert done.stderr.count(b"\n") == 1
    # Standard error takes no more either.
    done = shell(f"$nr {command} > /dev/full 2>&1", tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 2


@pytest.mark.parametrize(
    "command",
    [
        "--version",
        "serve --help",
        "completion bash",
        f"graph reachable worker-1 --state {STATE}",
        "serve --dev --print-config",
    ],
)
def test_each_command_says_that_the_disk_is_full(
    command: str, called: Callable[[str], tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        code, errors = called(command)
    assert code == 2
    assert errors.endswith(FULL)
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    ["serve --help", "completion zsh", "exposure --state $examples/state.json --output html"],
)
def test_a_reader_that_has_seen_enough_is_no_error(command: str) -> None:
    done = shell(f"set -o pipefail; $nr {command} | head -c 1 > /dev/null")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("command", "code", "closed"),
    [
        ("--version", 0, ">&-"),
        ("--version", 0, "2>&-"),
        ("--version", 0, "<&- >&- 2>&-"),
        ("replay -", 2, "<&-"),
        ("replay -", 2, "<&- >&- 2>&-"),
        ("srve", 2, "2>&-"),
    ],
)
def test_closed_descriptors_change_nothing(command: str, code: int, closed: str) -> None:
    done = shell(f"$nr {command} {closed} < /dev/null" if "<" not in closed else
                 f"$nr {command} {closed}")  # fmt: skip
    assert done.returncode == code
    assert b"Traceback" not in done.stderr
    assert b"Error" not in done.stderr


ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("serve --help", 0),
        ("replay --output jsön x", 2),
        ("graph why worker-1 secret default/pässword --state $examples/state.json", 2),
        ("replay $examples/mirror-pod-review.json --explain", 0),
        ("graph reachable worker-2 --state $examples/authorizer-state.json", 0),
        ("exposure --state $examples/state.json", 0),
    ],
)
@pytest.mark.parametrize("strict", [{}, {"PYTHONIOENCODING": "ascii"}], ids=["C", "strict"])
def test_a_terminal_that_shows_ascii_gets_all_output(
    command: str, code: int, strict: dict[str, str]
) -> None:
    done = shell(f"$nr {command}", None, **ASCII, **strict)
    assert done.returncode == code, done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stdout or done.stderr


def test_an_argument_that_is_no_text_is_named_in_one_line(tmp_path: Path) -> None:
    done = shell(r"$nr serve --dev --state $'\xff'", tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 2
    assert done.stderr == b"noderestrict serve: --state \\udcff: No such file or directory\n"


#: What Python makes of the byte 255.
ODD = os.fsdecode(b"\xff")


@pytest.mark.parametrize(
    "command",
    [
        f"replay {ODD}{ODD}.json",
        f"graph why n{ODD} secret a/b --state {STATE}",
        f"graph reachable n --state {ODD}",
        f"doctor --kubeconfig {ODD}",
        f"doctor --context {ODD}",
        f"certs bootstrap --directory /dev/null/{ODD}",
        f"certs check --secret a/{ODD}",
        f"render /dev/null/{ODD}",
        f"render policies /dev/null/{ODD}",
        f"serve --dev --config {ODD}",
        f"serve --dev --bind-address {ODD}",
        f"agents find --agents {ODD}",
        f"exposure --baseline {ODD} --state {STATE}",
        ODD,
        f"--{ODD}",
        f"agents learn --audit-log x --state {STATE} --user {ODD}",
    ],
)
def test_each_command_names_in_one_line_what_is_no_text(
    command: str, called: Callable[[str], tuple[int, str]]
) -> None:
    code, errors = called(command)
    assert code == 2
    assert errors.startswith("noderestrict")
    assert "\\udcff" in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    "text",
    [
        'tls-dir: "a\\0b"',
        'state: ["a\\0b"]',
        'agents: "a\\0b"',
        'kubeconfig: "a\\0b"',
        'capture: "a\\0b"',
        'bind-address: "a\\0b"',
        'client-ca-file: "a\\0b"',
        'tls-dir: ""',
    ],
)
def test_a_file_with_nul_characters_is_refused(
    text: str, tmp_path: Path, called: Callable[[str], tuple[int, str]]
) -> None:
    (tmp_path / "config.yaml").write_text(f"{text}\n")
    dev = "" if "tls-dir" in text else "--dev"
    code, errors = called(f"serve {dev} --port 0 --metrics-address= --config config.yaml")
    assert code == 2
    assert errors.count("\n") == 1, errors
    assert errors.startswith("noderestrict serve: ")


@pytest.mark.parametrize(
    "command",
    [
        "doctor --kubeconfig /etc",
        "doctor --kubeconfig /dev/null",
        "doctor --kubeconfig /proc/self/mem",
        "certs bootstrap --directory /proc/x",
        "certs bootstrap --directory . --ca-directory .",
        "render /proc/x",
        "render policies /dev/null/x",
        "serve --config /",
        "replay /",
        "exposure --state /dev/null/x",
        f"replay {'a' * 5000}",
        f"doctor --kubeconfig {'a' * 5000}",
    ],
)
def test_odd_places_are_named_in_one_line(
    command: str, called: Callable[[str], tuple[int, str]]
) -> None:
    code, errors = called(command)
    assert code == 2
    assert errors.startswith("noderestrict")
    assert errors.count("\n") == 1, errors


def test_a_pair_that_is_nowhere_is_a_problem(
    called: Callable[[str], tuple[int, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert called("certs check --directory /dev/null") == (1, "")
    assert capsys.readouterr().out == "there is no certificate\n1 problem\n"


@pytest.mark.parametrize(
    "flags",
    ["--dev --state /", f"--tls-dir {'a' * 5000} --tls-wait 0 --state $examples/state.json"],
)
def test_a_server_names_an_odd_place_in_its_last_line(flags: str, tmp_path: Path) -> None:
    done = shell(f"$nr serve --port 0 {flags}", tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(b"noderestrict serve: ")
    assert b"Traceback" not in done.stderr


def test_a_working_directory_that_is_gone_is_no_traceback(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = "rmdir $PWD; $nr serve --dev --state x; $nr replay x; $nr --version"
    done = shell(script, gone, PYTHONPATH=str(ROOT))
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr


def test_a_table_in_a_pipe_is_as_wide_as_the_user_says() -> None:
    command = "$nr replay $examples/audit-log.jsonl | cat"
    lease = b"kube-node-lease/worker-1"
    assert max(map(len, shell(command).stdout.decode().splitlines())) <= 80
    assert lease not in shell(command).stdout
    assert lease in shell(command, COLUMNS="200").stdout
