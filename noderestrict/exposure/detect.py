"""Which halves of node isolation a cluster has, as far as its objects show."""

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from noderestrict.agents.file import Agent
from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.permissions import Permission, review
from noderestrict.doctor.probe import is_from_webhook, probe
from noderestrict.doctor.workloads import elements, values
from noderestrict.exposure.setups import Half, SetUp, set_ups
from noderestrict.exposure.world import World
from noderestrict.graph.graph import Graph
from noderestrict.graph.rules import Access, authorize
from noderestrict.policy.features import defaults
from noderestrict.policy.releases import LATEST_MINOR
from noderestrict.rbac.subjects import node

_PLUGIN = "NodeRestriction"
_REGISTRATION = "noderestrict"
_POD = "noderestrict-authorizer"
DETECTED = "detected"
#: What the in-tree halves say; texts of Kubernetes 1.25 to 1.37.
_PLUGIN_SAYS = "can only access node lease"
_AUTHORIZER_SAYS = "no relationship found between node"
_NODE, _NAMESPACE = "noderestrict-doctor", "kube-system"


#: Who holds a half, and how it is known.
Told = tuple[Half, str]


@dataclass(frozen=True, slots=True)
class Answers:
    """What a live cluster answers about its halves.

    Attributes:
        admission: None if nothing tells.
        authorizer: likewise.
    """

    admission: Told | None = None
    authorizer: Told | None = None


async def ask(connection: Connection) -> Answers:
    """Return what a cluster answers a node that is not there; nothing is written.

    Args:
        connection: to the API server, as a user who may impersonate nodes and create
            SubjectAccessReviews; else nothing tells.
    """
    cluster = Cluster(connection)
    return Answers(_by_refusal(await probe(cluster)), await _by_review(cluster))


def _by_refusal(refusal: ClusterError | None) -> Told | None:
    """Return who keeps a node from writing the Lease of another."""
    if refusal is None:
        return Half.OFF, "a node may write the Lease of another"
    if refusal.code != HTTPStatus.FORBIDDEN:
        return None
    if is_from_webhook(refusal):
        return Half.OURS, "noderestrict refuses what it must"
    if _PLUGIN_SAYS in str(refusal):
        return Half.IN_TREE, "the plugin refuses what it must"
    return None


async def _by_review(cluster: Cluster) -> Told | None:
    """Return who has a reason not to let a node read a Secret that nothing of it refers to."""
    secret = Permission("get", "", "secrets", name=_NODE, namespace=_NAMESPACE)
    user = node(_NODE)
    try:
        status = await review(cluster, user.name, secret, sorted(user.groups))
    except ClusterError:
        return None
    if status.get("allowed"):
        return Half.OFF, "a node may read every Secret"
    reason = str(status.get("reason") or "")
    asked = Access(_NODE, "get", "", "secrets", "", _NAMESPACE, _NODE)
    if _AUTHORIZER_SAYS in reason:
        return Half.IN_TREE, "the Node authorizer answers for nodes"
    if authorize(asked, Graph(), defaults(LATEST_MINOR)).reason in reason:
        return Half.OURS, "noderestrict answers for nodes"
    return None


def detect(
    world: World, policies: Sequence[Agent] = (), answers: Answers | None = None
) -> tuple[SetUp, str]:
    """Return the set-up of a cluster, and how it is known.

    A half that cannot be seen counts as off.

    Args:
        world: the cluster.
        policies: of agents, which count as in force if noderestrict holds what is written.
        answers: of a live cluster; they count more than what its objects show.
    """
    answers = answers or Answers()
    admission, why_admission = answers.admission or _admission(world)
    authorizer, why_authorizer = answers.authorizer or _authorizer(world)
    why = f"admission: {why_admission}; authorizer: {why_authorizer}"
    halves = admission, authorizer
    known = set_ups(policies)
    for one in ("nothing", "in-tree", "agents", "noderestrict"):
        if one in known and (known[one].admission, known[one].authorizer) == halves:
            return known[one], why
    title = f"admission: {admission}, authorizer: {authorizer}"
    held = tuple(policies) if admission is Half.OURS else ()
    return SetUp(DETECTED, title, admission, authorizer, held), why


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
