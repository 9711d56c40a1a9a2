"""The ready policies refuse the attacks of public reports, and allow honest work."""

from pathlib import Path

import pytest

from noderestrict.agents.file import Mode
from noderestrict.agents.load import parse
from noderestrict.cli.agent_files import read_agents
from noderestrict.graph.graph import Graph
from noderestrict.policy.features import defaults
from noderestrict.policy.listers import MemoryListers
from noderestrict.policy.settings import Settings
from noderestrict.replay.report import Options, Report
from noderestrict.replay.results import Result, Summary
from noderestrict.replay.run import Run

ROOT = Path(__file__).parents[2]
POLICIES = sorted((ROOT / "manifests" / "agents").glob("*.yaml"))
CASES = Path(__file__).parent / "cases"


class Kept(Report):
    """Keeps all results."""

    def __init__(self) -> None:
        import sys

        super().__init__(Options(out=sys.stdout, notes=sys.stderr))
        self.results: list[Result] = []

    def write(self, result: Result) -> None:
        self.results.append(result)

    def end(self, summary: Summary) -> None:
        pass


def problem(found: object) -> None:
    raise AssertionError(found)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda path: path.stem)
def test_attacks_are_refused_and_honest_work_is_allowed(policy: Path) -> None:
    agents, kept = read_agents([str(policy)]), Kept()
    run = Run(Settings.for_version(), MemoryListers(), Graph(), kept, problem, lambda: None)
    run.agents = agents
    run.files([str(CASES / f"{policy.stem}.jsonl")])
    assert [one.id for one in kept.results if not one.ok] == []
    verdicts = {one.allowed for one in kept.results}
    assert verdicts == {True, False}
    # Who is no agent is allowed everything: each case must be about one.
    assert {one.agent for one in kept.results} == {agent.name for agent in agents.all}


def test_there_is_a_policy_for_each_file_of_cases() -> None:
    assert [path.stem for path in POLICIES] == sorted(path.stem for path in CASES.iterdir())


def test_all_of_them_work_together_on_every_version_with_match_conditions() -> None:
    found = read_agents([str(path) for path in POLICIES], defaults(28))
    assert len(found.all) == len(POLICIES)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda path: path.stem)
def test_a_starting_point_enforces_nothing(policy: Path) -> None:
    text = policy.read_bytes()
    assert all(agent.mode == Mode.AUDIT for agent in parse(text, policy.name).agents)
    assert b"A starting point" in text.splitlines()[0]
