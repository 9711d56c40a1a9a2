"""``agents learn`` writes a policy that allows what audit logs show of agents."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from noderestrict.agents.file import Agent, Bound, Operation, Owner, Plain, Verb
from noderestrict.agents.load import parse
from noderestrict.cli import main
from tests.replay.learn.agent_events import (
    Log,
    custom,
    lines,
    node_object,
    pod_object,
    user,
)
from tests.survey.clusters import daemon_set, written

GROUP = "x.example.com"
ADMIN = {"username": "admin", "groups": ["system:masters"]}


class Learned:
    """What the command prints."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        self.agents = parse(out.encode(), "learned.yaml").agents

    @property
    def agent(self) -> Agent:
        (one,) = self.agents
        return one


@pytest.fixture
def learn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(log: Log, *arguments: str, user: str = "kube-system/cni") -> Learned:
        file = log.written(tmp_path)
        who = ("--user", user) if user else ()
        code = main(["agents", "learn", "--audit-log", file, *who, *arguments])
        return Learned(code, *capsys.readouterr())

    return run


def test_patches_of_the_own_node_are_learned_with_the_fields_that_changed(learn: Any) -> None:
    log = Log()
    for name in ("n1", "n2"):
        before = log.stored(node_object(name))
        log.add("get", "nodes", name, ADMIN, responseObject=before)
        annotated = {"metadata": {"annotations": {"x.example.com/ip": f"10.0.0.{name[1]}"}}}
        after = log.merge("nodes", before, annotated, name)
        log.merge("nodes", after, {"spec": {"unschedulable": True}}, name)
    learned = learn(log)
    (write,) = learned.agent.write
    assert (learned.code, learned.err) == (0, "")
    assert (write.resources, write.operations) == (("nodes",), (Operation.UPDATE,))
    assert write.relation is Plain.OWN_NODE
    assert write.fields == ('metadata.annotations["x.example.com/ip"]', "spec.unschedulable")
    assert "# update: 4 times, on 2 nodes" in list(lines(learned.out))


def test_a_field_that_a_patch_repeats_but_does_not_change_is_not_learned(learn: Any) -> None:
    log = Log()
    before = log.stored(node_object("n1"))
    log.add("get", "nodes", "n1", ADMIN, responseObject=before)
    patch = {"metadata": {"labels": before["metadata"]["labels"], "annotations": {"a/b": "c"}}}
    log.merge("nodes", before, patch)
    assert learn(log).agent.write[0].fields == ('metadata.annotations["a/b"]',)


def test_what_was_done_to_another_node_is_explained_by_nothing_and_listed(learn: Any) -> None:
    log = Log()
    for name, by in (("n1", "n1"), ("n2", "n2"), ("n2", "n1")):
        log.merge("nodes", log.stored(node_object(name)), {"spec": {"unschedulable": True}}, by)
    learned = learn(log)
    assert (learned.code, learned.agent.write) == (1, ())
    assert "own-node holds for 2 of 3, not for n2 by node n1" in learned.err
    assert "  # - resources: [nodes]" in learned.out
    assert learn(log, "--unexplained", "any").agent.write[0].relation is Plain.ANY


@pytest.mark.parametrize(
    ("object_of", "relation"),
    [
        (lambda node: custom(node), Bound(name="{node}")),
        (lambda node: custom(f"cni-{node}.x"), Bound(name="cni-{node}.x")),
        (
            lambda node: custom(f"a-{hash(node) % 97}-x", {"nodeName": node}),
            Bound(field="spec.nodeName"),
        ),
        (
            lambda node: custom(f"a{node[1]}x", {"deep": {"host": node}}),
            Bound(field="spec.deep.host"),
        ),
        (
            lambda node: custom(f"a{node[1]}x", labels={"kubernetes.io/hostname": node}),
            Bound(label="kubernetes.io/hostname"),
        ),
        (
            lambda node: custom(
                f"a{node[1]}x",
                ownerReferences=[{"apiVersion": "v1", "kind": "Node", "name": node, "uid": "u"}],
            ),
            Bound(owner=Owner.NODE),
        ),
    ],
)
def test_each_relation_is_told_by_the_objects(learn: Any, object_of: Any, relation: Bound) -> None:
    log = Log()
    for node in ("n1", "n2", "n3"):
        value = log.stored(object_of(node))
        name = value["metadata"]["name"]
        log.add(
            "create", "things", "", node, group=GROUP, requestObject=value, responseObject=value
        )
        log.merge("things", value, {"status": {"ready": True}}, node, group=GROUP, sub="status")
        log.add("delete", "things", name, node, group=GROUP, responseObject=value)
    learned = learn(log)
    assert learned.code == 0, learned.err
    whole, status = learned.agent.write
    assert {whole.relation, status.relation} == {relation}
    assert whole.operations == (Operation.CREATE, Operation.DELETE)
    assert status.resources == ("things/status",)
    assert status.fields == ("status.ready",)
    assert whole.api_groups == (GROUP,)


def test_the_relation_that_says_most_wins(learn: Any) -> None:
    log = Log()
    for node in ("n1", "n2"):
        value = log.stored(
            custom(node, {"nodeName": node}, labels={"kubernetes.io/hostname": node})
        )
        log.add("create", "things", node, node, group=GROUP, responseObject=value)
    assert learn(log).agent.write[0].relation == Bound(name="{node}")


def test_a_field_that_an_update_moved_to_the_own_node_does_not_hold(learn: Any) -> None:
    log = Log()
    theirs = log.stored(custom("a", {"nodeName": "n2"}))
    log.add("create", "things", "a", ADMIN, group=GROUP, responseObject=theirs)
    mine = log.stored(custom("a", {"nodeName": "n1"}))
    sent = {**mine, "metadata": theirs["metadata"]}
    log.add("update", "things", "a", group=GROUP, requestObject=sent, responseObject=mine)
    learned = learn(log)
    assert learned.agent.write == ()
    assert "no relation holds" in learned.err


def test_pods_of_the_own_node_are_told_by_lookups_where_a_request_sends_no_pod(learn: Any) -> None:
    log = Log()
    for node in ("n1", "n2"):
        log.add("create", "pods", "", ADMIN, responseObject=pod_object(f"web-{node}x", node))
        for verb, sub in (("create", "eviction"), ("create", "exec"), ("get", "")):
            log.add(verb, "pods", f"web-{node}x", node, namespace="default", sub=sub)
        deleted = pod_object(f"web-{node}x", node)
        log.add("delete", "pods", f"web-{node}x", node, namespace="default", responseObject=deleted)
    agent = learn(log).agent
    assert {write.relation for write in agent.write} == {Plain.OWN_PODS}
    assert {write.resources[0]: write.operations for write in agent.write} == {
        "pods": (Operation.DELETE,),
        "pods/eviction": (Operation.CREATE,),
        "pods/exec": (Operation.CONNECT,),
    }
    assert agent.read is not None
    assert agent.read[0].relation is Plain.OWN_PODS


def test_pods_that_the_log_never_shows_are_undecided_until_state_does(
    learn: Any, tmp_path: Path
) -> None:
    log = Log()
    log.add("create", "pods", "web", "n1", namespace="default", sub="eviction", level="Metadata")
    learned = learn(log)
    assert (learned.code, learned.agent.write) == (1, ())
    assert "undecided" in learned.err
    state = written(tmp_path, pod_object("web", "n1"))
    assert learn(log, "--state", state).agent.write[0].relation is Plain.OWN_PODS


@pytest.mark.parametrize("level", ["Metadata", "Request"])
def test_a_log_without_objects_still_tells_names_and_says_what_it_lacks(
    learn: Any, level: str
) -> None:
    log = Log()
    patch = {"spec": {"unschedulable": True}} if level == "Request" else None
    for node in ("n1", "n2"):
        body: dict[str, Any] = {"requestObject": patch} if patch else {}
        log.add("patch", "nodes", node, node, level=level, **body)
        log.add("patch", "things", f"x{node[1]}y", node, level=level, group=GROUP, **body)
    learned = learn(log)
    (write,) = learned.agent.write
    assert write.relation is Plain.OWN_NODE
    assert write.fields == (("spec.unschedulable",) if patch else None)
    assert ("the log does not show which fields changed" in learned.out) == (patch is None)
    assert "undecided" in learned.err


@pytest.mark.parametrize(
    ("uri", "resource", "relation"),
    [
        ("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1&watch=true", "pods", Plain.OWN_PODS),
        ("/api/v1/nodes?fieldSelector=metadata.name%3Dn1", "nodes", Plain.OWN_NODE),
        (
            "/x?labelSelector=a%3Db%2Ckubernetes.io%2Fhostname+in+%28n1%29",
            "things",
            Bound(label="kubernetes.io/hostname"),
        ),
        ("/x?fieldSelector=spec.nodeName%3D%3Dn1", "things", Bound(field="spec.nodeName")),
        ("/x?fieldSelector=metadata.name%3Dcni-n1", "things", Bound(name="cni-{node}")),
    ],
)
def test_lists_are_held_by_their_selectors(
    learn: Any, uri: str, resource: str, relation: Any
) -> None:
    log = Log()
    for verb in ("list", "watch"):
        group = GROUP if resource == "things" else ""
        log.add(verb, resource, "", requestURI=uri, level="Metadata", group=group)
    agent = learn(log).agent
    assert agent.read is not None
    (read,) = agent.read
    assert (read.relation, read.verbs) == (relation, (Verb.LIST, Verb.WATCH))


@pytest.mark.parametrize(
    "uri",
    [
        "/api/v1/pods",
        "/api/v1/pods?fieldSelector=spec.nodeName%21%3Dn1",
        "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2",
        "/api/v1/pods?labelSelector=node+in+%28n1%2Cn2%29",
    ],
)
def test_a_list_of_more_is_not_explained_and_reads_are_then_not_held(learn: Any, uri: str) -> None:
    log = Log()
    log.add("list", "pods", "", requestURI=uri, level="Metadata")
    learned = learn(log)
    assert (learned.code, learned.agent.read) == (1, None)
    assert "not explained: cni: pods: list: once" in learned.err
    assert "so they are not held" in learned.out


def test_a_read_of_what_pods_of_the_node_refer_to_is_told_by_the_pods(learn: Any) -> None:
    log = Log()
    volumes = [{"name": "s", "secret": {"secretName": "key"}}]
    shown = pod_object("web", "n1", volumes=volumes)
    log.add("create", "pods", "", ADMIN, responseObject=shown)
    log.add("get", "secrets", "key", namespace="default", level="Metadata")
    agent = learn(log).agent
    assert agent.read is not None
    assert agent.read[0].relation is Plain.REFERENCED
    log.add("get", "secrets", "other", namespace="default", level="Metadata")
    assert learn(log).code == 1


def test_a_log_without_reads_holds_no_reads(learn: Any) -> None:
    log = Log()
    log.merge("nodes", log.stored(node_object("n1")), {"spec": {"unschedulable": True}})
    assert learn(log).agent.read is None


def test_annotations_with_the_same_prefix_become_a_pattern_from_three_on(learn: Any) -> None:
    log = Log()
    value = log.stored(node_object("n1"))
    log.add("get", "nodes", "n1", ADMIN, responseObject=value)
    for key in ("x.io/a", "x.io/b", "y.io/a", "y.io/b", "y.io/c", "plain"):
        value = log.merge("nodes", value, {"metadata": {"annotations": {key: "1"}}})
    learned = learn(log)
    assert learned.agent.write[0].fields == (
        "metadata.annotations.plain",
        'metadata.annotations["x.io/a"]',
        'metadata.annotations["x.io/b"]',
        'metadata.annotations["y.io/*"]',
    )
    assert 'metadata.annotations["y.io/*"] 3 (stands for 3 paths)' in " ".join(
        line.lstrip("# ") for line in lines(learned.out)
    )


def test_conditions_are_told_apart_by_their_type(learn: Any) -> None:
    log = Log()
    kernel = {"type": "KernelDeadlock", "status": "False"}
    ready = {"type": "Ready", "status": "True"}
    before = log.stored({**node_object("n1"), "status": {"conditions": [ready, kernel]}})
    log.add("get", "nodes", "n1", ADMIN, responseObject=before)
    after = log.stored({**before, "status": {"conditions": [{**kernel, "status": "True"}, ready]}})
    log.add(
        "patch", "nodes", "n1", sub="status",
        requestObject={"status": {"conditions": [{**kernel, "status": "True"}]}},
        responseObject=after,
    )  # fmt: skip
    assert learn(log).agent.write[0].fields == ("status.conditions[type=KernelDeadlock]",)


@pytest.mark.parametrize(
    ("patch", "others", "field"),
    [
        ({}, ["Ready"], "status.conditions[type=KernelDeadlock]"),
        (
            {"$setElementOrder/conditions": [{"type": "KernelDeadlock"}]},
            [],
            "status.conditions[type=KernelDeadlock]",
        ),
        # A merge patch that replaces the whole list leaves no other.
        ({}, [], "status.conditions"),
    ],
)
def test_the_first_patch_of_a_log_tells_which_conditions_it_merges(
    learn: Any, patch: Any, others: list[str], field: str
) -> None:
    log = Log()
    condition = {"type": "KernelDeadlock", "status": "True"}
    kept = [{"type": other, "status": "True"} for other in others]
    after = log.stored({**node_object("n1"), "status": {"conditions": [*kept, condition]}})
    sent = {"status": {"conditions": [condition], **patch}}
    log.add("patch", "nodes", "n1", sub="status", requestObject=sent, responseObject=after)
    assert learn(log).agent.write[0].fields == (field,)


def test_an_object_of_which_many_fields_change_is_named_as_a_whole(learn: Any) -> None:
    log = Log()
    value = log.stored(custom("n1", {}))
    log.add("get", "things", "n1", ADMIN, group=GROUP, responseObject=value)
    pool = {f"10.0.0.{number}": {"used": True} for number in range(20)}
    log.merge("things", value, {"spec": {"pool": pool}}, group=GROUP)
    assert learn(log).agent.write[0].fields == ("spec.pool",)


def test_who_acts_as_the_agent_is_not_learned_from_and_named(learn: Any) -> None:
    log = Log()
    log.merge("nodes", log.stored(node_object("n1")), {"spec": {"unschedulable": True}})
    log.merge(
        "nodes", log.stored(node_object("n9")), {"spec": {"unschedulable": True}},
        user=ADMIN, impersonatedUser=user("n1"),
    )  # fmt: skip
    learned = learn(log)
    assert learned.agent.write[0].relation is Plain.OWN_NODE
    assert "# 1 request was made by admin in its name" in learned.out


def test_what_an_agent_does_as_its_own_node_is_the_nodes_work(learn: Any) -> None:
    log = Log()
    as_node = {"username": "system:node:n1", "groups": ["system:nodes", "system:authenticated"]}
    log.merge("nodes", log.stored(node_object("n1")), {"spec": {"unschedulable": True}})
    log.merge(
        "nodes", log.stored(node_object("n1")), {"metadata": {"labels": {"a": "b"}}},
        impersonatedUser=as_node,
    )  # fmt: skip
    learned = learn(log)
    assert learned.agent.write[0].fields == ("spec.unschedulable",)
    assert "as its node" in learned.out


def test_requests_without_a_known_node_are_counted_with_what_they_look_like(learn: Any) -> None:
    log = Log()
    log.merge("nodes", log.stored(node_object("n1")), {"spec": {"unschedulable": True}})
    log.add("patch", "nodes", "n2", user(None))
    learned = learn(log)
    assert learned.agent.write[0].relation is Plain.OWN_NODE
    assert "1 more with no known node" in learned.out
    assert "looks like one from a Secret" in learned.out.replace("\n  #   ", " ")


def test_a_request_that_the_api_server_refused_teaches_nothing(learn: Any) -> None:
    log = Log()
    log.merge("nodes", log.stored(node_object("n1")), {"spec": {"unschedulable": True}})
    log.add("delete", "nodes", "n2", responseStatus={"code": 403})
    log.add("get", "secrets", "s", namespace="a", responseStatus={"code": 403})
    learned = learn(log)
    assert len(learned.agent.write) == 1
    assert learned.agent.read is None


def test_a_node_that_only_the_pod_tells_is_looked_up(learn: Any) -> None:
    log = Log()
    own = {**pod_object("cni-n1", "n1"), "metadata": {
        "name": "cni-n1", "namespace": "kube-system", "uid": "uid-n1"}}  # fmt: skip
    log.add("create", "pods", "", ADMIN, namespace="kube-system", responseObject=own)
    who = user("n1")
    del who["extra"]["authentication.kubernetes.io/node-name"]
    log.merge("nodes", log.stored(node_object("n1")), {"spec": {"unschedulable": True}}, by="n1")
    log.events[-1]["user"] = who
    assert learn(log).agent.write[0].relation is Plain.OWN_NODE


def test_users_with_a_prefix_tell_their_node_by_their_name(learn: Any) -> None:
    log = Log()
    for node in ("n1", "n2"):
        who = {"username": f"system:ovn-node:{node}", "groups": ["system:ovn-nodes"]}
        log.merge(
            "nodes", log.stored(node_object(node)), {"spec": {"unschedulable": True}}, user=who
        )
        log.add("list", "pods", "", who, level="Metadata",
                requestURI=f"/api/v1/pods?fieldSelector=spec.nodeName%3D{node}")  # fmt: skip
    learned = learn(log, "--user-prefix", "system:ovn-node:", "system:ovn-nodes", user="")
    assert learned.agent.users[0].group == "system:ovn-nodes"
    assert learned.agent.write[0].relation is Plain.OWN_NODE
    assert learned.agent.read is not None


def test_the_agents_are_the_accounts_of_daemon_sets_if_nobody_names_them(
    learn: Any, tmp_path: Path
) -> None:
    log = Log()
    log.merge("nodes", log.stored(node_object("n1")), {"spec": {"unschedulable": True}})
    other = user("n1", "system:serviceaccount:apps:web")
    log.merge("nodes", log.stored(node_object("n7")), {"spec": {"x": 1}}, user=other)
    state = written(tmp_path, daemon_set("cni", "cni"))
    learned = learn(log, "--state", state, user="")
    assert [one.service_account for one in learned.agent.users] == ["kube-system/cni"]
    assert learned.agent.write


def test_agents_of_the_same_name_get_different_names(learn: Any) -> None:
    log = Log()
    for namespace in ("a", "b"):
        who = user("n1", f"system:serviceaccount:{namespace}:agent")
        log.merge("nodes", log.stored(node_object("n1")), {"spec": {"x": 1}}, user=who)
    learned = learn(log, "--user", "b/agent", user="system:serviceaccount:a:agent")
    assert [agent.name for agent in learned.agents] == ["agent", "b-agent"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--user", "nobody"], "--user: agent 'agent': users[0].serviceAccount: 'nobody'"),
        (
            ["--user-prefix", "system:node:", "x"],
            "--user: agent 'node': users[0]: prefix 'system:node:'",
        ),
        (["--user", "a/b", "--state", "gone"], "--state gone: No such file"),
        (["--state", "none.json"], "there are no DaemonSets, so --user"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, name="none.json")
    Log().written(tmp_path)
    assert main(["agents", "learn", "--audit-log", "audit.log", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"noderestrict agents: {message}"), err
    assert err.count("\n") == 1


def test_a_log_without_the_agent_is_no_policy_to_rely_on(learn: Any) -> None:
    log = Log()
    log.add("patch", "nodes", "n1", ADMIN)
    learned = learn(log)
    assert learned.code == 2
    assert "none is an agent's" in learned.err


def test_what_somebody_else_changed_in_between_is_not_learned(learn: Any) -> None:
    log = Log()
    before = log.stored(node_object("n1"))
    log.add("get", "nodes", "n1", ADMIN, responseObject=before)
    log.add("patch", "nodes", "n1", ADMIN, level="Metadata")
    between = log.stored({**before, "spec": {"taints": [{"key": "theirs"}]}})
    log.merge("nodes", between, {"metadata": {"annotations": {"a/b": "c"}}})
    assert learn(log).agent.write[0].fields == ('metadata.annotations["a/b"]',)


def test_a_put_is_compared_with_the_version_that_it_names(learn: Any) -> None:
    log = Log()
    before = log.stored({**node_object("n1"), "spec": {"taints": [{"key": "a"}]}})
    log.add("get", "nodes", "n1", ADMIN, responseObject=before)
    sent = {**before, "spec": {"taints": [{"key": "a"}], "unschedulable": True}}
    log.add("update", "nodes", "n1", requestObject=sent, responseObject=log.stored(sent))
    assert learn(log).agent.write[0].fields == ("spec.unschedulable",)
    # Without it, nothing is known of what changed.
    del log.events[0]
    learned = learn(log)
    assert learned.agent.write[0].fields is None
    assert "the log does not show which fields changed" in learned.out


def test_a_question_to_the_api_server_needs_no_relation(learn: Any) -> None:
    log = Log()
    for who in ("n1", None):
        log.add("create", "tokenreviews", "", user(who), group="authentication.k8s.io")
    learned = learn(log)
    (write,) = learned.agent.write
    assert (learned.code, write.relation, write.namespaces) == (0, Plain.ANY, ())
    assert "# create: 2 times, on 1 node; it asks, and changes nothing" in list(lines(learned.out))


def in_docker(events: list[Any]) -> bytes:
    lines = [{"log": f"{json.dumps(one)}\n", "stream": "stdout"} for one in events]
    return "".join(f"{json.dumps(line)}\n" for line in lines).encode()


def in_cloudwatch(events: list[Any]) -> bytes:
    return json.dumps({"events": [{"message": json.dumps(one)} for one in events]}).encode()


def in_gzip(events: list[Any]) -> bytes:
    return gzip.compress("".join(f"{json.dumps(one)}\n" for one in events).encode())


@pytest.mark.parametrize("packed", [in_docker, in_cloudwatch, in_gzip])
def test_writes_and_reads_are_learned_from_whatever_wraps_the_events(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], packed: Any
) -> None:
    log = Log()
    log.merge("nodes", log.stored(node_object("n1")), {"spec": {"unschedulable": True}})
    log.add("get", "nodes", "n1", level="Metadata")
    file = tmp_path / "log"
    file.write_bytes(packed(log.events))
    main(["agents", "learn", "--audit-log", str(file), "--user", "kube-system/cni"])
    (agent,) = parse(capsys.readouterr().out.encode(), "learned").agents
    assert agent.write[0].relation is Plain.OWN_NODE
    assert agent.read is not None


def test_the_logs_of_several_api_servers_are_read_in_the_order_of_their_events(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Log()
    before = log.stored(node_object("n1"))
    log.add("get", "nodes", "n1", ADMIN, responseObject=before)
    after = log.merge("nodes", before, {"metadata": {"annotations": {"a/b": "1"}}}, user=ADMIN)
    log.merge("nodes", after, {"spec": {"unschedulable": True}})
    one, other = Log(), Log()
    one.events, other.events = [log.events[0], log.events[2]], [log.events[1]]
    files = [one.written(tmp_path, "one"), other.written(tmp_path, "other")]
    main(["agents", "learn", "--audit-log", *files, "--user", "kube-system/cni"])
    (agent,) = parse(capsys.readouterr().out.encode(), "learned").agents
    assert agent.write[0].fields == ("spec.unschedulable",)
