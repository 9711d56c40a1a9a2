"""One setting, several sources: flag, environment, file, default."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from noderestrict.cli import main

TLS = ("serve", "--dev", "--print-config")


def effective(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert main([*TLS, *arguments]) == 0
    values: dict[str, object] = yaml.safe_load(capsys.readouterr().out)
    return values


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main([*TLS, *arguments])
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(
        "port: 1000\n"
        "max-in-flight: 7\n"
        "log-level: debug\n"
        "authorizer: true\n"
        "expected-dns-names: [a.example, b.example]\n"
        "feature-gates: {PodCertificateRequest: true}\n"
        "kubernetes-version: 1.34\n"
        "metrics-address: 127.0.0.1:9000\n"
        "state: [one.json, two.json]\n"
        "strict-rules: [nodes/unschedulable, events/about-own]\n"
        "allow-node-labels: {gpu-*: [node-role.kubernetes.io/gpu, acc.k8s.io/*], n1: a.k8s.io/b}\n"
        "forbid-node-labels: {'*': tier}\n"
    )
    return path


def test_a_flag_wins_over_the_environment_and_that_over_the_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    assert effective(capsys)["port"] == 8443
    assert effective(capsys, "--config", str(file))["port"] == 1000
    monkeypatch.setenv("NODERESTRICT_PORT", "2000")
    assert effective(capsys, "--config", str(file))["port"] == 2000
    assert effective(capsys, f"--config={file}", "--port", "3000")["port"] == 3000


def test_the_environment_may_name_the_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    monkeypatch.setenv("NODERESTRICT_CONFIG", str(file))
    assert effective(capsys)["max-in-flight"] == 7


def test_what_is_printed_has_the_same_effect_as_what_was_read(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, file: Path
) -> None:
    first = effective(capsys, "--config", str(file))
    assert first["expected-dns-names"] == ["a.example", "b.example"]
    assert first["feature-gates"] == {"PodCertificateRequest": True}
    assert first["authorizer"] is True
    assert first["kubernetes-version"] == "1.34"
    assert first["state"] == ["one.json", "two.json"]
    assert first["strict-rules"] == ["nodes/unschedulable", "events/about-own"]
    assert first["allow-node-labels"] == {
        "gpu-*": ["node-role.kubernetes.io/gpu", "acc.k8s.io/*"],
        "n1": ["a.k8s.io/b"],
    }
    assert first["forbid-node-labels"] == {"*": ["tier"]}
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(first))
    assert effective(capsys, "--config", str(again)) == first


def test_a_list_on_the_command_line_replaces_that_of_the_file(
    capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    found = effective(capsys, "--config", str(file), "--state", "mine.json")
    assert found["state"] == ["mine.json"]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("prot: 8443", "unknown key 'prot'"),
        ("config: x", "unknown key 'config'"),
        ("port: 70000", "port: '70000' is not a port"),
        ("port: {a: [1]}", "port"),
        ("port: null", "port: None is not the value"),
        ("authorizer: maybe", "authorizer: 'maybe' is neither true nor false"),
        ("authorizer: [true]", "authorizer: [True] is neither true nor false"),
        ("log-level: loud", "log-level: 'loud' is not one of debug, info, warning, error"),
        ("state: [1]", "state: [1] is not a list of files"),
        ("[]", "a mapping of flags to values is needed"),
        ("a: b: c", "mapping values are not allowed here"),
        ("1: 2", "unknown key 1"),
        ("port: 1\nport: 2", "key 'port' is set twice"),
        ("rule-modes: {nodes/labels: warn, nodes/labels: audit}", "'nodes/labels' is set twice"),
        ("mode: !!bool x", "x"),
        ("port: !!int ''", "index"),
        ("kubernetes-version: 2.0", "kubernetes-version"),
        ("feature-gates: {Nonsense: true}", "Nonsense"),
    ],
)
def test_a_bad_file_is_refused_with_file_and_key(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str, named: str
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    message = refusal(capsys, "--config", str(path))
    assert f"--config {path}" in message
    assert named in message


def test_a_rule_can_be_off_without_quotes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "off.yaml"
    path.write_text("mode: off\nrule-modes: {nodes/labels: off, nodes/taints: audit}\n")
    assert main(["serve", "--config", str(path), "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert "mode: 'off'" in printed
    assert "nodes/labels: 'off'" in printed


BOMB = "a0: &a0 [x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 20)
)
MERGED = "a0: &a0 {x: y}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 20)
)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (BOMB.encode(), "aliases"),
        (MERGED.encode(), "aliases"),
        (b"port: &a [*a]", "aliases"),
        (b"a: &a " + b"x" * 10_000 + b"\nb: [" + b"*a, " * 1000 + b"]", "aliases"),
        (b"mode: " + b"[" * 100_000, "mode.yaml"),
        (b"mode: " + b"{a: " * 100_000, "mode.yaml"),
        (b"mode: \xff\xfe", "not UTF-8: byte 0xff at position 6"),
        (b"mode: \x00", "special characters"),
        (b"mode: audit\n" * 100_000, "longer than"),
        (b"port: [" + b"1, " * 50_000 + b"{}]", "port"),
        (b"port: !!python/object/apply:os.system [id]", "python"),
    ],
    ids=["bomb", "merged bomb", "loop", "repeated text", "lists", "mappings", "not UTF-8", "NUL",
         "huge", "long list", "tag"],
)  # fmt: skip
def test_a_hostile_file_is_refused_in_one_short_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes, named: str
) -> None:
    path = tmp_path / "mode.yaml"
    path.write_bytes(content)
    message = refusal(capsys, "--config", str(path)).splitlines()[-1]
    assert f"--config {path}" in message
    assert named in message
    assert len(message) < 700


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_regular_file_is_refused_without_waiting(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "config.yaml"
    make(path)
    assert f"--config {path}: not a regular file" in refusal(capsys, "--config", str(path))


def test_aliases_that_repeat_little_are_read(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("expected-dns-names: &names [a.example]\nclient-allowed-names: *names\n")
    found = effective(capsys, "--config", str(path))
    assert found["client-allowed-names"] == ["a.example"]


def test_a_file_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--config nowhere.yaml: No such file" in refusal(capsys, "--config", "nowhere.yaml")


def test_an_unknown_variable_and_a_bad_value_are_refused_by_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NODERESTRICT_MAX_INFLIGHT", "1")
    assert "NODERESTRICT_MAX_INFLIGHT: unknown" in refusal(capsys)
    monkeypatch.delenv("NODERESTRICT_MAX_INFLIGHT")
    monkeypatch.setenv("NODERESTRICT_MAX_IN_FLIGHT", "0")
    assert "NODERESTRICT_MAX_IN_FLIGHT: '0'" in refusal(capsys)


def test_the_variables_of_a_service_named_noderestrict_are_no_settings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NODERESTRICT_PORT", "tcp://10.0.0.7:443")
    monkeypatch.setenv("NODERESTRICT_PORT_443_TCP", "tcp://10.0.0.7:443")
    monkeypatch.setenv("NODERESTRICT_SERVICE_HOST", "10.0.0.7")
    assert effective(capsys)["port"] == 8443
