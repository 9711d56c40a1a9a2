"""RBAC grants exactly what the API server's RBAC authorizer allows."""

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noderestrict.api import rbacv1
from noderestrict.rbac.grants import RBAC, Reference, aggregated
from noderestrict.rbac.rules import Request, Rule
from noderestrict.rbac.subjects import ANONYMOUS, User, account_of, node, service_account
from tests.rbac.worlds import USERS, Object, requests, world


def decoded(roles: list[Object], bindings: list[Object]) -> RBAC:
    return RBAC.of(
        msgspec.convert(roles, list[rbacv1.Role]),
        msgspec.convert(bindings, list[rbacv1.RoleBinding]),
    )


def brute(roles: list[Object], bindings: list[Object], user: User, request: Request) -> bool:
    """Tell whether any rule of any role of any binding of any subject allows a request."""
    for binding in bindings:
        namespace = binding["metadata"].get("namespace", "")
        if namespace and namespace != request.namespace:
            continue
        if not any(means(one, user, namespace) for one in binding["subjects"]):
            continue
        for role in roles:
            if (
                role["kind"] == binding["roleRef"]["kind"]
                and role["metadata"]["name"] == binding["roleRef"]["name"]
                and role["metadata"].get("namespace", namespace) == namespace
                and any(matches(rule, request) for rule in role["rules"])
            ):
                return True
    return False


def means(subject: Object, user: User, namespace: str) -> bool:
    if subject["kind"] == "Group":
        return subject["name"] in user.groups
    if subject["kind"] == "User":
        return bool(subject["name"] == user.name)
    space = subject.get("namespace") or namespace
    return user.name == f"system:serviceaccount:{space}:{subject['name']}"


def matches(rule: Object, request: Request) -> bool:
    if not {"*", request.verb} & set(rule["verbs"]):
        return False
    if request.path:
        for path in rule.get("nonResourceURLs", ()):
            stem = path.rstrip("*")
            if path == request.path or (stem != path and request.path.startswith(stem)):
                return True
        return False
    wanted = {"*", request.resource}
    if request.sub_resource:
        wanted = {"*", f"{request.resource}/{request.sub_resource}", f"*/{request.sub_resource}"}
    return bool(
        {"*", request.group} & set(rule.get("apiGroups", ()))
        and wanted & set(rule.get("resources", ()))
        and ("resourceNames" not in rule or request.name in rule["resourceNames"])
    )


@settings(max_examples=25)
@given(st.integers(0, 2**32))
def test_each_request_is_allowed_exactly_if_some_rule_of_some_binding_allows_it(seed: int) -> None:
    roles, bindings = world(random.Random(seed))
    rbac = decoded(roles, bindings)
    for user in USERS:
        for request in requests():
            grant = rbac.allows(user, request)
            assert (grant is not None) == brute(roles, bindings, user, request), (user, request)
            if grant is not None:
                assert grant.rule.allows(request)
                assert grant in rbac.grants(user, request.namespace)


@settings(max_examples=25)
@given(st.integers(0, 2**32))
def test_the_grants_of_a_user_allow_what_the_user_is_allowed_and_nothing_else(seed: int) -> None:
    rbac = decoded(*world(random.Random(seed)))
    for user in USERS:
        grants = rbac.grants(user)
        for request in requests():
            fitting = any(
                one.rule.allows(request) and one.namespace in ("", request.namespace)
                for one in grants
            )
            assert fitting == (rbac.allows(user, request) is not None)


def role(name: str, *rules: Object, namespace: str = "", **more: Any) -> Object:
    return {
        "kind": "Role" if namespace else "ClusterRole",
        "metadata": {"name": name, "namespace": namespace, **more.pop("metadata", {})},
        "rules": list(rules),
        **more,
    }


def binding(name: str, to: str, *subjects: Object, namespace: str = "") -> Object:
    kind, _, role_name = to.partition("/")
    return {
        "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
        "metadata": {"name": name, "namespace": namespace},
        "roleRef": {"kind": kind, "name": role_name},
        "subjects": list(subjects),
    }


READ_PODS = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}
ANY_POD = Request("get", "", "pods", namespace="default", name="web")


@pytest.mark.parametrize(
    ("subject", "user"),
    [
        (
            {"kind": "Group", "name": "system:serviceaccounts"},
            service_account("kube-system", "cni"),
        ),
        (
            {"kind": "Group", "name": "system:serviceaccounts:kube-system"},
            service_account("kube-system", "cni"),
        ),
        ({"kind": "Group", "name": "system:authenticated"}, service_account("kube-system", "cni")),
        ({"kind": "Group", "name": "system:nodes"}, node("n1")),
        ({"kind": "Group", "name": "system:unauthenticated"}, ANONYMOUS),
        ({"kind": "User", "name": "system:serviceaccount:a:b"}, service_account("a", "b")),
    ],
)
def test_a_group_that_the_api_server_adds_counts(subject: Object, user: User) -> None:
    rbac = decoded([role("r", READ_PODS)], [binding("b", "ClusterRole/r", subject)])
    grant = rbac.allows(user, ANY_POD)
    assert grant is not None
    assert grant.subject == f"{subject['kind']} {subject['name']}"
    assert grant.source == "ClusterRoleBinding b → ClusterRole r"


def test_a_service_account_in_a_binding_of_the_whole_cluster_needs_its_namespace() -> None:
    subject = {"kind": "ServiceAccount", "name": "cni"}
    rbac = decoded([role("r", READ_PODS)], [binding("b", "ClusterRole/r", subject)])
    assert not rbac.grants(service_account("", "cni"))
    assert not rbac.grants(service_account("default", "cni"))


def test_a_cluster_role_that_a_namespace_binds_holds_in_this_namespace_alone() -> None:
    subject = {"kind": "ServiceAccount", "name": "cni"}
    rbac = decoded(
        [role("r", READ_PODS)], [binding("b", "ClusterRole/r", subject, namespace="default")]
    )
    cni = service_account("default", "cni")
    assert rbac.allows(cni, ANY_POD)
    assert not rbac.allows(cni, Request("get", "", "pods", namespace="other", name="web"))
    assert not rbac.allows(cni, Request("get", "", "pods"))
    assert not rbac.grants(cni, "")


def test_a_binding_to_a_role_that_is_gone_grants_nothing_and_is_named() -> None:
    rbac = decoded(
        [role("r", READ_PODS, namespace="a")],
        [binding("b", "Role/r", {"kind": "User", "name": "u"}, namespace="b")],
    )
    assert not rbac.grants(User("u"))
    assert rbac.dangling == [(Reference("RoleBinding", "b", "b"), Reference("Role", "b", "r"))]


def test_resource_names_never_match_a_request_that_names_no_object() -> None:
    rule = Rule(("create", "list", "get"), ("",), ("pods", "pods/exec"), ("web",))
    assert rule.allows(Request("create", "", "pods", "exec", "a", "web"))
    assert not rule.allows(Request("create", "", "pods", "", "a"))
    assert not rule.allows(Request("list", "", "pods", "", "a"))


def test_a_star_after_the_slash_is_no_wildcard() -> None:
    assert not Rule(("*",), ("*",), ("pods/*",)).allows(Request("get", "", "pods", "log", "a", "x"))
    assert Rule(("*",), ("*",), ("*/log",)).allows(Request("get", "", "pods", "log", "a", "x"))


SELECTOR = {"matchLabels": {"to": "all"}}


def test_an_aggregated_role_gets_the_rules_that_its_selectors_will_gather() -> None:
    other = {"verbs": ["list"], "apiGroups": [""], "resources": ["nodes"]}
    roles = msgspec.convert(
        [
            role("all", aggregationRule={"clusterRoleSelectors": [{"matchLabels": {"to": "top"}}]}),
            role(
                "middle",
                metadata={"labels": {"to": "top"}},
                aggregationRule={
                    "clusterRoleSelectors": [
                        {
                            "matchExpressions": [
                                {"key": "to", "operator": "In", "values": ["middle"]}
                            ]
                        }
                    ]
                },
            ),
            role("low", READ_PODS, other, READ_PODS, metadata={"labels": {"to": "middle"}}),
            role("in-namespace", other, namespace="a", metadata={"labels": {"to": "middle"}}),
        ],
        list[rbacv1.Role],
    )
    rules = {one.metadata.name: one.rules for one in aggregated(roles) if one.metadata}
    assert (
        rules["all"]
        == rules["middle"]
        == msgspec.convert([READ_PODS, other], list[rbacv1.PolicyRule])
    )


def test_an_aggregated_role_that_has_rules_keeps_them() -> None:
    roles = msgspec.convert(
        [
            role("all", READ_PODS, aggregationRule={"clusterRoleSelectors": [SELECTOR]}),
            role("low", {**READ_PODS, "verbs": ["list"]}, metadata={"labels": {"to": "all"}}),
        ],
        list[rbacv1.Role],
    )
    assert aggregated(roles) == roles


@pytest.mark.parametrize(
    ("name", "account"),
    [
        ("system:serviceaccount:a:b", ("a", "b")),
        ("system:serviceaccount:a:b:c", None),
        ("system:serviceaccount:a", None),
        ("system:serviceaccount::b", None),
        ("alice", None),
        ("a:b", None),
    ],
)
def test_a_user_name_tells_its_service_account(name: str, account: Any) -> None:
    assert account_of(name) == account
