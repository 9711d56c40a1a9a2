"""RBAC is read as a real API server's authorizer reads it."""

import random
import time
from typing import Any

import msgspec
import pytest

from noderestrict.api import rbacv1
from noderestrict.rbac.grants import RBAC
from noderestrict.rbac.rules import Request
from noderestrict.rbac.subjects import User
from tests.e2e.conftest import namespace_ready
from tests.e2e.control_plane import APIError, Client, ControlPlane
from tests.rbac.worlds import GROUP, NAMESPACES, USERS, Object, requests, world

ROOT = f"/apis/{GROUP}/v1"
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
#: Of each user in each cluster.
ASKED = 150
#: The Node authorizer has a say in what nodes may do.
ASKING = [user for user in USERS if not user.name.startswith("system:node:")]


def path_of(value: Object) -> str:
    namespace = value["metadata"].get("namespace", "")
    within = f"/namespaces/{namespace}" if namespace else ""
    return f"{ROOT}{within}/{value['kind'].lower()}s"


def read(admin: Client) -> RBAC:
    """Return what the API server has, its own roles with it."""
    lists = {
        kind: admin.get(f"{ROOT}/{kind}")["items"]
        for kind in ("clusterroles", "roles", "clusterrolebindings", "rolebindings")
    }
    return RBAC.of(
        msgspec.convert(lists["clusterroles"] + lists["roles"], list[rbacv1.Role]),
        msgspec.convert(
            lists["clusterrolebindings"] + lists["rolebindings"], list[rbacv1.RoleBinding]
        ),
    )


def allowed(admin: Client, user: User, request: Request) -> bool:
    spec: dict[str, Any] = {"user": user.name, "groups": sorted(user.groups)}
    if request.path:
        spec["nonResourceAttributes"] = {"verb": request.verb, "path": request.path}
    else:
        spec["resourceAttributes"] = {
            "verb": request.verb,
            "group": request.group,
            "resource": request.resource,
            "subresource": request.sub_resource,
            "namespace": request.namespace,
            "name": request.name,
        }
    answer = admin.create(
        REVIEWS,
        {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec},
    )
    return bool(answer["status"]["allowed"])


def in_effect(admin: Client, sentinel: str, *, wanted: bool) -> None:
    """Wait until the API server's authorizer has seen the last binding, or its removal."""
    end = time.monotonic() + 30
    question = Request("get", path=f"/{sentinel}")
    while allowed(admin, User(sentinel), question) is not wanted:
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_an_api_server_allows_exactly_what_its_roles_and_bindings_are_read_to_grant(
    control_plane: ControlPlane, seed: int
) -> None:
    admin = control_plane.admin
    namespace_ready(admin)
    for namespace in NAMESPACES:
        try:
            admin.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
        except APIError as error:
            if error.code != 409:
                raise
    chance = random.Random(seed)
    roles, bindings = world(chance)
    sentinel = f"sentinel-{seed}"
    roles.append(
        {
            "kind": "ClusterRole",
            "metadata": {"name": sentinel},
            "rules": [{"verbs": ["get"], "nonResourceURLs": [f"/{sentinel}"]}],
        }
    )
    bindings.append(
        {
            "kind": "ClusterRoleBinding",
            "metadata": {"name": sentinel},
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": sentinel},
            "subjects": [{"kind": "User", "name": sentinel, "apiGroup": GROUP}],
        }
    )
    made = [*roles, *bindings]
    try:
        for value in made:
            admin.create(path_of(value), value)
        in_effect(admin, sentinel, wanted=True)
        rbac = read(admin)
        everything = list(requests())
        found = set()
        for user in ASKING:
            granted = [one for one in everything if rbac.allows(user, one)]
            some = chance.sample(granted, min(ASKED // 2, len(granted)))
            for request in some + chance.sample(everything, ASKED - len(some)):
                answer = allowed(admin, user, request)
                assert (rbac.allows(user, request) is not None) == answer, (user, request)
                found.add(answer)
        assert found == {True, False}
    finally:
        for value in reversed(made):
            admin.delete(f"{path_of(value)}/{value['metadata']['name']}")
        in_effect(admin, sentinel, wanted=False)
