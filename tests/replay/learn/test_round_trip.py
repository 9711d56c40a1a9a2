"""A learned policy allows what it was learned from, and refuses the same on another node."""

import copy
import json
import random
from collections.abc import Iterable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from noderestrict.agents.agents import Agents
from noderestrict.agents.file import Agent, Plain, User
from noderestrict.agents.load import parse
from noderestrict.graph.graph import Graph
from noderestrict.policy.features import OFFLINE_MINOR
from noderestrict.policy.listers import MemoryListers
from noderestrict.policy.settings import Settings
from noderestrict.replay.audit.agents import AgentJudge
from noderestrict.replay.audit.log import AuditLog
from noderestrict.replay.learn.learner import Learner
from noderestrict.replay.learn.policy import text_of
from noderestrict.replay.results import Result, Undecided
from noderestrict.replay.sources import Document
from tests.replay.learn.agent_events import Log, custom, node_object, pod_object

SETTINGS = Settings.for_version(OFFLINE_MINOR)
ADMIN = {"username": "admin", "groups": ["system:masters"]}
GROUP = "x.example.com"
NODES = ("n1", "n2", "worker-3")
CNI = Agent(name="cni", users=(User(service_account="kube-system/cni"),))


def documents(log: Log) -> list[Document]:
    return [
        Document("a.log", line, json.dumps(one).encode()) for line, one in enumerate(log.events, 1)
    ]


def learned(log: Log, *, keep_any: bool = False) -> tuple[str, tuple[Agent, ...]]:
    learner = Learner((CNI,), Graph(most_edges=None))
    audit = AuditLog(SETTINGS, MemoryListers(), agents=learner, judges_nodes=False)
    assert not list(audit.results(documents(log)))
    text = text_of(learner, ["a.log"], keep_any=keep_any)
    return text, parse(text.encode(), "learned").agents


def judged(log: Log, agents: Iterable[Agent]) -> list[Result | Undecided]:
    judge = AgentJudge(Agents(agents), SETTINGS, Graph(most_edges=None))
    found = AuditLog(SETTINGS, MemoryListers(), agents=judge).results(documents(log))
    results = [one for one in found if isinstance(one, Result | Undecided)]
    assert all(one.agent == "cni" for one in results)
    return results


class World:
    """A log of an agent's work of random kinds, on random nodes."""

    def __init__(self, chance: random.Random) -> None:
        self.log = Log()
        self.chance = chance
        self.objects: dict[tuple[str, str], Any] = {}
        for node in NODES:
            value = self.log.stored(node_object(node))
            self.objects["nodes", node] = value
            self.log.add("get", "nodes", node, ADMIN, responseObject=value)
            pod = self.log.stored(pod_object(f"web-{node}", node))
            self.objects["pods", node] = pod
            self.log.add("get", "pods", f"web-{node}", ADMIN, namespace="default",
                         responseObject=pod)  # fmt: skip
        #: How objects of the agent's own kind belong to the node.
        self.kind = chance.choice(("name", "field", "label", "owner", "none"))
        work = [self.patch_node, self.patch_status, self.thing, self.evict, self.lists, self.get]
        self.work = chance.sample(work, chance.randint(1, len(work)))
        for _ in range(chance.randint(1, 25)):
            chance.choice(self.work)(chance.choice(NODES))

    def patch_node(self, node: str) -> None:
        key = self.chance.choice(("x.io/a", "x.io/b", "x.io/c", "plain", 'odd"key', "st*r"))
        patch = {"metadata": {"annotations": {key: str(self.chance.random())}}}
        self._patch("nodes", node, patch)

    def patch_status(self, node: str) -> None:
        kinds = [f"T{number}" for number in range(self.chance.choice((2, 12)))]
        conditions = [{"type": kind, "status": str(self.chance.random())} for kind in kinds]
        self._patch("nodes", node, {"status": {"conditions": conditions}}, sub="status")

    def thing(self, node: str) -> None:
        value = self.objects.get(("things", node))
        if value is None:
            name = f"cni-{node}" if self.kind == "name" else f"t{NODES.index(node)}"
            owner = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": "u"}
            value = self.log.stored(
                custom(
                    name,
                    {"nodeName": node} if self.kind == "field" else {},
                    labels={"host": node} if self.kind == "label" else {},
                    ownerReferences=[owner] if self.kind == "owner" else [],
                )
            )
            self.log.add("create", "things", "", node, group=GROUP, responseObject=value)
            self.objects["things", node] = value
            return
        if self.chance.random() < 0.2:
            name = value["metadata"]["name"]
            self.log.add("delete", "things", name, node, group=GROUP, responseObject=value)
            del self.objects["things", node]
            return
        self._patch("things", node, {"spec": {"x": self.chance.random()}}, group=GROUP)

    def evict(self, node: str) -> None:
        self.log.add("create", "pods", f"web-{node}", node, namespace="default", sub="eviction",
                     level="Metadata")  # fmt: skip

    def lists(self, node: str) -> None:
        selector = self.chance.choice((f"?fieldSelector=spec.nodeName%3D{node}", ""))
        verb = self.chance.choice(("list", "watch"))
        self.log.add(verb, "pods", "", node, requestURI=f"/api/v1/pods{selector}",
                     level="Metadata")  # fmt: skip

    def get(self, node: str) -> None:
        self.log.add("get", "nodes", node, node, level="Metadata")

    def _patch(self, resource: str, node: str, patch: Any, **more: Any) -> None:
        if self.chance.random() < 0.3:
            more["level"] = "Metadata"
            self.log.add("patch", resource, self.objects[resource, node]["metadata"]["name"], node,
                         group=more.get("group", ""), sub=more.get("sub", ""),
                         level="Metadata")  # fmt: skip
            return
        before = self.objects[resource, node]
        self.objects[resource, node] = self.log.merge(resource, before, patch, node, **more)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_a_learned_policy_allows_what_it_was_learned_from(seed: int) -> None:
    log = World(random.Random(seed)).log
    text, agents = learned(log, keep_any=True)
    for one in judged(log, agents):
        assert isinstance(one, Undecided) or one.allowed, (one, text)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_what_a_learned_policy_leaves_out_is_all_that_it_refuses(seed: int) -> None:
    log = World(random.Random(seed)).log
    text, agents = learned(log)
    (agent,) = agents
    for one in judged(log, agents):
        if isinstance(one, Undecided) or one.allowed:
            continue
        assert one.rule.rpartition("/")[2] in ("unnamed", "unnamed-read"), (one, text)
        assert "No relation explains" in text
    assert all(write.relation is not Plain.ANY for write in agent.write)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_the_same_work_from_another_node_is_refused(seed: int) -> None:
    log = World(random.Random(seed)).log
    text, agents = learned(log)
    moved = Log()
    moved.events = copy.deepcopy(log.events)
    elsewhere = ["elsewhere"]
    for one in moved.events:
        if "extra" in one["user"]:
            one["user"]["extra"]["authentication.kubernetes.io/node-name"] = elsewhere
    for found in judged(moved, agents):
        assert isinstance(found, Undecided) or not found.allowed, (found, text)
