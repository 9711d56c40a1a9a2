"""In which namespace our servers run."""

from typing import Any

from noderestrict.cluster.connection import ClusterError
from noderestrict.doctor.cluster import LABEL, Cluster
from noderestrict.doctor.workloads import SERVERS, serves, workloads
from noderestrict.render.workload import NAMESPACE


class AmbiguousError(ClusterError):
    """Our servers run in several namespaces."""


async def find_namespace(cluster: Cluster) -> str:
    """Return the namespace of our servers; the usual one where nothing shows another.

    It is that of the Service which is registered, or else that of the workloads with our label.

    Raises:
        AmbiguousError: there are several.
    """
    try:
        found = await _registered(cluster) or await _labelled(cluster)
    except ClusterError:
        # The checks say what cannot be read.
        return NAMESPACE
    if len(found) > 1:
        raise AmbiguousError(
            f"servers run in namespaces {', '.join(sorted(found))}: say which with --namespace"
        )
    return next(iter(found), NAMESPACE)


async def _registered(cluster: Cluster) -> set[str]:
    webhooks: list[Any] = (await cluster.registration() or {}).get("webhooks") or []
    services = [(one.get("clientConfig") or {}).get("service") or {} for one in webhooks]
    return {str(one["namespace"]) for one in services if one.get("namespace")}


async def _labelled(cluster: Cluster) -> set[str]:
    return {one.namespace for one in await workloads(cluster, "", SERVERS, LABEL) if serves(one)}
