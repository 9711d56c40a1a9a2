"""Pod templates and API server pods, and the command lines in them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from noderestrict.doctor.cluster import Cluster

#: Workloads that serve.
SERVERS = ("deployments", "daemonsets")
#: All that run our pods.
ALL = (*SERVERS, "cronjobs", "jobs")
#: Name of the static pods that answer for nodes.
AUTHORIZER = "noderestrict-authorizer"
_GROUPS = {"deployments": "apps", "daemonsets": "apps", "cronjobs": "batch", "jobs": "batch"}


@dataclass(frozen=True, slots=True)
class Workload:
    """What runs pods.

    Attributes:
        kind: in lower case.
        name: of the object.
        pod_spec: of its pod template.
        namespace: of the object.
        wanted: number of pods that should run.
        current: number of those that run as the pod template says.
        ready: number of those that are ready.
        release: of Helm that has installed it, "" for none.
    """

    kind: str
    name: str
    pod_spec: Mapping[str, Any]
    namespace: str = ""
    wanted: int = 0
    current: int = 0
    ready: int = 0
    release: str = ""

    def __str__(self) -> str:
        """Return kind and name."""
        return f"{self.kind} {self.name}"

    def commands(self) -> list[Sequence[str]]:
        """Return the command line of each container."""
        return [words(container) for container in self.pod_spec.get("containers") or ()]


async def workloads(
    cluster: Cluster, namespace: str, plurals: Iterable[str], selector: str = ""
) -> list[Workload]:
    """Return the workloads of a namespace.

    Args:
        cluster: where they are.
        namespace: of the workloads, "" for all.
        plurals: of their kinds.
        selector: of their labels, "" for any.

    Raises:
        ClusterError: they could not be read.
    """
    space = f"namespaces/{namespace}/" if namespace else ""
    query = {"labelSelector": selector} if selector else None
    return [
        _workload(plural, value)
        for plural in plurals
        for value in await cluster.items(f"/apis/{_GROUPS[plural]}/v1/{space}{plural}", query)
    ]


def _workload(plural: str, value: Any) -> Workload:
    metadata, spec = value["metadata"], value["spec"]
    if plural == "cronjobs":
        spec = spec["jobTemplate"]["spec"]
    annotations = metadata.get("annotations") or {}
    return Workload(
        plural[:-1],
        metadata["name"],
        spec["template"]["spec"],
        metadata["namespace"],
        *_counts(plural, value),
        str(annotations.get("meta.helm.sh/release-name") or ""),
    )


async def daemon_sets(cluster: Cluster) -> list[Workload]:
    """Return the DaemonSets of all namespaces.

    Raises:
        ClusterError: they could not be read.
    """
    return await workloads(cluster, "", ("daemonsets",))


def _counts(plural: str, value: Any) -> tuple[int, int, int]:
    """Return how many pods of a workload should run, are up to date, and are ready."""
    status = value.get("status") or {}
    if plural == "daemonsets":
        fields = ("desiredNumberScheduled", "updatedNumberScheduled", "numberReady")
        wanted, current, ready = (status.get(field) or 0 for field in fields)
    else:
        wanted = value["spec"].get("replicas", 1)
        current, ready = (status.get(one) or 0 for one in ("updatedReplicas", "readyReplicas"))
    # The controller has not seen this version of the object yet.
    seen = (status.get("observedGeneration") or 0) >= (value["metadata"].get("generation") or 0)
    return wanted, current if seen else 0, ready


def serves(workload: Workload) -> bool:
    """Tell whether a workload runs our servers."""
    return any("serve" in command for command in workload.commands())


def is_network_agent(pod_spec: Mapping[str, Any]) -> bool:
    """Tell whether a pod may change the network of its node."""
    return bool(pod_spec.get("hostNetwork")) and any(
        context.get("privileged")
        or not {"NET_ADMIN", "ALL"}.isdisjoint((context.get("capabilities") or {}).get("add") or ())
        for context in _contexts(pod_spec)
    )


def _contexts(pod_spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for field in ("containers", "initContainers"):
        for container in pod_spec.get(field) or ():
            yield container.get("securityContext") or {}


def account_of(workload: Workload) -> str:
    """Return the service account of the pods, NAMESPACE/NAME."""
    spec = workload.pod_spec
    name = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
    return f"{workload.namespace}/{name}"


async def mounts_token(cluster: Cluster, workload: Workload) -> bool:
    """Tell whether the kubelet asks for a token before it starts the pods.

    Raises:
        ClusterError: the service account could not be read.
    """
    for volume in workload.pod_spec.get("volumes") or ():
        sources = (volume.get("projected") or {}).get("sources") or ()
        if any("serviceAccountToken" in source for source in sources):
            return True
    mounted = workload.pod_spec.get("automountServiceAccountToken")
    if mounted is None:
        namespace, _, name = account_of(workload).partition("/")
        found = await cluster.find(f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}")
        mounted = (found or {}).get("automountServiceAccountToken")
    return mounted is not False


async def api_servers(cluster: Cluster) -> dict[str, Sequence[str]]:
    """Return the command lines of API servers that run as static pods, by pod name.

    Raises:
        ClusterError: the pods could not be read.
    """
    pods = await cluster.items(
        "/api/v1/namespaces/kube-system/pods", {"labelSelector": "component=kube-apiserver"}
    )
    return {pod["metadata"]["name"]: words(pod["spec"]["containers"][0]) for pod in pods}


async def authorizers(cluster: Cluster) -> list[Mapping[str, Any]]:
    """Return the pods of our servers that run as static pods beside API servers.

    Raises:
        ClusterError: the pods could not be read.
    """
    pods = await cluster.items(
        "/api/v1/namespaces/kube-system/pods",
        {"labelSelector": f"app.kubernetes.io/name={AUTHORIZER}"},
    )
    return [pod for pod in pods if pod["metadata"]["name"].startswith(f"{AUTHORIZER}-")]


def words(container: Mapping[str, Any]) -> Sequence[str]:
    """Return the command line of a container."""
    return [*(container.get("command") or ()), *(container.get("args") or ())]


def values(command: Sequence[str], flag: str) -> list[str]:
    """Return all values that a command line gives a flag, in order.

    Args:
        command: its words.
        flag: with its dashes.
    """
    found = []
    for word, following in zip(command, [*command, ""][1:], strict=True):
        name, equals, value = word.partition("=")
        if name == flag:
            found.append(value if equals else following)
    return found


def setting(container: Mapping[str, Any], name: str) -> list[str]:
    """Return how a container sets a setting: by its last flag, or else by its variable, or not.

    Args:
        container: of a pod.
        name: such as ``api-audiences``.
    """
    variable = f"NODERESTRICT_{name.upper().replace('-', '_')}"
    variables = [
        str(one.get("value") or "")
        for one in container.get("env") or ()
        if one.get("name") == variable
    ]
    return values(words(container), f"--{name}")[-1:] or variables[:1]


def elements(given: Iterable[str]) -> list[str]:
    """Return the elements of comma-separated lists."""
    return [one for text in given for one in text.split(",") if one]
