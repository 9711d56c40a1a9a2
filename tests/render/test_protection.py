"""Whom the protection of our registration, policies and rights lets change them."""

import copy
from typing import Any

import pytest

pytest.importorskip("cel_expr_python.cel", reason="no CEL runtime for this platform")

from noderestrict.policy.extra import Extra
from noderestrict.render.manifests import HOSTS
from noderestrict.render.protection import Accounts, protection
from noderestrict.render.static import SUFFIX, as_static
from noderestrict.replay.policies.documents import convert
from noderestrict.replay.policies.evaluate import Policies

Object = dict[str, Any]
ODD = """o'dd \\ "user\""""
POLICIES = Policies(
    convert(as_static(protection(Accounts(users=("chief", ODD), deployers=("ops/deployer",)))))
)
REGISTRATION: Object = {**HOSTS.value(Extra()), "metadata": {"name": "noderestrict", "uid": "u"}}
THIEF: Object = {"username": "system:serviceaccount:a:thief", "groups": ["system:serviceaccounts"]}
WRITER: Object = {"username": "system:serviceaccount:noderestrict:noderestrict-new-ca"}
COLLECTOR: Object = {"username": "system:serviceaccount:kube-system:generic-garbage-collector"}
_GROUPS = {"clusterroles": "rbac.authorization.k8s.io", "roles": "rbac.authorization.k8s.io",
           "namespaces": ""}  # fmt: skip


def is_refused(
    operation: str = "UPDATE",
    resource: str = "validatingwebhookconfigurations",
    *,
    user: Object,
    new: Object | None = REGISTRATION,
    old: Object | None = REGISTRATION,
    namespace: str | None = None,
    name: str | None = None,
) -> bool:
    group = _GROUPS.get(resource, "admissionregistration.k8s.io")
    request: Object = {
        "uid": "1",
        "kind": {"group": group, "version": "v1", "kind": "Kind"},
        "resource": {"group": group, "version": "v1", "resource": resource},
        "operation": operation,
        "userInfo": user,
        "object": None if operation == "DELETE" else new,
        "oldObject": None if operation == "CREATE" else old,
    }
    if namespace:
        request["namespace"] = namespace
    if name:
        request["name"] = name
    judgement = POLICIES.judge(request)
    assert not any(one.is_error for one in judgement.objections), judgement.objections
    assert judgement.allowed is not None
    return not judgement.allowed


@pytest.mark.parametrize(
    "user",
    [
        {"username": "any", "groups": ["a", "system:masters"]},
        {"username": "any", "groups": ["kubeadm:cluster-admins"]},
        {"username": "chief"},
        {"username": ODD},
        {"username": "system:serviceaccount:ops:deployer", "groups": ["system:serviceaccounts"]},
    ],
)
def test_administrators_and_deployers_do_everything(user: Object) -> None:
    for operation in ("CREATE", "UPDATE", "DELETE"):
        assert not is_refused(operation, user=user)
    changed = {**REGISTRATION, "webhooks": []}
    assert not is_refused(user=user, new=changed)


@pytest.mark.parametrize(
    "user",
    [
        THIEF,
        {},
        {"groups": ["masters", "system:nodes"]},
        {"username": "system:masters"},
        {"username": "kubeadm:cluster-admins", "groups": []},
        {"username": "chief2"},
        {"username": "ops:deployer"},
        {"username": "o"},
    ],
)
def test_everybody_else_does_nothing(user: Object) -> None:
    for operation in ("CREATE", "UPDATE", "DELETE"):
        assert is_refused(operation, user=user)


@pytest.mark.parametrize(
    ("resource", "name", "namespace", "ours"),
    [
        ("validatingwebhookconfigurations", "noderestrict", None, True),
        ("validatingwebhookconfigurations", "noderestrict-probe", None, True),
        ("validatingadmissionpolicies", "noderestrict-nodes", None, True),
        ("validatingadmissionpolicybindings", "noderestrict-nodes-warn", None, True),
        ("clusterroles", "noderestrict", None, True),
        ("roles", "any", "noderestrict", True),
        ("roles", "noderestrict-node-leases", "kube-node-lease", True),
        ("validatingwebhookconfigurations", "noderestricted", None, False),
        ("validatingwebhookconfigurations", "my-noderestrict", None, False),
        ("clusterroles", "admin", None, False),
        ("roles", "any", "noderestrict-tests", False),
        ("mutatingwebhookconfigurations", "noderestrict", None, False),
    ],
)
def test_what_is_ours_is_known_by_its_name_and_namespace(
    resource: str, name: str, namespace: str | None, ours: bool
) -> None:
    value = {"metadata": {"name": name}}
    for operation in ("CREATE", "UPDATE", "DELETE"):
        assert (
            is_refused(operation, resource, user=THIEF, new=value, old=value, namespace=namespace)
            is ours
        )


def test_only_the_deletion_of_our_namespace_is_refused() -> None:
    for name, refused in (("noderestrict", True), ("noderestrict-tests", False)):
        value = {"metadata": {"name": name}}
        given: Object = {"user": THIEF, "old": value, "namespace": name, "name": name}
        assert is_refused("DELETE", "namespaces", **given) is refused
        assert not is_refused("UPDATE", "namespaces", new=value, **given)
        assert not is_refused("CREATE", "namespaces", new=value, **given)


def changed(field: str, value: object, start: Object = REGISTRATION) -> Object:
    new = copy.deepcopy(start)
    new["webhooks"][0]["clientConfig"]["caBundle"] = "bmV3"
    at: Any = new
    *steps, last = field.split(".")
    for step in steps:
        at = at[int(step)] if isinstance(at, list) else at.setdefault(step, {})
    at[last] = value
    return new


def test_the_ca_may_be_added_changed_and_removed_by_its_writer() -> None:
    new = changed("webhooks.1.clientConfig.caBundle", "YQ==")
    assert not is_refused(user=WRITER, new=new)
    assert not is_refused(user=WRITER, new=REGISTRATION, old=new)
    grown = {**new, "metadata": {**new["metadata"], "resourceVersion": "2", "generation": 3,
                                 "managedFields": [{"manager": "m"}]}}  # fmt: skip
    assert not is_refused(user=WRITER, new=grown)
    assert is_refused("CREATE", user=WRITER, new=new)
    assert is_refused("DELETE", user=WRITER)
    for one in (COLLECTOR, THIEF):
        assert is_refused(user=one, new=new)
    role = {"metadata": {"name": "noderestrict"}}
    assert is_refused("UPDATE", "clusterroles", user=WRITER, new=role, old=role)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("metadata.labels", {"a": "b"}),
        ("metadata.annotations", {"a": "b"}),
        ("metadata.finalizers", ["a/b"]),
        ("metadata.ownerReferences", [{"uid": "a"}]),
        ("metadata.deletionTimestamp", "2026-01-01T00:00:00Z"),
        ("webhooks.0.clientConfig.url", "https://thief"),
        ("webhooks.0.clientConfig.service", {"name": "thief"}),
        ("webhooks.0.clientConfig.later", "unknown here"),
        ("webhooks.0.failurePolicy", "Ignore"),
        ("webhooks.0.matchConditions", []),
        ("webhooks.0.later", "unknown here"),
        ("webhooks.0.name", "other"),
        ("webhooks", []),
        ("webhooks", REGISTRATION["webhooks"][1:]),
        ("webhooks", [*REGISTRATION["webhooks"][1:], {**REGISTRATION["webhooks"][0], "name": "x"}]),
        ("later", "unknown here"),
    ],
)
def test_nothing_else_changes_with_the_ca(field: str, value: object) -> None:
    new = changed(field, value)
    assert is_refused(user=WRITER, new=new)
    assert is_refused(user=WRITER, new=REGISTRATION, old=new)


def test_a_registration_without_webhooks_has_no_ca_to_write() -> None:
    bare = {"metadata": {"name": "noderestrict"}}
    assert is_refused(user=WRITER, new=bare, old=bare)


def test_the_collector_takes_owners_and_finalizers_and_deletes() -> None:
    owned = copy.deepcopy(REGISTRATION)
    owned["metadata"] |= {"ownerReferences": [{"uid": "a"}], "finalizers": ["orphan"]}
    assert not is_refused(user=COLLECTOR, old=owned)
    assert not is_refused("DELETE", user=COLLECTOR)
    labelled = {**owned, "metadata": {**owned["metadata"], "labels": {"a": "b"}}}
    for new in (labelled, {**owned, "webhooks": []}, {**owned, "later": 1}):
        assert is_refused(user=COLLECTOR, new=new)
        assert is_refused(user=COLLECTOR, old=new)
    space = {"username": "system:serviceaccount:kube-system:namespace-controller"}
    assert not is_refused("DELETE", user=space)
    assert is_refused(user=space, old=owned)
    migrator = {"username": "system:serviceaccount:kube-system:storage-version-migrator-controller"}
    assert not is_refused(user=migrator)
    assert is_refused("DELETE", user=migrator)


def test_the_name_of_a_static_policy_is_not_that_of_one_in_the_api() -> None:
    assert {one["metadata"]["name"] for one in as_static(protection(Accounts()))} == {
        f"noderestrict-protection{SUFFIX}"
    }
