"""What a survey finds: the Structs are the format of the JSON report."""

from typing import Any

import msgspec

from noderestrict.policy.json_schema import json_schema
from noderestrict.survey.objects import NotSeen

#: How far the rights of an agent lead that nothing holds.
NONE = "none"
_WORTH = ("critical", "high")


class _Part(msgspec.Struct, frozen=True, rename="camel"):
    """A part of the report."""


class FoundRight(_Part, frozen=True):
    """A right of the table that an agent has.

    Attributes:
        right: id of it.
        severity: how far it leads where it holds.
        verbs: that the agent has.
        resources: with their groups and subresources.
        why: what it leads to.
        namespaces: where it holds, none for everywhere.
        names: of the objects for which it holds, none for all.
        from_: bindings and roles that grant it.
        held_by: what holds it to the node, "" for nothing.
    """

    right: str
    severity: str
    verbs: tuple[str, ...]
    resources: tuple[str, ...]
    why: str
    namespaces: tuple[str, ...]
    names: tuple[str, ...]
    from_: tuple[str, ...] = msgspec.field(name="from")
    held_by: str = ""


class OtherAccess(_Part, frozen=True):
    """Access beyond the node that is no right of the table.

    Attributes:
        resource: with its group and subresource.
        verbs: on it.
        namespaces: where, none for everywhere.
        names: of the objects, none for all.
    """

    resource: str
    verbs: tuple[str, ...]
    namespaces: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


class FoundAgent(_Part, frozen=True):
    """A service account that runs on many nodes.

    Attributes:
        service_account: NAMESPACE/NAME.
        daemon_sets: that run as it, NAMESPACE/NAME.
        nodes: on how many nodes it is, as far as pods or else DaemonSets say.
        severity: of the worst right that nothing holds, or ``none``.
        held_by: what holds its rights: a policy, impersonation of its node, both or nothing.
        rights: those of the table, those that lead farthest first.
        writes: what else it may write beyond its node.
        reads: what else it may read beyond its node.
        impersonates: what it may do as its own node, where it may be that.
        remedy: what would hold it.
    """

    service_account: str
    daemon_sets: tuple[str, ...]
    nodes: int
    severity: str
    held_by: tuple[str, ...]
    rights: tuple[FoundRight, ...]
    writes: tuple[OtherAccess, ...]
    reads: tuple[OtherAccess, ...]
    impersonates: tuple[str, ...] = ()
    remedy: str = ""

    @property
    def open(self) -> tuple[FoundRight, ...]:
        """The rights that nothing holds."""
        return tuple(one for one in self.rights if not one.held_by)

    @property
    def is_worth_a_look(self) -> bool:
        """Whether it may harm other nodes, or more."""
        return self.severity in _WORTH


class FoundStaticPod(_Part, frozen=True):
    """Static pods that see a kubeconfig; they may not name a service account.

    Attributes:
        pod: NAMESPACE/NAME, without the node's name.
        nodes: on which they are.
        kubeconfigs: paths on the node.
    """

    pod: str
    nodes: tuple[str, ...]
    kubeconfigs: tuple[str, ...]


class Findings(_Part, frozen=True):
    """All that a survey finds.

    Attributes:
        kubernetes: version of the API server, such as ``1.36``; "" if it is not known.
        agents: worst first.
        static_pods: apart, by name.
        not_seen: what could not be read.
        dangling: bindings to roles that do not exist.
    """

    kubernetes: str
    agents: tuple[FoundAgent, ...]
    static_pods: tuple[FoundStaticPod, ...]
    not_seen: tuple[NotSeen, ...]
    dangling: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """1 if nothing holds a critical or high right; else 2 if something was not seen; else 0."""
        if any(agent.is_worth_a_look for agent in self.agents):
            return 1
        return 2 if self.not_seen else 0

    @property
    def summary(self) -> str:
        """Return the counts in a sentence."""
        count = len(self.agents)
        worth = sum(agent.is_worth_a_look for agent in self.agents)
        agents = "1 agent" if count == 1 else f"{count} agents"
        return f"{agents}; with {worth} of them, a stolen node harms others"


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the report."""
    return json_schema(Findings, "noderestrict agents find")
