"""As whom we are connected, and whether that user may impersonate a node."""

from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec

from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.objects import DECODE_ERRORS
from noderestrict.policy.identity import NODE_USER_PREFIX, NODES_GROUP, node_name

_REVIEWS = "/apis/authorization.k8s.io/v1"
#: Newest first; the review exists since Kubernetes 1.26.
_WHO_VERSIONS = ("v1", "v1beta1", "v1alpha1")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are.

    Attributes:
        user: name, "" if unknown.
        node: whose credential we have, None for any other user.
    """

    user: str
    node: str | None


async def own_identity(connection: Connection) -> Identity:
    """Return as whom we are connected; unknown to API servers older than Kubernetes 1.26.

    Raises:
        ClusterError: the API server could not be asked.
    """
    for version in _WHO_VERSIONS:
        group = f"authentication.k8s.io/{version}"
        body = {"apiVersion": group, "kind": "SelfSubjectReview"}
        try:
            answer = await connection.post(f"/apis/{group}/selfsubjectreviews", body)
        except ClusterError as error:
            if error.code == HTTPStatus.NOT_FOUND:
                continue
            raise
        info = status_of(answer).get("userInfo") or {}
        user = str(info.get("username") or "")
        return Identity(user, node_name(user, info.get("groups") or ()))
    return Identity("", None)


def unsendable(connection: Connection) -> str:
    """Return why nobody can send a node's requests over a connection of no node, "" if one can."""
    if not connection.impersonated:
        return ""
    return (
        f"--as {connection.impersonated}, or the kubeconfig, impersonates no node, and an API "
        "server lets nobody impersonate a node besides; leave it out, or impersonate a node: "
        f"--as {NODE_USER_PREFIX}NAME --as-group {NODES_GROUP}"
    )


async def missing_rights(connection: Connection, node: str) -> list[str]:
    """Return which rights to impersonate a node we lack, as kubectl writes them.

    Raises:
        ClusterError: the API server could not be asked.
    """
    missing = []
    for resource, name in impersonated(node):
        attributes = {"verb": "impersonate", "resource": resource, "name": name}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = await connection.post(f"{_REVIEWS}/selfsubjectaccessreviews", body)
        if not status_of(answer).get("allowed"):
            missing.append(f"impersonate {resource}/{name}")
    return missing


def impersonated(node: str) -> Iterator[tuple[str, str]]:
    """Yield resource and name of all that a node's requests impersonate."""
    yield "users", f"{NODE_USER_PREFIX}{node}"
    yield "groups", NODES_GROUP


def status_of(body: bytes) -> dict[str, Any]:
    """Return the status of a review that the API server answered.

    Raises:
        ClusterError: it is no such answer.
    """
    try:
        status: dict[str, Any] = msgspec.json.decode(body, type=_Answer).status
    except DECODE_ERRORS as error:
        raise ClusterError(f"the answer to a review cannot be read: {error}") from None
    return status


class _Answer(msgspec.Struct):
    status: dict[str, Any]
