"""Probes of the strict rule about events."""

from noderestrict.policy.rule import CREATE
from noderestrict.probes.observed import MADE_UP, Observed
from noderestrict.probes.probe import passes, refused
from noderestrict.probes.request import API, Request, user_of

_EVENTS = API("", "v1", "events", "Event")


def _event(seen: Observed, node: str) -> Request:
    body = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": MADE_UP, "namespace": "default"},
        "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": node},
        "reason": "Verify",
        "message": MADE_UP,
        "type": "Normal",
        "source": {"component": "kubelet", "host": seen.node},
    }
    return Request(user_of(seen.node), _EVENTS, CREATE, "default", MADE_UP, body)


@refused("events/about-own")
def event_about_another(seen: Observed) -> Request:
    """Report an event about another node."""
    return _event(seen, f"{MADE_UP}-other")


@passes("events/about-own")
def event_about_itself(seen: Observed) -> Request:
    """Report an event about itself."""
    return _event(seen, seen.node)
