"""The API server asks about agents alone, and about all that is not surely theirs.

The conditions are evaluated as the API server does it.
"""

import copy
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict.agents.agents import Agents
from noderestrict.agents.file import Agent
from noderestrict.agents.load import parse
from noderestrict.agents.reads import Asked
from noderestrict.agents.reads import evaluate as evaluate_read
from noderestrict.authorization import decode as decode_access
from noderestrict.cli import main
from noderestrict.doctor.registration_differences import registration_differences
from noderestrict.policy.decision import Allowed
from noderestrict.policy.extra import Extra
from noderestrict.render.agents import DOMAIN, read_conditions, webhooks
from noderestrict.render.authorizer import authorization_configuration
from noderestrict.render.manifests import Options, manifests
from noderestrict.render.registration import Registration
from tests.agents.builders import (
    ACCOUNT,
    EXTRA,
    LISTERS,
    OF_N1,
    Object,
    agents,
    judge,
    node,
    obj,
    pod,
    policy,
    reading,
    review,
)
from tests.render.test_conditions import ASKED, FAILED, SKIPPED, _compiled, cel

ALL, NAMED = f"all.{DOMAIN}", f"named.{DOMAIN}"
#: Each says something about the requests below.
ENTRIES = (
    "{resources: [nodes, nodes/status], operations: [CREATE, UPDATE, DELETE], relation: own-node}",
    "{resources: [nodes], operations: [UPDATE], relation: own-node, "
    "fields: ['metadata.annotations[\"x.io/*\"]', status]}",
    "{resources: [nodes], operations: [UPDATE], relation: any, "
    "fields: ['metadata.labels[\"a\"]', metadata.annotations, 'status.conditions[type=Ready]']}",
    "{resources: [nodes], operations: [UPDATE], relation: any, fields: []}",
    "{resources: [nodes], operations: [UPDATE], relation: any, "
    "fields: ['status.conditions[type=Ready]', 'status.conditions[type=Disk*]', spec]}",
    "{resources: ['nodes/*'], operations: [UPDATE], relation: {name: '{node}'}}",
    "{resources: [pods, pods/status, pods/eviction], operations: [CREATE, UPDATE, DELETE], "
    "relation: own-pods}",
    "{resources: [things], operations: [CREATE, UPDATE, DELETE], relation: {field: spec.nodeName}}",
    "{resources: [things], operations: [CREATE, UPDATE, DELETE], relation: {label: x.io/node}}",
    "{resources: [things], operations: [CREATE, UPDATE, DELETE], relation: {name: 'x-{node}.y'}}",
    "{resources: [things], operations: [CREATE, UPDATE, DELETE], relation: {owner: node}}",
    "{resources: [things], operations: [CREATE, DELETE], relation: any, namespaces: [ns]}",
    "{resources: [things], operations: [UPDATE], relation: any, names: [x-n1.y]}",
    "{resources: [pods/exec], operations: [CONNECT], relation: own-pods}",
    "{resources: [nodes/proxy], operations: [CONNECT], relation: own-node}",
)
CREDENTIALS: dict[str, Object | None] = {
    "bound": OF_N1,
    "secret": None,
    "node only": {f"{EXTRA}node-name": ["n1"]},
    "two nodes": {**OF_N1, f"{EXTRA}node-name": ["n1", "n2"]},
    "no uid": {key: value for key, value in OF_N1.items() if not key.endswith("pod-uid")},
    "empty": {**OF_N1, f"{EXTRA}node-name": [""]},
}


def outcome(condition: str, body: bytes) -> str:
    request = json.loads(body)["request"]
    # The API server leaves out what is empty.
    fields = {k: v for k, v in request.items() if k not in ("object", "oldObject")}
    variables = {
        "request": fields,
        "object": request["object"],
        "oldObject": request["oldObject"],
    }
    value = _compiled(condition).eval(data=variables)
    if value.type() == cel.Type.ERROR:
        return FAILED
    return ASKED if value.value() else SKIPPED


def thing(**spec: Any) -> Object:
    return obj("x-n1.y", metadata={"labels": {"x.io/node": "n1"}}, spec={"nodeName": "n1", **spec})


PATHS = (
    "metadata.name",
    "metadata.labels.a",
    "metadata.labels.x+io/node",
    "metadata.annotations.x+io/a",
    "metadata.annotations.y",
    "metadata.finalizers",
    "metadata.labels",
    "metadata.annotations",
    "metadata.resourceVersion",
    "spec.nodeName",
    "spec.a",
    "spec",
    "status.a",
    "status.conditions",
    "status",
)


def changed(value: Object) -> Iterator[Object]:
    """Yield an object, and others of which one value was changed, added or removed."""
    yield value
    for path in PATHS:
        *parents, last = [step.replace("+", ".") for step in path.split(".")]
        changes: tuple[Any, ...] = ("n2", "", None, {}, {"a": "b"}, [], 1)
        for change in changes:
            other = copy.deepcopy(value)
            holder = other
            for parent in parents:
                holder = holder.setdefault(parent, {})
            if change is None:
                holder.pop(last, None)
            else:
                holder[last] = change
            yield other


READY, NOT_READY = ({"type": "Ready", "status": status} for status in ("True", "False"))
DISK, OTHER = {"type": "DiskFull", "status": "True"}, {"type": "Other", "status": "True"}
CONDITIONS: list[Any] = [
    [],
    [READY],
    [NOT_READY],
    [READY, DISK],
    [DISK, NOT_READY],
    [READY, OTHER],
    [OTHER, READY],
    [OTHER, NOT_READY, DISK],
    [{**OTHER, "status": "False"}, READY],
    [READY, NOT_READY],
    [OTHER, OTHER],
    [{"status": "True"}],
    [{"type": 1}],
    ["text"],
    {"type": "Ready"},
    "text",
    None,
]


def bodies(extra: Object | None) -> Iterator[bytes]:
    """Yield reviews of an agent, honest and other ones."""
    ours = node("n1", labels={"a": "b"}, annotations={"x.io/a": "1", "y": "2"})
    for new in changed(ours):
        for resource in ("nodes", "nodes/status"):
            yield review(resource, "UPDATE", name="n1", new=new, old=ours, extra=extra)
            yield review(resource, "UPDATE", name="n2", new=new, old=node("n2"), extra=extra)
        yield review("nodes", "CREATE", name="n1", new=new, extra=extra)
        yield review("nodes", "CREATE", new=new, extra=extra)
    for old, new in itertools.product(CONDITIONS, CONDITIONS):
        before, after = ({**ours, "status": {"conditions": one}} for one in (old, new))
        yield review("nodes", "UPDATE", name="n1", new=after, old=before, extra=extra)
    for name in ("n1", "n2"):
        yield review("nodes", "DELETE", name=name, old=node(name), extra=extra)
        yield review("nodes", "DELETE", old=node(name), extra=extra)
        options = obj("", "NodeProxyOptions")
        yield review("nodes/proxy", "CONNECT", name=name, new=options, extra=extra)
    for new in changed(thing()):
        at: Any = {"name": "x-n1.y", "namespace": "ns", "extra": extra}
        yield review("things", "CREATE", new=new, **at)
        yield review("things", "UPDATE", new=new, old=thing(), **at)
        yield review("things", "UPDATE", new=thing(), old=new, **at)
        yield review("things", "DELETE", old=new, **at)
        yield review("things", "DELETE", old=new, **{**at, "name": "", "namespace": "other"})
    for on in ("n1", "n2", ""):
        at = {"name": "p1", "namespace": "ns", "extra": extra}
        yield review("pods", "DELETE", old=pod("p1", on), **at)
        yield review("pods", "CREATE", new=pod("p1", on), **at)
        yield review("pods/status", "UPDATE", new=pod("p1", on), old=pod("p1", "n1"), **at)
        yield review("pods/eviction", "CREATE", new=obj("p1", "Eviction"), **at)
        yield review("pods/exec", "CONNECT", new=obj("", "PodExecOptions"), **at)


@pytest.mark.parametrize("credential", CREDENTIALS)
@pytest.mark.parametrize("entry", ENTRIES)
def test_what_the_server_is_not_asked_about_the_policy_allows(entry: str, credential: str) -> None:
    held = policy(entry)
    condition = webhooks(held.all)[ALL][1]["expression"]
    counts = {SKIPPED: 0, ASKED: 0}
    for body in bodies(CREDENTIALS[credential]):
        found = outcome(condition, body)
        assert found != FAILED, body
        counts[found] += 1
        if found == SKIPPED:
            decision = judge(held, body)
            # An API server stores no object whose name is no text.
            assert isinstance(decision, Allowed) or decision.rule.endswith("/object"), body  # type: ignore[union-attr]
    assert counts[ASKED] > 0
    cannot_tell = ("owner", "pods/exec")
    if credential == "bound" and not any(word in entry for word in cannot_tell):
        assert counts[SKIPPED] > 0


#: Whom no policy of the tests below is about: users and groups.
OTHERS = [
    ("system:node:n1", ("system:nodes",)),
    ("kubernetes-admin", ("system:masters",)),
    ("system:serviceaccount:other:driver", ("system:serviceaccounts",)),
    ("system:serviceaccount:storage:driver2", ("system:serviceaccounts",)),
    ("ovn:n1", ("others",)),
    ("ovn", ("ovns",)),
    ("", ()),
]


@pytest.mark.parametrize(("user", "groups"), OTHERS)
def test_nobody_is_asked_about_others(user: str, groups: tuple[str, ...]) -> None:
    held = agents(
        "agents:\n- {name: a, users: [{serviceAccount: storage/driver}]}\n"
        "- {name: b, users: [{prefix: 'ovn:', group: ovns}]}\n"
    )
    condition = webhooks(held.all)[ALL][1]["expression"]
    body = review("secrets", "DELETE", name="a", old=obj("a"), user=user, groups=groups, extra=None)
    assert outcome(condition, body) == SKIPPED
    for name, of in ((ACCOUNT, ("x",)), ("ovn:n1", ("ovns",))):
        body = review("secrets", "DELETE", name="a", old=obj("a"), user=name, groups=of)
        assert outcome(condition, body) == ASKED


def test_a_certificate_names_the_node() -> None:
    text = (
        "agents: [{name: driver, users: [{prefix: 'ovn:', group: ovns}, {prefix: 'b:', group: c}], "
        f"write: [{ENTRIES[0]}]}}]"
    )
    held = agents(text)
    condition = webhooks(held.all)[ALL][1]["expression"]
    for user, name, expected in (
        ("ovn:n1", "n1", SKIPPED),
        ("ovn:n1", "n2", ASKED),
        ("ovn:", "", ASKED),
    ):
        by: Any = {"user": user, "groups": ("ovns",), "extra": None}
        body = review("nodes", "DELETE", name=name, old=node(name), **by)
        assert outcome(condition, body) == expected
        if expected == SKIPPED:
            assert isinstance(judge(held, body), Allowed)


def test_rules_are_everything_or_exactly_what_is_named() -> None:
    closed = policy(ENTRIES[0])
    ((rule,), _) = webhooks(closed.all)[ALL]
    assert (rule["apiGroups"], rule["resources"]) == (["*"], ["*/*"])
    assert rule["operations"] == ["CREATE", "UPDATE", "DELETE", "CONNECT"]
    opened = policy(
        "{resources: [nodes, nodes/status], operations: [UPDATE], relation: own-node}, "
        "{resources: [pods/exec], operations: [CONNECT], relation: own-pods}, "
        "{apiGroups: [a.b], resources: [things], operations: [DELETE, CREATE], relation: any}",
        unnamedWrites="allow",
    )
    rules, _ = webhooks(opened.all)[NAMED]
    assert [(one["apiGroups"], one["operations"], one["resources"]) for one in rules] == [
        ([""], ["UPDATE"], ["nodes", "nodes/status"]),
        ([""], ["CONNECT"], ["pods/exec"]),
        (["a.b"], ["CREATE", "DELETE"], ["things"]),
    ]


def test_a_registration_has_the_webhooks_of_agents() -> None:
    held = policy(ENTRIES[0]).all
    service = Registration({"url": "https://a.example"}, timeout_seconds=2)
    value = service.value(Extra(), agents=held)
    last = value["webhooks"][-1]
    assert (last["name"], last["failurePolicy"], last["timeoutSeconds"]) == (ALL, "Fail", 2)
    assert value["webhooks"][:-1] == service.value(Extra())["webhooks"]
    assert service.agent_webhooks(held) == [last]
    # A server that knows no agents takes what it has for more, not for less.
    without = service.value(Extra())
    assert not registration_differences(value, without)
    (missing,) = registration_differences(without, value)
    assert (missing.is_addition, missing.rendered["name"]) == (True, ALL)


def test_without_match_conditions_there_are_no_agents() -> None:
    old = Registration({"url": "https://a.example"}, match_conditions=False)
    with pytest.raises(ValueError, match=r"1\.28"):
        old.value(Extra(), agents=policy(ENTRIES[0]).all)


def test_manifests_mount_the_policies() -> None:
    held, text = policy(ENTRIES[0]).all, "agents: []\n"
    files = manifests(Options(agents=held, agent_files={"a.yaml": text}))
    for path in ("service/deployment.yaml", "overlays/control-plane/install/daemon-set.yaml"):
        policies, workload = yaml.safe_load_all(files[path])
        assert policies["data"] == {"a.yaml": text}
        spec = workload["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        assert "--agents=/etc/noderestrict/agents/a.yaml" in container["args"]
        mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
        assert mounts["agents"] == "/etc/noderestrict/agents"
        name = policies["metadata"]["name"]
        assert {"name": "agents", "configMap": {"name": name}} in spec["volumes"]
    for overlay, failure in (("self-signed", "Fail"), ("audit", "Ignore")):
        value = yaml.safe_load(files[f"overlays/{overlay}/enforce/registration.yaml"])
        (webhook,) = [one for one in value["webhooks"] if one["name"].endswith(DOMAIN)]
        assert webhook["failurePolicy"] == failure


# Reads.

READS = (
    "{resources: [nodes], relation: own-node}",
    "{resources: [pods], relation: own-pods}",
    "{resources: [things], verbs: [list, watch], relation: {field: spec.nodeName}}",
    "{resources: [things], verbs: [list, watch], relation: {label: x.io/node}}",
    "{resources: [things], relation: {name: 'x-{node}.y'}}",
    "{apiGroups: [a.b], resources: [things], relation: any}",
    "{resources: [things], relation: any, namespaces: [ns], names: [n1]}",
    "{resources: [secrets], relation: referenced}",
    "{resources: [nodes/status, 'pods/*'], relation: any}",
    "{resources: ['nodes/*'], relation: any}",
)
KUBELETS = ("nodes/proxy", "nodes/metrics")


def accesses(extra: Object | None) -> Iterator[bytes]:
    others = ("nodes", "pods", "things", "secrets", "nodes/status", "pods/log", "pods/exec")
    for resource in (*others, *KUBELETS):
        plural, _, sub = resource.partition("/")
        for verb in ("get", "list", "watch", "update"):
            for name in ("", "n1", "n2", "x-n1.y", "x-n2.y", "x-.y", "x-y"):
                for more in _more():
                    asked = {"verb": verb, "version": "v1", "resource": plural, **more}
                    asked |= {"subresource": sub} if sub else {}
                    asked |= {"name": name} if name else {}
                    yield access(asked, extra)


def access(asked: Object, extra: Object | None) -> bytes:
    spec: Object = {"user": ACCOUNT, "uid": "u", "groups": ["x"], "resourceAttributes": asked}
    spec |= {"extra": extra} if extra else {}
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    return json.dumps(body).encode()


def _more() -> Iterator[Object]:
    yield {}
    yield {"group": "a.b"}
    yield {"namespace": "ns"}
    for kind, key in (("fieldSelector", "spec.nodeName"), ("labelSelector", "x.io/node")):
        for operator, values in (
            ("In", ["n1"]),
            ("In", ["n2"]),
            ("In", ["n1", "n2"]),
            ("NotIn", ["n1"]),
        ):
            yield {kind: {"requirements": [{"key": key, "operator": operator, "values": values}]}}
        yield {kind: {"rawSelector": f"{key}=n1"}}


@pytest.mark.parametrize("credential", CREDENTIALS)
@pytest.mark.parametrize("entry", READS)
def test_reads_that_the_server_is_not_asked_about_are_not_denied(
    entry: str, credential: str
) -> None:
    held = reading(entry)
    (condition,) = read_conditions(held.all, 36)
    counts = {SKIPPED: 0, ASKED: 0}
    for body in accesses(CREDENTIALS[credential]):
        spec = json.loads(body)["spec"]
        value = _compiled(condition).eval(data={"request": spec})
        assert value.type() != cel.Type.ERROR, spec
        found = ASKED if value.value() else SKIPPED
        asked = decode_access(body, held).asked
        assert isinstance(asked, Asked)
        if asked.verb == "update" and f"nodes/{asked.sub_resource}" not in KUBELETS:
            assert found == SKIPPED
            continue
        counts[found] += 1
        if found == SKIPPED:
            assert evaluate_read(asked, LISTERS) is None, spec
    assert counts[ASKED] > 0
    if credential == "bound" and "referenced" not in entry:
        assert counts[SKIPPED] > 0


def test_no_condition_names_selectors_that_old_api_servers_lack() -> None:
    held = reading(f"{READS[2]}, {READS[3]}").all
    assert "Selector" in read_conditions(held, 32)[0]
    assert "Selector" not in read_conditions(held, 31)[0]


def test_agents_whose_reads_are_not_held_are_not_asked_about() -> None:
    assert read_conditions(policy(ENTRIES[0]).all, 36) == []


@pytest.mark.parametrize("minor", ["1.32", "1.36"])
def test_the_authorizer_stands_before_rbac_for_agents(tmp_path: Path, minor: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "agents: [{name: a, users: [{serviceAccount: b/c}], "
        "read: [{resources: [pods], relation: own-pods}]}]"
    )
    folder = tmp_path / "out"
    command = ["render", "authorizer", str(folder), "--kubernetes-version", minor]
    assert main([*command, "--agents", str(file)]) == 0
    value = yaml.safe_load((folder / "files" / "authorization.yaml").read_text())
    names = [one["name"] for one in value["authorizers"]]
    assert names[:2] == ["noderestrict-agents", "rbac"]
    assert "noderestrict-agents" not in names[2:]
    webhook = value["authorizers"][0]["webhook"]
    assert webhook["failurePolicy"] == "Deny"
    assert (webhook["authorizedTTL"], webhook["unauthorizedTTL"]) == ("1s", "1s")
    policy_text = (folder / "files" / "agents" / "mine.yaml").read_bytes()
    assert Agents(parse(policy_text, "mine.yaml").agents).all
    static = yaml.safe_load((folder / "static-pod.yaml").read_text())
    arguments = static["spec"]["containers"][0]["args"]
    assert "--agents=/etc/kubernetes/noderestrict/agents/mine.yaml" in arguments


@pytest.mark.parametrize(("minor", "why"), [("1.29", "own-pods"), ("1.31", "own-pods")])
def test_old_api_servers_take_no_such_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], minor: str, why: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "agents: [{name: a, users: [{serviceAccount: b/c}], "
        "read: [{resources: [pods], relation: own-pods}]}]"
    )
    command = ["render", "authorizer", str(tmp_path), "--kubernetes-version", minor]
    assert main([*command, "--agents", str(file)]) == 2
    assert why in capsys.readouterr().err


def test_before_1_30_no_authorizer_can_select_agents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("agents: [{name: a, users: [{serviceAccount: b/c}], read: []}]")
    command = ["render", "authorizer", str(tmp_path), "--kubernetes-version", "1.29"]
    assert main([*command, "--agents", str(file)]) == 2
    assert "since 1.30" in capsys.readouterr().err


def many(count: int, entries: int) -> tuple[Agent, ...]:
    write = ", ".join(
        f"{{resources: [things{number}], operations: [CREATE, UPDATE, DELETE], "
        "relation: {field: spec.nodeName}}"
        for number in range(entries)
    )
    read = ", ".join(
        f"{{resources: [r{number}], relation: {{name: '{{node}}'}}}}" for number in range(entries)
    )
    return agents(
        "agents:\n"
        + "".join(
            f"- {{name: a{number}, users: [{{serviceAccount: a/b{number}}}], write: [{write}], "
            f"read: [{read}]}}\n"
            for number in range(count)
        )
    ).all


def test_no_expression_is_longer_than_an_api_server_takes() -> None:
    held = many(30, 10)
    found = webhooks(held)
    assert list(found)[:2] == [ALL, f"all-2.{DOMAIN}"]
    expressions = [condition["expression"] for _, condition in found.values()]
    reads = read_conditions(held, 36)
    assert len(expressions) > 1
    assert len(reads) > 1
    assert max(map(len, (*expressions, *reads))) < 100_000
    for agent in held:
        user = f'"system:serviceaccount:a:{agent.name.replace("a", "b")}"'
        for some in (expressions, reads):
            assert len([one for one in some if user in one]) == 1
    names = [one["name"] for one in authorization_configuration("x", agents=reads)["authorizers"]]
    assert names[:2] == ["noderestrict-agents", "noderestrict-agents-2"]
    assert len(set(names)) == len(names)


def test_a_policy_that_is_too_long_for_a_condition_leaves_nothing_out() -> None:
    held = many(1, 400)
    ((_, condition),) = webhooks(held).values()
    (read,) = read_conditions(held, 36)
    for expression in (condition["expression"], read):
        assert len(expression) < 1000
        assert "things" not in expression


def test_a_user_name_of_any_characters_is_compared_as_it_is() -> None:
    odd = "x\N{GRINNING FACE}é'\\\":"
    text = {"agents": [{"name": "a", "users": [{"prefix": odd, "group": odd}]}]}
    held = parse(json.dumps(text, ensure_ascii=False).encode(), "a.json").agents
    ((_, condition),) = webhooks(held).values()
    body = json.loads(review("nodes", "UPDATE", new=node("n1"), old=node("n1")))
    for user, groups, wanted in (
        (f"{odd}n1", [odd], ASKED),
        (f"{odd}n1", [f"{odd}s"], SKIPPED),
        (f"x{odd}n1", [odd], SKIPPED),
    ):
        body["request"]["userInfo"] = {"username": user, "groups": groups}
        assert outcome(condition["expression"], json.dumps(body).encode()) == wanted
