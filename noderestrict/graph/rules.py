"""The Node authorizer's rules: what a node may read, and which writes it leaves to admission.

The source is plugin/pkg/auth/authorizer/node of Kubernetes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from noderestrict.graph.edges import Vertex
from noderestrict.policy import features as gates
from noderestrict.policy.releases import LATEST, Release, Since, since

_READ = frozenset(("get", "list", "watch"))
_LEASE_NAMESPACE = "kube-node-lease"
_OWN_VERBS = frozenset(("get", "create", "update", "patch", "delete"))
_STATUS_VERBS = ("get", "update", "patch")


@dataclass(frozen=True, slots=True)
class Access:
    """A request for a resource by a node.

    Attributes:
        node: the node's name, never "".
        verb: of the request.
        group: API group, "" for the core group.
        resource: plural.
        sub_resource: "" for none.
        namespace: "" for none.
        name: "" for none.
        node_selectors: the values that a field selector requires of ``spec.nodeName``.
    """

    node: str
    verb: str
    group: str
    resource: str
    sub_resource: str = ""
    namespace: str = ""
    name: str = ""
    node_selectors: frozenset[str] = frozenset()

    @property
    def vertex(self) -> Vertex:
        """The requested object."""
        return self.resource, self.namespace, self.name

    def __str__(self) -> str:
        """Return verb, resource and object as people write them."""
        sub = f"/{self.sub_resource}" if self.sub_resource else ""
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.verb} {self.resource}{sub} {where}".rstrip()


@dataclass(frozen=True, slots=True)
class Opinion:
    """Allowed, denied, or no opinion. Nodes are never denied, agents never allowed anything.

    Attributes:
        allowed: whether the request is allowed.
        reason: what is missing, or "".
        by_path: whether the graph decided.
        denied: whether the request is denied, whatever the authorizers after this one say.
        rule: id of the rule that denies, "" for nodes.
        detail: for the operator: what was looked up, or "".
    """

    allowed: bool
    reason: str = ""
    by_path: bool = field(default=False)
    denied: bool = field(default=False)
    rule: str = ""
    detail: str = ""


class Reach(Protocol):
    """Which node may reach which object."""

    def reaches(self, node: str, vertex: Vertex) -> bool:
        """Return whether a node may reach an object."""


_YES = Opinion(allowed=True)
_REACHED = Opinion(allowed=True, by_path=True)


def _no(reason: str) -> Opinion:
    return Opinion(allowed=False, reason=reason)


# What every node may do: NodeRules of plugin/pkg/auth/authorizer/rbac/bootstrappolicy.
# (group, resource with subresource): verbs.
_UNIFORM: Mapping[tuple[str, str], frozenset[str]] = {
    ("authentication.k8s.io", "tokenreviews"): frozenset(("create",)),
    ("authorization.k8s.io", "subjectaccessreviews"): frozenset(("create",)),
    ("authorization.k8s.io", "localsubjectaccessreviews"): frozenset(("create",)),
    ("", "services"): _READ,
    ("", "nodes"): _READ | {"create", "update", "patch"},
    ("", "nodes/status"): frozenset(("update", "patch")),
    ("", "events"): frozenset(("create", "update", "patch")),
    ("events.k8s.io", "events"): frozenset(("create", "update", "patch")),
    ("", "pods"): _READ | {"create", "delete"},
    ("", "pods/status"): frozenset(("update", "patch")),
    ("", "pods/eviction"): frozenset(("create",)),
    ("", "endpoints"): frozenset(("get",)),
    ("certificates.k8s.io", "certificatesigningrequests"): _READ | {"create"},
    ("storage.k8s.io", "csidrivers"): _READ,
    ("node.k8s.io", "runtimeclasses"): _READ,
    # Matched by requests whose resource contains the slash.
    ("", "serviceaccounts/token"): frozenset(("create",)),
    ("", "persistentvolumeclaims/status"): frozenset(("get", "update", "patch")),
}
#: Resources that nodes often access, with the verbs for which the graph may be asked. What a node
#: may do with other verbs follows from the request alone, in every API group and release, and with
#: any feature gates.
BY_REQUEST: Mapping[str, frozenset[str]] = {
    "events": frozenset(),
    "leases": frozenset(),
    "nodes": frozenset(),
    "pods": _READ,
}
_TRUST_BUNDLES = ("certificates.k8s.io", "clustertrustbundles")
# What older releases lack.
_NEW_EVENTS = ("events.k8s.io", "events")
_NEW_EVENTS_SINCE = since(35)
_CSI_NODE_STATUS_SINCE = since(37)
_SLICES_SINCE: Mapping[str, Since] = {"deletecollection": since(31)}
_ANY_SLICES_SINCE = since(30)


def authorize(
    request: Access, graph: Reach, features: Mapping[str, bool], release: Release = LATEST
) -> Opinion:
    """Return the opinion on one request.

    Args:
        request: of a node.
        graph: of the cluster.
        features: every feature gate with its value.
        release: whose rules apply.
    """
    match request.group, request.resource:
        case "", "secrets" | "configmaps":
            return _named_read(request, graph)
        case "", "persistentvolumeclaims":
            if request.sub_resource == "status":
                return _by_path(request, graph, ("update", "patch"))
            return _get_by_path(request, graph)
        case (
            ("", "persistentvolumes")
            | ("storage.k8s.io", "volumeattachments")
            | ("resource.k8s.io", "resourceclaims")
        ):
            return _get_by_path(request, graph)
        case "", "serviceaccounts":
            return _service_account(request, graph, features)
        case "coordination.k8s.io", "leases":
            return _lease(request)
        case "storage.k8s.io", "csinodes":
            return _csi_node(request, features, release)
        case "resource.k8s.io", "resourceslices":
            return _resource_slice(request, graph, features, release)
        case "certificates.k8s.io", "podcertificaterequests":
            return _pod_certificate_request(request, graph, features)
        case "", "nodes" if features[gates.AUTHORIZE_NODE_WITH_SELECTORS]:
            return _node(request)
        case "", "pods" if features[gates.AUTHORIZE_NODE_WITH_SELECTORS]:
            return _pod(request, graph, features)
        case _:
            return _uniform(request, features, release)


def _uniform(request: Access, features: Mapping[str, bool], release: Release) -> Opinion:
    resource = request.resource
    if request.sub_resource:
        resource = f"{resource}/{request.sub_resource}"
    target = (request.group, resource)
    if target == _TRUST_BUNDLES and features[gates.CLUSTER_TRUST_BUNDLE]:
        verbs = _READ
    elif target == _NEW_EVENTS and not _NEW_EVENTS_SINCE.includes(release):
        verbs = frozenset()
    else:
        verbs = _UNIFORM.get(target, frozenset())
    if request.verb in verbs:
        return _YES
    return _no(f"no node may {request}")


def _by_path(request: Access, graph: Reach, verbs: tuple[str, ...]) -> Opinion:
    if request.verb not in verbs:
        return _no(f"{request}: a node may only {', '.join(verbs)} it")
    if not request.name:
        return _no(f"{request}: a node must name one object")
    if graph.reaches(request.node, request.vertex):
        return _REACHED
    where = f"{request.namespace}/{request.name}" if request.namespace else request.name
    reason = f"nothing on node {request.node} refers to {request.resource} {where}"
    return Opinion(allowed=False, reason=reason, by_path=True)


def _no_sub_resource(request: Access) -> Opinion | None:
    if request.sub_resource:
        return _no(f"no node may {request}")
    return None


def _get_by_path(request: Access, graph: Reach) -> Opinion:
    return _no_sub_resource(request) or _by_path(request, graph, ("get",))


def _named_read(request: Access, graph: Reach) -> Opinion:
    if refused := _no_sub_resource(request):
        return refused
    if request.verb in _READ and not request.namespace:
        return _no(f"{request}: a node must name one object in one namespace")
    return _by_path(request, graph, ("get", "list", "watch"))


def _service_account(request: Access, graph: Reach, features: Mapping[str, bool]) -> Opinion:
    if request.sub_resource == "token":
        return _by_path(request, graph, ("create",))
    if refused := _no_sub_resource(request):
        return refused
    if request.verb == "get" and not (
        features[gates.CREDENTIAL_PROVIDERS] or features[gates.POD_CERTIFICATE_REQUEST]
    ):
        return _no(f"{request}: needs feature gate {gates.CREDENTIAL_PROVIDERS}")
    return _by_path(request, graph, ("get",))


def _own(request: Access) -> Opinion:
    if request.verb not in _OWN_VERBS:
        return _no(f"no node may {request}")
    if request.verb != "create" and request.name != request.node:
        return _no(f"{request}: node {request.node} may access only the object with its own name")
    return _YES


def _lease(request: Access) -> Opinion:
    if request.namespace != _LEASE_NAMESPACE:
        return _no(f"{request}: a node's lease is in namespace {_LEASE_NAMESPACE}")
    return _own(request)


def _csi_node(request: Access, features: Mapping[str, bool], release: Release) -> Opinion:
    if request.sub_resource != "status" or not _CSI_NODE_STATUS_SINCE.includes(release):
        return _no_sub_resource(request) or _own(request)
    if not features[gates.CSI_VOLUME_HEALTH]:
        return _no(f"{request}: needs feature gate {gates.CSI_VOLUME_HEALTH}")
    if request.verb not in _STATUS_VERBS:
        return _no(f"{request}: a node may only {', '.join(_STATUS_VERBS)} it")
    return _own(request)


def _selected(request: Access, features: Mapping[str, bool]) -> Opinion:
    if features[gates.AUTHORIZE_WITH_SELECTORS] and request.node in request.node_selectors:
        return _YES
    return _no(f"{request}: needs the field selector spec.nodeName={request.node}")


def _resource_slice(
    request: Access, graph: Reach, features: Mapping[str, bool], release: Release
) -> Opinion:
    if not _SLICES_SINCE.get(request.verb, _ANY_SLICES_SINCE).includes(release):
        return _no(f"no node may {request} with the rules of Kubernetes {release}")
    if refused := _no_sub_resource(request):
        return refused
    if request.verb == "create":
        return _YES
    if request.verb in ("list", "watch", "deletecollection"):
        # Before authorizers saw selectors, nodes could list all slices.
        if not features[gates.AUTHORIZE_NODE_WITH_SELECTORS]:
            return _YES
        return _selected(request, features)
    return _by_path(request, graph, ("get", "update", "patch", "delete"))


def _pod_certificate_request(
    request: Access, graph: Reach, features: Mapping[str, bool]
) -> Opinion:
    for gate in (gates.POD_CERTIFICATE_REQUEST, gates.AUTHORIZE_NODE_WITH_SELECTORS):
        if not features[gate]:
            return _no(f"{request}: needs feature gate {gate}")
    if refused := _no_sub_resource(request):
        return refused
    if request.verb == "create":
        return _YES
    if request.verb in ("list", "watch"):
        return _selected(request, features)
    return _by_path(request, graph, ("get",))


def _node(request: Access) -> Opinion:
    if request.sub_resource == "status" and request.verb in ("update", "patch"):
        return _YES
    if refused := _no_sub_resource(request):
        return refused
    if request.verb in ("create", "update", "patch"):
        return _YES
    if request.verb in _READ:
        if request.name == request.node:
            return _YES
        return _no(f"{request}: node {request.node} may read only its own Node")
    return _no(f"no node may {request}")


def _pod(request: Access, graph: Reach, features: Mapping[str, bool]) -> Opinion:
    match request.sub_resource, request.verb:
        case ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create"):
            return _YES
        case "", "get":
            return _by_path(request, graph, ("get",))
        case "", "list" | "watch":
            selected = _selected(request, features)
            if selected.allowed or not request.name:
                return selected
            return _by_path(request, graph, ("list", "watch"))
        case _:
            return _no(f"no node may {request}")
