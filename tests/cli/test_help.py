"""The help of every command fits the terminal, and says what everything does by default."""

import argparse
import re

import pytest

from noderestrict.cli import build_parser, main
from noderestrict.cli.exit_codes import COMMON, EXIT_CODES, exit_codes
from noderestrict.cli.fields import settings_of
from noderestrict.cli.serve_config import ServeConfig
from tests.cli.walk import LEAVES, flags_of, shown_flags


def help_of(
    command: str,
    columns: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as exit_:
        main([*command.split(), "--help"])
    assert exit_.value.code == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


@pytest.mark.parametrize("command", ["", "agents", "certs", "graph", *LEAVES])
@pytest.mark.parametrize(("columns", "most"), [(80, 80), (200, 100), (60, 60)])
def test_no_line_is_longer_than_the_terminal_or_hard_to_read(
    command: str,
    columns: int,
    most: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = help_of(command, columns, capsys, monkeypatch).splitlines()
    # One word, such as the choices of a flag, is never broken.
    assert [line for line in lines if len(line) > most and len(line.split()) > 2] == []
    assert len(lines[0]) <= most
    longest = max(map(len, lines))
    assert longest > most * 0.7


@pytest.mark.parametrize("command", LEAVES)
def test_words_are_not_broken(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = help_of(command, 80, capsys, monkeypatch).split()
    words = set(shown)
    for action in LEAVES[command]._actions:
        if action.help and "%" not in action.help:
            assert set(action.help.split()) <= words, action.dest


@pytest.mark.parametrize("command", LEAVES)
def test_every_flag_is_listed_and_says_its_default(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = help_of(command, 80, capsys, monkeypatch)
    parser = LEAVES[command]
    assert shown_flags(out) == {action.option_strings[-1] for action in flags_of(parser)}
    text = " ".join(out.split())
    for action in flags_of(parser):
        default = action.default
        if default in (None, argparse.SUPPRESS, [], ()) or action.nargs == 0:
            continue
        own = text[text.index(f" {action.option_strings[-1]} ") :]
        assert "(default: " in own[1:].partition(" --")[0], action.dest


def test_the_defaults_of_settings_are_shown_as_they_are_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = " ".join(help_of("render policies", 80, capsys, monkeypatch).split())
    assert "(default: system:masters, kubeadm:cluster-admins)" in text
    text = " ".join(help_of("serve", 80, capsys, monkeypatch).split())
    for setting in settings_of(ServeConfig):
        if setting.default not in (None, False, (), {}) and setting.plain(setting.default):
            assert "(default: " in setting.full_help(), setting.name
    assert "(default: 0.0.0.0:9090)" in text


@pytest.mark.parametrize("command", LEAVES)
def test_the_usage_is_short_and_has_what_is_needed(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = help_of(command, 80, capsys, monkeypatch).partition("\n\n")[0]
    assert usage.count("\n") <= 1
    for action in LEAVES[command]._actions:
        if action.required and action.option_strings:
            assert action.option_strings[-1] in usage
        elif not action.option_strings:
            name = action.metavar if isinstance(action.metavar, str) else action.dest
            assert name in usage


def test_exit_codes_are_known_of_exactly_the_commands_that_run() -> None:
    assert set(EXIT_CODES) == set(LEAVES)
    for command in LEAVES:
        codes = exit_codes(command)
        assert {0, 2, 130} <= set(codes) <= {0, 1, 2, 130}
        assert list(codes) == sorted(codes)


@pytest.mark.parametrize("command", ["", *LEAVES])
def test_the_help_has_the_exit_codes(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = help_of(command, 80, capsys, monkeypatch)
    table = out.partition("\nexit codes:\n")[2]
    wanted = exit_codes(command)
    assert re.findall(r"^  (\d+) ", table, re.MULTILINE) == list(map(str, wanted))
    assert " ".join(wanted[0].split()) in " ".join(table.split())
    if command == "":
        assert wanted == COMMON


def test_a_long_description_keeps_its_examples(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = help_of("completion", 80, capsys, monkeypatch)
    assert "\n  bash  source <(noderestrict completion bash)\n" in out


def test_the_help_can_be_shown_in_ascii() -> None:
    for parser in LEAVES.values():
        assert parser.format_help().isascii(), parser.prog
    assert build_parser()[0].format_help().isascii()
