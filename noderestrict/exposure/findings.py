"""What would fall with each node: the Structs are the format of the JSON report."""

from typing import Any

import msgspec

from noderestrict.policy.json_schema import json_schema
from noderestrict.survey.objects import NotSeen


class _Part(msgspec.Struct, frozen=True, rename="camel"):
    """A part of the report."""


class Thing(_Part, frozen=True):
    """An object, or all objects of a kind.

    Attributes:
        kind: plural resource; ``cluster``, ``hosted`` and the like; or that of a role or a binding.
        namespace: of the object; "" for none, or for all.
        name: of the object; "" for all of the kind.
    """

    kind: str
    namespace: str
    name: str


class UsedRequest(_Part, frozen=True):
    """A request that the API server must allow for a step.

    Attributes:
        right: id in the table of rights; "" for what the Node authorizer grants.
        verb: of the request.
        group: API group.
        resource: plural, with its subresource.
        namespace: "" for all of them, and for what is in none.
        name: of the object, "" for none.
        binding: that grants it.
        role: that is bound.
    """

    right: str
    verb: str
    group: str
    resource: str
    namespace: str
    name: str
    binding: Thing
    role: Thing


class Step(_Part, frozen=True):
    """One step of an attacker.

    Attributes:
        start: where it starts.
        end: where it leads.
        by: how.
        costs: 1 if it takes a credential or uses a right, else 0.
        requests: that it takes.
        volume: the PersistentVolume that it goes through; null for none.
    """

    start: Thing
    end: Thing
    by: str
    costs: int
    requests: tuple[UsedRequest, ...] = ()
    volume: Thing | None = None


class Remedy(_Part, frozen=True):
    """Something that closes a path.

    Attributes:
        by: what to do.
        to: with what; null where that is clear.
        binding: that grants what to narrow or remove.
    """

    by: str
    to: Thing | None = None
    binding: Thing | None = None


class Way(_Part, frozen=True):
    """How something falls.

    Attributes:
        to: what falls.
        count: of known objects that it is.
        steps: credentials that are taken and rights that are used on the way.
        path: indexes of all steps in ``steps`` of the report.
        closed_by: what would close it.
    """

    to: Thing
    count: int
    steps: int
    path: tuple[int, ...]
    closed_by: tuple[Remedy, ...] = ()


class ExposedNode(_Part, frozen=True):
    """What falls with one node.

    Attributes:
        name: of the node.
        control_plane: how one can tell that it is one; "" for a worker.
        cluster_steps: steps to what is as good as cluster-admin; null if nothing leads there.
        secrets: number of Secrets that fall.
        nodes_worth: the same, in numbers of Secrets that a worker has on average.
        service_accounts: number of service accounts that fall.
        nodes: number of other nodes whose containers fall.
        objects: number of objects that its pods refer to, by resource.
        ways: to the cluster, else to everything that falls.
    """

    name: str
    control_plane: str
    cluster_steps: int | None
    secrets: int
    nodes_worth: float
    service_accounts: int
    nodes: int
    objects: dict[str, int]
    ways: tuple[Way, ...]


class Change(_Part, frozen=True):
    """How a node differs from the baseline.

    Attributes:
        node: its name.
        change: ``new``, ``gone``, ``worse``, ``better`` or ``other``.
        before: what fell with it; null for a new one.
        after: what falls with it; null for one that is gone.
    """

    node: str
    change: str
    before: "Sums | None"
    after: "Sums | None"


class Sums(_Part, frozen=True):
    """What falls with a node, in numbers.

    Attributes:
        cluster_steps: to cluster-admin; null if nothing leads there.
        secrets: number of Secrets.
        service_accounts: number of service accounts.
        nodes: number of other nodes.
    """

    cluster_steps: int | None
    secrets: int
    service_accounts: int
    nodes: int


class Compared(_Part, frozen=True):
    """One set-up, in sums over all workers.

    Attributes:
        set_up: its id.
        title: in a few words.
        falling: number of workers that lead to cluster-admin.
        fewest_steps: of any of them; null if there is none.
        nodes_worth: of Secrets that fall with a worker, on average.
        worst_nodes_worth: with the worst one.
    """

    set_up: str
    title: str
    falling: int
    fewest_steps: int | None
    nodes_worth: float
    worst_nodes_worth: float


class Findings(_Part, frozen=True):
    """All that is found.

    Attributes:
        kubernetes: version of the API server, such as ``1.36``; "" if it is not known.
        set_up: id of the set-up that the nodes are judged by.
        why_set_up: how it is known.
        nodes: workers, worst first.
        control_planes: nodes that hold the whole cluster, by name.
        set_ups: side by side.
        secrets: number of Secrets that are known.
        secrets_per_node: that a worker has on average.
        service_accounts: number of service accounts that are known.
        steps: that paths refer to.
        not_seen: what could not be read.
        notes: what else a reader must know.
        changes: since the baseline; null without one.
    """

    kubernetes: str
    set_up: str
    why_set_up: str
    nodes: tuple[ExposedNode, ...]
    control_planes: tuple[ExposedNode, ...]
    set_ups: tuple[Compared, ...]
    secrets: int
    secrets_per_node: float
    service_accounts: int
    steps: tuple[Step, ...]
    not_seen: tuple[NotSeen, ...]
    notes: tuple[str, ...] = ()
    changes: tuple[Change, ...] | None = None

    @property
    def falling(self) -> int:
        """Number of workers that lead to cluster-admin."""
        return sum(node.cluster_steps is not None for node in self.nodes)

    @property
    def summary(self) -> str:
        """Return the counts in a sentence."""
        count = len(self.nodes)
        workers = "1 worker" if count == 1 else f"{count:,} workers"
        return f"{workers}; {self.falling:,} of them lead to cluster-admin"


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the report."""
    return json_schema(Findings, "noderestrict exposure")
