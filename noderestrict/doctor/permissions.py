"""What a user is allowed to do, according to the cluster's authorizers."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from noderestrict.api import rbacv1
from noderestrict.cluster.connection import ClusterError
from noderestrict.doctor.cluster import Cluster
from noderestrict.rbac.grants import RBAC, Reference
from noderestrict.rbac.rules import Request
from noderestrict.rbac.subjects import AUTHENTICATED, User, account_of, service_account

_ROLES = ("clusterroles", "roles")
_BINDINGS = ("clusterrolebindings", "rolebindings")
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


@dataclass(frozen=True, slots=True)
class Permission:
    """Something that a user may be allowed to do.

    Attributes:
        verb: of the request.
        group: API group, "" for the core group.
        resource: plural.
        name: of the object, "" for any.
        namespace: of the object, "" for any.
    """

    verb: str
    group: str
    resource: str
    name: str = ""
    namespace: str = ""

    def __str__(self) -> str:
        """Return it in kubectl's notation."""
        group = f".{self.group}" if self.group else ""
        return f"{self.verb} {self.resource}{group}{f'/{self.name}' if self.name else ''}"


def changes_of_registration(configuration: str) -> tuple[Permission, ...]:
    """Return the permissions to change a ValidatingWebhookConfiguration."""
    group, resource = "admissionregistration.k8s.io", "validatingwebhookconfigurations"
    return tuple(
        Permission(verb, group, resource, configuration) for verb in ("update", "patch", "delete")
    )


async def granted(
    cluster: Cluster, user: str, permissions: Iterable[Permission], groups: Iterable[str] = ()
) -> list[Permission]:
    """Return which of some permissions a user has.

    Args:
        cluster: where the connection may create SubjectAccessReviews.
        user: a name; service accounts get their groups.
        permissions: which to ask about.
        groups: of the user, besides those.

    Raises:
        ClusterError: the API server could not be asked.
    """
    groups = [*_groups(user), *groups]
    return [one for one in permissions if (await review(cluster, user, one, groups)).get("allowed")]


def _groups(user: str) -> list[str]:
    account = account_of(user)
    return sorted(service_account(*account).groups) if account else [AUTHENTICATED]


async def review(
    cluster: Cluster, user: str, permission: Permission, groups: Sequence[str]
) -> Mapping[str, Any]:
    """Return the status of a SubjectAccessReview.

    Args:
        cluster: where the connection may create SubjectAccessReviews.
        user: a name.
        permission: to ask about.
        groups: of the user.

    Raises:
        ClusterError: the API server could not be asked.
    """
    attributes = {
        "verb": permission.verb,
        "group": permission.group,
        "resource": permission.resource,
        "name": permission.name,
        "namespace": permission.namespace,
    }
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "groups": [*groups], "resourceAttributes": attributes},
    }
    answer = msgspec.json.decode(await cluster.connection.post(_REVIEWS, body))
    status: Mapping[str, Any] = answer["status"]
    return status


async def revoking(cluster: Cluster, user: str, permissions: Iterable[Permission]) -> str:
    """Return the commands that delete what grants permissions, as far as RBAC grants them.

    Args:
        cluster: where the connection may read roles and their bindings.
        user: who has the permissions.
        permissions: that nobody needs.

    Raises:
        ClusterError: roles or bindings could not be read.
    """
    unwanted = [
        Request(one.verb, one.group, one.resource, namespace=one.namespace, name=one.name)
        for one in permissions
    ]
    rbac = await read_rbac(cluster)
    grants = rbac.grants(User(user, frozenset(_groups(user))))
    unwanted_bindings = dict.fromkeys(
        grant.binding
        for grant in grants
        if any(
            grant.namespace in ("", one.namespace) and grant.rule.allows(one) for one in unwanted
        )
    )
    commands = [
        f"kubectl {f'-n {one.namespace} ' if one.namespace else ''}"
        f"delete {one.kind.lower()} {one.name}"
        for one in unwanted_bindings
    ]
    # Another authorizer than RBAC may grant it.
    return "\n".join(commands) or f"kubectl auth can-i --list --as={user}"


async def read_rbac(cluster: Cluster) -> RBAC:
    """Return what RBAC grants.

    Raises:
        ClusterError: roles or bindings could not be read.
    """
    found = [await cluster.items(f"{_RBAC}/{kind}") for kind in (*_ROLES, *_BINDINGS)]
    try:
        roles = msgspec.convert([*found[0], *found[1]], list[rbacv1.Role])
        bindings = msgspec.convert([*found[2], *found[3]], list[rbacv1.RoleBinding])
    except msgspec.ValidationError as error:
        raise ClusterError(f"{_RBAC}: {error}") from None
    return RBAC.of(roles, bindings)


def describing(bindings: Iterable[Reference]) -> str:
    """Return the commands that show bindings with their subjects."""
    return "\n".join(
        shlex.join(
            ["kubectl", *(["-n", one.namespace] if one.namespace else []), "describe",
             one.kind.lower(), one.name]
        )
        for one in dict.fromkeys(bindings)
    )  # fmt: skip


def listed(permissions: Iterable[Permission]) -> str:
    """Return permissions separated by commas."""
    return ", ".join(map(str, permissions))
