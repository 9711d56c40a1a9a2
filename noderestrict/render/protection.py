"""The policy that keeps our registration, policies and rights from being changed in the API.

It works as a static policy only, which the API server loads from a file: neither webhooks nor
policies in the API are asked about webhook configurations and policies.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from noderestrict.render.load import Object
from noderestrict.render.registration import NAME
from noderestrict.render.workload import NAMESPACE, NEW_CA

POLICY = f"{NAME}-protection"
#: Groups of kubeadm's super-admin.conf and admin.conf.
ADMINISTRATORS = ("system:masters", "kubeadm:cluster-admins")
CA_WRITERS = (f"{NAMESPACE}/{NEW_CA}",)
#: Controllers of kube-controller-manager, under its own user if they have no credentials of theirs.
_MANAGER = "system:kube-controller-manager"
_COLLECTOR = "system:serviceaccount:kube-system:generic-garbage-collector"
_DELETE = ("system:serviceaccount:kube-system:namespace-controller", _COLLECTOR, _MANAGER)
_TIDY = (
    "system:serviceaccount:kube-system:storage-version-migrator-controller",
    _COLLECTOR,
    _MANAGER,
)
_RULES = {
    "admissionregistration.k8s.io": (
        "validatingwebhookconfigurations",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
    ),
    "rbac.authorization.k8s.io": ("clusterroles", "clusterrolebindings", "roles", "rolebindings"),
}
_OPERATIONS = ("CREATE", "UPDATE", "DELETE")
#: What an API server changes in every object that is written.
_KEPT_BY_SERVER = ("generation", "managedFields", "resourceVersion")
_MESSAGE = (
    "only the administrators and deployers that the API server's files name can change the "
    "registration, policies and rights of noderestrict"
)


@dataclass(frozen=True, slots=True)
class Accounts:
    """Who may change what is protected.

    Attributes:
        groups: administrators.
        users: administrators.
        deployers: service accounts, namespace/name, that install, upgrade and uninstall.
        ca_writers: service accounts, namespace/name, that may write ``caBundle`` and nothing else.
    """

    groups: tuple[str, ...] = ADMINISTRATORS
    users: tuple[str, ...] = ()
    deployers: tuple[str, ...] = ()
    ca_writers: tuple[str, ...] = CA_WRITERS

    def __post_init__(self) -> None:
        """Check that somebody is left who can undo it, and that CEL can hold the administrators.

        Raises:
            ValueError: a name is unusable; the message says which.
        """
        for name in (*self.groups, *self.users):
            if not name or not name.isprintable():
                raise ValueError(f"{name!r} is no name of a user or group")
        if not (self.groups or self.users):
            raise ValueError("without an administrator nobody could change anything in the API")


def protection(accounts: Accounts) -> list[Object]:
    """Return the policy and its binding.

    Every object of our namespace that gives rights is protected, and every object elsewhere whose
    name is ours; so is the namespace, because its deletion deletes what is in it.

    Args:
        accounts: who may change what is protected.
    """
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": POLICY},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": [
                    *(_rule(group, resources, _OPERATIONS) for group, resources in _RULES.items()),
                    _rule("", ("namespaces",), ("DELETE",)),
                ]
            },
            "matchConditions": [
                {"name": "ours", "expression": _OURS},
                {"name": "not-administrators", "expression": _not_administrators(accounts)},
            ],
            "validations": [
                {
                    "expression": _any(_deleted(), _tidied(), _new_ca(accounts.ca_writers)),
                    "message": _MESSAGE,
                    "reason": "Forbidden",
                }
            ],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": POLICY},
        "spec": {"policyName": POLICY, "validationActions": ["Deny"]},
    }
    return [policy, binding]


def _rule(group: str, resources: Sequence[str], operations: Sequence[str]) -> Object:
    return {
        "apiGroups": [group],
        "apiVersions": ["*"],
        "operations": list(operations),
        "resources": list(resources),
    }


#: A collection that is deleted has no name in its requests, only in the old objects. The namespace
#: of a request for a namespace is its name.
_OURS = (
    f"(has(request.namespace) && request.namespace == '{NAMESPACE}') || "
    "(request.resource.resource != 'namespaces' && "
    f"(object != null ? object : oldObject).metadata.name.matches('^{NAME}(-|$)'))"
)


def _texts(texts: Iterable[str]) -> str:
    return f"[{', '.join(json.dumps(text, ensure_ascii=False) for text in texts)}]"


def _all(*tests: str) -> str:
    return "\n&& ".join(tests)


def _any(*tests: str) -> str:
    return "\n|| ".join(f"({test})" for test in tests)


def _by(users: Iterable[str]) -> str:
    return f"has(request.userInfo.username) && request.userInfo.username in {_texts(users)}"


def _users(accounts: Iterable[str]) -> list[str]:
    return [f"system:serviceaccount:{account.replace('/', ':')}" for account in accounts]


def _not_administrators(accounts: Accounts) -> str:
    group = (
        "has(request.userInfo.groups) && "
        f"request.userInfo.groups.exists(group, group in {_texts(accounts.groups)})"
    )
    return f"!({_any(group, _by([*accounts.users, *_users(accounts.deployers)]))})"


def _deleted() -> str:
    """Return a test for what is deleted with its namespace or its owner."""
    return _all("request.operation == 'DELETE'", _by(_DELETE))


def _tidied() -> str:
    """Return a test for updates by controllers that leave all alone but who owns the object."""
    return _all(
        "request.operation == 'UPDATE'",
        _by(_TIDY),
        _same("", "metadata"),
        _same(".metadata", *_KEPT_BY_SERVER, "finalizers", "ownerReferences"),
    )


def _new_ca(writers: Iterable[str]) -> str:
    """Return a test for updates of a registration that change nothing but CA bundles.

    Nothing else has webhooks, and their names are unique.
    """
    same = _all(
        _equal("new", "old", "clientConfig"),
        _equal("new.clientConfig", "old.clientConfig", "caBundle"),
    )
    return _all(
        "request.operation == 'UPDATE'",
        _by(_users(writers)),
        _same("", "metadata", "webhooks"),
        _same(".metadata", *_KEPT_BY_SERVER),
        "has(object.webhooks) && has(oldObject.webhooks)",
        "size(object.webhooks) == size(oldObject.webhooks)",
        f"object.webhooks.all(new, oldObject.webhooks.exists(old, {same}))",
    )


def _same(path: str, *but: str) -> str:
    return _equal(f"object{path}", f"oldObject{path}", *but)


def _equal(new: str, old: str, *but: str) -> str:
    """Return a test that two objects have the same fields, known here or not, except some."""
    fields = _texts(but)
    as_before = f"field in dyn({old}) && dyn({new})[field] == dyn({old})[field]"
    return _all(
        f"dyn({new}).all(field, field in {fields} || ({as_before}))",
        f"dyn({old}).all(field, field in {fields} || field in dyn({new}))",
    )
