"""Which halves of node isolation a cluster has, and what holds its agents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from noderestrict.agents.file import Agent
from noderestrict.policy.releases import LATEST, LATEST_MINOR, Release
from noderestrict.survey.holding import IMPERSONATION_SINCE


class Half(StrEnum):
    """Who holds one half of node isolation."""

    OFF = "off"
    IN_TREE = "in-tree"
    OURS = "noderestrict"


@dataclass(frozen=True, slots=True)
class SetUp:
    """A way to set up a cluster.

    Attributes:
        id: names it.
        title: in a few words.
        admission: who holds what kubelets write.
        authorizer: who holds what kubelets read.
        policies: of agents, in force.
        impersonation: whether agents act as their own node where a kubelet may do what they do,
            and have these rights no more.
    """

    id: str
    title: str
    admission: Half
    authorizer: Half
    policies: tuple[Agent, ...] = ()
    impersonation: bool = False

    def release(self, minor: int | None) -> Release:
        """Return the release whose rules about nodes hold, for an API server of 1.``minor``."""
        if self.admission is not Half.IN_TREE or minor is None:
            return LATEST
        return Release(min(minor, LATEST_MINOR))


def set_ups(policies: Sequence[Agent] = (), minor: int | None = None) -> Mapping[str, SetUp]:
    """Return the set-ups that are compared, by id.

    Args:
        policies: of agents; without any, there is no set-up with them.
        minor: of the API server, None if it is not known; older ones have no impersonation.
    """
    ours = Half.OURS
    found = [
        SetUp("nothing", "no node isolation", Half.OFF, Half.OFF),
        SetUp("in-tree", "in-tree plugin and authorizer", Half.IN_TREE, Half.IN_TREE),
        SetUp("noderestrict", "both halves of noderestrict", ours, ours),
    ]
    if policies:
        found.append(
            SetUp("agents", "noderestrict with these policies", ours, ours, tuple(policies))
        )
    if minor is None or minor >= IMPERSONATION_SINCE:
        title = "noderestrict, agents act as their node"
        found.append(SetUp("impersonation", title, ours, ours, impersonation=True))
    return {one.id: one for one in found}
