"""Probes of the rules about Leases, and about the identity of nodes."""

from noderestrict.policy.identity import NODE_USER_PREFIX
from noderestrict.policy.rule import CREATE
from noderestrict.policy.rules.leases import NODE_LEASE_NAMESPACE
from noderestrict.probes.observed import MADE_UP, Observed
from noderestrict.probes.probe import passes, refused
from noderestrict.probes.request import API, Request, user_of

_LEASES = API("coordination.k8s.io", "v1", "leases", "Lease")


def _lease(user: str, namespace: str, name: str) -> Request:
    body = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": 40},
    }
    return Request(user, _LEASES, CREATE, namespace, name, body)


@refused("identity/node-name")
def nameless_node(_seen: Observed) -> Request:
    """Create a Lease as a node without a name."""
    return _lease(NODE_USER_PREFIX, NODE_LEASE_NAMESPACE, f"{MADE_UP}-nameless")


@refused("leases/namespace")
def lease_elsewhere(seen: Observed) -> Request:
    """Create a Lease in kube-system."""
    return _lease(user_of(seen.node), "kube-system", seen.node)


@refused("leases/own-name")
def other_lease(seen: Observed) -> Request:
    """Create the Lease of another node."""
    return _lease(user_of(seen.node), NODE_LEASE_NAMESPACE, f"{MADE_UP}-other")


@passes("leases/namespace", "leases/own-name")
def own_lease(seen: Observed) -> Request:
    """Create its own Lease."""
    return _lease(user_of(seen.node), NODE_LEASE_NAMESPACE, seen.node)
