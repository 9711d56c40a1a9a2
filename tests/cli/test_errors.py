"""A wrong command line is answered in one line that says what to write instead."""

import sys
from pathlib import Path

import pytest

from noderestrict.cli import main
from noderestrict.cli._parser import program
from tests.cli.walk import LEAVES

SEE = "; see 'noderestrict{} --help'"


def answered(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that answers a wrong command line."""
    try:
        code: object = main(arguments)
    except SystemExit as exit_:
        code = exit_.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    return err.rstrip()


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("srve", ": unknown command 'srve': did you mean serve?"),
        ("Replay x", ": unknown command 'Replay': did you mean replay?"),
        ("--verison", ": unknown flag --verison: did you mean --version?"),
        ("graph", " graph: missing QUESTION: one of why, reachable, who"
         + SEE.format(" graph")),
        ("graph wy", " graph: unknown question 'wy': did you mean why?"),
        ("certs chek", " certs: unknown action 'chek': did you mean check?"),
        ("replay --outptu json x",
         " replay: unknown flag --outptu: did you mean --output?"),
        ("replay --outptu=json x",
         " replay: unknown flag --outptu: did you mean --output?"),
        ("replay --max_file_mib 3 x",
         " replay: unknown flag --max_file_mib: did you mean --max-file-mib?"),
        ("replay -q x", " replay: unknown flag -q" + SEE.format(" replay")),
        ("replay --output jsn x", " replay: argument --output: 'jsn' is not one of html, json, "
         "junit, markdown, policyreport, table: did you mean json?"),
        ("replay --output", " replay: argument --output: a value is missing"),
        ("replay --audit-log", " replay: argument --audit-log: a value is missing"),
        ("replay --explain=x y", " replay: argument --explain: takes no value, such as 'x'"),
        ("agents learn --user-prefix a --audit-log x",
         " agents learn: argument --user-prefix: 2 values are needed"),
        ("graph why n secret",
         " graph why: missing [NAMESPACE/]NAME" + SEE.format(" graph why")),
        # What is wrong comes before what is missing.
        ("graph why n secret --ouptut json",
         " graph why: unknown flag --ouptut: did you mean --output?"),
        ("certs bootstrap", " certs bootstrap: one of the arguments --secret "
         "--directory is required"
         + SEE.format(" certs bootstrap")),
        ("certs check --secret a/b --directory c",
         " certs check: argument --directory: not allowed with --secret"),
        ("certs check --directory=", " certs check: argument --directory: '' is not a path"),
        ("render x y", " render: unexpected argument 'y'" + SEE.format(" render")),
        ("render policies --mod audit",
         " render policies: unknown flag --mod: did you mean --mode?"),
        ("serve --port x", " serve: argument --port: 'x' is not a port between 0 and 65535"),
        ("exposure --set-up intree", " exposure: argument --set-up: 'intree' is not one of "
         "detect, nothing, in-tree, noderestrict, agents, impersonation: did you mean in-tree?"),
        ("doctor -n Bad", " doctor: argument --namespace: 'Bad' is not the name of a namespace: "
         "a-z, 0-9 and -, at most 63 of them"),
    ],
)  # fmt: skip
def test_the_answer_says_what_is_wrong_and_what_to_write(
    line: str, answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answered(line.split(), capsys) == f"noderestrict{answer}"


@pytest.mark.parametrize("command", LEAVES)
def test_every_command_names_itself_and_the_flag(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = answered([*command.split(), "--zzz"], capsys)
    assert answer == f"noderestrict {command}: unknown flag --zzz" + SEE.format(f" {command}")


def test_what_cannot_be_shown_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    assert "'a\\x1b[31m" in answered(["a\x1b[31m\nb"], capsys)
    assert "--\\udcff" in answered(["replay", "--\udcff"], capsys)


def test_errors_below_the_command_line_name_the_command_and_the_flag(
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer = answered(["agents", "find", "--state", "nowhere"], capsys)
    assert answer == "noderestrict agents: --state nowhere: No such file or directory"


@pytest.mark.parametrize(
    "line",
    [
        "render authorizer OUT --kubeadm-config FILE",
        "render policies OUT --static --kubeadm-config FILE",
        "doctor --agents FILE",
        "serve --config FILE",
    ],
)
@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (b'{"a": "\xe9\xff"}', "not UTF-8: byte 0xe9 at position "),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_file_of_another_encoding_or_endless_depth_is_named(
    tmp_path: Path, line: str, content: bytes, answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    arguments = line.replace("FILE", str(file)).replace("OUT", str(tmp_path / "out")).split()
    told = answered(arguments, capsys)
    assert str(file) in told
    assert answer in told


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("certs bootstrap --directory x --dns-names a,é",
         " certs bootstrap: argument --dns-names: 'é' is neither a DNS name nor an IP address"),
        ("certs bootstrap --directory x --dns-names=-1.x",
         " certs bootstrap: argument --dns-names: '-1.x' is neither a DNS name nor an IP address"),
        ("render x --port 0", " render: argument --port: '0' is not a port between 1 and 65535"),
        ("render x --infrastructure-accounts a/b,c",
         " render: argument --infrastructure-accounts: 'c' is not NAMESPACE/NAME"),
        ("render policies x --static --deployers c",
         " render policies: argument --deployers: 'c' is not NAMESPACE/NAME"),
        ("verify --node ../x",
         " verify: argument --node: '../x' is no name of an object: a-z, 0-9, - and ., at most "
         "253"),
        ("doctor --webhook-configuration ../x",
         " doctor: argument --webhook-configuration: '../x' is no name of an object: a-z, 0-9, - "
         "and ., at most 253"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_used_is_refused_with_its_flag(
    line: str, answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answered(line.split(), capsys) == f"noderestrict{answer}"


@pytest.mark.parametrize(
    "line", ["render", "render authorizer", "render policies", "render overlay audit"]
)
def test_a_file_where_a_directory_is_needed_is_named(
    tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    assert answered([*line.split(), str(file)], capsys).endswith(f": {file}: not a directory")


def test_a_value_that_is_far_too_long_is_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    for line in (["render", "x", "--port"], ["graph", "reachable", "--state", "x", "--output"]):
        told = answered([*line, "9" * 5000], capsys)
        assert "9" * 200 in told
        assert len(told) < 600


def test_files_may_stand_on_both_sides_of_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "one", "--explain", "two"]) == 2
    err = capsys.readouterr().err
    assert "noderestrict replay: one: No such file" in err
    assert "noderestrict replay: two: No such file" in err


@pytest.mark.parametrize(
    ("called", "name"),
    [
        ("/usr/bin/kubectl-noderestrict", "kubectl noderestrict"),
        ("kubectl_noderestrict", "kubectl noderestrict"),
        ("/opt/noderestrict/bin/noderestrict", "noderestrict"),
        ("/kubectl-noderestrict/noderestrict", "noderestrict"),
        ("/x/noderestrict/__main__.py", "noderestrict"),
        ("", "noderestrict"),
    ],
)
def test_the_program_is_called_as_the_user_called_it(called: str, name: str) -> None:
    assert program(called) == name


def test_a_plugin_of_kubectl_is_called_so_everywhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/kubectl-noderestrict"])
    assert answered(["graph", "wy"], capsys).startswith("kubectl noderestrict graph: unknown")
    answer = answered(["graph", "reachable", "n", "--state", "nowhere"], capsys)
    assert answer.startswith("kubectl noderestrict graph: --state nowhere: ")
    with pytest.raises(SystemExit):
        main(["graph", "why", "--help"])
    assert capsys.readouterr().out.startswith("usage: kubectl noderestrict graph why NODE KIND ")
    assert main(["replay", "nowhere"]) == 2
    assert capsys.readouterr().err.startswith("kubectl noderestrict replay: nowhere: ")
