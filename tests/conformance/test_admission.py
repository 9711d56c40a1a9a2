"""Every recorded and generated case of the NodeRestriction plugin of Kubernetes 1.36."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from noderestrict.policy.releases import Release
from noderestrict.policy.settings import Settings
from noderestrict.policy.table import RULE_IDS
from noderestrict.replay.cases import AccessCase, Case, cases
from noderestrict.replay.results import Result, Summary
from noderestrict.replay.reviews import judge_case
from noderestrict.replay.sources import Unreadable
from noderestrict.replay.state import load_state
from tests.conftest import figures

HERE = Path(__file__).parent
SUITES = [
    pytest.param("admission/generated.jsonl", 2964, id="generated"),
    pytest.param("captured/captured.jsonl", 507, id="captured"),
]


@pytest.mark.parametrize(("file", "expected_total"), SUITES)
def test_every_case_is_judged_as_expected(
    file: str, expected_total: int, record_property: Callable[[str, object], None]
) -> None:
    path = HERE / file
    listers = load_state([str(path.parent / "state.json")])
    settings = Settings.for_version(release=Release(36))
    summary = Summary()
    counts: Counter[tuple[str, str]] = Counter()
    failures = []
    for case in cases(str(path)):
        assert not isinstance(case, AccessCase)
        result = judge_case(case, settings, listers) if isinstance(case, Case) else case
        summary.count(result)
        if isinstance(result, Unreadable):
            failures.append(str(result))
            continue
        family = result.id.partition("-")[0]
        counts[family, "allowed" if result.allowed else "denied"] += 1
        counts[family, "as expected"] += result.ok is True
        if not result.ok:
            failures.append(_describe(result))
    record_property(*figures(file, counts))
    assert not failures, "\n".join(failures[:20])
    assert (summary.total, summary.expected) == (expected_total, expected_total)
    assert summary.allowed > 0
    assert summary.denied > 0
    assert summary.exit_code(fail_on_denied=False) == 0


@pytest.mark.parametrize(("file", "expected_total"), SUITES)
def test_every_case_has_an_expectation_and_its_own_id(file: str, expected_total: int) -> None:
    found = [case for case in cases(str(HERE / file)) if isinstance(case, Case)]
    assert len({case.id for case in found}) == expected_total
    assert all(case.expect is not None for case in found)


@pytest.mark.parametrize(("file", "expected_total"), SUITES)
def test_every_refusal_names_its_rule_and_says_why(file: str, expected_total: int) -> None:
    path = HERE / file
    listers = load_state([str(path.parent / "state.json")])
    refused = 0
    for case in cases(str(path)):
        assert isinstance(case, Case)
        result = judge_case(case, Settings.for_version(release=Release(36)), listers)
        assert isinstance(result, Result)
        if not result.allowed:
            refused += 1
            assert result.rule in RULE_IDS
            assert len(result.message) > 20, result
    assert 0 < refused < expected_total


def _describe(result: Result) -> str:
    return f"{result.id}: {result.code} {result.reason} {result.message}, expected {result.expect}"
