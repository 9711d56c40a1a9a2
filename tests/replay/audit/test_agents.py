"""``replay --agents`` tells from audit logs what a policy would refuse."""

import json
from pathlib import Path
from typing import Any

import pytest

from noderestrict.agents.agents import Agents
from noderestrict.agents.load import parse
from noderestrict.cli import main
from noderestrict.cli.replay_policies import policy_judge
from noderestrict.graph.graph import Graph
from noderestrict.policy.features import OFFLINE_MINOR
from noderestrict.policy.listers import MemoryListers
from noderestrict.policy.settings import Settings
from noderestrict.replay.audit.agents import AgentJudge
from noderestrict.replay.audit.log import AuditLog
from noderestrict.replay.policies.compare import NOT_FOR_POLICIES, PolicyJudge
from noderestrict.replay.results import Certainty, NotJudged, Result, Undecided
from noderestrict.replay.sources import Document, Unreadable
from tests.replay.learn.agent_events import Log, custom, node_object, pod_object, user

ADMIN = {"username": "admin", "groups": ["system:masters"]}
CORDON = {"spec": {"unschedulable": True}}
POLICY = """
agents:
- name: cni
  users: [{serviceAccount: kube-system/cni}]
  write:
  - {resources: [nodes], operations: [UPDATE], relation: own-node, fields: [spec.unschedulable]}
  - resources: [nodes/status]
    operations: [UPDATE]
    relation: own-node
    fields: ['status.conditions[type=KernelDeadlock]']
  - {resources: [nodes/proxy], operations: [UPDATE, CONNECT], relation: own-node}
  - {resources: [pods, pods/eviction], operations: [CREATE, DELETE], relation: own-pods}
  - apiGroups: [x.example.com]
    resources: [things]
    operations: [CREATE, UPDATE, DELETE]
    relation: {field: spec.nodeName}
  read:
  - {resources: [nodes], relation: own-node}
  - {resources: [pods], relation: own-pods}
  - {resources: [secrets], relation: referenced, verbs: [get]}
"""

Found = Result | Undecided | NotJudged | Unreadable


AGENTS = Agents(parse(POLICY.encode(), "p").agents)
SETTINGS = Settings.for_version(OFFLINE_MINOR)


def judged(log: Log, policies: PolicyJudge | None = None) -> list[Found]:
    judge = AgentJudge(AGENTS, SETTINGS, Graph(most_edges=None), policies)
    documents = [
        Document("a.log", line, json.dumps(one).encode()) for line, one in enumerate(log.events, 1)
    ]
    return list(AuditLog(SETTINGS, MemoryListers(), agents=judge).results(documents))


def short(log: Log, policies: PolicyJudge | None = None) -> list[str]:
    """Return the last part of the rule of each denial, or what else became of a request."""
    return [
        "undecided" if isinstance(one, Undecided)
        else one.why if isinstance(one, NotJudged)
        else str(one) if isinstance(one, Unreadable)
        else "allowed" if one.allowed
        else one.rule.removeprefix("agents/cni/")
        for one in judged(log, policies)
    ]  # fmt: skip


def test_policies_judge_the_writes_that_the_log_shows() -> None:
    pytest.importorskip("cel_expr_python.cel", reason="no CEL runtime for this platform")
    policies = policy_judge(["rendered"], SETTINGS, AGENTS, "replay")
    log = Log()
    log.add("delete", "pods", "web", namespace="default", level="Metadata")
    before = log.stored(node_object("n1"))
    log.add("get", "nodes", "n1", ADMIN, responseObject=before)
    log.merge("nodes", before, CORDON)
    other = log.stored(node_object("n2"))
    log.add("get", "nodes", "n2", ADMIN, responseObject=other)
    log.merge("nodes", other, CORDON)
    log.add("get", "nodes", "n2")
    assert short(log, policies) == ["undecided", "allowed", "own-node", NOT_FOR_POLICIES]
    compared = [one for one in judged(log, policies) if isinstance(one, Result)]
    assert [one.ok for one in compared] == [True, True]


def test_policies_that_hold_less_than_the_policy_file_are_told() -> None:
    pytest.importorskip("cel_expr_python.cel", reason="no CEL runtime for this platform")
    lax = Agents(parse(POLICY.replace("own-node, fields", "any, fields").encode(), "p").agents)
    log = Log()
    other = log.stored(node_object("n2"))
    log.add("get", "nodes", "n2", ADMIN, responseObject=other)
    log.merge("nodes", other, CORDON)
    (one,) = judged(log, policy_judge(["rendered"], SETTINGS, lax, "replay"))
    assert isinstance(one, Result)
    assert (one.allowed, one.ok, one.uncovered) == (True, False, "")
    assert one.detail.startswith("agents/cni/own-node: ")


def test_a_patch_of_another_node_is_refused() -> None:
    log = Log()
    for name in ("n1", "n2"):
        log.merge("nodes", log.stored(node_object(name)), CORDON)
    assert short(log) == ["allowed", "own-node"]


def test_a_change_of_another_field_is_refused() -> None:
    log = Log()
    before = log.stored(node_object("n1"))
    log.add("get", "nodes", "n1", ADMIN, responseObject=before)
    after = log.merge("nodes", before, CORDON)
    log.merge("nodes", after, {"metadata": {"labels": {"a": "b"}}})
    assert short(log) == ["allowed", "fields"]


def test_a_patch_that_repeats_a_value_is_only_taken_for_a_change_where_that_is_not_known() -> None:
    log = Log()
    repeated = {"metadata": {"labels": {"kubernetes.io/hostname": "n1"}}}
    log.merge("nodes", log.stored(node_object("n1")), repeated)
    (one,) = judged(log)
    assert isinstance(one, Result)
    assert (one.rule, one.certainty) == ("agents/cni/fields", Certainty.INFERRED)
    log = Log()
    before = log.stored(node_object("n1"))
    log.add("get", "nodes", "n1", ADMIN, responseObject=before)
    log.merge("nodes", before, repeated)
    assert short(log) == ["allowed"]


@pytest.mark.parametrize(("type_", "verdict"), [("KernelDeadlock", "allowed"), ("Ready", "fields")])
def test_of_merged_conditions_only_those_that_a_patch_names_have_changed(
    type_: str, verdict: str
) -> None:
    log = Log()
    conditions = [{"type": one, "status": "True"} for one in ("Ready", "KernelDeadlock")]
    after = log.stored({**node_object("n1"), "status": {"conditions": conditions}})
    sent = {"status": {"conditions": [one for one in conditions if one["type"] == type_]}}
    log.add("patch", "nodes", "n1", sub="status", requestObject=sent, responseObject=after)
    assert short(log) == [verdict]


@pytest.mark.parametrize(
    ("name", "sub", "verdict"),
    [
        ("n1", "proxy", "allowed"),
        ("n2", "proxy", "own-node"),
        ("n1", "status", "undecided"),
        ("n2", "status", "own-node"),
        ("n2", "", "own-node"),
        ("n1", "", "undecided"),
    ],
)
def test_names_decide_where_the_log_holds_no_object(name: str, sub: str, verdict: str) -> None:
    log = Log()
    log.add("patch", "nodes", name, sub=sub, level="Metadata")
    assert short(log) == [verdict]


def test_a_field_is_undecided_where_the_log_holds_no_object() -> None:
    log = Log()
    group = "x.example.com"
    log.add("delete", "things", "a", group=group, level="Metadata")
    for node in ("n1", "n2"):
        value = log.stored(custom(f"t{node}", {"nodeName": node}))
        log.add("create", "things", "", ADMIN, group=group, responseObject=value)
        log.add("delete", "things", f"t{node}", group=group, level="Metadata")
    assert short(log) == ["undecided", "allowed", "field"]


def test_pods_are_looked_up_in_the_log() -> None:
    log = Log()
    for node in ("n1", "n2"):
        log.add("create", "pods", "", ADMIN, responseObject=pod_object(f"web-{node}", node))
        log.add("create", "pods", f"web-{node}", namespace="default", sub="eviction")
    log.add("create", "pods", "gone", namespace="default", sub="eviction")
    log.add("delete", "pods", "web-n2", namespace="default", level="Metadata")
    assert short(log) == ["allowed", "own-pods", "undecided", "own-pods"]


def test_one_foreign_pod_of_a_collection_is_enough() -> None:
    log = Log()
    items = [pod_object("a", "n1"), pod_object("b", "n2")]
    for some in (items[:1], items, []):
        answer = {"kind": "PodList", "apiVersion": "v1", "items": some}
        log.add("deletecollection", "pods", "", namespace="default", responseObject=answer)
    assert short(log) == ["allowed", "own-pods", "nothing to delete"]


def test_what_no_entry_names_is_refused() -> None:
    log = Log()
    log.add("create", "secrets", "s", namespace="default", level="Metadata")
    log.add("list", "services", "", level="Metadata")
    assert short(log) == ["unnamed", "unnamed-read"]


@pytest.mark.parametrize(
    ("uri", "verdict"),
    [
        ("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1", "allowed"),
        ("/api/v1/pods?fieldSelector=spec.nodeName%3Dn2", "read"),
        ("/api/v1/pods", "read"),
    ],
)
def test_lists_are_judged_by_their_selectors(uri: str, verdict: str) -> None:
    log = Log()
    log.add("list", "pods", "", requestURI=uri, level="Metadata")
    assert short(log) == [verdict]


def test_secrets_are_judged_by_the_pods_that_the_log_shows() -> None:
    log = Log()
    log.add("get", "secrets", "key", namespace="default", level="Metadata")
    volumes = [{"name": "s", "secret": {"secretName": "key"}}]
    log.add("create", "pods", "", ADMIN, responseObject=pod_object("a", "n1", volumes=volumes))
    for name in ("key", "other"):
        log.add("get", "secrets", name, namespace="default", level="Metadata")
    assert short(log) == ["undecided", "allowed", "read"]
    last = judged(log)[-1]
    assert isinstance(last, Result)
    assert last.certainty is Certainty.INFERRED


def test_who_acts_as_an_agent_is_judged_as_it_and_named() -> None:
    log = Log()
    impersonated = {"username": user()["username"], "groups": user()["groups"]}
    log.merge("nodes", log.stored(node_object("n1")), CORDON, user=ADMIN,
              impersonatedUser=impersonated)  # fmt: skip
    (one,) = judged(log)
    assert isinstance(one, Result)
    assert (one.rule, one.impersonator) == ("agents/cni/node", "admin")
    assert f"by admin as {user()['username']}" in one.notes


def test_an_agent_that_acts_as_its_node_is_judged_once_by_the_rules_for_nodes() -> None:
    log = Log()
    node = {"username": "system:node:n1", "groups": ["system:nodes", "system:authenticated"]}
    taint = {"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}
    before = log.stored(node_object("n1"))
    log.add("get", "nodes", "n1", ADMIN, responseObject=before)
    log.merge("nodes", before, taint, impersonatedUser=node)
    (one,) = judged(log)
    assert isinstance(one, Result)
    assert (one.rule, one.node, one.agent) == ("nodes/taints", "n1", "")
    assert f"by {user()['username']} as system:node:n1" in one.notes


def test_what_the_api_server_refused_is_already_refused() -> None:
    log = Log()
    log.add("create", "secrets", "s", namespace="a", responseStatus={"code": 403}, level="Metadata")
    (one,) = judged(log)
    assert isinstance(one, Result)
    assert one.already_refused


def test_other_accounts_are_not_judged() -> None:
    log = Log()
    other = user("n1", "system:serviceaccount:other:cni")
    log.merge("nodes", log.stored(node_object("n2")), CORDON, user=other)
    assert judged(log) == []


def test_the_command_judges_an_audit_log_by_a_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Log()
    for name in ("n1", "n2"):
        log.merge("nodes", log.stored(node_object(name)), CORDON)
    log.add("list", "pods", "", requestURI="/api/v1/pods", level="Metadata")
    (tmp_path / "policy.yaml").write_text(POLICY)
    arguments = ["--agents", str(tmp_path / "policy.yaml"), "--output", "json"]
    assert main(["replay", "--audit-log", log.written(tmp_path), *arguments]) == 0
    out, err = capsys.readouterr()
    lines: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
    assert [(one["agent"], one["operation"], one["decision"]) for one in lines] == [
        ("cni", "UPDATE", "allowed"), ("cni", "UPDATE", "denied"), ("cni", "list", "denied"),
    ]  # fmt: skip
    assert "3 requests of agents judged" in err


def test_a_log_whose_form_leaves_out_the_tokens_claims_is_undecided(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    payload = {
        "serviceName": "k8s.io",
        "methodName": "io.k8s.core.v1.nodes.patch",
        "resourceName": "core/v1/nodes/n1",
        "authenticationInfo": {"principalEmail": "system:serviceaccount:kube-system:cni"},
        "status": {"code": 0},
    }
    (tmp_path / "log").write_text(json.dumps({"protoPayload": payload, "insertId": "1"}))
    (tmp_path / "policy.yaml").write_text(POLICY)
    arguments = ["--agents", str(tmp_path / "policy.yaml"), "--output", "json"]
    main(["replay", "--audit-log", str(tmp_path / "log"), *arguments])
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["decision"] == "undecided"
    learn = ["agents", "learn", "--audit-log", str(tmp_path / "log"), "--user", "kube-system/cni"]
    assert main(learn) == 1
    out, err = capsys.readouterr()
    assert "the form of the log leaves out what the token says" in out.replace("\n  #   ", " ")
    assert err == "not explained: cni: nodes: update: once, on no known node\n"
