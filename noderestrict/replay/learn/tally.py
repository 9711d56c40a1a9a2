"""What an agent did with one resource, counted."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from noderestrict.agents.file import Relation
from noderestrict.replay.audit.patches import Path
from noderestrict.replay.learn.relations import needs_object, rank

#: Different relations, fields and names of one kind of request that are kept.
_MOST_RELATIONS = 200
_MOST_FIELDS = 5_000
_MOST_NAMES = 10_000
_FEW = 4


@dataclass(slots=True)
class Tally:
    """Requests of one agent with the same operation or verb on the same resource.

    Attributes:
        count: of requests whose node is known.
        without_node: of those whose node is not.
        unseen: requests whose object the log does not show, of ``count``.
        assumed: updates of which the log shows only the object after it, of ``count``.
        nodes: on which the agent was.
        namespaces: of the objects.
        names: of the objects; too many are not kept.
        fields: how often an update changed each path.
        fields_named: patches of which the log shows what they name, but not what that was before.
        fields_unseen: updates whose changed fields the log does not show.
        strangers: examples of objects for which the most frequent relation does not hold.
    """

    count: int = 0
    without_node: int = 0
    unseen: int = 0
    assumed: int = 0
    nodes: set[str] = field(default_factory=set)
    namespaces: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    fields: Counter[Path] = field(default_factory=Counter)
    fields_named: int = 0
    fields_unseen: int = 0
    _relations: Counter[Relation] = field(default_factory=Counter)
    #: Of what was unseen, how often a relation held that needs no object.
    _unseen_relations: Counter[Relation] = field(default_factory=Counter)
    _without: dict[Relation, list[str]] = field(default_factory=dict)
    _none: list[str] = field(default_factory=list)

    def add(self, node: str, where: str, relations: Iterable[Relation], *, unseen: bool) -> None:
        """Count one request.

        Args:
            node: the agent's.
            where: the object, as people write it.
            relations: that hold.
            unseen: whether the log does not show the object.
        """
        found = set(relations)
        known_before = set(self._relations)
        for relation in found:
            if relation in self._relations or len(self._relations) < _MOST_RELATIONS:
                self._relations[relation] += 1
                self._unseen_relations[relation] += unseen
        for relation in known_before - found:
            if not (unseen and needs_object(relation)):
                examples = self._without.setdefault(relation, [])
                if len(examples) < _FEW and where not in examples:
                    examples.append(f"{where} by node {node}")
        if not found and len(self._none) < _FEW:
            self._none.append(f"{where} by node {node}")
        self.count += 1
        self.unseen += unseen
        if len(self.nodes) < _MOST_NAMES:
            self.nodes.add(node)

    def change(self, paths: Iterable[Path]) -> None:
        """Count the fields that an update changed."""
        for path in paths:
            if path in self.fields or len(self.fields) < _MOST_FIELDS:
                self.fields[path] += 1

    def at(self, namespace: str, name: str) -> None:
        """Keep where an object is."""
        for kept, one in ((self.namespaces, namespace), (self.names, name)):
            if len(kept) < _MOST_NAMES:
                kept.add(one)

    @property
    def relation(self) -> Relation | None:
        """The relation that held for all requests, None if none did."""
        return min(filter(self._holds, self._relations), key=rank, default=None)

    def _holds(self, relation: Relation) -> bool:
        if not needs_object(relation):
            return self._relations[relation] == self.count
        seen = self.count - self.unseen
        return seen > 0 and self._relations[relation] - self._unseen_relations[relation] == seen

    @property
    def closest(self) -> tuple[Relation, int, list[str]] | None:
        """The relation that held most often, how often, and for which objects it did not."""
        if not self._relations:
            return None
        most = max(self._relations.values())
        relation = min((one for one, n in self._relations.items() if n == most), key=rank)
        return relation, most, self._without.get(relation, []) + self._none
