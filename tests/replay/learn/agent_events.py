"""Audit events of agents."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.replay.audit.logged import at, event

Object = dict[str, Any]
ACCOUNT = "system:serviceaccount:kube-system:cni"


def user(node: str | None = "n1", name: str = ACCOUNT, **more: list[str]) -> Object:
    """Return an agent's user, with the claims of a token that is bound to a pod."""
    extra = {
        "authentication.kubernetes.io/pod-name": [f"cni-{node}"],
        "authentication.kubernetes.io/pod-uid": [f"uid-{node}"],
        "authentication.kubernetes.io/credential-id": ["JTI=1"],
    }
    if node is None:
        extra = {}
    else:
        extra["authentication.kubernetes.io/node-name"] = [node]
    return {
        "username": name,
        "uid": "account",
        "groups": ["system:serviceaccounts", "system:authenticated"],
        "extra": {**extra, **more},
    }


class Log:
    """Events in order."""

    def __init__(self) -> None:
        self.events: list[Object] = []
        self.versions = 0

    def add(
        self,
        verb: str,
        resource: str,
        name: str,
        by: str | Object | None = "n1",
        *,
        namespace: str = "",
        group: str = "",
        sub: str = "",
        **more: Any,
    ) -> None:
        """Add an event of the agent on a node, or of any user."""
        reference = {"namespace": namespace, "apiGroup": group, "subresource": sub}
        more.setdefault("user", by if isinstance(by, dict) else user(by))
        one = event(verb, resource, name, ref=reference, **more)
        one["auditID"] = str(len(self.events))
        self.events.append(at(len(self.events) % 60, one) if len(self.events) < 60 else one)

    def stored(self, value: Object) -> Object:
        """Return an object as it is stored next."""
        self.versions += 1
        metadata = {"uid": value["metadata"]["name"], **value["metadata"]}
        return {**value, "metadata": {**metadata, "resourceVersion": str(self.versions)}}

    def merge(
        self, resource: str, before: Object, patch: Object, by: str = "n1", **more: Any
    ) -> Object:
        """Add a merge patch, and return the object after it."""
        after = self.stored(_merged(before, patch))
        name = before["metadata"]["name"]
        self.add("patch", resource, name, by, requestObject=patch, responseObject=after, **more)
        return after

    def written(self, folder: Path, name: str = "audit.log") -> str:
        file = folder / name
        file.write_text("".join(f"{json.dumps(one)}\n" for one in self.events))
        return str(file)


def _merged(value: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(value) if isinstance(value, dict) else {}
    for key, one in patch.items():
        if one is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), one)
    return merged


def node_object(name: str) -> Object:
    labels = {"kubernetes.io/hostname": name}
    return {"kind": "Node", "apiVersion": "v1", "metadata": {"name": name, "labels": labels}}


def pod_object(name: str, node: str, **spec: Any) -> Object:
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"nodeName": node, "containers": [], **spec},
    }


def custom(name: str, spec: Object | None = None, **metadata: Any) -> Object:
    return {
        "kind": "Thing",
        "apiVersion": "x.example.com/v1",
        "metadata": {"name": name, **metadata},
        "spec": spec or {},
    }


def lines(out: str) -> Iterable[str]:
    return (line.strip() for line in out.splitlines())
