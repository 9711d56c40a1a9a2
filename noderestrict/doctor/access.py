"""What a user may do, as the cluster's authorizers say."""

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from noderestrict.cluster.connection import Connection

_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


@dataclass(frozen=True, slots=True)
class Right:
    """What somebody may do.

    Attributes:
        verb: of a request.
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
        """Return it as kubectl names it."""
        group = f".{self.group}" if self.group else ""
        return f"{self.verb} {self.resource}{group}{f'/{self.name}' if self.name else ''}"


async def may(connection: Connection, user: str, right: Right) -> bool:
    """Return whether a user may do something.

    Args:
        connection: with the right to create SubjectAccessReviews.
        user: a name; a service account gets its groups.
        right: what is asked.

    Raises:
        ClusterError: the cluster could not be asked.
    """
    groups = ["system:authenticated"]
    if user.startswith("system:serviceaccount:"):
        groups += ["system:serviceaccounts", f"system:serviceaccounts:{user.split(':')[2]}"]
    attributes = {
        "verb": right.verb,
        "group": right.group,
        "resource": right.resource,
        "name": right.name,
        "namespace": right.namespace,
    }
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "groups": groups, "resourceAttributes": attributes},
    }
    answer = msgspec.json.decode(await connection.post(_REVIEWS, body))
    return bool(answer["status"].get("allowed"))


async def those_that(connection: Connection, user: str, rights: Iterable[Right]) -> list[Right]:
    """Return which of some rights a user has.

    Raises:
        ClusterError: the cluster could not be asked.
    """
    return [right for right in rights if await may(connection, user, right)]


def shown(rights: Iterable[Right]) -> str:
    """Return rights as a message lists them."""
    return ", ".join(map(str, rights))
