"""Probes of the rules about ResourceSlices."""

from noderestrict.policy.rule import CREATE
from noderestrict.probes.observed import MADE_UP, Observed
from noderestrict.probes.probe import passes, refused
from noderestrict.probes.request import API, Request, user_of

_GROUP, _PLURAL = "resource.k8s.io", "resourceslices"


def _slice(seen: Observed, node: str) -> Request:
    version = seen.version_of(_PLURAL)
    api = API(_GROUP, version, _PLURAL, "ResourceSlice", namespaced=False)
    spec = {
        "driver": f"{MADE_UP}.example.com",
        "nodeName": node,
        "pool": {"name": MADE_UP, "generation": 1, "resourceSliceCount": 1},
        "devices": [],
    }
    body = {
        "apiVersion": api.api_version,
        "kind": api.kind,
        "metadata": {"name": MADE_UP},
        "spec": spec,
    }
    return Request(user_of(seen.node), api, CREATE, "", MADE_UP, body)


@refused("resourceslices/own-node-name")
def other_slice(seen: Observed) -> Request:
    """Publish devices of another node."""
    return _slice(seen, f"{MADE_UP}-other")


@passes("resourceslices/own-node-name")
def own_slice(seen: Observed) -> Request:
    """Publish its own devices."""
    return _slice(seen, seen.node)
