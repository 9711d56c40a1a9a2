"""What holds for every input."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noderestrict import admission
from noderestrict.api import corev1
from noderestrict.policy.decision import Allowed
from noderestrict.policy.features import defaults, parse_gates, parse_version, resolve
from noderestrict.policy.identity import node_name
from noderestrict.policy.quantity import PER_UNIT, parse_quantity
from noderestrict.policy.references import references
from noderestrict.policy.rules.nodes import label_is_forbidden
from noderestrict.policy.settings import Settings
from tests.builders import KINDS, LISTERS, judge, node, update_node

NAMES = st.text(max_size=20)


@given(NAMES, st.lists(NAMES))
def test_only_prefix_and_group_together_make_a_node(name: str, groups: list[str]) -> None:
    assert node_name(f"system:node:{name}", [*groups, "system:nodes"]) == name
    without = [group for group in groups if group != "system:nodes"]
    assert node_name(f"system:node:{name}", without) is None
    if not name.startswith("system:node:"):
        assert node_name(name, [*groups, "system:nodes"]) is None


@given(st.text(alphabet="abcXYZ.-/", max_size=30), st.sampled_from(["kubernetes.io", "k8s.io"]))
def test_a_label_in_a_kubernetes_domain_is_judged_by_its_namespace_alone(
    text: str, domain: str
) -> None:
    name = text.replace("/", "")
    assert not label_is_forbidden(name)
    assert not label_is_forbidden(f"x{domain}/{name}")
    assert label_is_forbidden(f"{name}.{domain}/a") or name.endswith(("kubelet", "node"))
    assert label_is_forbidden(f"{name}.node-restriction.kubernetes.io/a")


@given(st.integers(min_value=0, max_value=2**40), st.sampled_from("KMGT"))
def test_a_binary_quantity_is_its_number_times_a_power_of_1024(count: int, suffix: str) -> None:
    power = "KMGT".index(suffix) + 1
    assert parse_quantity(f"{count}{suffix}i") == min(count * 1024**power, 2**63 - 1) * PER_UNIT


@given(st.integers(min_value=-(10**9), max_value=10**9))
def test_thousandths_and_wholes_agree(count: int) -> None:
    assert parse_quantity(f"{count}000m") == parse_quantity(str(count)) == count * PER_UNIT


def test_space_around_a_quantity_does_not_count() -> None:
    assert parse_quantity(" 1Gi\n") == parse_quantity("1Gi")


@pytest.mark.parametrize(
    ("text", "billionths"),
    [
        ("1.5Ki", 1536 * PER_UNIT),
        (".5", PER_UNIT // 2),
        ("5.", 5 * PER_UNIT),
        ("-1.5e3", -1500 * PER_UNIT),
        ("0.1n", 1),
        ("-0.1n", -1),
        ("1E", 10**18 * PER_UNIT),
        ("1e999999999", (2**63 - 1) * PER_UNIT),
        ("1E-999999", 1),
        ("1e4294967297", 10 * PER_UNIT),
        ("0E999999", 0),
        ("0." + "0" * 200 + "1e201", PER_UNIT),
        ("9" * 250 + "e-249", 10 * PER_UNIT),
    ],
)
def test_a_quantity_is_rounded_up_to_billionths_and_capped(text: str, billionths: int) -> None:
    assert parse_quantity(text) == billionths


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "1Q",
        "Gi",
        "1 Gi",
        "1e",
        "--1",
        "1Gib",
        ".",
        "+",
        "1e9223372036854775808",
        "٣",
        "9" * 999,
        "1 " * 99,
    ],
)
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
KEYS = st.sampled_from(["metadata", "spec", "status", "labels", "name", "nodeName", "volumes"])
OBJECTS = st.dictionaries(KEYS, JSON, max_size=5)
SUBRESOURCES = st.sampled_from(["", "status", "token", "eviction", "x"])


@settings(max_examples=300)
@given(
    st.sampled_from(sorted(KINDS)),
    SUBRESOURCES,
    st.sampled_from(["CREATE", "UPDATE", "DELETE", "CONNECT"]),
    st.none() | OBJECTS,
    st.none() | OBJECTS,
)
def test_no_object_makes_judging_raise(
    resource: str, sub: str, operation: str, new: Any, old: Any
) -> None:
    request = {
        "uid": "u",
        "operation": operation,
        "resource": {"resource": resource, "group": ""},
        "subResource": sub,
        "name": "n1",
        "userInfo": {"username": "system:node:n1", "groups": ["system:nodes"]},
        "object": new,
        "oldObject": old,
    }
    document = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    decoded = admission.decode(json.dumps(document).encode())
    decision = admission.evaluate(decoded, Settings.for_version(), LISTERS)
    if resource == "pods" and operation == "UPDATE" and sub != "status":
        assert not isinstance(decision, Allowed)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_review_are_refused_as_such(body: bytes) -> None:
    with pytest.raises(admission.ReviewError):
        admission.decode(body)


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b'"\xff"'])
def test_hostile_bytes_are_refused_as_no_review(body: bytes) -> None:
    with pytest.raises(admission.ReviewError):
        admission.decode(body)


def test_an_object_nested_too_deeply_is_never_allowed() -> None:
    deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    body = update_node(node(), node()).replace(b'"labels": {}', b'"labels": ' + deep, 1)
    try:
        decision = judge(body)
    except admission.ReviewError:
        return
    assert not isinstance(decision, Allowed)


@given(st.dictionaries(st.sampled_from(["node-restriction.kubernetes.io/a", "a"]), st.text()))
def test_changing_nothing_is_always_allowed(labels: dict[str, str]) -> None:
    assert isinstance(judge(update_node(node(labels), node(labels))), Allowed)


def test_a_pod_that_names_nothing_has_no_references() -> None:
    assert list(references(corev1.PodSpec(nodeName="n1"))) == []


def test_gates_follow_their_versions() -> None:
    assert defaults(30)["AllowInsecureKubeletCertificateSigningRequests"]
    assert not defaults(31)["AllowInsecureKubeletCertificateSigningRequests"]
    assert not defaults(32)["ServiceAccountNodeAudienceRestriction"]
    assert defaults(33)["ServiceAccountNodeAudienceRestriction"]
    assert resolve(36, {"PodCertificateRequest": True})["PodCertificateRequest"]


@pytest.mark.parametrize("text", ["A", "PodCertificateRequest=yes", "Nope=true"])
def test_a_wrong_gate_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=text.split("=")[0]):
        parse_gates(text)


@pytest.mark.parametrize("text", ["", "1", "2.30", "1.x", "1.3"])
def test_a_wrong_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"oldest version|not a version"):
        parse_version(text)
