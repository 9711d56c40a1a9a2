"""Look at a cluster for the objects that probes take."""

from collections.abc import Awaitable, Mapping
from http import HTTPStatus
from typing import Any, TypeVar

from noderestrict.api.scanner import ScanError
from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.objects import tree
from noderestrict.policy.extra import Extra
from noderestrict.probes.access import reached
from noderestrict.probes.observed import MADE_UP, Observed, account_of, named
from noderestrict.probes.request import Object

T = TypeVar("T")

#: Of each kind, objects that are read one by one: probes take the first that fits.
_MOST_READ = 20
_MOST_LISTED = "500"
_OPTIONAL = {
    "resourceslices": "resource.k8s.io",
    "podcertificaterequests": "certificates.k8s.io",
    "csinodes/status": "storage.k8s.io",
}
_CONTROL_PLANE = "node-role.kubernetes.io/control-plane"


class NoNodesError(ClusterError):
    """The cluster has no nodes."""


class Observer:
    """Reads objects, and notes what cannot be read.

    Args:
        connection: to the API server.

    Attributes:
        notes: what could not be read, and why.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.notes: list[str] = []

    async def choose_node(self) -> str:
        """Return the name of a node that is no control plane, if there is one.

        Raises:
            NoNodesError: there is none.
            ClusterError: nodes cannot be listed.
        """
        nodes = (await self._read("/api/v1/nodes", {"limit": _MOST_LISTED})).get("items") or []
        names = [
            (_CONTROL_PLANE in (node["metadata"].get("labels") or {}), node["metadata"]["name"])
            for node in nodes
        ]
        if not names:
            raise NoNodesError("the cluster has no nodes; name one with --node to ask for it")
        return str(min(names)[1])

    async def observe(self, node: str, minor: int, extra: Extra) -> Observed:
        """Return what can be seen of a node and its cluster.

        Args:
            node: its name.
            minor: Kubernetes version of the API server, 1.``minor``.
            extra: the policy beyond the in-tree plugin that is expected.
        """
        own_pods = tuple(await self._pods(f"spec.nodeName={node}"))
        elsewhere = await self._pods(f"spec.nodeName!={node}")
        foreign_pods = tuple(pod for pod in elsewhere if pod["spec"].get("nodeName"))
        claims = await self._claims(Observed(node, own_pods=own_pods))
        return Observed(
            node=node,
            own_node=await self._noted(self._find(f"/api/v1/nodes/{node}")),
            other_node=next((pod["spec"]["nodeName"] for pod in foreign_pods), MADE_UP),
            own_pods=own_pods,
            foreign_pods=foreign_pods,
            claims=claims,
            volumes=await self._volumes(claims),
            attachments=await self._attachments(node),
            accounts=await self._accounts(own_pods),
            csi_node=await self._noted(self._find(f"/apis/storage.k8s.io/v1/csinodes/{node}")),
            served=await self._served(),
            minor=minor,
            extra=extra,
        )

    async def _pods(self, selector: str) -> list[Any]:
        query = {"fieldSelector": selector, "limit": _MOST_LISTED}
        found = await self._noted(self._read("/api/v1/pods", query))
        return [pod for pod in (found or {}).get("items") or () if _is_alive(pod)]

    async def _claims(self, seen: Observed) -> dict[tuple[str, str], Object]:
        names = sorted(
            (namespace, name)
            for plural, namespace, name in reached(seen)
            if plural == "persistentvolumeclaims"
        )
        return await self._each("persistentvolumeclaims", names[:_MOST_READ])

    async def _accounts(self, pods: tuple[Object, ...]) -> dict[tuple[str, str], Object]:
        names = sorted({(named(pod)[0], account_of(pod)) for pod in pods if account_of(pod)})
        return await self._each("serviceaccounts", names[:_MOST_READ])

    async def _each(
        self, plural: str, names: list[tuple[str, str]]
    ) -> dict[tuple[str, str], Object]:
        found = {}
        for namespace, name in names:
            path = f"/api/v1/namespaces/{namespace}/{plural}/{name}"
            value = await self._noted(self._find(path))
            if value is not None:
                found[namespace, name] = value
        return found

    async def _volumes(self, claims: Mapping[tuple[str, str], Object]) -> dict[str, Object]:
        found = {}
        for claim in claims.values():
            name = claim["spec"].get("volumeName")
            if name:
                value = await self._noted(self._find(f"/api/v1/persistentvolumes/{name}"))
                if value is not None:
                    found[str(name)] = value
        return found

    async def _attachments(self, node: str) -> tuple[str, ...]:
        path = "/apis/storage.k8s.io/v1/volumeattachments"
        found = await self._noted(self._read(path, {"limit": _MOST_LISTED}))
        return tuple(
            str(one["metadata"]["name"])
            for one in (found or {}).get("items") or ()
            if one["spec"].get("nodeName") == node
        )

    async def _served(self) -> dict[str, str]:
        """Return the first served version of each optional resource."""
        served = {}
        for plural, group in _OPTIONAL.items():
            versions = (await self._noted(self._find(f"/apis/{group}")) or {}).get("versions")
            for version in versions or ():
                name = str(version["version"])
                listed = await self._noted(self._find(f"/apis/{group}/{name}")) or {}
                if any(one["name"] == plural for one in listed.get("resources") or ()):
                    served[plural] = name
                    break
        return served

    async def _noted(self, reading: Awaitable[T]) -> T | None:
        """Return what was read; None, with a note, if it cannot be read."""
        try:
            return await reading
        except ClusterError as error:
            self.notes.append(str(error))
            return None

    async def _find(self, path: str) -> Any:
        try:
            return await self._read(path)
        except ClusterError as error:
            if error.code != HTTPStatus.NOT_FOUND:
                raise
            return None

    async def _read(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        try:
            return tree(await self._connection.get(path, query))
        except ScanError as error:
            raise ClusterError(f"GET {path}: {error}") from None


def _is_alive(pod: Object) -> bool:
    return not pod["metadata"].get("deletionTimestamp")
