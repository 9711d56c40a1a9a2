"""What was seen of a cluster, from which requests are built."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from noderestrict.errors import NoderestrictError
from noderestrict.policy.extra import Extra
from noderestrict.policy.records import MIRROR_POD_ANNOTATION
from noderestrict.policy.releases import LATEST_MINOR
from noderestrict.probes.request import Object

#: The name of objects that requests make up, none of which is ever stored.
MADE_UP = "noderestrict-verify"
#: A uid that no object has.
NO_UID = "00000000-0000-4000-8000-000000000000"


class MissingError(NoderestrictError):
    """There is no object to build a request from; the message says which one it takes."""


class InapplicableError(NoderestrictError):
    """The cluster has nothing that the rule could protect; the message says why."""


@dataclass(frozen=True, slots=True)
class Observed:
    """A node, and objects of its cluster as the API server writes them.

    Attributes:
        node: name of the node that requests come from.
        own_node: its Node; None if it cannot be read.
        other_node: name of another node, which need not exist.
        own_pods: pods bound to the node.
        foreign_pods: pods bound to other nodes.
        claims: PersistentVolumeClaims of its pods, by namespace and name.
        volumes: PersistentVolumes of these claims, by name.
        attachments: names of VolumeAttachments of the node.
        accounts: ServiceAccounts of its pods, by namespace and name.
        csi_node: its CSINode; None if it has none.
        served: versions of the API's optional resources that the API server serves, by plural, with
            a subresource after a slash.
        minor: Kubernetes version of the API server, 1.``minor``.
        extra: the policy beyond the in-tree plugin that is expected.
    """

    node: str
    own_node: Object | None = None
    other_node: str = MADE_UP
    own_pods: tuple[Object, ...] = ()
    foreign_pods: tuple[Object, ...] = ()
    claims: Mapping[tuple[str, str], Object] = field(default_factory=dict)
    volumes: Mapping[str, Object] = field(default_factory=dict)
    attachments: tuple[str, ...] = ()
    accounts: Mapping[tuple[str, str], Object] = field(default_factory=dict)
    csi_node: Object | None = None
    served: Mapping[str, str] = field(default_factory=dict)
    minor: int = LATEST_MINOR
    extra: Extra = field(default_factory=Extra)

    def existing_node(self) -> Object:
        """Return the node's Node.

        Raises:
            MissingError: it cannot be read.
        """
        if self.own_node is None:
            raise MissingError(f"Node {self.node} cannot be read")
        return self.own_node

    def own_pod(self) -> Object:
        """Return a pod on the node, if possible no mirror pod.

        Raises:
            MissingError: there is none.
        """
        for pod in (*self.real_pods(), *self.own_pods):
            return pod
        raise MissingError(f"it takes a pod on node {self.node}")

    def foreign_pod(self) -> Object:
        """Return a pod on another node.

        Raises:
            MissingError: there is none.
        """
        for pod in self.foreign_pods:
            return pod
        raise MissingError("it takes a pod on another node that can be read")

    def real_pods(self) -> Iterator[Object]:
        """Yield the pods on the node that are no mirror pods."""
        for pod in self.own_pods:
            if MIRROR_POD_ANNOTATION not in (pod["metadata"].get("annotations") or {}):
                yield pod

    def version_of(self, plural: str) -> str:
        """Return the version that the API server serves of an optional resource.

        Raises:
            InapplicableError: it serves none.
        """
        version = self.served.get(plural)
        if version is None:
            raise InapplicableError(f"the API server does not serve {plural}")
        return version


def uid_of(value: Object) -> str:
    """Return the uid of an object."""
    return str(value["metadata"].get("uid") or "")


def named(value: Object) -> tuple[str, str]:
    """Return namespace and name of an object."""
    metadata = value["metadata"]
    return str(metadata.get("namespace") or ""), str(metadata["name"])


def account_of(pod: Object) -> str:
    """Return the service account of a pod, "" for none."""
    return str(pod["spec"].get("serviceAccountName") or "")


def projected(pod: Object, source: str) -> Iterator[Any]:
    """Yield the projected sources of one kind in a pod's volumes."""
    for volume in pod["spec"].get("volumes") or ():
        for one in (volume.get("projected") or {}).get("sources") or ():
            if one.get(source) is not None:
                yield one[source]
