"""Write what was learned as a policy file, with the counts as comments."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import yaml

from noderestrict.agents.file import (
    Agent,
    Operation,
    Plain,
    PolicyFile,
    Read,
    Relation,
    User,
    Verb,
    Write,
    shown,
)
from noderestrict.agents.load import PolicyFileError, dump, parse
from noderestrict.api.resources import REVIEWS
from noderestrict.policy.text import printable
from noderestrict.replay.learn.fields import Field, generalised
from noderestrict.replay.learn.learner import Key, Learned, Learner
from noderestrict.replay.learn.tally import Tally

_WIDTH = 100
#: Objects by name, where no relation tells them.
_MOST_NAMES = 3
_OPERATIONS = tuple(Operation)
_VERBS = tuple(Verb)


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a policy, with what is known of it.

    Attributes:
        about: for the file.
        notes: for its comment.
        explained: whether a relation held for all of it.
        problem: why no file can hold it, "" if one can: a log may hold any text.
    """

    about: Write | Read
    notes: tuple[str, ...]
    explained: bool
    problem: str = ""

    def is_kept(self, *, keep_any: bool) -> bool:
        """Return whether it becomes an entry of the file, not a comment."""
        return (self.explained or keep_any) and not self.problem


def text_of(learner: Learner, sources: Sequence[str], *, keep_any: bool = False) -> str:
    """Return a policy file; what no relation explains is a comment in it.

    Args:
        learner: with what was learned.
        sources: names of the logs.
        keep_any: make entries for what no relation explains, with relation ``any``.
    """
    span = f", {learner.first} to {learner.last}" if learner.first else ""
    lines = [
        *_comment(f"Learned by noderestrict from {', '.join(sources)}{span}.", ""),
        *_comment("It allows what the log shows, so check that nothing in it is an attack.", ""),
        "agents:",
    ]
    for learned in learner.learned.values():
        lines += _agent(learned, keep_any=keep_any)
    return "\n".join(lines) + "\n"


def unexplained(learned: Learned) -> list[str]:
    """Return what no relation explains, one line each."""
    return [
        f"{', '.join(entry.about.resources)}{_of_groups(entry.about)}: {'; '.join(entry.notes)}"
        for found in (entries(learned.writes), entries(learned.reads))
        for entry in found
        if not entry.is_kept(keep_any=False)
    ]


def _of_groups(about: Write | Read) -> str:
    groups = ", ".join(filter(None, about.api_groups))
    return f" of {groups}" if groups else ""


def _agent(learned: Learned, *, keep_any: bool) -> Iterator[str]:
    agent = learned.agent
    head = msgspec.to_builtins(msgspec.structs.replace(agent, write=(), read=None))
    yield f"- {_yaml(head)[0]}"
    yield from (f"  {line}" for line in _yaml(head)[1:])
    for note in _notes(learned):
        yield from _comment(note, "  ")
    yield from _section("write", entries(learned.writes), keep_any=keep_any)
    reads = entries(learned.reads)
    if not learned.reads:
        yield from _comment("The log holds no reads of it, so they are not held.", "  ")
    elif any(entry.is_kept(keep_any=keep_any) for entry in reads):
        yield from _section("read", reads, keep_any=keep_any)
    else:
        yield from _comment("No relation explains its reads, so they are not held:", "  ")
        yield from _left_out("read", reads)


def _notes(learned: Learned) -> Iterator[str]:
    if not learned.writes and not learned.reads:
        yield "The log holds no request of it."
    if learned.refused:
        yield f"{_requests(learned.refused)} failed or refused: nothing is learned of them."
    if learned.as_node:
        yield f"{_requests(learned.as_node)} made as its node, which the rules for nodes hold."
    for who, count in learned.impersonated.most_common():
        by = who or "somebody"
        yield f"{_requests(count)} made by {by} in its name: nothing is learned of that."
    for why, count in learned.without_node.most_common():
        yield f"{_requests(count)} made on no known node: {why}."


def _section(name: str, found: Sequence[Entry], *, keep_any: bool) -> Iterator[str]:
    kept = [entry for entry in found if entry.is_kept(keep_any=keep_any)]
    left = [entry for entry in found if not entry.is_kept(keep_any=keep_any)]
    if kept:
        yield f"  {name}:"
    elif name == "write":
        yield "  write: []"
    for entry in kept:
        for note in entry.notes:
            yield from _comment(note, "  ")
        first, *rest = _yaml(msgspec.to_builtins(entry.about))
        yield f"  - {first}"
        yield from (f"    {line}" for line in rest)
    if left:
        yield from _comment(
            "No relation explains what follows. It is refused, unless it gets an entry:", "  "
        )
        yield from _left_out(name, left)


def _left_out(name: str, left: Iterable[Entry]) -> Iterator[str]:
    for entry in left:
        yield from _comment(f"{name}: {'; '.join(entry.notes)}", "  ")
        first, *rest = _yaml(msgspec.to_builtins(entry.about))
        yield printable(f"  # - {first}")
        yield from (printable(f"  #   {line}") for line in rest)


def entries(tallies: Mapping[Key, Tally]) -> list[Entry]:
    """Return an entry for each resource and relation; operations with the same one share it."""
    merged: dict[tuple[Any, ...], Entry] = {}
    for key in sorted(tallies):
        entry = _entry(key, tallies[key])
        about = entry.about
        rest = (type(about), about.api_groups, about.resources, about.relation, about.namespaces,
                about.names, entry.explained, entry.problem)  # fmt: skip
        if rest in merged:
            entry = _merged(merged[rest], entry)
        merged[rest] = entry
    return list(merged.values())


def _merged(one: Entry, other: Entry) -> Entry:
    first, second = one.about, other.about
    about: Write | Read
    if isinstance(first, Write) and isinstance(second, Write):
        both = {*first.operations, *second.operations}
        about = msgspec.structs.replace(
            first,
            operations=tuple(operation for operation in _OPERATIONS if operation in both),
            fields=first.fields if Operation.UPDATE in first.operations else second.fields,
        )
    elif isinstance(first, Read) and isinstance(second, Read):
        verbs = {*first.verbs, *second.verbs}
        about = msgspec.structs.replace(
            first, verbs=tuple(verb for verb in _VERBS if verb in verbs)
        )
    return replace(one, about=about, notes=(*one.notes, *other.notes))


def _entry(key: Key, tally: Tally) -> Entry:
    relation = tally.relation
    if (key.group, key.resource) in REVIEWS:
        relation = Plain.ANY
        tally = Tally(tally.count + tally.without_node, nodes=tally.nodes)
    notes = [_counted(key, tally, relation)]
    namespaces: tuple[str, ...] = ()
    one = len(tally.namespaces) == 1 and "" not in tally.namespaces
    if one and relation not in (Plain.OWN_PODS, Plain.REFERENCED):
        namespaces = tuple(tally.namespaces)
    names: tuple[str, ...] = ()
    if relation is None and "" not in tally.names and 0 < len(tally.names) <= _MOST_NAMES:
        names = tuple(sorted(tally.names))
    # A value that equals the default is left out of the file only if it is the default itself.
    wanted: dict[str, Any] = {
        "resources": (key.resource,),
        "relation": Plain.ANY if relation is None else relation,
        **({"api_groups": (key.group,)} if key.group else {}),
        "namespaces": namespaces,
        "names": names,
    }
    if key.operation not in Operation.__members__:
        about: Write | Read = Read(verbs=(Verb(key.operation),), **wanted)
        return _checked(about, notes, explained=relation is not None)
    fields: tuple[str, ...] | None = None
    if key.operation == "UPDATE" and tally.count:
        found = generalised(tally.fields)
        notes += _of_fields(tally, found)
        if tally.count > tally.fields_unseen:
            fields = tuple(one.text for one in found)
    about = Write(operations=(Operation(key.operation),), fields=fields, **wanted)
    return _checked(about, notes, explained=relation is not None)


def _checked(about: Write | Read, notes: Iterable[str], *, explained: bool) -> Entry:
    """Return an entry, with what keeps a file from holding it."""
    alone = Agent(
        name="alone",
        users=(User(service_account="any/any"),),
        write=(about,) if isinstance(about, Write) else (),
        read=(about,) if isinstance(about, Read) else None,
    )
    try:
        parse(dump(PolicyFile((alone,))).encode(), "it")
    except PolicyFileError as error:
        problem = str(error).removeprefix("it: agent 'alone': ")
        return Entry(about, (*notes, f"no entry can say so: {problem}"), explained, problem)
    return Entry(about, tuple(notes), explained)


def _counted(key: Key, tally: Tally, relation: Relation | None) -> str:
    """Return how often something was done, and how sure its relation is."""
    if not tally.count:
        return f"{key.operation.lower()}: {_times(tally.without_node)}, on no known node"
    nodes = "1 node" if len(tally.nodes) == 1 else f"{len(tally.nodes)} nodes"
    text = f"{key.operation.lower()}: {_times(tally.count)}, on {nodes}"
    if tally.without_node:
        text += f"; {tally.without_node:,} more with no known node"
    if relation is None:
        return f"{text}; {_why_none(tally)}"
    if tally.unseen:
        text += f"; the log does not show the object of {tally.unseen:,} of them"
    if tally.assumed:
        text += f"; the log does not show the object before {tally.assumed:,} of them"
    if relation is Plain.ANY:
        text += "; it asks, and changes nothing"
    elif len(tally.nodes) == 1:
        text += "; seen on one node only, so look at it twice"
    return text


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _why_none(tally: Tally) -> str:
    if tally.unseen == tally.count:
        return "undecided: the log holds no object, or not the pod; log RequestResponse for it"
    closest = tally.closest
    if closest is None:
        return "no relation holds"
    relation, count, strangers = closest
    text = f"{shown(relation)} holds for {count:,} of {tally.count:,}"
    if tally.unseen:
        text += f", and {tally.unseen:,} are undecided"
    return f"{text}, not for {', '.join(strangers[:3])}" if strangers else text


def _of_fields(tally: Tally, found: Sequence[Field]) -> Iterator[str]:
    if tally.fields_unseen == tally.count and tally.count:
        yield "the log does not show which fields changed, so all may"
        return
    if found:
        parts = (
            f"{one.text} {one.count:,}"
            + (f" (stands for {one.stands_for} paths)" if one.stands_for > 1 else "")
            for one in found
        )
        yield f"changed: {', '.join(parts)}"
    else:
        yield "changed nothing"
    if tally.fields_named:
        yield f"{tally.fields_named:,} of the patches may name more than they changed"
    if tally.fields_unseen:
        yield f"which fields {tally.fields_unseen:,} of the updates changed is not in the log"


def _requests(count: int) -> str:
    return "1 request was" if count == 1 else f"{count:,} requests were"


def _yaml(value: Any) -> list[str]:
    text = yaml.safe_dump(value, sort_keys=False, width=10_000, default_flow_style=None)
    return text.rstrip("\n").split("\n")


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        printable(text),
        _WIDTH,
        initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}#   ",
        break_long_words=False,
        break_on_hyphens=False,
    )
