"""The cluster as an attacker sees it: who runs where, which Secrets there are, who may do what.

Objects are read one by one, and only what matters of each is kept.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

import msgspec

from noderestrict.api import certificatesv1, corev1, metav1, rbacv1, resourcev1, storagev1
from noderestrict.api.metav1 import ObjectMeta
from noderestrict.exposure.api_servers import switches_off, takes_bootstrap_tokens
from noderestrict.exposure.escape import ClaimMount, Escape, claim_disks, claim_mounts, escape
from noderestrict.graph.edges import Vertex, pod_edges
from noderestrict.graph.graph import Graph
from noderestrict.policy.records import MIRROR_POD_ANNOTATION
from noderestrict.rbac.grants import RBAC, Reference, aggregated
from noderestrict.rbac.subjects import AUTHENTICATED, User, account_of
from noderestrict.survey.objects import NotSeen

#: What to read of an object, by plural resource.
STRUCTS: Mapping[str, type[msgspec.Struct]] = {
    "nodes": metav1.PartialObject,
    "namespaces": metav1.PartialObject,
    "pods": corev1.RunningPod,
    "serviceaccounts": corev1.HoldingAccount,
    "secrets": corev1.SecretType,
    "persistentvolumes": corev1.HostVolume,
    "volumeattachments": storagev1.VolumeAttachment,
    "resourceslices": resourcev1.ResourceSlice,
    "podcertificaterequests": certificatesv1.PodCertificateRequest,
    "clusterroles": rbacv1.Role,
    "clusterrolebindings": rbacv1.RoleBinding,
    "roles": rbacv1.Role,
    "rolebindings": rbacv1.RoleBinding,
    "validatingwebhookconfigurations": metav1.PartialObject,
}
#: What stays hidden where a resource cannot be read; without the others little is missed.
HIDDEN = {
    "nodes": "nodes without pods, and which nodes are control planes by their labels",
    "namespaces": "which namespaces refuse privileged pods: none is taken to",
    "pods": "all that runs on nodes, and so nearly everything",
    "serviceaccounts": "accounts that no pod runs as, and their Secrets with tokens",
    "persistentvolumes": "Secrets of volumes, and which volumes are files of a node",
    "clusterroles": "what most accounts are granted",
    "clusterrolebindings": "what accounts are granted in all namespaces",
    "roles": "part of what accounts are granted in single namespaces",
    "rolebindings": "what accounts are granted in single namespaces",
    "validatingwebhookconfigurations": "whether noderestrict's webhook is registered",
}
#: Of these, many clusters have none.
RARE = ("persistentvolumes", "validatingwebhookconfigurations")
TOKEN_TYPE = "kubernetes.io/service-account-token"  # noqa: S105 (no secret)
_BOOTSTRAP_TYPE = "bootstrap.kubernetes.io/token"
#: The groups of a bootstrap token are this one and those below it that the token names.
_BOOTSTRAPPERS = "system:bootstrappers"
#: Of a volume that is a disk without a file system.
_RAW = "Block"
_SHOWN = 5
#: Where bootstrap tokens are.
SYSTEM = "kube-system"
_TOKEN_ACCOUNT = "kubernetes.io/service-account.name"  # noqa: S105 (no secret)
_ENFORCED = "pod-security.kubernetes.io/enforce"
#: Pod security levels that let no pod break out of its container.
_CONFINING = ("baseline", "restricted")
_CONTROL_PLANE_LABELS = (
    "node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master",
)  # fmt: skip
API_SERVER = "kube-apiserver"
_CONTROL_PLANE_PROGRAMS = (API_SERVER, "etcd")
#: From this minor version on, to connect by WebSocket takes ``create`` too, unless the gate is off.
_CONNECT_CREATES_SINCE, _CONNECT_CREATES = 35, "AuthorizePodWebsocketUpgradeCreatePermission"
#: What can be scaled, with its kind.
SCALED = {
    "replicasets": "ReplicaSet", "statefulsets": "StatefulSet",
    "replicationcontrollers": "ReplicationController",
}  # fmt: skip
#: Their pods are made again elsewhere.
_MOVING_OWNERS = (*SCALED.values(), "Job")

#: A pod's edges that are no references to what else there is.
_NOT_REFERRED = ("pods", "serviceaccounts")

Key = tuple[str, str]
#: Namespaces by the name of an object in them.
Index = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that is bound to a node.

    Attributes:
        namespace: of the pod.
        name: of the pod.
        node: that it runs on.
        account: that it runs as, "" for none.
        mounts_token: whether the account's token is in the pod.
        secrets: names of those that are in the pod.
        refers: everything that the pod refers to, and so its node may read.
        owner: kind of its controller, "" for none.
        owner_name: likewise.
        is_static: whether its kubelet makes it from a file.
        control_plane: the program of a control plane that it is, as a static pod; else "".
        escape: how one gets from its containers to the node, None if not.
        host_volume: the PersistentVolume by which one does, "" for none.
    """

    namespace: str
    name: str
    node: str
    account: str
    mounts_token: bool
    secrets: tuple[str, ...]
    refers: tuple[Vertex, ...]
    owner: str
    owner_name: str
    is_static: bool
    control_plane: str
    escape: Escape | None
    host_volume: str = ""

    @property
    def vertex(self) -> Vertex:
        """The pod."""
        return "pods", self.namespace, self.name

    @property
    def account_vertex(self) -> Vertex:
        """The service account that it runs as."""
        return "serviceaccounts", self.namespace, self.account

    @property
    def can_move(self) -> bool:
        """Whether a controller makes it again on another node."""
        return self.owner in _MOVING_OWNERS


@dataclass(slots=True)
class World:
    """A cluster.

    Attributes:
        graph: what each node reaches, by the Node authorizer's rules.
        pods: those that are bound to a node.
        nodes: names of all nodes.
        control_planes: of each node of the control plane, how one can tell.
        accounts: service accounts, with whether their pods get a token unless they say.
        secrets: known ones, with the account whose token they hold, "" for none.
        bootstrap: of these, those that hold a bootstrap token.
        confined: namespaces in which no pod can break out of its container.
        rbac: what RBAC grants.
        namespaces: in which anything is.
        by_node: pods of each node.
        index: namespaces by name of ``pods``, of those that are ``changeable`` and ``moving``, of
            ``serviceaccounts`` and ``secrets``.
        api_servers: command lines of those that run as static pods.
        registrations: names of ValidatingWebhookConfigurations.
        not_seen: what could not be read.
        notes: what else a reader must know.
        minor: of the API server, 1.``minor``; None if it is not known.
    """

    graph: Graph = field(default_factory=lambda: Graph(most_edges=None))
    pods: dict[Key, Pod] = field(default_factory=dict)
    nodes: set[str] = field(default_factory=set)
    control_planes: dict[str, str] = field(default_factory=dict)
    accounts: dict[Key, bool] = field(default_factory=dict)
    secrets: dict[Key, str] = field(default_factory=dict)
    bootstrap: set[Key] = field(default_factory=set)
    confined: set[str] = field(default_factory=set)
    rbac: RBAC = field(default_factory=RBAC)
    namespaces: set[str] = field(default_factory=set)
    by_node: dict[str, list[Pod]] = field(default_factory=dict)
    index: dict[str, Index] = field(default_factory=dict)
    api_servers: list[Sequence[str]] = field(default_factory=list)
    registrations: set[str] = field(default_factory=set)
    not_seen: list[NotSeen] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    minor: int | None = None

    @property
    def agents(self) -> set[Key]:
        """Service accounts that DaemonSets run as."""
        return {
            (pod.namespace, pod.account)
            for pod in self.pods.values()
            if pod.owner == "DaemonSet" and pod.account
        }

    def allows_everything(self, role: Reference) -> bool:
        """Return whether a role has a rule for everything."""
        return any(rule.is_everything for rule in self.rbac.roles[role])

    @property
    def reads_connect(self) -> bool:
        """Whether to read ``pods/exec`` is enough to connect to a pod, by WebSocket."""
        if self.minor is None or self.minor < _CONNECT_CREATES_SINCE:
            return True
        return any(switches_off(one, _CONNECT_CREATES) for one in self.api_servers)

    @property
    def bootstrap_user(self) -> User | None:
        """Who a bootstrap token makes one, in every group that RBAC knows for it.

        None if the API servers that can be seen take no such token.
        """
        if self.api_servers and not any(map(takes_bootstrap_tokens, self.api_servers)):
            return None
        groups = (
            one
            for one in self.rbac.groups()
            if one == _BOOTSTRAPPERS or one.startswith(f"{_BOOTSTRAPPERS}:")
        )
        return User("", frozenset((_BOOTSTRAPPERS, AUTHENTICATED, *groups)))


@dataclass(slots=True)
class Reader:
    """Makes a World of objects; each object counts once."""

    world: World = field(default_factory=World)
    seen: set[Vertex] = field(default_factory=set)
    resources: set[str] = field(default_factory=set)
    _roles: list[rbacv1.Role] = field(default_factory=list)
    _bindings: list[rbacv1.RoleBinding] = field(default_factory=list)
    _named: dict[Key, str] = field(default_factory=dict)
    _undecided: set[Key] = field(default_factory=set)
    _claims: dict[Key, tuple[ClaimMount, ...]] = field(default_factory=dict)
    _host_volumes: dict[Key, tuple[str, str]] = field(default_factory=dict)
    _disks: dict[Key, frozenset[str]] = field(default_factory=dict)
    _host_disks: dict[Key, str] = field(default_factory=dict)

    def add(self, plural: str, value: Any) -> None:
        """Take note of an object of ``STRUCTS``."""
        metadata: ObjectMeta = value.metadata
        key = metadata.namespace or "", metadata.name or ""
        self.resources.add(plural)
        vertex = plural, *key
        if vertex in self.seen:
            return
        self.seen.add(vertex)
        world = self.world
        match plural:
            case "nodes":
                self._add_node(metadata)
            case "namespaces":
                world.namespaces.add(key[1])
                if (metadata.labels or {}).get(_ENFORCED) in _CONFINING:
                    world.confined.add(key[1])
            case "pods":
                self._add_pod(key, value)
            case "serviceaccounts":
                world.accounts[key] = value.automountServiceAccountToken is not False
                for secret in value.secrets or ():
                    self._named[key[0], secret.name or ""] = key[1]
            case "secrets":
                holds = value.type == TOKEN_TYPE
                account = (metadata.annotations or {}).get(_TOKEN_ACCOUNT) if holds else ""
                world.secrets[key] = account or ""
                if value.type == _BOOTSTRAP_TYPE and key[0] == SYSTEM:
                    world.bootstrap.add(key)
            case "persistentvolumes":
                world.graph.upsert(plural, value)
                self._add_volume(key[1], value)
            case "clusterroles" | "roles":
                self._roles.append(value)
            case "clusterrolebindings" | "rolebindings":
                self._bindings.append(value)
            case "validatingwebhookconfigurations":
                world.registrations.add(key[1])
            case _:
                world.graph.upsert(plural, value)

    def _add_volume(self, name: str, value: corev1.HostVolume) -> None:
        spec = value.spec
        source = (spec.hostPath or spec.local) if spec else None
        if spec is not None and spec.claimRef is not None and source is not None:
            claim = spec.claimRef.namespace or "", spec.claimRef.name or ""
            if spec.volumeMode == _RAW:
                self._host_disks[claim] = source.path or ""
            else:
                self._host_volumes[claim] = name, source.path or ""

    def _add_node(self, metadata: ObjectMeta) -> None:
        name = metadata.name or ""
        self.world.nodes.add(name)
        for label in _CONTROL_PLANE_LABELS:
            if label in (metadata.labels or {}):
                self.world.control_planes.setdefault(name, f"label {label}")

    def _add_pod(self, key: Key, value: corev1.RunningPod) -> None:
        spec, metadata = value.spec, value.metadata
        if spec is None or metadata is None or not spec.nodeName:
            return
        world = self.world
        world.graph.upsert("pods", value)
        world.nodes.add(spec.nodeName)
        is_static = MIRROR_POD_ANNOTATION in (metadata.annotations or {})
        # A static pod has no account, whatever its manifest says.
        account = "" if is_static else spec.serviceAccountName or spec.serviceAccount or "default"
        owners = metadata.ownerReferences or ()
        edges = pod_edges(value)
        controller = next((one for one in owners if one.controller), None)
        pulled = {secret.name for secret in spec.imagePullSecrets or ()}
        pod = Pod(
            namespace=key[0],
            name=key[1],
            node=spec.nodeName,
            account=account,
            mounts_token=bool(account) and _mounts_token(spec),
            secrets=tuple(
                sorted(name for kind, _, name in edges if kind == "secrets" and name not in pulled)
            ),
            refers=tuple(sorted(one for one in edges if one[0] not in _NOT_REFERRED)),
            owner=(controller and controller.kind) or "",
            owner_name=(controller and controller.name) or "",
            is_static=is_static,
            control_plane=_control_plane(spec) if is_static else "",
            escape=escape(spec),
        )
        world.pods[key] = pod
        if pod.escape is None and (mounts := claim_mounts(pod.name, spec)):
            self._claims[key] = mounts
        if pod.escape is None and (disks := claim_disks(pod.name, spec)):
            self._disks[key] = disks
        if spec.automountServiceAccountToken is None and not _has_token_volume(spec):
            self._undecided.add(key)
        if pod.control_plane == API_SERVER:
            world.api_servers += (
                [*(one.command or ()), *(one.args or ())] for one in spec.containers or ()
            )
        if pod.control_plane:
            world.control_planes[pod.node] = f"static pod of {pod.control_plane}"

    def finish(self) -> World:
        """Return the world, once all objects are added."""
        world = self.world
        world.rbac = RBAC.of(aggregated(self._roles), self._bindings)
        if "secrets" not in self.resources:
            # Up to Kubernetes 1.23, each account names a Secret with a token of its own.
            world.secrets.update(self._named)
        for key in self._undecided:
            pod = world.pods[key]
            if not world.accounts.get((pod.namespace, pod.account), True):
                world.pods[key] = replace(pod, mounts_token=False)
        for key, mounts in self._claims.items():
            if volume := self._taking(key[0], mounts):
                world.pods[key] = replace(
                    world.pods[key], escape=Escape.HOST_FILES, host_volume=volume
                )
        world.notes += self._told_of_disks()
        for pod in world.pods.values():
            if pod.account:
                world.accounts.setdefault((pod.namespace, pod.account), True)
        if "serviceaccounts" not in self.resources:
            for name in world.rbac.users():
                if account := account_of(name):
                    world.accounts.setdefault(account, True)
        for node in world.nodes:
            for kind, namespace, name in world.graph.reachable(node):
                if kind == "secrets":
                    world.secrets.setdefault((namespace, name), "")
        for pod in world.pods.values():
            world.by_node.setdefault(pod.node, []).append(pod)
        changeable = (key for key, pod in world.pods.items() if not pod.is_static)
        moving = (key for key, pod in world.pods.items() if pod.can_move)
        world.index = {
            "pods": _indexed(world.pods),
            "changeable": _indexed(changeable),
            "moving": _indexed(moving),
            "serviceaccounts": _indexed(world.accounts),
            "secrets": _indexed(world.secrets),
        }
        keys = (*world.pods, *world.accounts, *world.secrets)
        world.namespaces.update(namespace for namespace, _ in keys)
        world.namespaces.update(role.namespace for role in world.rbac.roles if role.namespace)
        return world

    def _told_of_disks(self) -> Iterator[str]:
        """Yield what cannot be seen of raw disks of nodes in pods, if there are any."""
        found = sorted(
            f"{self.world.pods[key].node}:{path} in pod {key[0]}/{key[1]}"
            for key, claims in self._disks.items()
            for claim in claims
            if (path := self._host_disks.get((key[0], claim)))
        )
        if found:
            more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            yield (
                "Whoever is in a pod with a disk that its node runs from has the node; what is on "
                f"raw disks of nodes cannot be seen: {', '.join(found[:_SHOWN])}{more}."
            )

    def _taking(self, namespace: str, mounts: Iterable[ClaimMount]) -> str:
        """Return the volume of some by which one takes the node, "" for none."""
        for mount in mounts:
            volume, path = self._host_volumes.get((namespace, mount.claim), ("", ""))
            if volume and mount.at(path).takes_node:
                return volume
        return ""


def _indexed(keys: Iterable[Key]) -> Index:
    found: dict[str, list[str]] = defaultdict(list)
    for namespace, name in keys:
        found[name].append(namespace)
    return found


def _control_plane(spec: corev1.RunningPodSpec) -> str:
    """Return which program of a control plane a pod runs, "" for none."""
    for container in spec.containers or ():
        words = [*(container.command or ()), *(container.args or ())]
        programs = {PurePosixPath(words[0]).name if words else "", container.name or ""}
        for program in _CONTROL_PLANE_PROGRAMS:
            if program in programs:
                return program
    return ""


def _has_token_volume(spec: corev1.PodSpec) -> bool:
    return any(
        source.serviceAccountToken is not None
        for volume in spec.volumes or ()
        for source in (volume.projected.sources if volume.projected else None) or ()
    )


def _mounts_token(spec: corev1.RunningPodSpec) -> bool:
    """Return whether a pod has its account's token, unless the account says otherwise."""
    return _has_token_volume(spec) or spec.automountServiceAccountToken is not False
