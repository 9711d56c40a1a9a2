"""Learn from the events of audit logs what agents do."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import NamedTuple

from noderestrict.admission import Request
from noderestrict.agents.agents import Agents, Held
from noderestrict.agents.file import Agent, User
from noderestrict.agents.identity import Unknown, node_of, user_of
from noderestrict.api.resources import qualified
from noderestrict.graph.graph import Graph
from noderestrict.policy.listers import Listers
from noderestrict.replay.audit.agents import NO_CLAIMS, users_of
from noderestrict.replay.audit.events import AuditEvent
from noderestrict.replay.audit.objects import Place
from noderestrict.replay.audit.whole import Whole, WholeObjects
from noderestrict.replay.learn.fields import changed
from noderestrict.replay.learn.relations import of_read, of_write, pod_is_unknown
from noderestrict.replay.learn.tally import Tally
from noderestrict.replay.results import Asked, NotJudged, Result, Undecided
from noderestrict.replay.sources import Unreadable

_READS = ("get", "list", "watch")


class Key(NamedTuple):
    """A kind of request.

    Attributes:
        group: API group, "" for the core group.
        resource: with its subresource.
        operation: of a write, or the verb of a read.
    """

    group: str
    resource: str
    operation: str


@dataclass(slots=True)
class Learned:
    """What one agent did.

    Attributes:
        agent: who it is.
        writes: by kind of request.
        reads: likewise.
        refused: requests that the API server refused or turned down, which teach nothing.
        impersonated: requests that somebody else made in its name.
        as_node: requests that it made as a node.
        without_node: why the node of requests was not known.
    """

    agent: Agent
    writes: dict[Key, Tally] = field(default_factory=dict)
    reads: dict[Key, Tally] = field(default_factory=dict)
    refused: int = 0
    impersonated: Counter[str] = field(default_factory=Counter)
    as_node: int = 0
    without_node: Counter[str] = field(default_factory=Counter)


class Learner:
    """Takes the requests of agents from audit logs.

    Args:
        agents: their users alone matter.
        graph: what pods refer to; pods of the log are added.

    Attributes:
        learned: by agent, in their order.
        first: time of the first request, "" for none.
        last: time of the last one.
    """

    def __init__(self, agents: Sequence[Agent], graph: Graph) -> None:
        self._agents = Agents(agents)
        self._graph = graph
        self._objects = WholeObjects(graph)
        self.learned = {agent.name: Learned(agent) for agent in agents}
        self.first = self.last = ""

    def users(self) -> list[str]:
        """Return what the names of all agents begin with."""
        return users_of(self._agents)

    def concerns(self, event: AuditEvent) -> bool:
        """Return whether an event is an agent's, whoever it acts as."""
        return self._of(event) is not None

    def _of(self, event: AuditEvent) -> Held | None:
        for user in (event.made_by, event.user):
            if found := self._agents.find(user.username or "", user.groups or ()):
                return found
        return None

    def see(self, event: AuditEvent, request: Request, place: Place) -> None:
        """Keep what an event shows of objects."""
        self._objects.see(event, request, place)
        if request.node is not None and event.impersonator and (held := self._of(event)):
            self.learned[held.name].as_node += 1

    def take(
        self,
        event: AuditEvent,
        request: Request,
        place: Place,
        listers: Listers,
        asked: Asked,
        lacks: str,
    ) -> Iterator[Result | Undecided | NotJudged | Unreadable]:
        """Learn from a request; nothing is found of it."""
        held = self._of(event)
        if held is not None:
            self._take(held, event, request, place, listers, asked, lacks)
        yield from ()

    def _take(
        self,
        held: Held,
        event: AuditEvent,
        request: Request,
        place: Place,
        listers: Listers,
        asked: Asked,
        lacks: str,
    ) -> None:
        learned = self.learned[held.name]
        if event.impersonatedUser is not None:
            # Whoever acts as an agent is no agent, and an agent that acts as its node is the node.
            if self._agents.find(event.made_by.username or "", event.made_by.groups or ()):
                learned.impersonated[event.impersonator] += 1
            return
        if event.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN) or (
            request.operation and event.why_not_judged()
        ):
            learned.refused += 1
            return
        if not request.operation and event.verb not in _READS:
            return
        if asked.time:
            self.first = min(self.first or asked.time, asked.time)
            self.last = max(self.last, asked.time)
        resource = request.resource
        if request.sub_resource:
            resource = f"{resource}/{request.sub_resource}"
        kinds = learned.writes if request.operation else learned.reads
        key = Key(request.group, resource, request.operation or event.verb)
        tally = kinds.setdefault(key, Tally())
        known = node_of(held, user_of(event.user), listers)
        if isinstance(known, Unknown):
            tally.without_node += 1
            learned.without_node[NO_CLAIMS if lacks else known.looks_like] += 1
            return
        node = known.name
        if request.operation:
            for whole in self._objects.of(event, request, place):
                self._write(tally, request, whole, node, listers)
        else:
            relations = of_read(request, event.verb, event.selectors, node, listers, self._graph)
            unseen = event.verb == "get" and pod_is_unknown(request, Whole(), listers)
            tally.at(request.namespace, request.name)
            tally.add(node, _where(request, request.name), relations, unseen=unseen)

    def _write(
        self,
        tally: Tally,
        request: Request,
        whole: Whole,
        node: str,
        listers: Listers,
    ) -> None:
        name = request.name
        for one in (whole.new, whole.old):
            metadata = one.get("metadata") if one is not None else None
            if not name and isinstance(metadata, dict) and not request.sub_resource:
                name = str(metadata.get("name") or "")
        unseen = (whole.new is None and whole.old is None and bool(whole.missing)) or (
            pod_is_unknown(request, whole, listers)
        )
        tally.at(request.namespace, name)
        relations = list(of_write(request, whole, node, listers))
        tally.add(node, _where(request, name), relations, unseen=unseen)
        if request.operation != "UPDATE":
            return
        tally.assumed += whole.old is None and not unseen
        if whole.named is not None:
            tally.fields_named += 1
            tally.change(whole.named)
        elif whole.old is not None and whole.new is not None:
            tally.change(changed(whole.old, whole.new))
        else:
            tally.fields_unseen += 1


def _where(request: Request, name: str) -> str:
    return qualified(request.namespace, name) or "(no name)"


def agent_for(user: User, taken: set[str]) -> Agent:
    """Return an agent with one user and a name of its own.

    Args:
        user: of the agent.
        taken: names of other agents; this one's is added.
    """
    wanted = [(user.prefix or "").rstrip(":").rpartition(":")[2]]
    if user.account is not None:
        namespace, name = user.account
        wanted = [name, f"{namespace}-{name}"]
    label = next((one for one in map(_as_label, wanted) if one not in taken), "")
    number = 2
    while not label or label in taken:
        label = f"{_as_label(wanted[-1])[:58]}-{number}"
        number += 1
    taken.add(label)
    return Agent(name=label, users=(user,))


def _as_label(text: str) -> str:
    """Return a text as the name of an agent."""
    letters = "".join(char if char.isascii() and char.isalnum() else "-" for char in text.lower())
    return letters.strip("-")[:63].strip("-") or "agent"
