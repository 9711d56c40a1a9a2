"""``--agents``: policy files of a server, and of a replay."""

import json
from pathlib import Path

import pytest

from noderestrict.agents.load import PolicyFileError
from noderestrict.cli import build_parser, main, serve
from noderestrict.cli._errors import UsageError
from noderestrict.cli.agent_files import read_agents
from noderestrict.cli.config import Sources
from noderestrict.cli.serve_config import ServeConfig
from noderestrict.policy.features import defaults
from noderestrict.render.registration import Registration
from tests.agents.builders import node, review

ONE = """
agents:
- name: driver
  users: [{serviceAccount: storage/driver}]
  write: [{resources: [nodes], operations: [UPDATE], relation: own-node}]
  read: [{resources: [pods], verbs: [list], relation: own-pods}]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "agents.yaml"
    found.write_text(ONE)
    return found


def server(*flags: str) -> serve._Server:
    options = build_parser()[0].parse_args(["serve", "--dev", *flags])
    sources = Sources(ServeConfig, options, {})
    return serve._Server(sources.read(), sources, [])


def test_files_are_read_together(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("agents: [{name: other, users: [{serviceAccount: a/b}]}]")
    found = read_agents([str(file), str(other)])
    assert [agent.name for agent in found.all] == ["driver", "other"]


@pytest.mark.parametrize("content", [None, "agents: []", "agents: [{name: driver}]"])
def test_an_unusable_file_is_named_in_one_line(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "agents.yaml"
    if content is not None:
        path.write_text(content)
    options = build_parser()[0].parse_args(["serve", "--dev", "--agents", str(path)])
    with pytest.raises(UsageError) as caught:
        serve.run(options)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_an_old_api_server_takes_no_lists_by_selector(file: Path) -> None:
    read_agents([str(file)], defaults(32))
    with pytest.raises(PolicyFileError, match=r"agent 'driver': read\[0\].verbs: .*1\.32"):
        read_agents([str(file)], defaults(30))


def test_a_changed_file_is_read_again(file: Path) -> None:
    running = server("--agents", str(file))
    assert [agent.name for agent in running._read().agents.all] == ["driver"]
    file.write_text(ONE.replace("name: driver", "name: renamed"))
    assert [agent.name for agent in running._read().agents.all] == ["renamed"]
    file.write_text("agents: []")
    with pytest.raises(PolicyFileError):
        running._read()


def warned(caplog: pytest.LogCaptureFixture) -> list[tuple[str, list[str]]]:
    return [
        (one.__dict__["agent"], one.__dict__["waits_for"])
        for one in caplog.records
        if one.message == "an agent's start may wait for a server"
    ]


OWNED = """- name: owner
  users: [{serviceAccount: a/b}]
  write: [{resources: [x], apiGroups: [a.b], operations: [UPDATE], relation: {owner: node}}]
"""


def test_a_policy_that_could_stop_a_cluster_start_is_logged(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text(ONE + OWNED)
    running = server("--agents", str(file))
    running.hold_agents(defaults(36), 36)
    assert warned(caplog) == [("owner", ["UPDATE x.a.b"])]
    # The tokens of an older API server do not tell the node.
    caplog.clear()
    file.write_text(ONE.partition("  read:")[0])
    running.hold_agents(defaults(29), 29)
    assert warned(caplog) == [("driver", ["UPDATE nodes"])]


def test_nothing_waits_for_a_server_that_nobody_must_ask(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text(OWNED.replace("- name", "agents:\n- name"))
    flag = Registration({"url": "https://127.0.0.1:8443/validate"}, "Ignore").flag()
    server("--agents", str(file), flag).hold_agents(defaults(36), 36)
    assert warned(caplog) == []


@pytest.mark.parametrize("rule", ["agents/driver", "agents/driver/own-node", "agents/driver/read"])
def test_agents_have_modes(file: Path, rule: str) -> None:
    running = server("--agents", str(file), "--rule-modes", f"{rule}=audit")
    modes = running._read().modes()
    assert modes.of("agents/driver/read" if rule == "agents/driver" else rule) == "audit"
    assert modes.of("nodes/labels") == "enforce"


def test_a_mode_of_an_agent_that_is_not_there_is_an_error(file: Path) -> None:
    running = server("--agents", str(file), "--rule-modes", "agents/other=audit")
    with pytest.raises(ValueError, match="'agents/other': no file of --agents has agent 'other'"):
        running._read().modes()


@pytest.mark.parametrize("rule", ["agents/", "agents/driver/what", "agents/Driver", "agents"])
def test_other_ids_are_no_rules(rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser()[0].parse_args(["serve", "--rule-modes", f"{rule}=audit"])
    assert "is not a rule" in capsys.readouterr().err


def reviews(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.jsonl"
    bodies = [
        review("nodes", "UPDATE", name=name, new=node(name), old=node(name))
        for name in ("n1", "n2")
    ]
    path.write_bytes(b"\n".join(bodies) + b"\n")
    return path


def test_a_replay_judges_agents(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = reviews(tmp_path)
    assert main(["replay", str(cases), "--output", "json", "--fail-on-denied"]) == 0
    capsys.readouterr()
    command = ["replay", str(cases), "--agents", str(file), "--output", "json", "--fail-on-denied"]
    assert main(command) == 1
    found = map(json.loads, capsys.readouterr().out.splitlines())
    refused = [one for one in found if not one["allowed"]]
    assert [(one["rule"], one["agent"]) for one in refused] == [
        ("agents/driver/own-node", "driver")
    ]


def test_a_replay_shows_agents_in_its_table(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(reviews(tmp_path)), "--agents", str(file)]) == 0
    assert "agents/driver/own-node" in capsys.readouterr().out


def test_a_replay_names_a_bad_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "missing.yaml")
    assert main(["replay", str(reviews(tmp_path)), "--agents", missing]) == 2
    assert missing in capsys.readouterr().err
