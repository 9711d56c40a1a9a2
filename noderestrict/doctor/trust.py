"""Which nodes are trusted with our pods' Secrets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.placement import Placement, placement_of
from noderestrict.doctor.workloads import ALL, workloads

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Trust:
    """Nodes that our pods may run on.

    Attributes:
        placements: where their pods may run, by workload.
        api_servers: nodes that run an API server, as far as can be seen.
        nodes: every Node, by name.
        doubled: nodes that report an API server's address that another node reports as well.
    """

    placements: Mapping[str, Placement]
    api_servers: frozenset[str]
    nodes: Mapping[str, Any]
    doubled: tuple[str, ...] = ()

    def trusted(self) -> frozenset[str]:
        """Return the nodes that may read our pods' Secrets."""
        return self.api_servers | {
            name
            for placement in self.placements.values()
            if placement.terms is not None and (placement.is_guarded() or not self.api_servers)
            for name in placement.matching(self.nodes)
        }


def some(names: Sequence[str]) -> str:
    """Return names separated by commas, at most ten of them."""
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


async def read_trust(cluster: Cluster) -> Trust:
    """Return which nodes are trusted.

    Raises:
        ClusterError: nodes, workloads or the API servers' endpoints could not be read.
    """
    nodes = {node["metadata"]["name"]: node for node in await cluster.items("/api/v1/nodes")}
    placements = {
        str(workload): placement_of(workload.pod_spec)
        for workload in await workloads(cluster, cluster.options.namespace, ALL)
    }
    claimed = [
        [name for name, node in nodes.items() if address in _addresses(node)]
        for address in await _api_server_addresses(cluster)
    ]
    single = {names[0] for names in claimed if len(names) == 1}
    doubled = {name for names in claimed if len(names) > 1 for name in names}
    return Trust(placements, frozenset(single - doubled), nodes, tuple(sorted(doubled)))


async def _api_server_addresses(cluster: Cluster) -> list[str]:
    """Return the addresses that API servers publish for themselves.

    Pod labels would not do: API server pods are mirror pods, whose labels a node chooses.
    """
    slices = await cluster.items(
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
        {"labelSelector": "kubernetes.io/service-name=kubernetes"},
    )
    return sorted(
        {
            address
            for one in slices
            for endpoint in one.get("endpoints") or ()
            for address in endpoint.get("addresses") or ()
        }
    )


def _addresses(node: Any) -> set[str]:
    return {one["address"] for one in (node.get("status") or {}).get("addresses") or ()}
