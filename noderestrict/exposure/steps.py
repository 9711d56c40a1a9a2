"""The steps of an attacker: what leads from one thing to the next.

A vertex is an object, ``(resource, namespace, name)``. Without a name it is all objects of this
kind in the namespace, and without a namespace too, of the cluster.
"""

from enum import StrEnum
from typing import NamedTuple

from noderestrict.api.resources import qualified
from noderestrict.graph.edges import Vertex
from noderestrict.rbac.grants import Grant
from noderestrict.rbac.rules import Request

#: Whoever is here is as good as a cluster administrator.
CLUSTER: Vertex = ("cluster", "", "")
#: Our webhook refuses nothing any more.
UNHELD: Vertex = ("unheld", "", "")
#: Whatever a kubelet requests with a signer of kubelets is signed.
APPROVAL: Vertex = ("approval", "", "")
#: Whoever has a bootstrap token.
BOOTSTRAP: Vertex = ("bootstrap", "", "")

#: What a vertex is called: one object, and all of them.
TITLES = {
    "nodes": ("node", "all nodes"),
    "kubelets": ("kubelet of node", "all kubelets"),
    "hosted": ("containers on node", "containers on all nodes"),
    "pods": ("pod", "pods that come here"),
    "containers": ("containers of pod", "containers of all pods"),
    "images": ("images of pod", "images of all pods"),
    "replicasets": ("ReplicaSet", "more pods of all ReplicaSets"),
    "statefulsets": ("StatefulSet", "more pods of all StatefulSets"),
    "replicationcontrollers": (
        "ReplicationController", "more pods of all ReplicationControllers",
    ),
    "serviceaccounts": ("service account", "all service accounts"),
    "secrets": ("Secret", "all Secrets"),
    "configmaps": ("ConfigMap", "all ConfigMaps"),
    "persistentvolumeclaims": ("claim", "all claims"),
    "persistentvolumes": ("volume", "all volumes"),
    "resourceclaims": ("ResourceClaim", "all ResourceClaims"),
    "volumeattachments": ("VolumeAttachment", "all VolumeAttachments"),
    "resourceslices": ("ResourceSlice", "all ResourceSlices"),
    "podcertificaterequests": ("PodCertificateRequest", "all PodCertificateRequests"),
    "users": ("user", "all users"),
    "groups": ("group", "all groups"),
    "bootstrap": ("bootstrap token", "a bootstrap token"),
    "approval": ("approval for nodes", "approval of any node's certificate"),
    "roles": ("rights of Role", "rights of all Roles"),
    "clusterroles": ("rights of ClusterRole", "rights of all ClusterRoles"),
    "namespaces": ("administrator of namespace", "administrator of all namespaces"),
    "cluster": ("cluster-admin", "cluster-admin"),
    "unheld": ("no admission by noderestrict", "no admission by noderestrict"),
}  # fmt: skip


def titled(vertex: Vertex) -> str:
    """Return a vertex as people write it."""
    kind, namespace, name = vertex
    one, every = TITLES[kind]
    if name:
        return f"{one} {qualified(namespace, name)}"
    return f"{every} in namespace {namespace}" if namespace else every


class By(StrEnum):
    """How one thing leads to the next."""

    RUNS = "runs"
    IS = "is"
    TOKEN = "token"  # noqa: S105 (no secret)
    REFERS = "refers"
    MOUNTS = "mounts"
    HOLDS = "holds"
    RIGHT = "right"
    MEMBER = "member"
    PRIVILEGED = "privileged"
    CAPABILITY = "capability"
    HOST_FILES = "host-files"
    CONTROL_PLANE = "control-plane"
    APPROVED = "approved"
    UNHELD = "unheld"


#: What comes with a credential or a right that was taken before is no step of its own.
_FREE = frozenset((By.RUNS, By.IS, By.REFERS, By.MOUNTS, By.MEMBER, By.APPROVED, By.UNHELD))


class Use(NamedTuple):
    """The rights that a step uses.

    Attributes:
        rights: ids of the table, the one that leads on first.
        requests: that the API server must allow; one for each right.
        grants: that allow them, likewise.
    """

    rights: tuple[str, ...]
    requests: tuple[Request, ...]
    grants: tuple[Grant, ...]


class Edge(NamedTuple):
    """A step from some vertex.

    Attributes:
        end: where it leads.
        by: how.
        use: rights that it takes, None if none.
        volume: the PersistentVolume that it goes through, "" for none.
    """

    end: Vertex
    by: By
    use: Use | None = None
    volume: str = ""

    @property
    def cost(self) -> int:
        """1 if a credential is taken or a right is used, 0 for what comes with it."""
        return 0 if self.by in _FREE else 1
