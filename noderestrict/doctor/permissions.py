"""What a user is allowed to do, according to the cluster's authorizers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from noderestrict.doctor.cluster import Cluster

_ROLES = ("clusterroles", "roles")
SERVICE_ACCOUNT = "system:serviceaccount:"
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
    groups = ["system:authenticated"]
    if user.startswith(SERVICE_ACCOUNT):
        groups += ["system:serviceaccounts", f"system:serviceaccounts:{user.split(':')[2]}"]
    return groups


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
    unwanted = list(permissions)
    roles = {_name(one): one for kind in _ROLES for one in await cluster.items(f"{_RBAC}/{kind}")}
    commands = []
    for kind in ("clusterrolebindings", "rolebindings"):
        for binding in await cluster.items(f"{_RBAC}/{kind}"):
            space, name = _name(binding)
            reference = binding.get("roleRef") or {}
            of_role = "" if reference.get("kind") == "ClusterRole" else space
            role = roles.get((of_role, str(reference.get("name")))) or {}
            if _is_bound(binding, user) and any(_grants(role, one, space) for one in unwanted):
                where = f"-n {space} " if space else ""
                commands.append(f"kubectl {where}delete {kind[:-1]} {name}")
    # Another authorizer than RBAC may grant it.
    return "\n".join(commands) or f"kubectl auth can-i --list --as={user}"


def _name(value: Any) -> tuple[str, str]:
    """Return namespace and name of an object."""
    return value["metadata"].get("namespace") or "", value["metadata"]["name"]


def _is_bound(binding: Any, user: str) -> bool:
    for subject in binding.get("subjects") or ():
        name = subject.get("name")
        if subject.get("kind") == "ServiceAccount":
            space = subject.get("namespace") or _name(binding)[0]
            name = f"{SERVICE_ACCOUNT}{space}:{name}"
        if name == user or (subject.get("kind") == "Group" and name in _groups(user)):
            return True
    return False


def _grants(role: Any, permission: Permission, namespace: str) -> bool:
    """Tell whether a role, bound in a namespace ("" for all), grants a permission."""
    return namespace in ("", permission.namespace) and any(
        _has_any(rule.get("verbs"), permission.verb)
        and _has_any(rule.get("apiGroups"), permission.group)
        and _has_any(rule.get("resources"), permission.resource)
        and (not rule.get("resourceNames") or permission.name in rule["resourceNames"])
        for rule in role.get("rules") or ()
    )


def _has_any(given: Any, wanted: str) -> bool:
    return not {"*", wanted}.isdisjoint(given or ())


def listed(permissions: Iterable[Permission]) -> str:
    """Return permissions separated by commas."""
    return ", ".join(map(str, permissions))
