"""The agents of all policy files, as requests are judged by them."""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import msgspec

from noderestrict.agents.changed import Changeable
from noderestrict.agents.file import (
    Agent,
    Bound,
    Plain,
    Read,
    Relation,
    RelationKind,
    Source,
    Unnamed,
    Write,
    kind_of,
)
from noderestrict.agents.paths import Steps, parse_path
from noderestrict.rbac.subjects import account_user

RULE_PREFIX = "agents/"
#: The last part of the ids of an agent's rules.
NODE, OBJECT, UNNAMED, FIELDS = "node", "object", "unnamed", "fields"
READ, UNNAMED_READ = "read", "unnamed-read"
RULES = (
    NODE,
    OBJECT,
    UNNAMED,
    *(kind.value for kind in RelationKind if kind not in ("referenced", "any")),
    FIELDS,
    UNNAMED_READ,
    READ,
)
_ANY = "*"
_DIGITS = 16

#: group, resource, subresource (``*`` any), operation or verb
_Key = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a policy, for writes or reads.

    Attributes:
        kind: of the relation.
        namespaces: in which the objects are; empty for any.
        names: of the objects; empty for any.
        changeable: what an update may change; None for everything.
        name: of the object around the node's: prefix and suffix.
        steps: of the field that holds the node's name; () if none does.
        label: that this field is, "" for another one.
    """

    kind: RelationKind
    namespaces: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    changeable: Changeable | None = None
    name: tuple[str, str] = ("", "")
    steps: Steps = ()
    label: str = ""

    def named(self, node: str) -> str:
        """Return the name of the object that belongs to a node."""
        return f"{self.name[0]}{node}{self.name[1]}"


@dataclass(frozen=True, slots=True)
class Held:
    """An agent that is held to its node.

    Attributes:
        name: in rule ids and messages.
        sources: of its node, in the order in which they are tried.
        writes: entries by what they are about.
        unnamed_writes: whether writes that no entry names are allowed.
        reads: likewise; None if reads are not held.
        unnamed_reads: whether reads that no entry names are left to RBAC.
        mode: of its rules; "" for the server's.
        account: namespace and name of its service account; None if a prefix tells its users.
        prefix: what its users' names begin with, "" for a service account.
    """

    name: str
    sources: tuple[Source, ...]
    writes: Mapping[_Key, tuple[Entry, ...]]
    unnamed_writes: bool
    reads: Mapping[_Key, tuple[Entry, ...]] | None
    unnamed_reads: bool
    mode: str = ""
    account: tuple[str, str] | None = None
    prefix: str = ""

    def rule(self, last: str) -> str:
        """Return the id of one of its rules."""
        return f"{RULE_PREFIX}{self.name}/{last}"

    def write_entries(
        self, group: str, resource: str, sub_resource: str, operation: str
    ) -> tuple[Entry, ...]:
        """Return the entries about a write, whatever the object."""
        return _entries(self.writes, group, resource, sub_resource, operation)

    def read_entries(
        self, group: str, resource: str, sub_resource: str, verb: str
    ) -> tuple[Entry, ...]:
        """Return the entries about a read, whatever the object."""
        return _entries(self.reads or {}, group, resource, sub_resource, verb)


def _entries(
    table: Mapping[_Key, tuple[Entry, ...]],
    group: str,
    resource: str,
    sub_resource: str,
    operation: str,
) -> tuple[Entry, ...]:
    found = table.get((group, resource, sub_resource, operation), ())
    if sub_resource:
        found += table.get((group, resource, _ANY, operation), ())
    return found


class Agents:
    """All agents.

    Args:
        agents: of checked files.

    Attributes:
        all: the agents, as their files have them.
    """

    def __init__(self, agents: Iterable[Agent] = ()) -> None:
        self.all = tuple(agents)
        self._by_user: dict[str, Held] = {}
        self._by_prefix: list[tuple[str, str, Held]] = []
        for agent in self.all:
            for user in agent.users:
                if user.account is not None:
                    self._by_user[account_user(*user.account)] = _held(agent, user.account)
                else:
                    held = _held(agent, prefix=user.prefix or "")
                    self._by_prefix.append((user.prefix or "", user.group or "", held))
        self._prefixes = tuple(prefix for prefix, _, _ in self._by_prefix)
        self._raw_users = frozenset(name.encode() for name in self._by_user)
        self._raw_prefixes = tuple(prefix.encode() for prefix in self._prefixes)

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self.all)

    def find(self, username: str, groups: Collection[str]) -> Held | None:
        """Return the agent that a user is, None for everyone else."""
        held = self._by_user.get(username)
        if held is not None or not username.startswith(self._prefixes):
            return held
        return next(
            (
                held
                for prefix, group, held in self._by_prefix
                if username.startswith(prefix) and group in groups
            ),
            None,
        )

    def may_be_one(self, username: bytes) -> bool:
        """Return whether the user of this name, as JSON has it, seems to be an agent."""
        return username in self._raw_users or username.startswith(self._raw_prefixes)

    def resources(self) -> frozenset[str]:
        """Return the plurals of all resources that entries for writes name."""
        return frozenset(
            resource.partition("/")[0]
            for agent in self.all
            for write in agent.write
            for resource in write.resources
        )

    def modes(self) -> Mapping[str, str]:
        """Return the modes that the files give, by agent."""
        return {agent.name: agent.mode.value for agent in self.all if agent.mode is not None}

    @cached_property
    def digests(self) -> Mapping[str, str]:
        """A text for each agent, which differs for another policy."""
        return {agent.name: _digest(agent) for agent in self.all}

    def rules(self) -> Iterator[str]:
        """Yield the ids of all rules."""
        for agent in self.all:
            for rule in RULES:
                yield f"{RULE_PREFIX}{agent.name}/{rule}"


@dataclass(slots=True)
class InForce:
    """The agents that requests are judged by from now on; a reload replaces them.

    Attributes:
        agents: all of them.
    """

    agents: Agents = field(default_factory=Agents)


def _digest(agent: Agent) -> str:
    return hashlib.sha256(msgspec.json.encode(agent)).hexdigest()[:_DIGITS]


def agent_of(rule: str) -> str:
    """Return the agent whose rule has an id, "" for a rule of nodes."""
    if not rule.startswith(RULE_PREFIX):
        return ""
    return rule[len(RULE_PREFIX) :].partition("/")[0]


def _held(agent: Agent, account: tuple[str, str] | None = None, prefix: str = "") -> Held:
    usual = (Source.TOKEN, Source.POD) if account is not None else (Source.USERNAME,)
    writes: dict[_Key, tuple[Entry, ...]] = {}
    for write in agent.write:
        _add(writes, write, (operation.value for operation in write.operations), _entry(write))
    reads: dict[_Key, tuple[Entry, ...]] | None = None
    if agent.read is not None:
        reads = {}
        for read in agent.read:
            _add(reads, read, (verb.value for verb in read.verbs), _entry(read))
    return Held(
        agent.name,
        agent.node or usual,
        writes,
        agent.unnamed_writes == Unnamed.ALLOW,
        reads,
        agent.unnamed_reads == Unnamed.ALLOW,
        agent.mode.value if agent.mode is not None else "",
        account,
        prefix,
    )


def _add(
    table: dict[_Key, tuple[Entry, ...]],
    about: Write | Read,
    operations: Iterable[str],
    entry: Entry,
) -> None:
    wanted = tuple(operations)
    for group in about.api_groups:
        for resource in about.resources:
            plural, _, sub_resource = resource.partition("/")
            for operation in wanted:
                key = (group, plural, sub_resource, operation)
                table[key] = (*table.get(key, ()), entry)


def _entry(about: Write | Read) -> Entry:
    relation: Relation = about.relation
    bound = relation if isinstance(relation, Bound) else Bound()
    prefix, _, suffix = (bound.name or "").partition("{node}")
    fields = about.fields if isinstance(about, Write) else None
    return Entry(
        kind=kind_of(relation),
        namespaces=frozenset(about.namespaces),
        names=frozenset(about.names),
        changeable=None if fields is None else Changeable(tuple(map(parse_path, fields))),
        name=(prefix, suffix),
        steps=_holder(relation),
        label=bound.label or "",
    )


def _holder(relation: Relation) -> Steps:
    """Return the field that holds the name of the node, () if none does."""
    if relation == Plain.OWN_PODS:
        return ("spec", "nodeName")
    if isinstance(relation, Bound) and relation.label:
        return ("metadata", "labels", relation.label)
    if isinstance(relation, Bound) and relation.field:
        return parse_path(relation.field).steps
    return ()
