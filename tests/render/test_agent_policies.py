"""The policies of agents, rendered, refuse what the server refuses, and say so."""

import copy
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("cel_expr_python.cel", reason="no CEL runtime for this platform")

from noderestrict import admission
from noderestrict.agents.agents import Agents
from noderestrict.agents.file import Source
from noderestrict.api.resources import ObjectKey
from noderestrict.cli import main
from noderestrict.cli.agent_files import read_agents
from noderestrict.policy.decision import Denied
from noderestrict.policy.listers import Listers
from noderestrict.policy.records import PodRecord
from noderestrict.policy.settings import Settings
from noderestrict.render import agent_policies
from noderestrict.render.agent_cel import NODE_NAME
from noderestrict.render.agent_policies import Modes
from noderestrict.render.policy_modes import ACTIONS
from noderestrict.replay.cases import Case, cases
from noderestrict.replay.policies.documents import convert
from noderestrict.replay.policies.evaluate import Policies
from tests.agents.builders import (
    ACCOUNT,
    EXTRA,
    Object,
    agents,
    judge,
    node,
    obj,
    pod,
    policy,
    review,
)
from tests.render.policy_reviews import judge_with_nulls, variants
from tests.render.test_agents import CREDENTIALS, ENTRIES, OTHERS, bodies

ROOT = Path(__file__).parents[2]
READY = sorted((ROOT / "manifests" / "agents").glob("*.yaml"))
CASES = ROOT / "tests" / "agents" / "cases"
SETTINGS = Settings.for_version()


class Favourable(Listers):
    """Finds each pod where a request needs it; the agent's own one if only that tells its node.

    Policies do not look up the pod of a token that does not name its node.
    """

    def __init__(self, node: str, *, finds_agents: bool) -> None:
        self._node = node
        self._finds_agents = finds_agents

    def get(self, key: ObjectKey) -> PodRecord | None:
        if not self._finds_agents and key.name.startswith(("agent-", "driver-")):
            return None
        return PodRecord(key.namespace, key.name, f"{key.name}-uid", self._node)


class Compared:
    """An agent's policy beside what API servers make of it."""

    def __init__(self, held: Agents, modes: Modes | None = None) -> None:
        self._held = held
        self._policies = Policies(convert(agent_policies.policies(held.all, modes or Modes())))
        self.counts: Counter[str] = Counter()

    def difference(self, body: bytes, skipped: frozenset[str] = frozenset()) -> str:
        """Return how both judge a review differently, whatever is looked up; "" if they do not.

        What is empty in one object and missing in the other may be denied; see ``agent_changes``.
        """
        found = self._difference(body, skipped)
        if found.startswith("Allowed(rule='')") and "/fields']" in found:
            review = json.loads(body)
            for field in ("object", "oldObject"):
                review["request"][field] = {**obj(), **without_empty(review["request"][field])}
            return self._difference(json.dumps(review).encode(), skipped)
        return found

    def _difference(self, body: bytes, skipped: frozenset[str]) -> str:
        request = admission.decode(body, self._held)
        looks_up = request.agent is not None and request.agent.sources == (Source.POD,)
        listers = Favourable(node_of(request), finds_agents=looks_up)
        decision = admission.evaluate(request, SETTINGS, listers, skipped)
        expected = decision.rule if isinstance(decision, Denied) else ""
        found = self.refusing(body)
        self.counts[expected.rpartition("/")[2]] += 1
        if expected.endswith("/object"):
            return "" if found else f"allowed, but {decision}: {body.decode()}"
        if found != [expected] * bool(expected):
            return f"{decision}, but {found}: {body.decode()}"
        return ""

    def refusing(self, body: bytes) -> list[str]:
        """Return the rules by which policies deny a review, or what fails."""
        judgement = judge_with_nulls(self._policies, body)
        assert not judgement.unknown
        return [
            one.message if one.is_error else one.message.partition(":")[0]
            for one in judgement.objections
            if one.denies
        ]


def without_nulls(value: Any) -> Any:
    """Return a value as an API server encodes it: it leaves out what is null."""
    if isinstance(value, dict):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value


def as_sent(body: bytes) -> bytes:
    """Return a review as an API server sends it, in which little is null."""
    return json.dumps(without_nulls(json.loads(with_texts(body)))).encode()


def with_texts(body: bytes) -> bytes:
    """Return a review in which no label or annotation is null, as in every API server."""
    review = json.loads(body)
    for field in ("object", "oldObject"):
        metadata = (review["request"].get(field) or {}).get("metadata")
        for texts in ("labels", "annotations"):
            if isinstance(metadata, dict) and isinstance(held := metadata.get(texts), dict):
                metadata[texts] = {key: "" if one is None else one for key, one in held.items()}
    return json.dumps(review).encode()


def node_of(request: admission.Request) -> str:
    """Return the node of whoever makes a request."""
    if request.agent is None or request.agent.account is None:
        return (request.user.username or "").rpartition(":")[2]
    (name, *_) = (json.loads(bytes(request.user.extra)) or {}).get(NODE_NAME) or ["n1"]
    return str(name)


def of_cases(file: Path) -> Iterator[bytes]:
    for case in cases(str(file)):
        if isinstance(case, Case):
            yield bytes(case.review)


def of_other_users(body: bytes) -> Iterator[bytes]:
    """Yield a review with each part of its requester gone or changed."""
    document = json.loads(body)
    user = document["request"]["userInfo"]
    for field in ("uid", "groups", "extra", "username"):
        yield changed_user(document, {key: one for key, one in user.items() if key != field})
    for key, values in user.get("extra", {}).items():
        for other in ([], [""], [*values, "n2"], ["n2"]):
            yield changed_user(document, {**user, "extra": {**user["extra"], key: other}})
        rest = {one: given for one, given in user["extra"].items() if one != key}
        yield changed_user(document, {**user, "extra": rest})
    yield changed_user(document, {**user, "username": f"{user['username']}x"})


def changed_user(document: Object, user: Object) -> bytes:
    changed = copy.deepcopy(document)
    changed["request"]["userInfo"] = user
    return json.dumps(changed).encode()


@pytest.mark.parametrize("file", READY, ids=lambda file: file.stem)
def test_cases_of_ready_policies_and_their_variants_are_judged_alike(file: Path) -> None:
    held = read_agents([str(file)])
    both = Compared(held, Modes(by_rule={f"agents/{agent.name}": "deny" for agent in held.all}))
    for body in of_cases(CASES / f"{file.stem}.jsonl"):
        for variant in (*variants(body), *of_other_users(body)):
            assert both.difference(as_sent(variant)) == ""
    for verdict in ("", "unnamed", "fields", "node"):
        assert both.counts[verdict] > 5


def some_bodies(entry: str, credential: str) -> Iterator[bytes]:
    """Yield reviews of what an entry is about, and some others."""
    for number, body in enumerate(bodies(CREDENTIALS[credential])):
        request = json.loads(body)["request"]
        plural, sub = request["resource"]["resource"], request.get("subResource")
        is_about = re.search(rf"[\[ ']{plural}/?({sub or ''}|\*)[,\]']", entry)
        # Few have one of some names.
        often = 5 if request["operation"] == "UPDATE" and "names:" not in entry else 1
        if number % (often if credential == "bound" and is_about else 40) == 0:
            yield body


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_kind_of_entry_is_judged_alike(entry: str) -> None:
    both = Compared(policy(entry))
    for credential in CREDENTIALS:
        for body in some_bodies(entry, credential):
            assert both.difference(body) == ""
    assert both.counts["unnamed"] > 0
    assert (both.counts[""] > 0) == ("owner" not in entry)


def owner(name: Any = "n1", kind: Any = "Node", version: Any = "v1") -> Object:
    return {"apiVersion": version, "kind": kind, "name": name, "uid": "u"}


OWNERS: list[Any] = [
    None,
    [],
    [owner()],
    [owner(), owner(kind="Thing", name="n2")],
    [owner(kind="Thing", name="n1")],
    [owner(version="x/v1")],
    [owner(name="n2")],
    [owner(), owner(name="n2")],
    [owner(), owner()],
    [owner(name="")],
    [owner(), {"kind": "Node"}],
    [{"apiVersion": "v1", "name": "n1"}],
]


def test_owners_are_judged_alike() -> None:
    both = Compared(
        policy(
            "{resources: [things], operations: [CREATE, UPDATE, DELETE], relation: {owner: node}}"
        )
    )
    things = [obj("x", metadata={"ownerReferences": owners}) for owners in OWNERS]
    for thing in (*things, obj("x")):
        assert both.difference(review("things", "CREATE", name="x", new=thing)) == ""
        assert both.difference(review("things", "DELETE", name="x", old=thing)) == ""
        for other in things:
            body = review("things", "UPDATE", name="x", new=thing, old=other)
            assert both.difference(body) == ""
    assert both.counts[""] > 10
    assert both.counts["owner"] > 100


#: Each tells something else of the objects below.
FIELDS = (
    (),
    ("spec",),
    ("spec.a",),
    ("spec.a.b", "status"),
    ('spec["a*"]',),
    ("spec[*]",),
    ("spec[*].b",),
    ("spec.a[*]", "spec.b[*].a"),
    ("spec.a[*].b",),
    ("spec.a[a=b]",),
    ("spec.a[a=b].b", "spec.b[a=*]"),
    ("spec.a[a=b*]", "spec.a[a=a].c"),
    ("spec.a[b=a]", "spec.a[a=a]"),
    ('spec.a["a=b"]', "spec.b[a=b]"),
    ('spec["a*"].b', "spec.a.c"),
    ("metadata.labels", 'metadata.annotations["a/*"]'),
    ('metadata.labels["*/b"]', 'metadata.labels["a.b[c]+*"]'),
)
KEYS = st.sampled_from(["a", "b", "c", "ab", "a=b", "a/b"])
SCALARS = st.none() | st.booleans() | st.integers(-1, 1) | st.sampled_from(["", "a", "b", "bc"])
ITEMS = st.lists(
    st.fixed_dictionaries({"a": st.sampled_from(["a", "b", "bc"])}, optional={"b": SCALARS}),
    max_size=3,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | ITEMS | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=4,
)
SECTIONS = st.dictionaries(KEYS, VALUES, max_size=3)
LABELS = st.dictionaries(
    st.sampled_from(["a", "a/b", "a/c", "x/b", "a.b[c]+d", "aXb[c]+d", "a\n/b"]),
    st.sampled_from(["", "a"]),
    max_size=3,
)


@st.composite
def updates(draw: st.DrawFn) -> tuple[Object, Object]:
    """Return an object before and after, most of which is the same."""
    sides: list[Object] = [{"metadata": {"name": "x"}}, {"metadata": {"name": "x"}}]
    for holder, name, values in (
        ("", "spec", SECTIONS),
        ("", "status", SECTIONS),
        ("metadata", "labels", LABELS),
        ("metadata", "annotations", LABELS),
    ):
        before = draw(st.none() | values)
        after = draw(st.just(before) | st.none() | values | altered(before))
        for side, value in zip(sides, (before, after), strict=True):
            if value is not None:
                (side[holder] if holder else side)[name] = value
    return sides[0], sides[1]


def altered(value: Any) -> st.SearchStrategy[Any]:
    """Return values that differ from one at one place."""
    if isinstance(value, dict) and value:
        return st.sampled_from(sorted(value)).flatmap(
            lambda key: altered(value[key]).map(lambda other: {**value, key: other})
        ) | st.sampled_from(sorted(value)).map(
            lambda key: {one: held for one, held in value.items() if one != key}
        )
    if isinstance(value, list) and value:
        return st.integers(0, len(value) - 1).flatmap(
            lambda at: altered(value[at]).map(lambda other: [*value[:at], other, *value[at + 1 :]])
        ) | st.just(value[::-1])
    return VALUES


def without_empty(value: Any) -> Any:
    """Return a value without what is empty; an item of a list is null instead."""
    if isinstance(value, dict):
        kept = {key: without_empty(one) for key, one in value.items()}
        return {key: one for key, one in kept.items() if one is not None} or None
    return [without_empty(one) for one in value] or None if isinstance(value, list) else value


_by_fields: dict[tuple[str, ...], Compared] = {}


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(FIELDS), updates())
def test_any_update_is_judged_alike(fields: tuple[str, ...], change: tuple[Object, Object]) -> None:
    if fields not in _by_fields:
        shown = ", ".join(f"'{one}'" for one in fields)
        _by_fields[fields] = Compared(
            policy(
                f"{{resources: [things], operations: [UPDATE], relation: any, fields: [{shown}]}}"
            )
        )
    old, new = ({**obj("x"), **one} for one in change)
    body = review("things", "UPDATE", name="x", old=old, new=new)
    assert _by_fields[fields].difference(with_texts(body)) == ""


def test_what_takes_a_lookup_is_left_open_but_for_the_credential() -> None:
    held = policy(f"{ENTRIES[6]}, {ENTRIES[0]}", node="[pod]")
    both = Compared(held)
    for credential, extra in CREDENTIALS.items():
        for name in ("n1", "n2"):
            body = review("nodes", "UPDATE", name=name, new=node(name), old=node(name), extra=extra)
            found = both.refusing(body)
            is_bound = credential in ("bound", "empty")
            assert found == ([] if is_bound else ["agents/driver/node"]), credential
    other = review("secrets", "DELETE", name="a", old=obj("a"))
    assert both.refusing(other) == ["agents/driver/unnamed"]


@pytest.mark.parametrize(("user", "groups"), OTHERS)
def test_nobody_else_meets_a_policy(user: str, groups: tuple[str, ...]) -> None:
    held = agents(
        "agents:\n- {name: a, users: [{serviceAccount: storage/driver}]}\n"
        "- {name: b, users: [{prefix: 'ovn:', group: ovns}, {serviceAccount: b/c}]}\n"
    )
    compiled = Policies(convert(agent_policies.policies(held.all, Modes())))
    body = review("secrets", "DELETE", name="a", old=obj("a"), user=user, groups=groups, extra=None)
    assert judge_with_nulls(compiled, body).matched == frozenset()
    for one in (ACCOUNT, "system:serviceaccount:b:c"):
        body = review("secrets", "DELETE", name="a", old=obj("a"), user=one, groups=groups)
        assert len(judge_with_nulls(compiled, body).matched) == 1


def of_kind(kind: str, documents: list[Object]) -> list[Object]:
    return [one for one in documents if one["kind"] == kind]


@pytest.mark.parametrize("mode", ACTIONS)
def test_policies_come_with_bindings_and_fail_closed(mode: str) -> None:
    held = read_agents([str(file) for file in READY])
    modes = Modes(mode, {f"agents/{agent.name}": mode for agent in held.all})
    documents = agent_policies.policies(held.all, modes)
    rendered = of_kind("ValidatingAdmissionPolicy", documents)
    names = [one["metadata"]["name"] for one in rendered]
    assert names == [f"noderestrict-agent-{agent.name}" for agent in held.all]
    assert {
        one["spec"]["policyName"]: one["spec"]["validationActions"]
        for one in of_kind("ValidatingAdmissionPolicyBinding", documents)
    } == {name: list(ACTIONS[mode]) for name in names}
    for one in rendered:
        spec = one["spec"]
        assert spec["failurePolicy"] == "Fail"
        assert len(spec["matchConditions"]) == 1
        assert spec["matchConstraints"]["resourceRules"][0]["resources"] == ["*/*"]
        assert ("auditAnnotations" in spec) == (mode == "deny")


def test_an_agent_whose_unnamed_writes_are_allowed_is_asked_about_what_it_names() -> None:
    held = policy(ENTRIES[0], unnamedWrites="allow")
    (value, _) = agent_policies.policies(held.all, Modes())
    (rule,) = value["spec"]["matchConstraints"]["resourceRules"]
    assert (rule["apiGroups"], rule["resources"]) == ([""], ["nodes", "nodes/status"])
    both = Compared(held)
    body = review("nodes", "UPDATE", name="n2", new=node("n2"), old=node("n2"))
    assert both.refusing(body) == ["agents/driver/own-node"]
    assert both.refusing(review("secrets", "DELETE", name="a", old=obj("a"))) == []


@pytest.mark.parametrize(
    ("mode", "of_file", "by_rule", "expected"),
    [
        ("deny", "audit", {}, "audit"),
        ("deny", "enforce", {}, "deny"),
        ("deny", "off", {}, ""),
        ("warn", "audit", {}, "audit"),
        ("audit", "enforce", {}, "audit"),
        ("audit", "enforce", {"agents/driver": "deny"}, "deny"),
        ("deny", "audit", {"agents/driver/unnamed": "warn"}, "warn"),
        ("deny", "enforce", {"agents/driver": "audit", "agents/driver/unnamed": "off"}, ""),
    ],
)
def test_a_mode_is_that_of_the_rule_of_the_agent_or_the_weaker_one(
    mode: str, of_file: str, by_rule: dict[str, str], expected: str
) -> None:
    held = policy(ENTRIES[0], mode=of_file)
    compiled = Policies(convert(agent_policies.policies(held.all, Modes(mode, by_rule))))
    body = review("secrets", "DELETE", name="a", old=obj("a"))
    found = [one.actions for one in judge_with_nulls(compiled, body).objections]
    assert found == ([ACTIONS[expected]] if expected else [])


@pytest.mark.parametrize("rule", ["own-node", "node", "fields", "unnamed"])
@pytest.mark.parametrize("weak", ["off", "audit"])
def test_a_rule_that_denies_nothing_hides_no_other(rule: str, weak: str) -> None:
    entry = ENTRIES[1]
    by_rule = {f"agents/driver/{rule}": weak}
    both = Compared(policy(entry), Modes("deny", by_rule))
    for credential in CREDENTIALS:
        for body in some_bodies(entry, credential):
            assert both.difference(body, frozenset(by_rule)) == ""
    assert both.counts[""] > 10
    assert sum(both.counts.values()) - both.counts[""] > 20


def test_what_is_only_reported_is_reported() -> None:
    held = policy(ENTRIES[1])
    modes = Modes("deny", {"agents/driver/own-node": "warn", "agents/driver/fields": "audit"})
    compiled = Policies(convert(agent_policies.policies(held.all, modes)))
    for name, changed, expected in (
        ("n2", {}, ("own-node", ACTIONS["warn"])),
        ("n1", {"spec": {"a": 1}}, ("fields", ACTIONS["audit"])),
        ("n1", {}, None),
    ):
        new = {**node(name), **changed}
        body = review("nodes", "UPDATE", name=name, new=new, old=node(name))
        found = [
            (one.message.partition(":")[0].rpartition("/")[2], one.actions)
            for one in judge_with_nulls(compiled, body).objections
        ]
        assert found == ([expected] if expected else [])


def test_a_denial_says_what_the_server_says() -> None:
    held = policy(f"{ENTRIES[1]}, {ENTRIES[9]}, {ENTRIES[7]}, {ENTRIES[10]}, {ENTRIES[6]}")
    compiled = Policies(convert(agent_policies.policies(held.all, Modes())))
    tainted = {**node("n1"), "spec": {"taints": []}, "status": {}, "extra": 1}
    thing = obj("x-n2.y", spec={"nodeName": "n2"})
    for body in (
        review("nodes", "UPDATE", name="n2", new=node("n2"), old=node("n2")),
        review("nodes", "UPDATE", name="n1", new=tainted, old=node("n1")),
        review("things", "CREATE", name="x-n2.y", new=thing),
        review("pods", "DELETE", name="p", namespace="ns", old=pod("p", "n2")),
        *(
            review("nodes", "UPDATE", name="n1", new=node("n1"), old=node("n1"), extra=extra)
            for extra in ({}, {f"{EXTRA}node-name": ["n1"]}, {f"{EXTRA}credential-id": ["a"]})
        ),
    ):
        decision = judge(held, body)
        assert isinstance(decision, Denied)
        (objection,) = judge_with_nulls(compiled, body).objections
        rule, _, said = objection.message.partition(": ")
        assert rule == decision.rule
        # The server also names the object, and what it found in what was sent.
        assert said in decision.message.replace(": agent", "; agent") or said.split("; ")[0] in (
            decision.message
        )
        assert judge_with_nulls(compiled, body).annotations == {
            "noderestrict-agent-driver/rule": rule
        }


def test_the_file_says_what_stays_open(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    deep = "resources: [things], operations: [UPDATE], relation: any, fields: ['a[*].b[*].c']"
    entries = f"{ENTRIES[6]}, {ENTRIES[13]}, {{{deep}}}"
    file.write_text(
        "agents: [{name: driver, users: [{serviceAccount: storage/driver}], "
        f"write: [{entries}], read: []}}]"
    )
    command = ["render", "policies", str(tmp_path / "out"), "--agents", str(file)]
    assert main([*command, "--rule-modes", "agents/driver/unnamed=off"]) == 0
    rendered = (tmp_path / "out" / "agents.yaml").read_text()
    comment = " ".join(one.lstrip("# ") for one in rendered.splitlines() if one.startswith("#"))
    for part in (
        "- agents/driver/own-pods: pods/eviction, pods/exec: needs to look up other objects",
        "- agents/driver/fields: a[*].b[*].c: paths too deep",
        "- agents/driver/read, agents/driver/unnamed-read: only the authorizer sees reads",
        "- agents/driver/unnamed: off",
        "Stricter than the webhook",
    ):
        assert part in comment
    kustomization = yaml.safe_load((tmp_path / "out" / "kustomization.yaml").read_text())
    assert kustomization["resources"] == ["policies.yaml", "agents.yaml"]


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("agents/driver/own-pods=off", "it needs to look up other objects"),
        ("agents/driver/own-node=off", "no entry of the policy needs it"),
        ("agents/driver/read=off", "only the authorizer sees"),
        ("agents/driver/object=off", "denies only what no API server sends"),
        ("agents/other/node=off", "no file of --agents has this agent"),
    ],
)
def test_a_mode_of_a_rule_in_no_policy_is_an_error(
    rule: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "agents: [{name: driver, users: [{serviceAccount: storage/driver}], "
        f"write: [{ENTRIES[13]}]}}]"
    )
    command = ["render", "policies", str(tmp_path), "--agents", str(file), "--rule-modes", rule]
    assert main(command) == 2
    assert why in capsys.readouterr().err


def test_an_expression_is_one_that_an_api_server_compiles() -> None:
    steps = ".".join("abcdefghijklmnop")
    entries = [
        f"{{resources: [things], operations: [UPDATE], relation: any, fields: ['{fields}']}}"
        for fields in (
            steps,
            "a[*].b.c",
            "a[b=c].d",
            'a["*"].b["c*"]',
            "a['b c*']".replace("'", '"'),
            "a-b.c",
        )
    ]
    for entry in entries:
        Compared(policy(entry))
    held = policy(", ".join(entries))
    for value in of_kind("ValidatingAdmissionPolicy", agent_policies.policies(held.all, Modes())):
        spec = value["spec"]
        for one in (*spec["variables"], *spec["validations"]):
            assert len(one["expression"]) < 100_000
        assert len({one["name"] for one in spec["variables"]}) == len(spec["variables"])
