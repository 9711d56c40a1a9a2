"""Objects of small clusters, as kubectl writes them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Object = dict[str, Any]
RBAC = "rbac.authorization.k8s.io"
Rules = Iterable[tuple[list[str], list[str], list[str]]]


def daemon_set(name: str, account: str | None, namespace: str = "kube-system") -> Object:
    spec = {"containers": [{"name": "c"}], **({"serviceAccountName": account} if account else {})}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"template": {"spec": spec}},
        "status": {"desiredNumberScheduled": 7},
    }


def pod(name: str, node: str, account: str, owner: Object | None, **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "kube-system",
            "ownerReferences": [owner] if owner else [],
        },
        "spec": {"nodeName": node, "serviceAccountName": account, "containers": [], **spec},
    }


def owned_by(name: str, kind: str = "DaemonSet", *, controller: bool = True) -> Object:
    return {"kind": kind, "name": name, "uid": "u", "controller": controller}


def grants(
    account: str, rules: Rules, namespace: str = "", names: list[str] | None = None
) -> list[Object]:
    """Return a role and its binding to a service account, NAMESPACE/NAME."""
    space, _, name = account.partition("/")
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return [
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "Role" if namespace else "ClusterRole",
            "metadata": metadata,
            "rules": [
                {
                    "apiGroups": groups,
                    "resources": resources,
                    "verbs": verbs,
                    **({"resourceNames": names} if names else {}),
                }
                for groups, resources, verbs in rules
            ],
        },
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
            "metadata": metadata,
            "roleRef": {
                "apiGroup": RBAC,
                "kind": "Role" if namespace else "ClusterRole",
                "name": name,
            },
            "subjects": [{"kind": "ServiceAccount", "namespace": space, "name": name}],
        },
    ]


#: So that no kind is missing.
FILLING = [
    *grants("other/other", [([""], ["events"], ["create"])]),
    *grants("other/other", [([""], ["events"], ["create"])], namespace="other"),
    pod("other", "n1", "other", None),
]


def written(folder: Path, *objects: Object, name: str = "state.json") -> str:
    """Write objects to a file as a List, and return its path."""
    file = folder / name
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    return str(file)
