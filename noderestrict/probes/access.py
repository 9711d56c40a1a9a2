"""Questions about what a node may read, of which an authorizer must allow some and no others.

They are asked as SubjectAccessReviews, which change nothing. The rules are those of graph/rules.py.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from noderestrict.api import corev1
from noderestrict.graph.edges import Vertex, pod_edges, volume_edges
from noderestrict.graph.rules import Access
from noderestrict.policy.identity import NODES_GROUP
from noderestrict.policy.releases import ALWAYS, Since, since
from noderestrict.policy.rules.leases import NODE_LEASE_NAMESPACE
from noderestrict.probes.observed import MADE_UP, MissingError, Observed
from noderestrict.probes.request import Object, user_of

_GROUPS = {"volumeattachments": "storage.k8s.io", "resourceclaims": "resource.k8s.io"}
_CLUSTER_SCOPED = ("persistentvolumes", "volumeattachments")


@dataclass(frozen=True, slots=True)
class Question:
    """A kind of access that an authorizer must allow, or must not.

    Attributes:
        what: what the node wants, in words.
        ask: returns the access; raises MissingError if the cluster lacks the object that it takes.
        hostile: whether it must not be allowed.
        since: since when the in-tree authorizer answers like that.
    """

    what: str
    ask: Callable[[Observed], Access]
    hostile: bool
    since: Since = ALWAYS


@dataclass(frozen=True, slots=True)
class AccessRule:
    """A rule of the authorizer.

    Attributes:
        id: its name in reports, such as ``read/secrets``.
        demands: which access a node has.
        questions: that try it out.
    """

    id: str
    demands: str
    questions: tuple[Question, ...]


def review(access: Access) -> dict[str, Any]:
    """Return the SubjectAccessReview of an access."""
    attributes: dict[str, Any] = {
        "verb": access.verb,
        "group": access.group,
        "resource": access.resource,
        "subresource": access.sub_resource,
        "namespace": access.namespace,
        "name": access.name,
    }
    if access.node_selectors:
        requirement = {
            "key": "spec.nodeName",
            "operator": "In",
            "values": sorted(access.node_selectors),
        }
        attributes["fieldSelector"] = {"requirements": [requirement]}
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": user_of(access.node),
            "groups": [NODES_GROUP, "system:authenticated"],
            "resourceAttributes": {key: value for key, value in attributes.items() if value},
        },
    }


def reached(seen: Observed) -> set[Vertex]:
    """Return every object that the node's pods lead to."""
    found: set[Vertex] = set()
    for pod in seen.own_pods:
        found |= _edges(pod)
    for value in seen.volumes.values():
        volume = msgspec.convert(value, corev1.PersistentVolume)
        claim, beyond = volume_edges(volume)
        if claim in found:
            found |= beyond
    found |= {("volumeattachments", "", name) for name in seen.attachments}
    return found


def _edges(pod: Object) -> set[Vertex]:
    return pod_edges(msgspec.convert(pod, corev1.Pod))


def _own(plural: str, verb: str, sub_resource: str = "") -> Callable[[Observed], Access]:
    def ask(seen: Observed) -> Access:
        for vertex in sorted(reached(seen)):
            if vertex[0] == plural:
                return _access(seen, vertex, verb, sub_resource)
        raise MissingError(f"no pod on node {seen.node} leads to one of the {plural}")

    return ask


def _foreign(plural: str, verb: str, sub_resource: str = "") -> Callable[[Observed], Access]:
    """Return what asks for an object of pods elsewhere, or for one that no pod names."""

    def ask(seen: Observed) -> Access:
        own = reached(seen)
        namespace = "" if plural in _CLUSTER_SCOPED else "default"
        vertex = min(
            (one for one in _elsewhere(seen) if one[0] == plural and one not in own),
            default=(plural, namespace, MADE_UP),
        )
        return _access(seen, vertex, verb, sub_resource)

    return ask


def _elsewhere(seen: Observed) -> Iterator[Vertex]:
    for pod in seen.foreign_pods:
        yield from _edges(pod)


def _access(seen: Observed, vertex: Vertex, verb: str, sub_resource: str) -> Access:
    plural, namespace, name = vertex
    group = _GROUPS.get(plural, "")
    return Access(seen.node, verb, group, plural, sub_resource, namespace, name)


def _fixed(
    verb: str,
    group: str,
    resource: str,
    *,
    sub_resource: str = "",
    namespace: str = "",
    name: Callable[[Observed], str] = lambda _: "",
    selects: bool = False,
) -> Callable[[Observed], Access]:
    def ask(seen: Observed) -> Access:
        selectors = frozenset((seen.node,)) if selects else frozenset()
        return Access(
            seen.node, verb, group, resource, sub_resource, namespace, name(seen), selectors
        )

    return ask


def _its_name(seen: Observed) -> str:
    return seen.node


def _other_name(_: Observed) -> str:
    return f"{MADE_UP}-other"


def _must_not(what: str, ask: Callable[[Observed], Access], from_: Since = ALWAYS) -> Question:
    return Question(what, ask, hostile=True, since=from_)


def _may(what: str, ask: Callable[[Observed], Access], from_: Since = ALWAYS) -> Question:
    return Question(what, ask, hostile=False, since=from_)


def _by_path(
    plural: str, verb: str = "get", sub_resource: str = "", from_: Since = ALWAYS
) -> AccessRule:
    what = f"{plural}/{sub_resource}" if sub_resource else plural
    return AccessRule(
        f"read/{what.replace('/', '-')}",
        f"{verb} {what} that a pod on the node leads to",
        (
            _must_not(
                f"{verb} {what} that no pod on the node leads to",
                _foreign(plural, verb, sub_resource),
            ),
            _may(
                f"{verb} {what} that a pod on the node leads to",
                _own(plural, verb, sub_resource),
                from_,
            ),
        ),
    )


def _named(plural: str) -> AccessRule:
    """Return the rule for what is read by name, listed and watched too."""
    rule = _by_path(plural)
    more = _must_not(f"list all {plural}", _fixed("list", "", plural))
    return AccessRule(rule.id, rule.demands, (*rule.questions, more))


_LEASES, _STORAGE, _DEVICES = "coordination.k8s.io", "storage.k8s.io", "resource.k8s.io"

ACCESS_RULES: tuple[AccessRule, ...] = (
    _named("secrets"),
    _named("configmaps"),
    _by_path("persistentvolumeclaims"),
    _by_path("persistentvolumeclaims", "patch", "status"),
    _by_path("persistentvolumes"),
    _by_path("volumeattachments"),
    _by_path("resourceclaims"),
    _by_path("serviceaccounts", from_=since(34)),
    _by_path("serviceaccounts", "create", "token"),
    AccessRule(
        "read/pods",
        "pods bound to the node",
        (
            _must_not(
                "get a pod that is not bound to the node", _foreign("pods", "get"), since(32)
            ),
            _must_not("list all pods", _fixed("list", "", "pods"), since(32)),
            _may("get a pod that is bound to the node", _own("pods", "get")),
            _may(
                "list the pods that are bound to the node",
                _fixed("list", "", "pods", selects=True),
            ),
        ),
    ),
    AccessRule(
        "read/nodes",
        "its own Node",
        (
            _must_not("get another Node", _fixed("get", "", "nodes", name=_other_name), since(32)),
            _may("get its own Node", _fixed("get", "", "nodes", name=_its_name)),
        ),
    ),
    AccessRule(
        "read/leases",
        "its own Lease in kube-node-lease",
        (
            _must_not(
                "update the Lease of another node",
                _fixed(
                    "update", _LEASES, "leases", namespace=NODE_LEASE_NAMESPACE, name=_other_name
                ),
            ),
            _may(
                "update its own Lease",
                _fixed("update", _LEASES, "leases", namespace=NODE_LEASE_NAMESPACE, name=_its_name),
            ),
        ),
    ),
    AccessRule(
        "read/csinodes",
        "its own CSINode",
        (
            _must_not(
                "update the CSINode of another node",
                _fixed("update", _STORAGE, "csinodes", name=_other_name),
            ),
            _may(
                "update its own CSINode",
                _fixed("update", _STORAGE, "csinodes", name=_its_name),
            ),
        ),
    ),
    AccessRule(
        "read/resourceslices",
        "its own ResourceSlices",
        (
            _must_not(
                "delete the ResourceSlice of another node",
                _fixed("delete", _DEVICES, "resourceslices", name=_other_name),
            ),
            _may("create a ResourceSlice", _fixed("create", _DEVICES, "resourceslices"), since(30)),
        ),
    ),
    AccessRule(
        "read/everything-else",
        "what every node needs, and nothing beyond",
        (
            _must_not(
                "list all cluster roles",
                _fixed("list", "rbac.authorization.k8s.io", "clusterroles"),
            ),
            _may("list all services", _fixed("list", "", "services")),
        ),
    ),
)
