"""Who runs on nodes with a credential: service accounts of DaemonSets, and static pods."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from noderestrict.api.appsv1 import HostedPod, HostedPodSpec
from noderestrict.api.resources import qualified

_MIRROR = "kubernetes.io/config.mirror"
#: Files and folders of the node that hold kubeconfigs, by where tools put them.
_KUBECONFIG = re.compile(
    r"/\.kube(/|$)|kubeconfig|/etc/kubernetes/?$|/etc/kubernetes/[^/]+\.conf$|/var/lib/kubelet/?$"
)
_FLAG = re.compile(r"--?[a-z-]*kubeconfig(=.*)?$")


@dataclass(slots=True)
class Account:
    """A service account that DaemonSets run as.

    Attributes:
        namespace: of the account.
        name: of the account.
        daemon_sets: NAMESPACE/NAME of each.
        nodes: on which its pods are.
        wanted: number of nodes that the DaemonSets are for, at most.
    """

    namespace: str
    name: str
    daemon_sets: set[str] = field(default_factory=set)
    nodes: set[str] = field(default_factory=set)
    wanted: int = 0


@dataclass(slots=True)
class StaticPod:
    """Static pods of one name, which see a kubeconfig of their node.

    Attributes:
        name: NAMESPACE/NAME, without the node's name at its end.
        nodes: on which they are.
        kubeconfigs: paths of the node, or flags that name one.
    """

    name: str
    nodes: set[str] = field(default_factory=set)
    kubeconfigs: set[str] = field(default_factory=set)


def accounts(daemon_sets: Iterable[Any], pods: Iterable[HostedPod]) -> list[Account]:
    """Return the service accounts of DaemonSets, and those that their pods still run as.

    Args:
        daemon_sets: as Structs.
        pods: of all owners.
    """
    found: dict[tuple[str, str], Account] = {}
    for one in daemon_sets:
        namespace = one.metadata.namespace or ""
        template = one.spec.template if one.spec else None
        account = _account(found, namespace, template.spec if template else None)
        account.daemon_sets.add(qualified(namespace, one.metadata.name))
        wanted = (one.status.desiredNumberScheduled if one.status else None) or 0
        account.wanted = max(account.wanted, wanted)
    for pod in pods:
        metadata = pod.metadata
        for owner in (metadata.ownerReferences if metadata else None) or ():
            if metadata and owner.kind == "DaemonSet" and owner.controller:
                namespace = metadata.namespace or ""
                account = _account(found, namespace, pod.spec)
                account.daemon_sets.add(qualified(namespace, owner.name or ""))
                if pod.spec and pod.spec.nodeName:
                    account.nodes.add(pod.spec.nodeName)
    return [found[key] for key in sorted(found)]


def _account(
    found: dict[tuple[str, str], Account], namespace: str, spec: HostedPodSpec | None
) -> Account:
    name = (spec.serviceAccountName or spec.serviceAccount if spec else None) or "default"
    return found.setdefault((namespace, name), Account(namespace, name))


def static_pods(pods: Iterable[HostedPod]) -> list[StaticPod]:
    """Return the static pods that see a kubeconfig: they name no service account."""
    found: dict[str, StaticPod] = defaultdict(lambda: StaticPod(""))
    for pod in pods:
        metadata, spec = pod.metadata, pod.spec
        if metadata is None or spec is None or _MIRROR not in (metadata.annotations or {}):
            continue
        if kubeconfigs := set(_kubeconfigs(spec)):
            node = spec.nodeName or ""
            name = qualified(
                metadata.namespace or "", (metadata.name or "").removesuffix(f"-{node}")
            )
            one = found[name]
            one.name = name
            one.nodes.add(node)
            one.kubeconfigs |= kubeconfigs
    return [found[name] for name in sorted(found)]


def _kubeconfigs(spec: HostedPodSpec) -> Iterator[str]:
    """Yield the kubeconfigs that a pod sees: by its volumes, else by its command lines."""
    found = False
    for volume in spec.volumes or ():
        path = (volume.hostPath.path if volume.hostPath else None) or ""
        if _KUBECONFIG.search(path):
            found = True
            yield path
    if found:
        return
    for container in (*(spec.initContainers or ()), *(spec.containers or ())):
        yield from _named([*(container.command or ()), *(container.args or ())])
        for variable in container.env or ():
            if variable.name == "KUBECONFIG" and variable.value:
                yield variable.value


def _named(words: Sequence[str]) -> Iterator[str]:
    """Yield the files that flags of a command line name."""
    for word, following in zip(words, [*words, ""][1:], strict=True):
        if flag := _FLAG.match(word):
            value = flag[1][1:] if flag[1] else following
            if value and not value.startswith("-"):
                yield value
