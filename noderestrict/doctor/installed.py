"""Objects of the cluster beside those that were rendered, and what to type to change them."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.differences import Difference
from noderestrict.render.load import Object


class Installed:
    """Objects of the cluster, each read once.

    Args:
        cluster: where the connection may read them.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._found: dict[str, Object | None] = {}

    async def find(self, rendered: Mapping[str, Any]) -> Object | None:
        """Return the object with kind, namespace and name of another one, None if there is none.

        Raises:
            ClusterError: it could not be read.
        """
        path = _path(rendered)
        if path not in self._found:
            self._found[path] = await self._cluster.find(path)
        return self._found[path]


def _path(value: Mapping[str, Any]) -> str:
    version, metadata = value["apiVersion"], value["metadata"]
    base = f"/apis/{version}" if "/" in version else f"/api/{version}"
    space = f"namespaces/{metadata['namespace']}/" if "namespace" in metadata else ""
    return f"{base}/{space}{_plural(value['kind'])}/{metadata['name']}"


def _plural(kind: str) -> str:
    """Return the resource of a kind, as meta.UnsafeGuessKindToResource of apimachinery guesses."""
    name = kind.lower()
    return f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"


def title(value: Mapping[str, Any]) -> str:
    """Return kind, namespace and name of an object, as messages show them."""
    namespace = value["metadata"].get("namespace")
    return f"{value['kind']} {f'{namespace}/' if namespace else ''}{value['metadata']['name']}"


def patching(value: Mapping[str, Any], differences: Sequence[Difference]) -> str:
    """Return the command that removes differences of an object, in the order given."""
    patch = msgspec.json.encode([one.operation() for one in differences]).decode()
    return shlex.join([*_command("patch", value), "--type=json", f"--patch={patch}"])


def deleting(value: Mapping[str, Any]) -> str:
    """Return the command that deletes an object."""
    return shlex.join(_command("delete", value))


def _command(verb: str, value: Mapping[str, Any]) -> list[str]:
    namespace = value["metadata"].get("namespace")
    where = ["-n", namespace] if namespace else []
    return ["kubectl", *where, verb, _resource(value), value["metadata"]["name"]]


def _resource(value: Mapping[str, Any]) -> str:
    """Return what kubectl calls a kind, with its group if others may have the same."""
    group, slash, _ = value["apiVersion"].partition("/")
    name = value["kind"].lower()
    return f"{name}.{group}" if slash and "." in group and not group.endswith(".k8s.io") else name
