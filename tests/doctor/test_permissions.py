"""What to type to take permissions away."""

from typing import Any

import pytest

from noderestrict.cluster.connection import ClusterError
from noderestrict.doctor.permissions import Permission, revoking

SERVER = "system:serviceaccount:noderestrict:noderestrict"
SECRETS = Permission("get", "", "secrets")


def role(name: str, resource: str, namespace: str = "", **more: Any) -> dict[str, Any]:
    rule = {"verbs": ["get"], "apiGroups": [""], "resources": [resource], **more}
    return {"metadata": {"name": name, "namespace": namespace}, "rules": [rule]}


def binding(name: str, to: str, subject: dict[str, str], namespace: str = "") -> dict[str, Any]:
    kind, _, role_name = to.partition("/")
    return {
        "metadata": {"name": name, "namespace": namespace},
        "roleRef": {"kind": kind, "name": role_name},
        "subjects": [subject],
    }


US = {"kind": "ServiceAccount", "namespace": "noderestrict", "name": "noderestrict"}
ALL = {"kind": "Group", "name": "system:serviceaccounts"}
ROLES = [
    role("secrets", "secrets"),
    role("pods", "pods"),
    role("named", "secrets", resourceNames=["a"]),
]


class Objects:
    """A cluster's roles and bindings."""

    def __init__(self, bindings: list[dict[str, Any]], roles: list[Any] = ROLES) -> None:
        self._bindings, self._roles = bindings, roles

    async def items(self, path: str) -> list[Any]:
        kind = path.rpartition("/")[2]
        found = self._roles if kind.endswith("roles") else self._bindings
        namespaced = not kind.startswith("cluster")
        return [one for one in found if bool(one["metadata"].get("namespace")) == namespaced]


@pytest.mark.parametrize(
    ("bindings", "commands"),
    [
        ([binding("b", "ClusterRole/secrets", US)], ["kubectl delete clusterrolebinding b"]),
        ([binding("b", "ClusterRole/secrets", ALL)], ["kubectl delete clusterrolebinding b"]),
        (
            [binding("b", "ClusterRole/secrets", {"kind": "User", "name": SERVER})],
            ["kubectl delete clusterrolebinding b"],
        ),
        (
            [binding("b", "ClusterRole/secrets", US), binding("c", "ClusterRole/pods", US)],
            ["kubectl delete clusterrolebinding b"],
        ),
        ([binding("b", "ClusterRole/named", US)], []),
        ([binding("b", "ClusterRole/gone", US)], []),
        ([binding("b", "ClusterRole/secrets", US, namespace="a")], []),
        ([], []),
    ],
)
async def test_the_bindings_that_grant_a_permission_are_deleted(
    bindings: list[dict[str, Any]], commands: list[str]
) -> None:
    found = await revoking(Objects(bindings), SERVER, [SECRETS])  # type: ignore[arg-type]
    assert found.splitlines() == (commands or [f"kubectl auth can-i --list --as={SERVER}"])


async def test_a_binding_in_the_namespace_of_the_permission_is_deleted_there() -> None:
    roles = [role("secrets", "secrets", "a")]
    cluster = Objects([binding("b", "Role/secrets", US, namespace="a")], roles)
    wanted = [Permission("get", "", "secrets", "", "a")]
    found = await revoking(cluster, SERVER, wanted)  # type: ignore[arg-type]
    assert found == "kubectl -n a delete rolebinding b"


async def test_roles_that_are_none_are_an_error_on_one_line() -> None:
    with pytest.raises(ClusterError, match="rbac"):
        await revoking(Objects([], [{"metadata": {"name": "r"}, "rules": 7}]), SERVER, [SECRETS])  # type: ignore[arg-type]
