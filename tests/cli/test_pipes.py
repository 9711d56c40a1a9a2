"""Whatever standard input, output and error are, nobody sees a traceback."""

from pathlib import Path

import pytest

from tests.cli.process import ROOT, shell

FULL = b"cannot write the output: No space left on device"


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "--version",
        "serve --help",
        "version --output json",
        "completion bash",
        "graph reachable worker-1 --state $examples/state.json",
        "serve --dev --print-config",
        "certs check --directory nowhere",
    ],
)
def test_a_full_disk_is_an_error_in_one_line(command: str) -> None:
    done = shell(f"$nr {command} > /dev/full")
    assert done.returncode == 2
    assert done.stderr.endswith(FULL + b"\n")
    assert done.stderr.count(b"\n") == 1
    # Standard error takes no more either.
    assert shell(f"$nr {command} > /dev/full 2>&1").returncode == 2


@pytest.mark.parametrize(
    "command",
    ["serve --help", "completion zsh", "exposure --state $examples/state.json --output html"],
)
def test_a_reader_that_has_seen_enough_is_no_error(command: str) -> None:
    done = shell(f"set -o pipefail; $nr {command} | head -c 1 > /dev/null")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    ("command", "code"),
    [("--version", 0), ("replay -", 2), ("srve", 2)],
)
def test_closed_descriptors_change_nothing(command: str, code: int, closed: str) -> None:
    done = shell(f"$nr {command} {closed} < /dev/null" if "<" not in closed else
                 f"$nr {command} {closed}")  # fmt: skip
    assert done.returncode == code
    assert b"Traceback" not in done.stderr
    assert b"Error" not in done.stderr


@pytest.mark.parametrize(
    "changed",
    [
        {"LANG": "C", "PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
)
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
def test_a_terminal_that_shows_ascii_gets_all_output(
    command: str, code: int, changed: dict[str, str]
) -> None:
    done = shell(f"$nr {command}", None, **changed)
    assert done.returncode == code, done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stdout or done.stderr


@pytest.mark.parametrize(
    "command",
    [
        r"replay $'\xff\xfe.json'",
        r"graph why $'n\xff' secret a/b --state $examples/state.json",
        r"graph reachable n --state $'\xff'",
        r"doctor --kubeconfig $'\xff'",
        r"doctor --context $'\xff'",
        r"certs bootstrap --directory $'/dev/null/\xff'",
        r"certs check --secret $'a/\xff'",
        r"render $'/dev/null/\xff'",
        r"render policies $'/dev/null/\xff'",
        r"serve --dev --config $'\xff'",
        r"serve --dev --state $'\xff'",
        r"serve --dev --bind-address $'\xff'",
        r"agents find --agents $'\xff'",
        r"exposure --baseline $'\xff' --state $examples/state.json",
        r"$'\xff'",
        r"--$'\xff'",
        r"agents learn --audit-log x --state $examples/state.json --user $'\xff'",
    ],
)
def test_arguments_that_are_no_text_are_named_in_one_line(command: str, tmp_path: Path) -> None:
    done = shell(f"$nr {command}", tmp_path, HOME=str(tmp_path), PYTHONPATH=str(ROOT))
    assert done.returncode == 2, done.stderr
    assert b"Traceback" not in done.stderr
    first = done.stderr.splitlines()[0]
    assert first.startswith(b"noderestrict")
    assert b"\\udcff" in first or b"\\xff" in first, first


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
def test_a_file_with_nul_characters_is_refused(text: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"{text}\n")
    dev = "" if "tls-dir" in text else "--dev"
    done = shell(
        f"$nr serve {dev} --port 0 --metrics-address '' --config {config}",
        tmp_path,
        HOME=str(tmp_path),
        PYTHONPATH=str(ROOT),
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count(b"\n") == 1, done.stderr
    assert done.stderr.startswith(b"noderestrict serve: ")


@pytest.mark.parametrize(
    "command",
    [
        "doctor --kubeconfig /etc",
        "doctor --kubeconfig /dev/null",
        "doctor --kubeconfig /proc/self/mem",
        "certs bootstrap --directory /proc/x",
        "certs check --directory /dev/null",
        "certs bootstrap --directory $PWD --ca-directory $PWD",
        "render /proc/x",
        "render policies /dev/null/x",
        "serve --config /",
        "serve --dev --state /",
        "replay /",
        "exposure --state /dev/null/x",
        f"replay {'a' * 5000}",
        f"doctor --kubeconfig {'a' * 5000}",
        f"serve --tls-dir {'a' * 5000} --tls-wait 0 --state $examples/state.json --port 0",
    ],
)
def test_odd_places_are_named_in_one_line(command: str, tmp_path: Path) -> None:
    done = shell(f"$nr {command}", tmp_path, HOME=str(tmp_path), PYTHONPATH=str(ROOT))
    assert done.returncode in (1, 2), done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stderr or done.stdout


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
