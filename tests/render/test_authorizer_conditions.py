"""Which webhook an API server asks about a request, and for how long it keeps the answer."""

from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any

import pytest

from noderestrict.graph.edges import Vertex
from noderestrict.graph.rules import BY_REQUEST, Access, authorize
from noderestrict.policy.features import defaults
from noderestrict.policy.releases import Release
from noderestrict.render.authorizer import authorization_configuration

cel = pytest.importorskip("cel_expr_python.cel", reason="no CEL runtime for this platform")

RESOURCES = [
    ("", "secrets"), ("", "configmaps"), ("", "serviceaccounts"), ("", "persistentvolumes"),
    ("", "persistentvolumeclaims"), ("storage.k8s.io", "volumeattachments"),
    ("resource.k8s.io", "resourceclaims"), ("resource.k8s.io", "resourceslices"),
    ("certificates.k8s.io", "podcertificaterequests"), ("apps", "deployments"),
    *((group, resource) for group in ("", "coordination.k8s.io", "x") for resource in BY_REQUEST),
]  # fmt: skip
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "x")
NODE, NODES = "system:node:n1", ["system:nodes"]
WEBHOOKS = {
    one["name"]: one["webhook"]
    for one in authorization_configuration("/webhook.yaml")["authorizers"]
    if one["type"] == "Webhook"
}


@cache
def compiled(expression: str) -> Any:
    return cel.NewEnv(variables={"request": cel.Type.DYN}).compile(expression)


def asked(user: str, groups: list[str], resource: dict[str, str] | None) -> list[str]:
    """Return the names of the webhooks that an API server asks."""
    request: dict[str, Any] = {"user": user, "groups": groups}
    if resource is not None:
        request["resourceAttributes"] = resource
    found = []
    for name, webhook in WEBHOOKS.items():
        (condition,) = webhook["matchConditions"]
        value = compiled(condition["expression"]).eval(data={"request": request})
        assert value.type() == cel.Type.BOOL, (condition, request)
        found += [name] if value.value() else []
    return found


def requests() -> Iterator[dict[str, str]]:
    """Yield the attributes of requests as an API server gives them to a condition."""
    for (group, resource), verb, sub, name in product(
        RESOURCES, VERBS, ("", "status", "token", "eviction"), ("", "n1", "n2")
    ):
        yield {
            "group": group, "version": "v1", "resource": resource, "subresource": sub,
            "verb": verb, "namespace": "kube-node-lease", "name": name,
        }  # fmt: skip


class NoGraph:
    """Must not be asked."""

    def reaches(self, node: str, vertex: Vertex) -> bool:
        raise AssertionError(f"node {node}: {vertex}")


@pytest.mark.parametrize(
    ("user", "groups", "resource"),
    [
        ("alice", NODES, {"group": "", "resource": "nodes", "verb": "get"}),
        (NODE, ["system:masters"], {"group": "", "resource": "secrets", "verb": "get"}),
        (NODE, NODES, None),
    ],
)
def test_only_resource_requests_of_nodes_are_asked_about(
    user: str, groups: list[str], resource: dict[str, str] | None
) -> None:
    assert asked(user, groups, resource) == []


def test_each_request_of_a_node_is_asked_about_once() -> None:
    for resource in requests():
        assert len(asked(NODE, NODES, resource)) == 1, resource


def test_what_is_cached_for_minutes_never_depends_on_the_graph() -> None:
    kept = set()
    for resource in requests():
        (webhook,) = asked(NODE, NODES, resource)
        if WEBHOOKS[webhook]["authorizedTTL"] == "1s":
            continue
        group, plural = resource["group"], resource["resource"]
        kept.add(plural)
        access = Access(
            "n1", resource["verb"], group, plural, resource["subresource"],
            resource["namespace"], resource["name"], frozenset({"n1"}),
        )  # fmt: skip
        for minor, on in product((28, 37), (True, False)):
            authorize(access, NoGraph(), dict.fromkeys(defaults(minor), on), Release(minor))
    assert kept == BY_REQUEST.keys()
