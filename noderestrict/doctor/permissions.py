"""What a user is allowed to do, according to the cluster's authorizers."""

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from noderestrict.doctor.cluster import Cluster

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
    cluster: Cluster, user: str, permissions: Iterable[Permission]
) -> list[Permission]:
    """Return which of some permissions a user has.

    Args:
        cluster: where the connection may create SubjectAccessReviews.
        user: a name; service accounts get their groups.
        permissions: which to ask about.

    Raises:
        ClusterError: the API server could not be asked.
    """
    return [one for one in permissions if await _has(cluster, user, one)]


async def _has(cluster: Cluster, user: str, permission: Permission) -> bool:
    groups = ["system:authenticated"]
    if user.startswith("system:serviceaccount:"):
        groups += ["system:serviceaccounts", f"system:serviceaccounts:{user.split(':')[2]}"]
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
        "spec": {"user": user, "groups": groups, "resourceAttributes": attributes},
    }
    answer = msgspec.json.decode(await cluster.connection.post(_REVIEWS, body))
    return bool(answer["status"].get("allowed"))


def listed(permissions: Iterable[Permission]) -> str:
    """Return permissions separated by commas."""
    return ", ".join(map(str, permissions))
