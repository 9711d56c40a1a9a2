"""A policy is for the requests that its criteria include, as the API server decides."""

from typing import Any

import msgspec
import pytest

from noderestrict.api.admissionregistrationv1 import MatchResources
from noderestrict.replay.policies.matching import is_exempt, matches

Object = dict[str, Any]
PODS = {"group": "", "version": "v1", "resource": "pods"}
NODES = {"group": "", "version": "v1", "resource": "nodes"}
NAMESPACES = {"group": "", "version": "v1", "resource": "namespaces"}
LEASES = {"group": "coordination.k8s.io", "version": "v1", "resource": "leases"}


def rule(**changes: Any) -> Object:
    return {
        "apiGroups": ["*"],
        "apiVersions": ["*"],
        "operations": ["*"],
        "resources": ["*/*"],
        **changes,
    }


def request(resource: Object = PODS, sub: str = "", **changes: Any) -> Object:
    found = {
        "resource": resource,
        "requestResource": resource,
        "operation": "CREATE",
        "namespace": "ns",
        "name": "x",
        **changes,
    }
    if sub:
        found["subResource"] = sub
    return found


def included(criteria: Object, asked: Object, new: Any = None, old: Any = None) -> bool | None:
    """Return whether criteria include a request; None if that cannot be told."""
    found, unknown = matches(msgspec.convert(criteria, MatchResources), asked, (new, old))
    return None if unknown else found


@pytest.mark.parametrize(
    ("pattern", "resource", "sub", "expected"),
    [
        ("pods", PODS, "", True),
        ("pods", PODS, "status", False),
        ("pods/status", PODS, "status", True),
        ("pods/status", PODS, "", False),
        ("pods/*", PODS, "status", True),
        ("pods/*", PODS, "", True),
        ("*/status", PODS, "status", True),
        ("*/status", PODS, "", False),
        ("*", PODS, "", True),
        ("*", PODS, "status", False),
        ("*/*", PODS, "status", True),
        ("nodes", PODS, "", False),
    ],
)
def test_resources_have_wildcards_for_both_parts(
    pattern: str, resource: Object, sub: str, expected: bool
) -> None:
    criteria = {"resourceRules": [rule(resources=[pattern])]}
    assert included(criteria, request(resource, sub)) is expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"apiGroups": [""]}, False),
        ({"apiGroups": ["coordination.k8s.io"]}, True),
        ({"apiVersions": ["v1beta1"]}, False),
        ({"apiVersions": ["v1"]}, True),
        ({"operations": ["UPDATE", "DELETE"]}, False),
        ({"operations": ["CREATE"]}, True),
        ({"resourceNames": ["y"]}, False),
        ({"resourceNames": ["y", "x"]}, True),
        ({"scope": "Cluster"}, False),
        ({"scope": "Namespaced"}, True),
        ({"scope": "*"}, True),
    ],
)
def test_every_part_of_a_rule_must_match(changes: Object, expected: bool) -> None:
    assert included({"resourceRules": [rule(**changes)]}, request(LEASES)) is expected


def test_a_namespace_is_an_object_of_the_cluster() -> None:
    asked = request(NAMESPACES, namespace="x")
    assert included({"resourceRules": [rule(scope="Cluster")]}, asked)
    assert included({"resourceRules": [rule(scope="Namespaced")]}, asked) is False


def test_excluded_rules_win() -> None:
    criteria = {
        "resourceRules": [rule()],
        "excludeResourceRules": [rule(resources=["pods"], operations=["CREATE"])],
    }
    assert included(criteria, request()) is False
    assert included(criteria, request(operation="UPDATE"))


def test_an_equivalent_version_matches_unless_only_the_exact_one_may() -> None:
    rules = {"resourceRules": [rule(apiVersions=["v1"])]}
    asked = request(LEASES, requestResource={**LEASES, "version": "v1beta1"})
    assert included(rules, asked)
    assert included({**rules, "matchPolicy": "Exact"}, asked) is False


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ({"key": "a", "operator": "In", "values": ["1", "2"]}, True),
        ({"key": "a", "operator": "In", "values": ["2"]}, False),
        ({"key": "a", "operator": "NotIn", "values": ["1"]}, False),
        ({"key": "z", "operator": "NotIn", "values": ["1"]}, True),
        ({"key": "a", "operator": "Exists"}, True),
        ({"key": "z", "operator": "Exists"}, False),
        ({"key": "a", "operator": "DoesNotExist"}, False),
    ],
)
def test_an_object_is_selected_by_its_labels(expression: Object, expected: bool) -> None:
    criteria = {"objectSelector": {"matchExpressions": [expression]}}
    assert included(criteria, request(), {"metadata": {"labels": {"a": "1"}}}) is expected


def test_either_object_may_be_selected() -> None:
    criteria = {"objectSelector": {"matchLabels": {"a": "1"}}}
    with_label: Object = {"metadata": {"labels": {"a": "1"}}}
    without: Object = {"metadata": {}}
    assert included(criteria, request(), without, with_label)
    assert included(criteria, request(), without, without) is False
    assert included(criteria, request(), None, None) is False


def test_labels_of_namespaces_are_not_known_but_their_names_are() -> None:
    by_label = {"namespaceSelector": {"matchLabels": {"team": "a"}}}
    assert included(by_label, request()) is None
    assert included(by_label, request(NODES, namespace=""))
    assert included(by_label, request(), None) is None
    by_name = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ns"}}}
    assert included(by_name, request())
    assert included(by_name, request(namespace="other")) is False
    new = {"metadata": {"labels": {"team": "a"}}}
    assert included(by_label, request(NAMESPACES, namespace="x"), new)
    # What no rule matches needs no labels.
    nodes = {**by_label, "resourceRules": [rule(resources=["nodes"])]}
    assert included(nodes, request()) is False


@pytest.mark.parametrize(
    ("group", "resource", "policy", "exempt"),
    [
        ("authentication.k8s.io", "tokenreviews", "p.static.k8s.io", True),
        ("authorization.k8s.io", "subjectaccessreviews", "p", True),
        ("admissionregistration.k8s.io", "validatingadmissionpolicies", "p", True),
        ("admissionregistration.k8s.io", "validatingadmissionpolicybindings", "p", True),
        (
            "admissionregistration.k8s.io",
            "validatingadmissionpolicies",
            "p.static.k8s.io",
            False,
        ),
        ("admissionregistration.k8s.io", "validatingwebhookconfigurations", "p", False),
        ("", "pods", "p", False),
    ],
)
def test_no_policy_is_asked_about_what_could_stop_the_cluster(
    group: str, resource: str, policy: str, exempt: bool
) -> None:
    asked = request({"group": group, "version": "v1", "resource": resource})
    assert is_exempt(asked, policy) is exempt
