"""Judge one write of an agent.

A write is allowed if any entry allows it: the relation holds, and only fields change that may. What
no entry names follows ``unnamedWrites``.
"""

from collections.abc import Set

import msgspec

from noderestrict.agents.agents import FIELDS, NODE, OBJECT, UNNAMED, Entry, Held
from noderestrict.agents.changed import Changeable
from noderestrict.agents.file import RelationKind
from noderestrict.agents.identity import Known, Unknown, node_of, user_of
from noderestrict.agents.relations import Broken, Objects, broken, demand, object_name
from noderestrict.agents.request import Write, path_of, where
from noderestrict.policy.compare import listed
from noderestrict.policy.decision import Allowed, Decision, Denied, forbidden, not_found
from noderestrict.policy.listers import Listers
from noderestrict.policy.semantic import IncomparableError

_ALLOWED = Allowed()
_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, IncomparableError)


def evaluate(
    agent: Held, request: Write, listers: Listers, skipped: Set[str] = frozenset()
) -> Decision:
    """Judge a write.

    The result depends only on the arguments.

    Args:
        agent: that the user is.
        request: with its objects as raw JSON.
        listers: answer lookups.
        skipped: ids of rules to ignore.

    Raises:
        LookupUnavailableError: a lookup failed.
    """
    entries = agent.write_entries(
        request.group, request.resource, request.sub_resource, request.operation
    )
    return _Judgement(agent, request, listers, skipped).of(entries)


class _Judgement:
    """One request, before the entries about it."""

    __slots__ = ("_agent", "_listers", "_node", "_objects", "_request", "_skipped")

    def __init__(self, agent: Held, request: Write, listers: Listers, skipped: Set[str]) -> None:
        self._agent = agent
        self._request = request
        self._listers = listers
        self._skipped = skipped
        self._objects = Objects(request.object, request.old_object)
        self._node: Known | Unknown | None = None

    def of(self, entries: tuple[Entry, ...]) -> Decision:
        objection: Denied | None = None
        named = False
        for entry in entries:
            try:
                if not self._is_about(entry):
                    continue
                found, says_more = self._objection(entry)
            except _UNDECODABLE as error:
                # Another entry may allow the request, whatever the objects are.
                found, says_more = self._undecodable(error), False
            named = True
            if found is None:
                return _ALLOWED
            # That a field may not change says more than that another relation does not hold.
            if objection is None or says_more:
                objection = found
        if named:
            return objection or _ALLOWED
        return self._unnamed(bool(entries))

    def _undecodable(self, error: Exception) -> Denied | None:
        rule = self._agent.rule(OBJECT)
        if rule in self._skipped:
            return None
        deep = isinstance(error, RecursionError)
        problem = "it is nested too deeply" if deep else str(error)
        return forbidden(
            f"{where(self._request)}: an object cannot be judged: {problem}", rule=rule
        )

    def _is_about(self, entry: Entry) -> bool:
        request = self._request
        return (not entry.namespaces or request.namespace in entry.namespaces) and (
            not entry.names or object_name(request, self._objects) in entry.names
        )

    def _objection(self, entry: Entry) -> tuple[Denied | None, bool]:
        """Return why an entry does not allow the request, and whether its relation holds."""
        found = self._relation(entry)
        if found is not None and found.rule not in self._skipped:
            return found, False
        if entry.changeable is not None and self._request.operation == "UPDATE":
            rule = self._agent.rule(FIELDS)
            if rule not in self._skipped:
                return self._fields(entry.changeable, rule), True
        return None, True

    def _relation(self, entry: Entry) -> Denied | None:
        if entry.kind is RelationKind.ANY:
            return None
        agent, request, node = self._agent, self._request, self._node
        if node is None:
            node = self._node = node_of(agent, user_of(request.user), self._listers)
        if isinstance(node, Unknown):
            return unknown_node(agent, f"{where(request)}: ", node)
        found = broken(entry, request, self._objects, node, self._listers)
        if found is None:
            return None
        rule = agent.rule(entry.kind.value)
        if found.missing:
            return not_found(f"pods {found.missing} not found", rule=rule)
        return forbidden(
            f"{where(request)}: agent {agent.name!r} on {node} may "
            f"{_verb(request)} only {demand(entry, node)}{_but(found)}",
            found.detail,
            rule,
        )

    def _fields(self, changeable: Changeable, rule: str) -> Denied | None:
        objects = self._objects
        others = listed(changeable.others(objects.fields(old=True), objects.fields(old=False)))
        if not others:
            return None
        return forbidden(
            f"{where(self._request)}: agent {self._agent.name!r} may change only "
            f"{changeable}; this changes {others}",
            rule=rule,
        )

    def _unnamed(self, others: bool) -> Decision:  # noqa: FBT001 (one caller)
        agent, request = self._agent, self._request
        rule = agent.rule(UNNAMED)
        if agent.unnamed_writes or rule in self._skipped:
            return _ALLOWED
        which = "this object" if others else f"{_verb(request)} {_resource(request)}"
        return forbidden(
            f"{where(request)}: the policy of agent {agent.name!r} does not name {which}; if its "
            f"work needs that, add it to write",
            rule=rule,
        )


def unknown_node(agent: Held, about: str, node: Unknown) -> Denied:
    """Return the denial of what is held to a node that is not known.

    Args:
        agent: whose node it is.
        about: what it asked for.
        node: why it is not known.
    """
    return forbidden(
        f"{about}the node of agent {agent.name!r} is not known: {node.looks_like}",
        node.detail,
        agent.rule(NODE),
    )


def _but(found: Broken) -> str:
    return f"; {found.found}" if found.found else ""


def _verb(request: Write) -> str:
    return request.operation.lower()


def _resource(request: Write) -> str:
    name = path_of(request)
    return f"{name} of group {request.group}" if request.group else name
