"""What falls with a node, computed the slow way: ask for each request until nothing is new."""

from collections.abc import Callable, Iterator

from noderestrict.exposure.setups import Half, SetUp
from noderestrict.exposure.steps import CLUSTER
from noderestrict.exposure.world import Pod, World
from noderestrict.graph.edges import Vertex
from noderestrict.graph.rules import Access, authorize
from noderestrict.policy.features import defaults
from noderestrict.policy.releases import LATEST
from noderestrict.rbac.rules import Request
from noderestrict.rbac.subjects import ANONYMOUS, User, account_of, node, service_account

GROUP_OF = {
    "deployments": "apps",
    "clusterroles": "rbac.authorization.k8s.io",
    "roles": "rbac.authorization.k8s.io",
    "clusterrolebindings": "rbac.authorization.k8s.io",
    "rolebindings": "rbac.authorization.k8s.io",
    "mutatingwebhookconfigurations": "admissionregistration.k8s.io",
    "validatingwebhookconfigurations": "admissionregistration.k8s.io",
    "apiservices": "apiregistration.k8s.io",
    "replicasets": "apps",
    "statefulsets": "apps",
    "horizontalpodautoscalers": "autoscaling",
    "signers": "certificates.k8s.io",
    "certificatesigningrequests": "certificates.k8s.io",
}
#: A name that only rules for any name cover, and those that rules name.
NAMES = ("any", "x", "y", "s", "t", "p1", "n1", "n2")
BOOTSTRAP_GROUP = "system:bootstrappers:kubeadm"
BOOTSTRAP_FLAG = "--enable-bootstrap-token-auth"
#: What the plugin, or our webhook, holds to the own node.
_HELD = {
    ("create", "pods"), ("update", "pods"), ("patch", "pods"), ("delete", "pods"),
    ("update", "pods/status"), ("patch", "pods/status"), ("create", "pods/eviction"),
    ("patch", "pods/ephemeralcontainers"), ("update", "pods/ephemeralcontainers"),
    ("create", "serviceaccounts/token"), ("update", "nodes"), ("patch", "nodes"),
    ("delete", "nodes"), ("update", "nodes/status"), ("patch", "nodes/status"),
    ("create", "certificatesigningrequests"),
}  # fmt: skip
May = Callable[..., bool]


class Closure:
    """What a node leads to.

    Attributes:
        found: objects, named, and the cluster.
    """

    def __init__(self, world: World, set_up: SetUp, name: str) -> None:
        self.world = world
        self.set_up = set_up
        self.found: set[Vertex] = {("nodes", "", name)}
        before = 0
        while len(self.found) != before:
            before = len(self.found)
            for vertex in list(self.found):
                self.found.update(self._from(vertex))

    def _from(self, vertex: Vertex) -> Iterator[Vertex]:
        kind, namespace, name = vertex
        world = self.world
        if kind == "nodes":
            if name in world.control_planes:
                yield CLUSTER
            yield "kubelets", "", name
            yield from (one for one in world.graph.reachable(name) if one[0] != "pods")
            yield from self._rights(ANONYMOUS)
        elif kind == "secrets" and world.secrets.get((namespace, name)):
            yield "serviceaccounts", namespace, world.secrets[namespace, name]
        elif kind == "serviceaccounts":
            yield from self._rights(service_account(namespace, name))
        elif kind == "kubelets":
            yield from self._rights(node(name))
            if self.set_up.authorizer is not Half.OFF:
                reached = world.graph.reachable(name)
                yield from (one for one in reached if one[0] in ("secrets", "serviceaccounts"))
        elif kind == "users":
            yield from self._rights(User(name, frozenset(("system:authenticated",))))
        elif kind == "bootstrap":
            groups = ("system:bootstrappers", BOOTSTRAP_GROUP, "system:authenticated")
            yield from self._rights(User("", frozenset(groups)))
        if kind == "secrets" and name == "bootstrap-token" and self._takes_bootstrap_tokens:
            yield "bootstrap", "", ""

    @property
    def _takes_bootstrap_tokens(self) -> bool:
        servers = self.world.api_servers
        return not servers or ["kube-apiserver", BOOTSTRAP_FLAG] in servers

    def _may(self, user: User) -> May:
        world, set_up = self.world, self.set_up
        kubelet = user == node(user.name.removeprefix("system:node:"))

        def may(verb: str, resource: str, namespace: str = "", name: str = "") -> bool:
            plural, _, sub = resource.partition("/")
            group = GROUP_OF.get(plural, "")
            if kubelet and set_up.admission is not Half.OFF and (verb, resource) in _HELD:
                return False
            request = Request(verb, group, plural, sub, namespace, name)
            if world.rbac.allows(user, request) is not None:
                return True
            if not kubelet:
                return False
            off = set_up.authorizer is Half.OFF
            asked = Access("n", verb, group, plural, sub, namespace or "x", name or "x")
            return authorize(asked, _All() if off else _None(), defaults(37), LATEST).allowed

        return may

    def _rights(self, user: User) -> Iterator[Vertex]:
        may, world = self._may(user), self.world
        if may("*", "*"):
            yield CLUSTER
        if any(
            may(verb, "mutatingwebhookconfigurations", "", name)
            for verb, name in (
                ("create", ""),
                *((v, n) for v in ("update", "patch") for n in NAMES),
            )
        ):
            yield CLUSTER
        if may("create", "apiservices") or any(
            may(verb, "apiservices", "", name)
            for verb in ("update", "patch")
            for name in ("v1.", "v1.apps", "v1.rbac.authorization.k8s.io")
        ):
            yield CLUSTER
        for secret in world.secrets:
            if any(may(v, "secrets", *secret) for v in ("get", "list", "watch", "patch", "update")):
                yield "secrets", *secret
            if any(
                may(v, "validatingwebhookconfigurations", "", n)
                for v, n in (("create", ""), *((v, n) for v in ("update", "patch") for n in NAMES))
            ):
                yield "secrets", *secret
        for namespace in world.namespaces:
            yield from self._in_namespace(may, namespace)
        for account in world.accounts:
            if may("create", "serviceaccounts/token", *account) or may(
                "impersonate", "serviceaccounts", *account
            ):
                yield "serviceaccounts", *account
        for key, pod in world.pods.items():
            image = any(may(v, "pods", *key) for v in ("patch", "update")) or any(
                may(v, "pods/ephemeralcontainers", *key) for v in ("patch", "update")
            )
            connects = ("create",) if (world.minor or 0) > 34 else ("create", "get")
            if any(may(v, "pods/exec", *key) for v in connects) or (
                image and not pod.control_plane
            ):
                yield from self._inside(key)
            if any(may(v, "nodes/proxy", "", pod.node) for v in ("create", "get")):
                yield from self._inside(key)
            moves = (
                may("delete", "pods", *key)
                or any(may(v, "nodes", "", pod.node) for v in ("patch", "update", "delete"))
                or any(may(v, "pods/status", *key) for v in ("patch", "update"))
                or may("create", "pods/eviction", *key)
                or self._scales(may, pod)
            )
            if pod.can_move and moves:
                yield from self._on_node(key)
        yield from self._identities(may)
        yield from self._roles(user, may)

    def _scales(self, may: May, pod: Pod) -> bool:
        """Return whether somebody may have more pods like one."""
        scales = {"ReplicaSet": (("replicasets", "o-1"), ("deployments", "o")),
                  "StatefulSet": (("statefulsets", "o-1"),)}.get(pod.owner, ())  # fmt: skip
        return any(
            may(verb, f"{resource}/scale", pod.namespace, name)
            for verb in ("update", "patch")
            for resource, name in scales
        ) or (
            bool(scales)
            and any(
                may(verb, "horizontalpodautoscalers", pod.namespace, name)
                for verb, name in (
                    ("create", ""), *((v, n) for v in ("update", "patch") for n in NAMES)
                )
            )
        )  # fmt: skip

    def _in_namespace(self, may: May, namespace: str) -> Iterator[Vertex]:
        world = self.world
        runs = may("create", "pods", namespace) or any(
            may(v, "deployments", namespace, n)
            for v, n in (("create", ""), *((v, n) for v in ("update", "patch") for n in NAMES))
        )
        all_of_it = may("*", "*", namespace)
        reads = any(may(v, "secrets", namespace, "any") for v in ("get", "list", "watch")) or any(
            may(v, "secrets", namespace, n)
            for v in ("get", "list", "watch", "patch", "update")
            for n in NAMES
        )
        if runs or all_of_it or (may("create", "secrets", namespace) and reads):
            yield from (("serviceaccounts", *key) for key in world.accounts if key[0] == namespace)
        if runs or all_of_it:
            yield from (("secrets", *key) for key in world.secrets if key[0] == namespace)
        lifts = any(may(v, "namespaces", namespace, namespace) for v in ("patch", "update"))
        leaves = namespace not in world.confined or lifts or may("create", "persistentvolumes")
        makes_secrets = all_of_it or may("create", "secrets", namespace)
        if namespace == "kube-system" and self._takes_bootstrap_tokens and makes_secrets:
            yield "bootstrap", "", ""
        if (runs and leaves) or all_of_it:
            yield from (("nodes", "", name) for name in world.nodes)
        if all_of_it:
            for key, pod in world.pods.items():
                if key[0] == namespace:
                    yield from self._inside(key)
                    if pod.can_move:
                        yield from self._on_node(key)

    def _inside(self, key: tuple[str, str]) -> Iterator[Vertex]:
        pod = self.world.pods[key]
        if pod.mounts_token:
            yield pod.account_vertex
        yield from (("secrets", key[0], name) for name in pod.secrets)
        if pod.escape is not None:
            yield "nodes", "", pod.node
        if pod.control_plane:
            yield CLUSTER

    def _on_node(self, key: tuple[str, str]) -> Iterator[Vertex]:
        pod = self.world.pods[key]
        if pod.account:
            yield pod.account_vertex
        for vertex in pod.refers:
            yield vertex
            for _, reached in self.world.graph.volumes_of(vertex):
                yield from reached

    def _identities(self, may: May) -> Iterator[Vertex]:
        world = self.world
        users = [user for user in world.rbac.users() if account_of(user) is None]
        any_user = [
            user
            for user in (*users, *NAMES, "system:masters")
            if may("impersonate", "users", "", user)
        ]
        yield from (("users", "", user) for user in any_user if user in users)
        anybody = any_user or any(
            may("impersonate", "serviceaccounts", namespace, name)
            for namespace in world.namespaces
            for name in NAMES
        )
        if anybody and may("impersonate", "groups", "", "system:masters"):
            yield CLUSTER
        if may("impersonate", "groups", "", "system:nodes"):
            for name in world.nodes:
                if may("impersonate", "users", "", f"system:node:{name}"):
                    yield "kubelets", "", name
        if may("create", "certificatesigningrequests") and may(
            "create", "certificatesigningrequests/nodeclient"
        ):
            yield from (("kubelets", "", name) for name in world.nodes)
        if any(
            may(v, "certificatesigningrequests/approval", "", "any") for v in ("update", "patch")
        ):
            names = "kubernetes.io/kube-apiserver-client", "kubernetes.io/*"
            if any(may("approve", "signers", "", name) for name in names):
                yield CLUSTER
            names = "kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/*"
            asks = may("create", "certificatesigningrequests")
            asks = asks or self.set_up.admission is Half.OFF
            if asks and any(may("approve", "signers", "", name) for name in names):
                yield from (("kubelets", "", name) for name in world.nodes)

    def _roles(self, user: User, may: May) -> Iterator[Vertex]:
        del user
        if may("bind", "clusterroles", "", "everything") and may("create", "clusterrolebindings"):
            yield CLUSTER


class _All:
    def reaches(self, node: str, vertex: Vertex) -> bool:
        return True


class _None:
    def reaches(self, node: str, vertex: Vertex) -> bool:
        return False
