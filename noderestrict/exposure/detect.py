"""Which halves of node isolation a cluster has, as far as its objects show."""

from collections.abc import Sequence
from dataclasses import replace

from noderestrict.agents.file import Agent
from noderestrict.doctor.workloads import elements, values
from noderestrict.exposure.setups import Half, SetUp, set_ups
from noderestrict.exposure.world import World

_PLUGIN = "NodeRestriction"
_REGISTRATION = "noderestrict"
_POD = "noderestrict-authorizer"
DETECTED = "detected"


def detect(world: World, policies: Sequence[Agent] = ()) -> tuple[SetUp, str]:
    """Return the set-up of a cluster, and how it is known.

    A half that cannot be seen counts as off.

    Args:
        world: the cluster.
        policies: of agents, which count as in force if noderestrict holds what is written.
    """
    admission, why_admission = _admission(world)
    authorizer, why_authorizer = _authorizer(world)
    why = f"admission: {why_admission}; authorizer: {why_authorizer}"
    known = set_ups(policies)
    for one in ("nothing", "in-tree", "agents", "noderestrict"):
        if one in known and (known[one].admission, known[one].authorizer) == (
            admission,
            authorizer,
        ):
            return known[one], why
    title = f"admission: {admission}, authorizer: {authorizer}"
    found = SetUp(DETECTED, title, admission, authorizer)
    return replace(found, policies=tuple(policies) if admission is Half.OURS else ()), why


def _admission(world: World) -> tuple[Half, str]:
    enabled = world.api_servers and all(
        _PLUGIN in elements(values(command, "--enable-admission-plugins"))
        and _PLUGIN not in elements(values(command, "--disable-admission-plugins"))
        for command in world.api_servers
    )
    if enabled:
        return Half.IN_TREE, "the API server's flags enable the plugin"
    if _REGISTRATION in world.registrations:
        return Half.OURS, "noderestrict's webhook is registered"
    if world.api_servers:
        return Half.OFF, "an API server's flags do not enable the plugin"
    return Half.OFF, "nothing shows one, so none is assumed"


def _authorizer(world: World) -> tuple[Half, str]:
    if world.api_servers and all(
        "Node" in elements(values(command, "--authorization-mode")) for command in world.api_servers
    ):
        return Half.IN_TREE, "the API server's flags enable it"
    ours = {
        pod.node for pod in world.pods.values() if pod.name.startswith(_POD) and not pod.account
    }
    servers = {pod.node for pod in world.pods.values() if pod.control_plane == "kube-apiserver"}
    if servers and servers <= ours:
        return Half.OURS, "noderestrict's authorizer runs beside each API server"
    if world.api_servers:
        return Half.OFF, "an API server's flags do not enable it"
    return Half.OFF, "nothing shows one, so none is assumed"
