"""The rights that reach beyond a node are found in whatever form a role grants them."""

import pytest

from noderestrict.api.resources import RESOURCES
from noderestrict.rbac import rights
from noderestrict.rbac.grants import Grant, Reference
from noderestrict.rbac.rights import (
    EVERYTHING,
    RIGHTS,
    GrantedRight,
    Right,
    Severity,
    held,
    is_namespaced,
    parts_of,
)
from noderestrict.rbac.rules import Request, Rule


def grant(rule: Rule, namespace: str = "") -> Grant:
    kind = "RoleBinding" if namespace else "ClusterRoleBinding"
    return Grant(
        rule,
        namespace,
        Reference(kind, namespace, "b"),
        Reference("ClusterRole", "", "r"),
        "ServiceAccount kube-system/cni",
    )


def found(*grants: Grant) -> dict[str, GrantedRight]:
    return {one.right.id: one for one in held(grants)}


ONE_BY_ONE = [
    (right, resource, verb)
    for right in RIGHTS
    if right is not EVERYTHING
    for resource in right.resources
    for verb in right.verbs
]


@pytest.mark.parametrize("right", RIGHTS, ids=lambda right: right.id)
def test_a_right_says_in_one_sentence_why_it_matters(right: Right) -> None:
    assert right.why.endswith(".")
    assert right.why[0].isupper()
    assert ". " not in right.why


def test_ids_are_unique() -> None:
    assert len({right.id for right in RIGHTS}) == len(RIGHTS)


def test_each_verb_on_each_resource_of_the_table_is_found_as_the_api_server_matches_it() -> None:
    for right, resource, verb in ONE_BY_ONE:
        group, plural, sub_resource = parts_of(resource)
        combined = f"{plural}/{sub_resource}" if sub_resource else plural
        rule = Rule((verb,), (group,), (combined,))
        one = found(grant(rule))[right.id]
        assert (one.verbs, one.resources) == ((verb,), (resource,))
        assert one.severity is right.severity
        assert rule.allows(Request(verb, group, plural, sub_resource, "", "x"))


def test_a_wildcard_is_every_right_that_it_covers() -> None:
    assert "secrets/read" in found(grant(Rule(("*",), ("",), ("secrets",))))
    assert "secrets/read" in found(grant(Rule(("get",), ("*",), ("*",))))
    assert "nodes/proxy" in found(grant(Rule(("get",), ("",), ("*/proxy",))))
    assert "pods/exec" not in found(grant(Rule(("create",), ("",), ("pods/*",))))
    assert "workloads/write" not in found(grant(Rule(("create",), ("",), ("daemonsets",))))


def test_a_rule_for_everything_is_named_once() -> None:
    everything = found(grant(Rule(("*",), ("*",), ("*",))))
    assert list(everything) == ["everything"]
    assert everything["everything"].severity is Severity.CRITICAL


def test_a_name_or_a_namespace_makes_a_right_lead_less_far() -> None:
    rule, named = Rule(("get",), ("",), ("secrets",)), Rule(("get",), ("",), ("secrets",), ("a",))
    assert found(grant(rule))["secrets/read"].severity is Severity.CRITICAL
    assert found(grant(rule, "kube-system"))["secrets/read"].severity is Severity.CRITICAL
    assert found(grant(rule, "apps"))["secrets/read"].severity is Severity.HIGH
    assert found(grant(named))["secrets/read"].severity is Severity.HIGH
    assert found(grant(named, "apps"))["secrets/read"].severity is Severity.MEDIUM


def test_a_named_webhook_configuration_is_as_bad_as_any() -> None:
    rule = Rule(
        ("patch",),
        ("admissionregistration.k8s.io",),
        ("mutatingwebhookconfigurations",),
        ("injector",),
    )
    assert found(grant(rule))["admission/mutate"].severity is Severity.CRITICAL


def test_a_name_leaves_nothing_of_a_create_that_names_no_object() -> None:
    assert not found(grant(Rule(("create",), ("",), ("pods",), ("web",))))
    assert "pods/exec" in found(grant(Rule(("create",), ("",), ("pods/exec",), ("web",))))


def test_a_right_that_holds_everywhere_names_no_namespace() -> None:
    rule = Rule(("get",), ("",), ("secrets",))
    both = found(grant(rule, "apps"), grant(Rule(("list",), ("",), ("secrets",), ("a",)), ""))
    one = both["secrets/read"]
    assert (one.verbs, one.namespaces, one.names) == (("get", "list"), (), ())
    assert found(grant(rule, "b"), grant(rule, "a"))["secrets/read"].namespaces == ("a", "b")


def test_rights_that_lead_farthest_come_first() -> None:
    rule = Rule(("*",), ("",), ("configmaps", "nodes", "secrets"))
    severities = [one.severity for one in held([grant(rule)])]
    assert severities == sorted(severities, reverse=True)


def test_a_binding_in_a_namespace_grants_nothing_on_what_is_in_none() -> None:
    rule = Rule(("*",), ("*",), ("nodes", "secrets", "users", "signers"))
    assert {"nodes/write", "impersonate", "certificates/sign"} <= set(found(grant(rule)))
    assert set(found(grant(rule, "a"))) == {"secrets/read", "secrets/write"}


def test_what_is_in_namespaces_is_as_the_api_has_it() -> None:
    texts = [text for right in RIGHTS for text in right.resources]
    assert not is_namespaced("nodes/proxy")
    assert not is_namespaced("clusterrolebindings.rbac.authorization.k8s.io")
    # A RoleBinding lets its subjects change the Namespace, and bind ClusterRoles there.
    assert is_namespaced("namespaces")
    assert is_namespaced("clusterroles.rbac.authorization.k8s.io")
    named = {parts_of(text)[1] for text in texts if is_namespaced(text)}
    assert named <= {resource.plural for resource in RESOURCES.values() if resource.namespaced} | {
        "bindings", "clusterroles", "cronjobs", "deployments", "endpoints", "endpointslices",
        "horizontalpodautoscalers", "jobs", "leases", "namespaces", "networkpolicies",
        "replicasets", "resourceclaims", "replicationcontrollers", "services", "statefulsets",
    }  # fmt: skip


def test_a_rule_that_many_have_is_matched_once() -> None:
    rule = Rule(("get",), ("",), ("secrets", "something-of-its-own"))
    before = rights._matches.cache_info().misses
    for namespace in ("", "a", "b"):
        held([grant(rule, namespace)])
    assert rights._matches.cache_info().misses == before + 1
