"""The rendered policies refuse what the rules refuse, and say so."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("cel_expr_python.cel", reason="no CEL runtime for this platform")

from noderestrict import admission
from noderestrict.cli import main
from noderestrict.cli.argument_types import parse_strict_rules
from noderestrict.policy import cel
from noderestrict.policy.cel import Form, Uncovered
from noderestrict.policy.decision import Denied
from noderestrict.policy.extra import Extra
from noderestrict.policy.keys import parse_node_keys
from noderestrict.policy.releases import LATEST, Release
from noderestrict.policy.rules import review as review_rules
from noderestrict.policy.settings import Settings
from noderestrict.policy.table import RULES
from noderestrict.render.load import parsed
from noderestrict.render.policies import Options, files, policies, uncovered
from noderestrict.render.policy_modes import ACTIONS
from noderestrict.replay.policies.documents import convert
from noderestrict.replay.policies.evaluate import Policies
from tests.builders import LISTERS, Object, node, obj, pod_status, review, update_node
from tests.render.overlays import build
from tests.render.policy_reviews import (
    BASES,
    UNCOVERED,
    bounded,
    conformance,
    judged,
    made_reviews,
    needs_a_lookup,
    refusing_policies,
    refusing_rules,
    with_user,
)
from tests.render.test_conditions import SKIPPED, outcome

STRICT = Extra.of(
    parse_strict_rules("all"),
    parse_node_keys("n*=example.k8s.io/*|a.k8s.io/b,m=k8s.io/*"),
    parse_node_keys("*=tier|a/*"),
    parse_node_keys("n1=example.com/*"),
)
LATEST_RULES = Settings.for_version(LATEST.minor)
EVERYTHING = Settings.for_version(LATEST.minor, {"CSIVolumeHealth": True}, extra=STRICT)
MADE = list(made_reviews())
#: Of the rules that changed most.
FEWER = list(made_reviews(BASES[:2]))
SETTINGS = [
    pytest.param(LATEST_RULES, MADE, id="plugin"),
    pytest.param(EVERYTHING, MADE, id="strict"),
    *(
        pytest.param(Settings.for_version(minor, release=Release(minor)), FEWER, id=f"1.{minor}")
        for minor in (33, 30, 26)
    ),
]
UNDECODABLE, NAMELESS = review_rules.OBJECT.id, review_rules.NODE_NAME.id
SUITES = {
    "admission/generated.jsonl": 36,
    "captured/captured.jsonl": 36,
    **{f"versions/admission-1.{minor}.jsonl.gz": minor for minor in (25, 28, 29, 31, 33, 35)},
}
#: In these, a claim's spec has an equal quantity that no API server would write so.
QUANTITIES = {"pvc_any-11-18", "pvc_any-11-1053", "pvc_any-11-2705"}


def differs(body: bytes, given: Settings) -> str:
    """Return how the policies judge a review differently from the rules; "" if they do not."""
    return difference(body, given, refusing_rules(body, given))


def difference(body: bytes, given: Settings, rules: list[str]) -> str:
    """Return how the policies judge a review differently from rules that refuse it, likewise."""
    if UNDECODABLE in rules:
        return ""
    judgement = judged(body, given)
    found = refusing_policies(judgement)
    if NAMELESS in rules:
        # A policy says all that it has to say. It is asked about its own resources only.
        fine = found[:1] == [NAMELESS] or not is_judged(body, given)
        return "" if fine else f"nameless: {found}"
    errors = [one.message for one in judgement.objections if one.is_error]
    if errors or found != rules:
        return f"rules {rules}, policies {found} {errors}: {body.decode()[:2000]}"
    return ""


def is_judged(body: bytes, given: Settings) -> bool:
    """Tell whether any policy is about the resource of a review."""
    resource = json.loads(body)["request"]["resource"]
    return any(
        resource["group"] in rule["apiGroups"] and resource["resource"] in rule["resources"]
        for policy in policies(Options(given))
        if policy["kind"] == "ValidatingAdmissionPolicy"
        for rule in policy["spec"]["matchConstraints"]["resourceRules"]
    )


@pytest.mark.parametrize("suite", SUITES)
def test_every_conformance_review_is_judged_as_by_the_rules_of_its_release(suite: str) -> None:
    minor = SUITES[suite]
    counts: Counter[str] = Counter()
    different = {}
    release_settings = Settings.for_version(minor, release=Release(minor))
    for case, own, listers in conformance(suite, release_settings):
        rules = refusing_rules(case.review, own, listers)
        if problem := difference(case.review, own, rules):
            different[case.id] = problem
        counts["refused" if rules else "allowed"] += 1
    assert {id_: one for id_, one in different.items() if id_ not in QUANTITIES} == {}
    assert all("status-fields" in one for one in different.values())
    assert counts["refused"] > 100
    assert counts["allowed"] > 100


@pytest.mark.parametrize(("rules_of", "bodies"), SETTINGS)
def test_reviews_that_differ_in_one_field_are_judged_as_by_the_rules(
    rules_of: Settings, bodies: Sequence[bytes]
) -> None:
    refusing: Counter[str] = Counter()
    for body in bodies:
        if needs_a_lookup(body) or repeats_pod_cidrs(body):
            continue
        assert differs(body, rules_of) == ""
        refusing.update(refusing_policies(judged(body, rules_of)))
    on = {
        rule.id
        for rule in RULES
        if isinstance(rule.cel, Form)
        and rule.since.includes(rules_of.release)
        and (not rule.strict or rule.id in rules_of.extra.rules)
    }
    if bodies is MADE:
        # That gate is on in the newest release.
        assert on - set(refusing) == {"podcertificaterequests/gate"}


def repeats_pod_cidrs(body: bytes) -> bool:
    """Tell whether an object has a pod CIDR twice, which no API server stores."""
    request = json.loads(body)["request"]
    cidrs = [
        ((request.get(field) or {}).get("spec") or {}).get("podCIDRs") or []
        for field in ("object", "oldObject")
    ]
    return any(len(set(one)) < len(one) for one in cidrs)


def test_the_deletion_of_a_pod_that_the_api_server_does_not_send_is_refused() -> None:
    looked_up = [body for body in MADE if needs_a_lookup(body)]
    assert looked_up
    for body in looked_up:
        assert refusing_policies(judged(body, LATEST_RULES)) == ["pods/delete-own"]


#: Without surrogates; and the library that evaluates expressions ends texts at a NUL character.
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
LABEL_KEYS = st.sampled_from(
    [
        "a", "kubernetes.io", "k8s.io", "tier", "a/b", "kubernetes.io/os", "kubernetes.io/role",
        "k8s.io/a", "x.k8s.io/a", "xk8s.io/a", "kubelet.kubernetes.io/a", "x.node.kubernetes.io/a",
        "xnode.kubernetes.io/a", "node-restriction.kubernetes.io/a", "KUBERNETES.io/a", "s.io/a",
        "a.node-restriction.kubernetes.io/a", "node.kubernetes.io.k8s.io/a", "kubernetes.io/",
        "/kubernetes.io", "a/kubernetes.io/b", "kubernetes.io/node.kubernetes.io/b", "", "/",
        "example.k8s.io/z", "a.k8s.io/b",
    ]
) | st.text(CHARACTERS, max_size=6)  # fmt: skip
TEXTS = st.sampled_from(["", "a", "b", "n1", "v1", "Node"])
MAPS = st.dictionaries(LABEL_KEYS, TEXTS, max_size=4)


def fields(**strategies: st.SearchStrategy[Any]) -> st.SearchStrategy[Object]:
    """Return objects with some fields: null, or as an API server may send them."""
    optional = {name: st.none() | one for name, one in strategies.items()}
    return st.fixed_dictionaries({}, optional=optional)


OWNERS = st.lists(
    fields(
        apiVersion=TEXTS, kind=TEXTS, name=TEXTS, controller=st.booleans(),
        blockOwnerDeletion=st.booleans(),
    ),
    max_size=2,
)  # fmt: skip
NODES = st.builds(
    lambda metadata, spec: obj("nodes", metadata={"name": "n1", **metadata}, spec=spec),
    fields(labels=MAPS, annotations=MAPS, finalizers=st.lists(TEXTS, max_size=2)),
    fields(
        podCIDR=TEXTS, podCIDRs=st.lists(TEXTS, max_size=2, unique=True), providerID=TEXTS,
        unschedulable=st.booleans(),
    ),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(NODES, NODES, st.sampled_from(["", "status"]), st.sampled_from([LATEST_RULES, EVERYTHING]))
def test_any_change_of_a_node_is_judged_as_by_the_rules(
    old: Object, new: Object, sub: str, rules_of: Settings
) -> None:
    assert differs(update_node(old, new, sub), rules_of) == ""
    assert differs(review("nodes", "CREATE", name="n1", new=new), rules_of) == ""


NAMED = fields(name=TEXTS)
CONTAINERS = st.lists(
    fields(
        env=st.lists(
            fields(valueFrom=fields(secretKeyRef=NAMED, configMapKeyRef=NAMED)), max_size=2
        ),
        envFrom=st.lists(fields(secretRef=NAMED, configMapRef=NAMED), max_size=2),
    ),
    max_size=2,
)
PROJECTION_KINDS = (
    "downwardAPI", "secret", "configMap", "serviceAccountToken", "clusterTrustBundle",
    "podCertificate", "tomorrow",
)  # fmt: skip
PROJECTIONS = st.lists(
    st.one_of([st.fixed_dictionaries({kind: NAMED}) for kind in PROJECTION_KINDS]), max_size=3
)
VOLUMES = st.lists(
    st.one_of(
        *(
            st.fixed_dictionaries({"name": TEXTS, kind: fields(secretRef=NAMED)})
            for kind in (
                "emptyDir", "hostPath", "image", "iscsi", "rbd", "cephfs", "cinder", "flexVolume",
                "scaleIO", "storageos", "persistentVolumeClaim", "glusterfs", "ephemeral",
                "tomorrow",
            )
        ),
        st.fixed_dictionaries({"name": TEXTS, "secret": fields(secretName=TEXTS)}),
        st.fixed_dictionaries({"name": TEXTS, "azureFile": fields(secretName=TEXTS)}),
        st.fixed_dictionaries({"name": TEXTS, "configMap": NAMED}),
        st.fixed_dictionaries({"name": TEXTS, "csi": fields(nodePublishSecretRef=NAMED)}),
        st.fixed_dictionaries({"name": TEXTS, "projected": fields(sources=PROJECTIONS)}),
        st.fixed_dictionaries({"name": TEXTS}),
    ),
    max_size=2,
)  # fmt: skip
PODS = st.builds(
    lambda metadata, spec: obj("pods", metadata={"name": "static", **metadata}, spec=spec),
    fields(
        annotations=st.dictionaries(st.just("kubernetes.io/config.mirror"), TEXTS),
        ownerReferences=OWNERS,
    ),
    fields(
        nodeName=TEXTS, serviceAccountName=TEXTS, serviceAccount=TEXTS,
        imagePullSecrets=st.lists(NAMED, max_size=2), containers=CONTAINERS,
        initContainers=CONTAINERS, ephemeralContainers=CONTAINERS,
        resourceClaims=st.lists(NAMED, max_size=1), volumes=VOLUMES,
    ),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(PODS, st.sampled_from([LATEST_RULES, Settings.for_version(31, release=Release(31))]))
def test_any_new_pod_is_judged_as_by_the_rules(pod: Object, rules_of: Settings) -> None:
    body = review("pods", "CREATE", name="static", namespace="ns", new=pod)
    assert differs(body, rules_of) == ""


CLAIM_STATUSES = fields(
    resourceClaimStatuses=st.lists(
        st.fixed_dictionaries({"name": TEXTS}, optional={"resourceClaimName": TEXTS}), max_size=2
    ),
    extendedResourceClaimStatus=fields(
        resourceClaimName=TEXTS,
        requestMappings=st.lists(st.fixed_dictionaries({"requestName": TEXTS}), max_size=2),
    ),
)


@settings(max_examples=200, deadline=None)
@given(st.tuples(MAPS, CLAIM_STATUSES), st.tuples(MAPS, CLAIM_STATUSES), TEXTS)
def test_any_change_of_a_pods_status_is_judged_as_by_the_rules(
    before: tuple[Object, Object], after: tuple[Object, Object], node_name: str
) -> None:
    old, new = (
        obj("pods", metadata={"labels": labels}, spec={"nodeName": node_name}, status=status)
        for labels, status in (before, after)
    )
    assert differs(pod_status(old, new), LATEST_RULES) == ""
    assert differs(pod_status(new, new), LATEST_RULES) == ""


def of_kind(kind: str, documents: Sequence[Object]) -> Iterator[Object]:
    return (one for one in documents if one["kind"] == kind)


def test_more_entries_than_an_expression_visits_are_refused_unseen() -> None:
    for body in bounded(by=0):
        assert refusing_policies(judged(body, LATEST_RULES)) == []
    for body in bounded(by=1):
        found = judged(body, LATEST_RULES)
        assert refusing_policies(found) in (["pods/mirror-references"], ["nodes/labels"])
        assert not any(one.is_error for one in found.objections)
        assert refusing_rules(body, LATEST_RULES) == []


def test_as_many_labels_as_a_node_can_have_may_stay_as_they_are() -> None:
    many = node({f"x.k8s.io/{index}": "" for index in range(20_000)})
    assert differs(update_node(many, many, "status"), EVERYTHING) == ""


@pytest.mark.parametrize("mode", ACTIONS)
def test_policies_come_with_bindings_and_refuse_only_if_they_deny(mode: str) -> None:
    documents = policies(Options(EVERYTHING, mode))
    bound = {
        one["spec"]["policyName"]: one["spec"]["validationActions"]
        for one in of_kind("ValidatingAdmissionPolicyBinding", documents)
    }
    rendered = list(of_kind("ValidatingAdmissionPolicy", documents))
    names = [one["metadata"]["name"] for one in rendered]
    assert len(names) == len(set(names)) == 7
    assert bound == {name: list(ACTIONS[mode]) for name in names}
    for policy in rendered:
        spec = policy["spec"]
        assert spec["failurePolicy"] == "Fail"
        assert [one["expression"] for one in spec["matchConditions"]] == [cel.IS_NODE_USER]
        assert {one["reason"] for one in spec["validations"]} == {"Forbidden"}
        assert "paramKind" not in spec
        for rule in spec["matchConstraints"]["resourceRules"]:
            assert rule["apiVersions"] == ["*"]
        # An API server refuses a request whose annotation fails, whatever the binding says.
        assert ("auditAnnotations" in spec) == (mode == "deny")


@pytest.mark.parametrize("mode", ["warn", "audit"])
def test_without_deny_a_request_passes_and_the_rule_is_reported(mode: str) -> None:
    strict = Policies(convert(policies(Options(LATEST_RULES, mode))))
    found = strict.judge(json.loads(update_node(node(), node({"k8s.io/a": "b"})))["request"])
    assert found.allowed
    assert [one.message.partition(":")[0] for one in found.objections] == ["nodes/labels"]
    assert len(found.warnings) == (mode == "warn")


def test_the_audit_log_names_the_rule_of_a_denial_and_none_for_what_passes() -> None:
    refused = judged(update_node(node(), node({"k8s.io/a": "b"})), LATEST_RULES)
    assert refused.annotations == {"noderestrict-nodes/rule": "nodes/labels"}
    assert judged(update_node(node(), node({"a": "b"})), LATEST_RULES).annotations == {}


def test_single_rules_have_their_own_modes() -> None:
    modes = {
        "nodes/labels": "audit",
        "pods/status-labels": "off",
        "identity/node-name": "warn",
        "leases/namespace": "off",
        "leases/own-name": "off",
    }
    documents = policies(Options(LATEST_RULES, "deny", modes))
    found = {
        (one["metadata"]["name"], validation["message"].partition(":")[0])
        for one in of_kind("ValidatingAdmissionPolicy", documents)
        for validation in one["spec"]["validations"]
    }
    assert ("noderestrict-nodes-audit", "nodes/labels") in found
    assert ("noderestrict-nodes", "nodes/labels") not in found
    assert ("noderestrict-nodes", "nodes/taints") in found
    assert ("noderestrict-nodes-warn", "identity/node-name") in found
    assert not any(rule == "pods/status-labels" for _, rule in found)
    assert not any("leases" in name for name, _ in found)
    named = Policies(convert(documents)).judge(
        json.loads(update_node(node(), node({"k8s.io/a": "b"})))["request"]
    )
    assert named.allowed
    assert [one.actions for one in named.objections] == [("Audit",)]


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--rule-modes", "pods/evict-own=deny"], "'pods/evict-own' is in no policy: it needs"),
        (
            ["--rule-modes", "agents/cilium=deny"],
            "'agents/cilium' is in no policy: no file of --agents has this agent",
        ),
        (["--rule-modes", "nodes/pod-cidr=warn"], "'nodes/pod-cidr' is in no policy: it is a"),
        (
            ["--rules", "1.30", "--rule-modes", "nodes/owner-references=off"],
            "'nodes/owner-references' is in no policy: Kubernetes 1.30 does not have it",
        ),
    ],
)
def test_a_mode_of_a_rule_that_is_in_no_policy_is_refused(
    flags: list[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["render", "policies", str(tmp_path), *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert problem in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "flags",
    [
        ["--mode", "enforce"],
        ["--rule-modes", "nodes/labels=enforce"],
        ["--rule-modes", "nope=deny"],
        ["--rules", "1.99"],
        ["--feature-gates", "Nope=true"],
    ],
)
def test_a_wrong_flag_is_refused(flags: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["render", "policies", str(tmp_path), *flags])
    assert exit_.value.code == 2
    assert list(tmp_path.iterdir()) == []


def test_flags_reach_the_policies(tmp_path: Path) -> None:
    flags = [
        "--rules", "1.33", "--mode", "warn", "--rule-modes", "nodes/taints=off",
        "--strict-rules", "nodes/finalizers", "--allow-node-labels", "*=node-role.kubernetes.io/x",
        "--feature-gates", "RecoverVolumeExpansionFailure=false",
    ]  # fmt: skip
    assert main(["render", "policies", str(tmp_path), *flags]) == 0
    text = (tmp_path / "policies.yaml").read_text()
    documents = parsed(text)
    expected = Options(
        Settings.for_version(
            33,
            {"RecoverVolumeExpansionFailure": False},
            extra=Extra.of(["nodes/finalizers"], parse_node_keys("*=node-role.kubernetes.io/x")),
            release=Release(33),
        ),
        "warn",
        {"nodes/taints": "off"},
    )
    assert {"policies.yaml": text} | {
        "kustomization.yaml": (tmp_path / "kustomization.yaml").read_text()
    } == files(expected)
    assert "nodes/finalizers" in text
    assert "allocatedResources" not in text
    assert {
        one["spec"]["validationActions"][0] for one in documents if "policyName" in one["spec"]
    } == {"Warn"}


def test_an_allowed_label_may_be_set_by_the_nodes_that_it_is_for_alone() -> None:
    extra = Extra.of(allowed_labels=parse_node_keys("n*=k8s.io/a|x.k8s.io/*,a.b=k8s.io/b"))
    rules_of = Settings.for_version(LATEST.minor, extra=extra)
    for name in ("n1", "m1", "a.b", "axb"):
        for key in ("k8s.io/a", "x.k8s.io/y", "k8s.io/b", "k8s.io/c"):
            labelled = node({key: "v"})
            body = review(
                "nodes", "UPDATE", name=name, new=labelled, old=node(), user=f"system:node:{name}"
            )
            assert differs(body, rules_of) == ""


def test_every_rule_has_a_form_or_says_why_it_has_none() -> None:
    for rule in RULES:
        assert isinstance(rule.cel, Form | Uncovered), rule.id
    listed = {rule.id for rules in uncovered(EVERYTHING).values() for rule in rules}
    rendered = {
        validation["message"].partition(":")[0]
        for policy in of_kind("ValidatingAdmissionPolicy", policies(Options(EVERYTHING)))
        for validation in policy["spec"]["validations"]
    }
    always = {"podcertificaterequests/gate"}
    assert listed | rendered | always == {rule.id for rule in RULES}
    assert not listed & rendered


@pytest.mark.parametrize("rules_of", [LATEST_RULES, EVERYTHING], ids=["plugin", "strict"])
def test_the_header_names_every_rule_that_is_in_no_policy(rules_of: Settings) -> None:
    text = files(Options(rules_of))["policies.yaml"]
    comment = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    for reason, rules in uncovered(rules_of).items():
        assert reason.value in comment
        for rule in rules:
            assert rule.id in comment


#: Of CEL, of its strings, and of what API servers have had since 1.23.
FUNCTIONS = {
    "all", "contains", "dyn", "exists", "filter", "has", "in", "matches", "size", "startsWith",
    "substring",
}  # fmt: skip


@pytest.mark.parametrize("minor", range(25, LATEST.minor + 1))
def test_expressions_use_only_what_an_api_server_of_1_30_has(minor: int) -> None:
    rules_of = Settings.for_version(minor, extra=STRICT, release=Release(minor))
    for policy in of_kind("ValidatingAdmissionPolicy", policies(Options(rules_of))):
        spec = policy["spec"]
        expressions = [
            *(one["expression"] for one in (*spec["variables"], *spec["matchConditions"])),
            *(
                one["messageExpression"]
                for one in spec["validations"]
                if "messageExpression" in one
            ),
            *(one["valueExpression"] for one in spec["auditAnnotations"]),
        ]
        for expression in expressions:
            plain = re.sub(r"'(\\.|[^'\\])*'", "''", expression)
            assert set(re.findall(r"([A-Za-z_]+)\(", plain)) <= FUNCTIONS
            assert ".?" not in plain
            assert "[?" not in plain
        # An API server reads at most so much of one expression.
        assert max(map(len, expressions)) < 10_000


def words(text: str) -> list[str]:
    return re.split(r"[\s;,]+", text)


def test_messages_begin_with_the_rule_and_say_what_it_says() -> None:
    same, all_ = Counter[str](), Counter[str]()
    for body in MADE:
        request = admission.decode(body)
        decision = admission.evaluate(request, EVERYTHING, LISTERS, UNCOVERED)
        objections = judged(body, EVERYTHING).objections
        if not isinstance(decision, Denied) or decision.rule == UNDECODABLE or not objections:
            continue
        said = objections[0].message
        rule, _, message = said.partition(": ")
        assert rule == decision.rule
        assert "\n" not in said
        all_[rule] += 1
        # What follows the last semicolon says what to do instead.
        advice = words(message.rpartition("; ")[2])
        same[rule] += advice == words(decision.message)[-len(advice) :]
    assert len(all_) > 20
    assert {rule for rule in all_ if same[rule] < all_[rule]} <= {
        # What to do depends on the object, or the rule lists fields that are not there to list.
        "nodes/own-name",
        "pods/mirror-owner",
        "pods/mirror-references",
        "csinodes/status",
        "podcertificaterequests/only-create",
        "persistentvolumeclaims/status-fields",
        "pods/delete-own",
        "nodes/forbidden-labels",
    }


def test_what_match_conditions_keep_from_the_webhook_no_policy_refuses() -> None:
    skipped = 0
    for body in MADE:
        for extra, rules_of in ((Extra(), LATEST_RULES), (STRICT, EVERYTHING)):
            if outcome(json.loads(body)["request"], extra) == SKIPPED:
                found = [
                    one
                    for one in refusing_policies(judged(body, rules_of))
                    # The webhook is asked for every node user.
                    if one != NAMELESS
                ]
                assert found == [], body
                skipped += 1
    assert skipped > 100


def test_a_user_who_is_no_node_meets_no_policy() -> None:
    for user in ({"username": "alice", "groups": ["system:nodes"]}, {"username": "system:node:n1"}):
        for base in BASES:
            assert judged(with_user(base, user), EVERYTHING).matched == frozenset()


def test_an_overlay_takes_the_policies_as_a_component() -> None:
    plain, more = build("self-signed"), build("self-signed", ["policies"])
    added = {(one["kind"], one["metadata"]["name"]) for one in more if one not in plain}
    assert added == {(one["kind"], one["metadata"]["name"]) for one in policies()}
    assert len(more) == len(plain) + len(added)
