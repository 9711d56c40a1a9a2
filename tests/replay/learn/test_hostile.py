"""A log may hold anything: what is learned of it is a file that can be read, or nothing."""

import json
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from noderestrict.agents.agents import Agents
from noderestrict.agents.load import parse
from noderestrict.graph.graph import Graph
from noderestrict.policy.listers import MemoryListers
from noderestrict.replay.audit.agents import AgentJudge
from noderestrict.replay.audit.log import AuditLog
from noderestrict.replay.learn.learner import Learner
from noderestrict.replay.learn.policy import text_of, unexplained
from noderestrict.replay.sources import Document
from tests.replay.learn.test_round_trip import CNI, SETTINGS, World

JUNK: list[Any] = [
    None, "", "n1", "Ä\u202e\n", "a/b/c", "{node}", "*", 'x"y', 7, 1.5, True, [], {}, [None], [{}],
    {"": {"": 0}}, {"type": None}, [{"type": "A"}, {"type": "A"}], {"a": {"b": {"c": ["n1"]}}},
    [{"op": "replace", "path": "/a", "value": 1}], {"$patch": "replace"}, {"items": [1, {}]},
    {"metadata": {"ownerReferences": [1, {"kind": "Node", "apiVersion": "v1", "name": None}]}},
    {"kind": "Pod", "spec": "n1", "metadata": {"name": "n1", "labels": ["n1"]}},
]  # fmt: skip


def spoiled(value: Any, chance: random.Random, odds: float) -> Any:
    """Return a value of which parts are replaced."""
    if chance.random() < odds:
        return chance.choice(JUNK)
    if isinstance(value, dict):
        return {key: spoiled(one, chance, odds) for key, one in value.items()}
    if isinstance(value, list):
        return [spoiled(one, chance, odds) for one in value]
    return value


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_a_log_holds_the_policy_that_is_learned_can_be_read(seed: int) -> None:
    chance = random.Random(seed)
    events = World(chance).log.events
    for one in events:
        for key in ("objectRef", "requestObject", "responseObject", "impersonatedUser", "user"):
            if key in one and chance.random() < 0.5:
                one[key] = spoiled(one[key], chance, 0.05)
    documents = [
        Document("a.log", line, json.dumps(one).encode()) for line, one in enumerate(events, 1)
    ]
    learner = Learner((CNI,), Graph(most_edges=None))
    list(AuditLog(SETTINGS, MemoryListers(), agents=learner, judges_nodes=False).results(documents))
    for keep_any in (False, True):
        text = text_of(learner, ["a.log"], keep_any=keep_any)
        agents = parse(text.encode(), "learned").agents
        judge = AgentJudge(Agents(agents), SETTINGS, Graph(most_edges=None))
        list(AuditLog(SETTINGS, MemoryListers(), agents=judge).results(documents))
    for learned in learner.learned.values():
        unexplained(learned)
