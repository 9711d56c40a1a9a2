"""Every question whose answer the in-tree Node authorizer gave, or a rebuilt one would."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from noderestrict import authorization
from noderestrict.graph.graph import Graph
from noderestrict.graph.objects import PLURALS, RESOURCES
from noderestrict.policy import features
from tests.conftest import FIGURES

HERE = Path(__file__).parent / "authorizer"


def ask(graph: Graph, review: Any, gates: dict[str, bool]) -> bool:
    body = json.dumps(review).encode()
    decoded = authorization.decode(body)
    opinion = authorization.judge(decoded, graph, gates)
    answer = json.loads(authorization.encode(decoded, opinion))
    assert answer["apiVersion"] == review["apiVersion"]
    assert "denied" not in answer["status"]
    return bool(answer["status"]["allowed"])


@pytest.mark.parametrize(("file", "count"), [("named.jsonl", 2461), ("random.jsonl", 1500)])
def test_every_question_gets_the_answer_of_the_node_authorizer(
    file: str, count: int, pytestconfig: pytest.Config
) -> None:
    wrong = []
    asked = 0
    for line in (HERE / file).read_text().splitlines():
        case = json.loads(line)
        gates = features.resolve(features.LATEST_MINOR, case.get("features") or {})
        graph = Graph()
        for plural, items in (case.get("state") or {}).items():
            for item in items:
                graph.upsert(plural, msgspec.convert(item, RESOURCES[plural][1]))
        questions = []
        for event in case.get("events") or ():
            if event["op"] == "review":
                expected = event["expect"]
                got = ask(graph, event["subjectAccessReview"], gates)
                questions.append((expected["allowed"], got, event["subjectAccessReview"]))
                continue
            plural = PLURALS[event["kind"]]
            value = msgspec.convert(event["object"], RESOURCES[plural][1])
            if event["op"] == "delete":
                meta = event["object"]["metadata"]
                graph.delete(plural, meta.get("namespace") or "", meta["name"])
            else:
                graph.upsert(plural, value)
        reviews = case.get("subjectAccessReviews")
        expected = case.get("expect")
        if reviews is None and "subjectAccessReview" in case:
            reviews, expected = [case["subjectAccessReview"]], [expected]
        for review, expect in zip(reviews or (), expected or (), strict=True):
            questions.append((expect["allowed"], ask(graph, review, gates), review))
        asked += len(questions)
        wrong += [(case["id"], want, review) for want, got, review in questions if want != got]
    pytestconfig.stash[FIGURES].append(f"authorizer/{file}: {asked - len(wrong)} as expected")
    assert wrong == []
    assert asked == count
