"""Every setting is declared once, and means the same in each source."""

import argparse
import dataclasses
import json
import threading
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict.cli import argument_types, build_parser, serve, yaml_file
from noderestrict.cli.config import PREFIX, Sources, as_yaml, differences, variable
from noderestrict.cli.fields import Setting, settings_of
from noderestrict.cli.serve_config import ServeConfig
from noderestrict.cli.yaml_file import ConfigError
from noderestrict.pki.files import read_regular
from noderestrict.serving.modes import Modes
from tests.reference import FOLDER

SETTINGS = settings_of(ServeConfig)
#: By type, a text that is nobody's default.
EXAMPLES: Mapping[int, str] = {
    id(kind): text
    for kind, text in (
        (argument_types.HOST, "127.0.0.1"),
        (argument_types.NAME, "name"),
        (argument_types.SWITCH, "true"),
        (argument_types.PATH, "some/file"),
        (argument_types.DIRECTORY, "some/directory"),
        (argument_types.FILE_NAME, "one.yaml"),
        (argument_types.FILES, "one.json,two.json"),
        (argument_types.NAMES, "a.example,b.example"),
        (argument_types.PORT, "1"),
        (argument_types.ADDRESS, "[::1]:1"),
        (argument_types.ADDRESSES, "127.0.0.1:6443,[::1]:6443"),
        (argument_types.HTTP_URL, "http://127.0.0.1:4318/v1/traces"),
        (argument_types.PER_MILLION, "5"),
        (argument_types.SECONDS, "1.5"),
        (argument_types.NAMESPACED_NAME, "namespace/name"),
        (argument_types.COUNT, "3"),
        (argument_types.MIB, "4"),
        (argument_types.MODE, "audit"),
        (argument_types.RULE_MODES, "nodes/labels=audit"),
        (argument_types.REGISTRATION, json.dumps({"clientConfig": {"url": "https://a.example"}})),
        (argument_types.FEATURE_GATES, "PodCertificateRequest=true"),
        (argument_types.KUBERNETES_VERSION, "1.30"),
        (argument_types.RULES_OF, "1.33"),
        (argument_types.AUDIENCES, "a,b"),
        (argument_types.STRICT_RULES, "nodes/pod-cidr"),
        (argument_types.NODE_KEYS, "gpu-*=tier|zone"),
        (argument_types.ALLOWED_LABELS, "gpu-*=a.k8s.io/b|a.k8s.io/*"),
    )
}


def named(setting: Setting) -> str:
    return setting.name


def example(setting: Setting) -> str:
    others = [choice for choice in setting.kind.choices if choice != setting.default]
    return EXAMPLES.get(id(setting.kind)) or others[0]


def parsed(*arguments: str) -> argparse.Namespace:
    return build_parser("serve")[0].parse_args(["serve", *arguments])


def read(*arguments: str, environ: Mapping[str, str] | None = None) -> ServeConfig:
    return Sources(ServeConfig, parsed(*arguments), environ or {}).read()


def changed(setting: Setting) -> ServeConfig:
    return read(environ={variable(setting): example(setting)})


@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_every_setting_has_help_a_type_and_a_row_in_the_reference(setting: Setting) -> None:
    assert len(setting.help) > 10
    assert not setting.help.endswith(".")
    assert typing.get_type_hints(ServeConfig)[setting.field] is not Any
    row = f"| `--{setting.name}` | `{PREFIX}{setting.field.upper()}` |"
    assert row in (FOLDER / "flags.md").read_text()


def test_every_field_is_a_setting() -> None:
    assert {field.name for field in dataclasses.fields(ServeConfig)} == {
        setting.field for setting in SETTINGS
    }


@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_flag_variable_and_file_mean_the_same(setting: Setting, tmp_path: Path) -> None:
    text = example(setting)
    values = text.split(",") if setting.kind is argument_types.FILES else [text]
    flag = [] if setting.kind is argument_types.SWITCH else values
    from_flag = read(f"--{setting.name}", *flag)
    assert getattr(from_flag, setting.field) != setting.default
    assert read(environ={variable(setting): text}) == from_flag
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({setting.name: values if len(values) > 1 else text}))
    assert read("--config", str(file)) == from_flag
    file.write_text(as_yaml(from_flag))
    assert read("--config", str(file)) == from_flag


def test_without_any_source_every_default_is_in_effect_and_prints_as_itself(
    tmp_path: Path,
) -> None:
    assert read() == ServeConfig()
    file = tmp_path / "config.yaml"
    file.write_text(as_yaml(ServeConfig()))
    assert read("--config", str(file)) == ServeConfig()


@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_every_changed_setting_needs_a_restart_but_modes_and_agents(setting: Setting) -> None:
    found = differences(ServeConfig(), changed(setting), applied=serve._APPLIED)
    assert found.keys() == ({setting.name} - {"agents", "mode", "rule-modes"})
    assert all(before != after for before, after in found.values())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("port", "65536"),
        ("port", "²"),
        ("port", "８"),
        ("port", "-1"),
        ("port", "9" * 5000),
        ("max-in-flight", "0"),
        ("max-in-flight", "1_0"),
        ("tls-wait", "nan"),
        ("tls-wait", "inf"),
        ("tls-wait", "-1"),
        ("tls-wait", "1m"),
        ("metrics-address", "9090"),
        ("metrics-address", "host:"),
        ("metrics-address", "[]:80"),
        ("metrics-address", "host:65536"),
        ("rule-modes", "nodes/nothing=audit"),
        ("rule-modes", "nodes/labels"),
        ("rule-modes", "nodes/labels=loud"),
        ("strict-rules", "nodes/labels"),
        ("expected-registration", "{}"),
        ("kubernetes-version", "2.0"),
        ("dev", "yes"),
        ("mode", "loud"),
        ("state", "a.json,,b.json"),
    ],
)
def test_a_bad_value_is_rejected_by_name_whatever_its_source(
    name: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = PREFIX + name.upper().replace("-", "_")
    with pytest.raises(ConfigError, match=f"^{key}: "):
        read(environ={key: text})
    if name != "state":
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump({name: text}))
        with pytest.raises(ConfigError, match=f"{name}: "):
            read("--config", str(file))
    if name not in ("state", "dev"):
        with pytest.raises(SystemExit):
            parsed(f"--{name}={text}")
        assert f"argument --{name}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", None),
        (":9090", ("0.0.0.0", 9090)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:9090", ("::1", 9090)),
    ],
)
def test_an_address_is_host_and_port(text: str, address: tuple[str, int] | None) -> None:
    assert read("--metrics-address", text).metrics_address == address


def server(tmp_path: Path, text: str, *arguments: str) -> tuple[Any, Path]:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    flags = ("--config", str(file), "--tls-dir", str(tmp_path), *arguments)
    sources = Sources(ServeConfig, parsed(*flags), {})
    return serve._Server(sources.read(), sources, []), file


def test_the_file_is_read_once_per_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looking, file = server(tmp_path, "mode: audit\n")
    reads: list[threading.Thread] = []

    def counted(path: Path, most: int) -> bytes:
        reads.append(threading.current_thread())
        return read_regular(path, most)

    monkeypatch.setattr(yaml_file, "read_regular", counted)
    for number in range(1, 4):
        file.write_text(f"mode: warn\nport: {number}\nrule-modes: {{nodes/labels: audit}}\n")
        reloaded = looking._read()
        assert reloaded.modes() == Modes("warn", {"nodes/labels": "audit"})
        assert reloaded.need_restart == {"port": ("8443", str(number))}
        assert len(reads) == number


def test_a_setting_that_a_flag_gives_needs_no_restart_when_the_file_changes(
    tmp_path: Path,
) -> None:
    looking, file = server(tmp_path, "port: 1\nlog-level: info\n", "--port", "2")
    file.write_text("port: 3\nlog-level: debug\n")
    assert looking._read().need_restart == {"log-level": ("info", "debug")}
    file.write_text("{}\n")
    assert looking._read().need_restart == {}


def test_strict_rules_stay_as_they_run_so_that_a_mode_for_a_new_one_is_rejected(
    tmp_path: Path,
) -> None:
    looking, file = server(tmp_path, "strict-rules: [nodes/unschedulable]\n")
    file.write_text(
        "strict-rules: [nodes/unschedulable, nodes/pod-cidr]\nrule-modes: {nodes/pod-cidr: audit}\n"
    )
    reloaded = looking._read()
    assert reloaded.need_restart == {
        "strict-rules": ("['nodes/unschedulable']", "['nodes/unschedulable', 'nodes/pod-cidr']")
    }
    with pytest.raises(ValueError, match="'nodes/pod-cidr' is off"):
        reloaded.modes()
