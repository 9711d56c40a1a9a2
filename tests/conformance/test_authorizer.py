"""Every question whose answer the in-tree Node authorizer gave, or a rebuilt one would."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from noderestrict.graph.graph import Graph
from noderestrict.policy.releases import Release
from noderestrict.policy.settings import Settings
from noderestrict.replay.access import judge_access_case
from noderestrict.replay.cases import AccessCase, cases
from noderestrict.replay.results import Result
from tests.conftest import figures

HERE = Path(__file__).parent / "authorizer"


@pytest.mark.parametrize(("file", "count"), [("named.jsonl", 1513), ("random.jsonl", 1500)])
def test_every_question_gets_the_answer_of_the_node_authorizer(
    file: str, count: int, record_property: Callable[[str, object], None]
) -> None:
    settings = Settings.for_version(release=Release(36))
    counts: Counter[tuple[str, str]] = Counter()
    wrong = []
    for case in cases(str(HERE / file)):
        assert isinstance(case, AccessCase), case
        for row in judge_access_case(case, settings, Graph()):
            assert isinstance(row, Result), row
            family = case.id.partition("-")[0]
            counts[family, "allowed" if row.allowed else "denied"] += 1
            counts[family, "as expected"] += row.ok is True
            if not row.ok:
                wrong.append((row.id, row.node, row.what, row.expect))
            assert row.allowed or row.message or not row.node
    record_property(*figures(f"authorizer/{file}", counts))
    assert wrong == []
    assert sum(number for (_, what), number in counts.items() if what == "as expected") == count
