"""Take the names out of a report, to share it.

Names of Kubernetes itself stay; all others become a kind and a number, the same in all places.
"""

from collections import defaultdict
from typing import Any

import msgspec

from noderestrict.exposure.findings import Findings, Thing, UsedRequest
from noderestrict.policy.identity import NODE_USER_PREFIX
from noderestrict.rbac.subjects import SERVICE_ACCOUNTS, account_of, account_user

_WITHHELD = "withheld"
_KEPT = frozenset(
    ("admin", "cluster-admin", "default", "edit", "view", "noderestrict", "(assumed)", "Node",
     "kube-system", "kube-public", "kube-node-lease")
)  # fmt: skip
_BUILT_IN = ("system:", "kubernetes.io/")
#: Kinds whose objects have the same names.
_SAME = {
    "hosted": "nodes", "kubelets": "nodes", "containers": "pods", "images": "pods",
    "ClusterRole": "clusterroles", "Role": "roles", "ClusterRoleBinding": "clusterrolebindings",
    "RoleBinding": "rolebindings",
}  # fmt: skip


def redacted(findings: Findings) -> Findings:
    """Return a report without names of the cluster's own."""
    changed: Findings = _Redactor().of(findings)
    return changed


class _Redactor:
    def __init__(self) -> None:
        self._names: dict[str, dict[str, str]] = defaultdict(dict)

    def of(self, value: Any) -> Any:
        """Return a part of a report without names."""
        if isinstance(value, tuple):
            return tuple(map(self.of, value))
        if not isinstance(value, msgspec.Struct):
            return value
        if isinstance(value, Thing):
            return self._thing(value)
        if isinstance(value, UsedRequest):
            return self._request(value)
        changed = {key: self.of(getattr(value, key)) for key in value.__struct_fields__}
        match type(value).__name__:
            case "ExposedNode":
                changed["name"] = self._name("nodes", changed["name"])
            case "Change":
                changed["node"] = self._name("nodes", changed["node"])
            case "NotSeen":
                # It may quote the API server.
                changed["why"] = _WITHHELD
        return msgspec.structs.replace(value, **changed)

    def _thing(self, thing: Thing) -> Thing:
        return Thing(
            thing.kind,
            self._name("namespaces", thing.namespace),
            self._name(thing.kind, thing.name),
        )

    def _request(self, request: UsedRequest) -> UsedRequest:
        kind = request.resource.partition("/")[0]
        return msgspec.structs.replace(
            request,
            namespace=self._name("namespaces", request.namespace),
            name=self._name(kind, request.name),
            binding=self._thing(request.binding),
            role=self._thing(request.role),
        )

    def _name(self, kind: str, name: str) -> str:
        kind = _SAME.get(kind, kind)
        if not name or name in _KEPT:
            return name
        if kind in ("users", "groups"):
            return self._principal(kind, name)
        if kind not in ("nodes", "secrets", "pods") and name.startswith(_BUILT_IN):
            return name
        return self._numbered(kind, name)

    def _principal(self, kind: str, name: str) -> str:
        if account := account_of(name):
            namespace, one = account
            return account_user(
                self._name("namespaces", namespace), self._name("serviceaccounts", one)
            )
        if name.startswith(NODE_USER_PREFIX):
            node = self._name("nodes", name.removeprefix(NODE_USER_PREFIX))
            return f"{NODE_USER_PREFIX}{node}"
        if name.startswith(f"{SERVICE_ACCOUNTS}:"):
            namespace = self._name("namespaces", name.removeprefix(f"{SERVICE_ACCOUNTS}:"))
            return f"{SERVICE_ACCOUNTS}:{namespace}"
        return name if name.startswith("system:") else self._numbered(kind, name)

    def _numbered(self, kind: str, name: str) -> str:
        names = self._names[kind]
        if name not in names:
            names[name] = f"{kind.rstrip('s')}-{len(names) + 1}"
        return names[name]
