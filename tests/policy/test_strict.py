"""Policy beyond the in-tree plugin: off by default, and what each part of it refuses."""

import base64
import ipaddress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from noderestrict import admission
from noderestrict.cli.argument_types import parse_strict_rules
from noderestrict.policy.decision import Allowed, Decision, Denied, Question
from noderestrict.policy.extra import Extra
from noderestrict.policy.keys import NodeKeys, parse_allowed_labels, parse_node_keys
from noderestrict.policy.listers import MemoryListers
from noderestrict.policy.records import NodeRecord, PodRecord
from noderestrict.policy.settings import Settings
from noderestrict.policy.table import RULES, STRICT_RULE_IDS, table
from noderestrict.render.policy_flags import policy_flags
from noderestrict.replay.cases import Case, cases
from noderestrict.replay.state import load_state
from tests.builders import (
    Object,
    assert_allowed,
    assert_denied,
    judge,
    node,
    obj,
    review,
    update_node,
)

CONFORMANCE = Path(__file__).parents[1] / "conformance" / "admission"
EVERYTHING = Extra.of(parse_strict_rules("all"), forbidden_labels=parse_node_keys("*=tier"))
STRICT_SETTINGS = Settings.for_version(extra=EVERYTHING)
LISTERS = MemoryListers(
    [
        NodeRecord("n1", "n1-uid", ("10.0.0.1", "fd00::1", "n1.Example.com")),
        PodRecord("ns", "p1", node_name="n1"),
        PodRecord("ns", "p2", node_name="n2"),
        PodRecord("ns", "pending"),
    ]
)


def strictly(body: bytes, listers: MemoryListers = LISTERS) -> Decision:
    return admission.evaluate(admission.decode(body), STRICT_SETTINGS, listers)


def create_node(**fields: Any) -> bytes:
    return review("nodes", "CREATE", name="n1", new=node(**fields))


def event(field: str = "involvedObject", **about: str) -> Object:
    metadata = {"name": "e", "namespace": "ns"}
    return {"apiVersion": "v1", "kind": "Event", "metadata": metadata, field: about}


def report(new: Object | None, old: Object | None = None) -> bytes:
    operation = "CREATE" if old is None else "UPDATE" if new is not None else "DELETE"
    return review("events", operation, name="e", namespace="ns", new=new, old=old)


def serving_csr(*names: x509.GeneralName, signer: str = "kubernetes.io/kubelet-serving") -> bytes:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "system:node:n1")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    key = ec.generate_private_key(ec.SECP256R1())
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    spec = {"signerName": signer, "request": base64.b64encode(pem).decode()}
    new = obj("certificatesigningrequests", metadata={"name": "csr"}, spec=spec)
    return review("certificatesigningrequests", "CREATE", name="csr", new=new)


def annotated(**annotations: str) -> Object:
    keys = {key.replace("__", "/").replace("_", "."): value for key, value in annotations.items()}
    return node(metadata={"annotations": keys})


REFUSED = [
    ("nodes/unschedulable", update_node(node(), node(spec={"unschedulable": True})), "to True"),
    ("nodes/unschedulable", update_node(node(spec={"unschedulable": True}), node()), "to False"),
    ("nodes/pod-cidr", create_node(spec={"podCIDR": "10.1.0.0/24"}), "['10.1.0.0/24']"),
    ("nodes/pod-cidr", update_node(node(), node(spec={"podCIDRs": ["10.1.0.0/24"]})), "podCIDRs"),
    ("nodes/provider-id", update_node(node(), node(spec={"providerID": "aws://2"})), "aws://2"),
    ("nodes/annotations", update_node(node(), annotated(flannel_io__ip="1")), "flannel.io/ip"),
    ("nodes/annotations", update_node(annotated(flannel_io__ip="1"), node(), "status"), "flannel"),
    ("nodes/annotations", create_node(metadata={"annotations": {"a": "b"}}), "'a'"),
    ("nodes/finalizers", update_node(node(), node(metadata={"finalizers": ["x/y"]})), "['x/y']"),
    ("nodes/finalizers", create_node(metadata={"finalizers": ["x/y"]}), "['x/y']"),
    ("nodes/forbidden-labels", update_node(node(), node({"tier": "front"})), "'tier'"),
    ("nodes/forbidden-labels", update_node(node({"tier": "front"}), node(), "status"), "'tier'"),
    ("nodes/forbidden-labels", create_node(labels={"tier": "front"}), "'tier'"),
    ("nodes/delete-self", review("nodes", "DELETE", name="n1", old=node()), "own Node"),
    ("certificatesigningrequests/addresses", serving_csr(x509.DNSName("n2.example.com")), "n2."),
    (
        "certificatesigningrequests/addresses",
        serving_csr(x509.IPAddress(ipaddress.ip_address("10.0.0.1")),
                    x509.IPAddress(ipaddress.ip_address("10.0.0.2"))),
        "'10.0.0.2'",
    ),
    (
        "certificatesigningrequests/addresses",
        serving_csr(x509.UniformResourceIdentifier("spiffe://n1")),
        "spiffe://n1",
    ),
    ("events/about-own", report(event(kind="Node", name="n2")), "Node n2"),
    ("events/about-own", report(event(kind="Pod", namespace="ns", name="p2")), "Pod ns/p2"),
    ("events/about-own", report(event(kind="Pod", namespace="ns", name="pending")), "pending"),
    ("events/about-own", report(event(kind="Pod", name="p2")), "Pod p2"),
    ("events/about-own", report(event("regarding", kind="Pod", namespace="", name="p2")), "Pod p2"),
    ("events/about-own", report(None, event(kind="Pod", name="p2")), "Pod p2"),
    ("events/about-own", report(event("regarding", kind="Secret", name="s")), "regarding"),
    (
        "events/about-own",
        report(event(kind="Node", name="n1"), event(kind="Node", name="n2")),
        "Node n2",
    ),
    ("events/about-own", report(None, event(kind="Node", name="n2")), "Node n2"),
    ("events/about-own", report({"apiVersion": "v1", "kind": "Event", "metadata": {}}), "missing"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "body", "part"), REFUSED)
def test_a_strict_rule_refuses_and_names_what_it_saw(rule: str, body: bytes, part: str) -> None:
    assert_denied(strictly(body), rule, part)


def test_an_object_that_an_operation_has_no_use_for_is_not_read() -> None:
    both: dict[str, Any] = {
        "new": node(metadata={"finalizers": ["a/b"]}),
        "old": node(spec={"podCIDR": "x"}),
    }
    assert_denied(strictly(review("nodes", "CREATE", name="n1", **both)), "nodes/finalizers")
    own, other = event(kind="Node", name="n1"), event(kind="Node", name="n2")
    for operation, new, old in (("CREATE", own, other), ("DELETE", other, own)):
        body = review("events", operation, name="e", namespace="ns", new=new, old=old)
        assert_allowed(strictly(body))


@pytest.mark.parametrize(("rule", "body", "part"), REFUSED)
def test_nothing_beyond_the_plugin_is_refused_by_default(rule: str, body: bytes, part: str) -> None:
    assert (rule in STRICT_RULE_IDS, bool(part)) == (True, True)
    assert_allowed(judge(body))


@pytest.mark.parametrize(("rule", "body", "part"), REFUSED)
def test_each_strict_rule_is_on_alone(rule: str, body: bytes, part: str) -> None:
    assert part
    others = Settings.for_version(
        extra=Extra(EVERYTHING.rules - {rule}, forbidden_labels=EVERYTHING.forbidden_labels)
    )
    assert_allowed(admission.evaluate(admission.decode(body), others, LISTERS))


@pytest.mark.parametrize(
    "body",
    [
        create_node(spec={"unschedulable": True, "providerID": "aws:///i-1"}),
        create_node(
            metadata={
                "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}
            }
        ),
        update_node(node(), annotated(csi_volume_kubernetes_io__nodeid="{}")),
        update_node(annotated(other="1"), annotated(other="1")),
        update_node(
            node(spec={"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"]}),
            node(spec={"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"]}),
        ),
        update_node(node(spec={"unschedulable": False}), node(spec=None)),
        serving_csr(),
        serving_csr(
            x509.DNSName("N1.example.com"), x509.IPAddress(ipaddress.ip_address("fd00::1"))
        ),
        serving_csr(x509.DNSName("any"), signer="example.com/other"),
        report(event(kind="Node", name="n1")),
        report(event("regarding", kind="Node", name="n1")),
        report(event(kind="Pod", namespace="ns", name="p1")),
        report(event(kind="Pod", namespace="ns", name="just-deleted")),
        report(event(kind="Pod", name="p1")),
    ],
)
def test_what_a_kubelet_does_passes_all_strict_rules(body: bytes) -> None:
    assert_allowed(strictly(body))


def test_a_serving_certificate_waits_for_the_node_to_be_known() -> None:
    body = serving_csr(x509.DNSName("n1.example.com"))
    assert_denied(strictly(body, MemoryListers()), "certificatesigningrequests/addresses", code=500)


def test_an_unreadable_signing_request_is_refused() -> None:
    pem = b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"
    spec = {"signerName": "kubernetes.io/kubelet-serving",
            "request": base64.b64encode(pem).decode()}  # fmt: skip
    new = obj("certificatesigningrequests", metadata={"name": "csr"}, spec=spec)
    body = review("certificatesigningrequests", "CREATE", name="csr", new=new)
    settings = Settings.for_version(
        overrides={"AllowInsecureKubeletCertificateSigningRequests": True}, extra=EVERYTHING
    )
    decision = admission.evaluate(admission.decode(body), settings, LISTERS)
    assert_denied(decision, "certificatesigningrequests/addresses", "cannot be read")


def labelled(label: str, extra: Extra, name: str = "n1") -> Decision:
    old, new = node(metadata={"name": name}), node({label: ""}, metadata={"name": name})
    body = review("nodes", "UPDATE", name=name, new=new, old=old, user=f"system:node:{name}")
    return judge(body, Settings.for_version(extra=extra))


def test_a_label_is_opened_for_the_nodes_that_a_pattern_names_and_for_no_other() -> None:
    allowed = parse_allowed_labels("gpu-*=node-role.kubernetes.io/gpu|acc.k8s.io/*")
    extra = Extra.of(allowed_labels=allowed)
    for label in ("node-role.kubernetes.io/gpu", "acc.k8s.io/model"):
        assert_allowed(labelled(label, extra, "gpu-7"))
        assert_denied(labelled(label, extra, "cpu-7"), "nodes/labels", label)
    for label in ("node-role.kubernetes.io/gpu2", "x.acc.k8s.io/model", "acc.k8s.io.evil.k8s.io/x"):
        assert_denied(labelled(label, extra, "gpu-7"), "nodes/labels", label)


def test_what_is_forbidden_stays_so_where_it_is_allowed_as_well() -> None:
    extra = Extra.of(
        allowed_labels=parse_allowed_labels("*=acc.k8s.io/*"),
        forbidden_labels=parse_node_keys("n*=acc.k8s.io/model,*=topology.kubernetes.io/*"),
    )
    assert_allowed(labelled("acc.k8s.io/other", extra))
    assert_denied(labelled("acc.k8s.io/model", extra), "nodes/forbidden-labels")
    assert_denied(labelled("topology.kubernetes.io/zone", extra), "nodes/forbidden-labels")


def test_annotations_are_opened_by_node_name() -> None:
    extra = Extra.of(
        ["nodes/annotations"], allowed_annotations=parse_node_keys("n1=flannel.io/*,n2=other")
    )
    settings = Settings.for_version(extra=extra)
    assert_allowed(judge(update_node(node(), annotated(flannel_io__ip="1")), settings))
    assert_denied(judge(update_node(node(), annotated(other="1")), settings), "nodes/annotations")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("gpu-*", "is not NODES=KEY|KEY"),
        ("GPU=a", "'GPU' is not a node name"),
        ("=a", "'' is not a node name"),
        ("n[12]=a", "'n[12]' is not a node name"),
        ("n=", "'' is not a key"),
        ("n=a||b", "'' is not a key"),
        ("n=*", "'*' is not a key"),
        ("n=a*b", "'a*b' is not a key"),
        ("n=a'b", "not a key"),
    ],
)
def test_keys_that_cannot_be_meant_are_named(text: str, part: str) -> None:
    with pytest.raises(ValueError, match="is n") as problem:
        parse_node_keys(text)
    assert part in str(problem.value)


@pytest.mark.parametrize(
    "text",
    [
        "*=node-restriction.kubernetes.io/x",
        "*=a.node-restriction.kubernetes.io/*",
        "*=node-*",
        "*=kubernetes.io*",
    ],
)
def test_no_flag_opens_what_is_reserved_for_administrators(text: str) -> None:
    with pytest.raises(ValueError, match=r"node-restriction|whole domain"):
        parse_allowed_labels(text)


def test_flags_mean_the_policy_that_they_were_made_from() -> None:
    text = "gpu-*=a.k8s.io/b|a.k8s.io/c*,n1=x"
    assert str(parse_node_keys(text)) == text
    assert policy_flags(EVERYTHING)[1:] == ["--forbid-node-labels=*=tier"]
    named = policy_flags(EVERYTHING)[0].partition("=")[2]
    assert parse_strict_rules(named) == parse_strict_rules("all")
    assert policy_flags(Extra()) == []
    assert not NodeKeys()


def test_an_unknown_strict_rule_is_named() -> None:
    with pytest.raises(
        ValueError, match="'nodes/labels' is not a strict rule; known: all, or any of"
    ):
        parse_strict_rules("nodes/labels")


def test_no_strict_rule_hides_a_rule_of_the_plugin() -> None:
    plain, strict = table(), table(frozenset(STRICT_RULE_IDS))
    for key, row in plain.items():
        assert strict[key].rules[: len(row.rules)] == row.rules
    judged = {key[:2] for key in plain}
    added = {key[:2] for key in strict.keys() - plain.keys()}
    assert added == {("", "events"), ("events.k8s.io", "events")}
    assert added.isdisjoint(judged)


def test_the_rules_of_one_row_read_the_same_objects() -> None:
    for key, row in table(frozenset(STRICT_RULE_IDS)).items():
        targets = {target for rule in row.rules for target in rule.targets if target.key == key}
        assert targets == {row.target}


def test_rule_ids_are_unique() -> None:
    ids = [rule.id for rule in RULES]
    assert len(ids) == len(set(ids))


def test_strict_rules_never_allow_what_the_plugin_refuses() -> None:
    listers = load_state([str(CONFORMANCE / "state.json")])
    plain = Settings.for_version()
    refused = 0
    for case in cases(str(CONFORMANCE / "generated.jsonl")):
        if not isinstance(case, Case) or case.state is not None:
            continue
        request = admission.decode(case.review)
        before = admission.evaluate(request, plain, listers)
        if isinstance(before, Denied | Question):
            assert admission.evaluate(request, STRICT_SETTINGS, listers) == before
            refused += 1
        else:
            assert isinstance(before, Allowed)
    assert refused > 1_000
