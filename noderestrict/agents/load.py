"""Read a policy file, and check what no schema can say.

Each error is one line that names the file, the agent, the field and the value.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from noderestrict.agents.file import (
    Agent,
    Bound,
    Mode,
    Operation,
    Owner,
    Plain,
    PolicyFile,
    Read,
    RelationKind,
    Source,
    Unnamed,
    User,
    Verb,
    Write,
    kind_of,
)
from noderestrict.agents.paths import parse_path
from noderestrict.errors import NoderestrictError
from noderestrict.policy.hostile import refused_as
from noderestrict.policy.identity import NODE_USER_PREFIX, NODES_GROUP
from noderestrict.policy.text import printable
from noderestrict.policy.yaml_nodes import settings_loader, unfolded
from noderestrict.rbac.subjects import ACCOUNT_PREFIX

#: Far longer than one that anybody writes.
MAX_BYTES = 1024 * 1024
_MOST_AGENTS = 500
_MASTERS = "system:masters"
_LONGEST_VALUE = 100
_LONGEST_MESSAGE = 500
_PLACE = re.compile(r"(?P<problem>.*) - at `(?P<path>.*)`", re.DOTALL)
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_MISSING = re.compile(r"Object missing required field `(.*)`")
#: The values of each field that has few.
_CHOICES: Mapping[str, Iterable[str]] = {
    "relation": (*Plain, "{name: …}", "{field: …}", "{label: …}", "{owner: node}"),
    "operations": Operation,
    "verbs": Verb,
    "node": Source,
    "mode": Mode,
    "unnamedWrites": Unnamed,
    "unnamedReads": Unnamed,
    "owner": Owner,
}
#: What the value of each field is that has a form.
_FORMS: Mapping[str, str] = {
    "name": "a name: lower-case letters, digits and dashes; that of an object has {node} in it",
    "serviceAccount": "NAMESPACE/NAME",
    "apiGroups": "an API group without version",
    "resources": "a resource, such as nodes, nodes/status or pods/*",
    "namespaces": "a namespace",
    "fields": 'a path of fields, such as status.conditions or metadata.labels["x/*"]',
    "field": "the path of one field, such as spec.nodeName",
    "label": "the key of a label",
}
#: Subresources whose objects are not those of their resource.
_OTHER_OBJECTS = frozenset(
    ("attach", "binding", "eviction", "exec", "portforward", "proxy", "scale", "token")
)


class PolicyFileError(NoderestrictError, ValueError):
    """A policy file is unusable; the message is one line."""

    def __init__(self, message: str) -> None:
        line = printable(" ".join(message.split()))
        super().__init__(line if len(line) <= _LONGEST_MESSAGE else f"{line[:_LONGEST_MESSAGE]}…")


def parse(text: bytes, file: str) -> PolicyFile:
    """Return the policy that a file holds.

    Args:
        text: YAML or JSON.
        file: how messages name the file.

    Raises:
        PolicyFileError: it is unusable.
    """
    content = _content(text, file)
    # Half a surrogate pair, as JSON may escape one, is not even text.
    with refused_as(PolicyFileError, file):
        policy = _converted(content, file)
    for agent in policy.agents:
        for where, problem in _problems(agent):
            raise PolicyFileError(f"{file}: agent {agent.name!r}: {where}: {problem}")
    for problem in _conflicts([(file, agent) for agent in policy.agents]):
        raise PolicyFileError(problem)
    return policy


def _converted(content: Any, file: str) -> PolicyFile:
    try:
        return msgspec.convert(content, PolicyFile)
    except msgspec.ValidationError as error:
        raise PolicyFileError(f"{file}: {_located(str(error), content)}") from None


def merge(files: Iterable[tuple[str, PolicyFile]]) -> tuple[Agent, ...]:
    """Return the agents of several files.

    Args:
        files: name and content.

    Raises:
        PolicyFileError: two agents have the same name, or could have the same user.
    """
    agents = [(file, agent) for file, policy in files for agent in policy.agents]
    for problem in _conflicts(agents):
        raise PolicyFileError(problem)
    return tuple(agent for _, agent in agents)


def dump(policy: PolicyFile) -> str:
    """Return a policy as YAML, which ``parse`` reads again."""
    import yaml

    return yaml.safe_dump(msgspec.to_builtins(policy), sort_keys=False, width=100)


def _content(text: bytes, file: str) -> Any:
    if len(text) > MAX_BYTES:
        raise PolicyFileError(f"{file}: longer than {MAX_BYTES} bytes")
    with refused_as(PolicyFileError, file):
        loader = settings_loader()(text.decode("utf-8"))
        try:
            node = loader.get_single_node()
            if node is None:
                raise PolicyFileError(f"{file}: the file is empty; it needs a list of agents")
            if unfolded(node) > MAX_BYTES:
                raise PolicyFileError(f"{file}: too much for its aliases to repeat")
            for key, line in _repeated_keys(node, set()):
                raise PolicyFileError(f"{file}: line {line}: key {key!r} is set twice")
            return loader.construct_document(node)
        finally:
            loader.dispose()


def _repeated_keys(node: Any, seen: set[int]) -> Iterator[tuple[str, int]]:
    """Yield each key that a mapping holds twice, with its line."""
    if id(node) in seen or isinstance(node.value, str):
        return
    seen.add(id(node))
    keys: set[str] = set()
    for entry in node.value:
        parts = entry if isinstance(entry, tuple) else (entry,)
        if isinstance(entry, tuple) and isinstance(entry[0].value, str):
            if entry[0].value in keys:
                yield entry[0].value, entry[0].start_mark.line + 1
            keys.add(entry[0].value)
        for part in parts:
            yield from _repeated_keys(part, seen)


def _located(message: str, content: Any) -> str:
    """Return msgspec's message with the agent, the field and the value that it is about."""
    found = _PLACE.fullmatch(message)
    problem, path = (found["problem"], found["path"]) if found else (message, "$")
    where: list[str] = []
    value, agent = content, ""
    for key, index in _STEP.findall(path.removeprefix("$")):
        try:
            value = value[int(index)] if index else value[key]
        except (KeyError, IndexError, TypeError):
            value = None
        if where == ["agents"] and index:
            name = value.get("name") if isinstance(value, dict) else None
            agent = f"agent {name!r}" if isinstance(name, str) else f"agent {int(index)}"
            where = []
            continue
        where.append(f"{'.' if where else ''}{key}" if key else f"[{index}]")
    field = next((step.lstrip(".") for step in reversed(where) if step[0] != "["), "")
    parts = [agent, "".join(where), _plain(problem, field, value)]
    return ": ".join(part for part in parts if part)


def _plain(problem: str, field: str, value: Any) -> str:
    """Return what msgspec says, for people who write the file."""
    if problem.startswith("Invalid enum value"):
        choices = ", ".join(sorted(_CHOICES.get(field, ())))
        return f"{_short(value)} is not one of {choices}" if choices else problem
    if "matching regex" in problem:
        return f"{_short(value)} is not {_FORMS.get(field, 'of the form that is needed')}"
    if unknown := _UNKNOWN.fullmatch(problem):
        return f"unknown key {unknown[1]!r}"
    if missing := _MISSING.fullmatch(problem):
        return f"{missing[1]!r} is missing"
    problem = problem[:1].lower() + problem[1:]
    return problem if isinstance(value, dict | list) else f"{problem}, not {_short(value)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _problems(agent: Agent) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with an agent: where, and what."""
    for key, text in _texts(msgspec.to_builtins(agent)):
        if not text.isprintable():
            yield key, f"{_short(text)} has a character that cannot be seen"
    for index, user in enumerate(agent.users):
        for problem in _of_user(user, agent.node):
            yield f"users[{index}]", problem
    if len(set(agent.node)) != len(agent.node):
        yield "node", f"{', '.join(agent.node)}: a source is named twice"
    for index, write in enumerate(agent.write):
        for key, problem in _of_write(write):
            yield f"write[{index}].{key}", problem
    for index, read in enumerate(agent.read or ()):
        for key, problem in _of_read(read):
            yield f"read[{index}].{key}", problem
    if not agent.write and agent.unnamed_writes == Unnamed.ALLOW and agent.read is None:
        yield "unnamedWrites", "'allow', without entries for writes and reads, holds nothing"


def _texts(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text of a value, with its place, except for descriptions."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, item in value.items():
            if key != "description":
                yield from _texts(item, f"{where}.{key}".removeprefix("."))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _texts(item, f"{where}[{index}]")


def _of_user(user: User, sources: Sequence[Source]) -> Iterator[str]:
    prefix = user.prefix or ""
    if (user.service_account is None) == (user.prefix is None):
        yield "give either serviceAccount, or prefix and group"
    elif (user.prefix is None) != (user.group is None):
        yield "prefix and group belong together: without the group, anybody could have the prefix"
    elif prefix and (prefix.startswith(NODE_USER_PREFIX) or NODE_USER_PREFIX.startswith(prefix)):
        yield f"prefix {prefix!r}: such a user may be a node, which the rules for nodes hold"
    elif prefix and (prefix.startswith(ACCOUNT_PREFIX) or ACCOUNT_PREFIX.startswith(prefix)):
        yield f"prefix {prefix!r}: name service accounts one by one, as serviceAccount"
    elif user.group in (NODES_GROUP, _MASTERS):
        yield f"group {user.group!r}: no agent may be in it"
    elif user.service_account is not None and Source.USERNAME in sources:
        yield f"{user.service_account!r}: the name of a service account holds no node; use token"
    elif prefix and set(sources) - {Source.USERNAME}:
        yield f"prefix {prefix!r}: only the user name tells the node: node must be username"


def _of_relation(
    relation: Plain | Bound, groups: Sequence[str], resources: Sequence[str]
) -> Iterator[str]:
    if isinstance(relation, Bound):
        given = [key for key in Bound.__struct_fields__ if getattr(relation, key) is not None]
        if len(given) != 1:
            yield f"give exactly one of name, field, label and owner, not {len(given)}"
        elif given == ["field"]:
            try:
                parse_path(str(relation.field), exact=True)
            except ValueError as error:
                yield f"field: {error}"
        return
    only = {Plain.OWN_NODE: "nodes", Plain.OWN_PODS: "pods"}.get(relation)
    if only is not None and (
        set(groups) != {""} or any(resource.split("/")[0] != only for resource in resources)
    ):
        yield f"{relation.value!r} is for {only} of the core group"


def _of_write(write: Write) -> Iterator[tuple[str, str]]:
    problems = list(_of_relation(write.relation, write.api_groups, write.resources))
    for problem in problems:
        yield "relation", problem
    if problems:
        return
    kind = kind_of(write.relation)
    if kind == RelationKind.REFERENCED:
        yield "relation", "'referenced' is for reads"
    if kind in (RelationKind.FIELD, RelationKind.LABEL, RelationKind.OWNER):
        if Operation.CONNECT in write.operations:
            yield "operations", f"'CONNECT' sends no object, which {kind.value!r} is about"
        for resource in write.resources:
            if resource.partition("/")[2] in _OTHER_OBJECTS:
                yield "resources", f"{resource!r} sends no object that {kind.value!r} is about"
    if write.fields is not None and Operation.UPDATE not in write.operations:
        yield "fields", "only an UPDATE changes fields; name it in operations"
    for field in write.fields or ():
        try:
            parse_path(field)
        except ValueError as error:
            yield "fields", str(error)


def _of_read(read: Read) -> Iterator[tuple[str, str]]:
    problems = list(_of_relation(read.relation, read.api_groups, read.resources))
    for problem in problems:
        yield "relation", problem
    if problems:
        return
    kind = kind_of(read.relation)
    if kind == RelationKind.OWNER:
        yield "relation", "'owner' is for writes: a read shows no object"
    if kind in (RelationKind.FIELD, RelationKind.LABEL) and Verb.GET in read.verbs:
        yield "verbs", f"'get' has no selector, which {kind.value!r} needs; use list and watch"
    if kind == RelationKind.REFERENCED:
        for group in read.api_groups:
            for resource in read.resources:
                if (group, resource) not in REFERENCED_RESOURCES:
                    known = ", ".join(sorted(name for _, name in REFERENCED_RESOURCES))
                    yield "resources", f"{resource!r}: pods refer to {known} only"


#: Group and plural of what ``referenced`` knows.
REFERENCED_RESOURCES = frozenset(
    (
        ("", "secrets"),
        ("", "configmaps"),
        ("", "persistentvolumeclaims"),
        ("", "persistentvolumes"),
        ("", "serviceaccounts"),
        ("storage.k8s.io", "volumeattachments"),
        ("resource.k8s.io", "resourceclaims"),
        ("resource.k8s.io", "resourceslices"),
    )
)


def _conflicts(agents: Sequence[tuple[str, Agent]]) -> Iterator[str]:
    """Yield names and users that two agents share."""
    if len(agents) > _MOST_AGENTS:
        yield f"{agents[-1][0]}: there are more than {_MOST_AGENTS} agents"
        return
    names: dict[str, str] = {}
    accounts: dict[str, str] = {}
    prefixes: list[tuple[str, str]] = []
    for file, agent in agents:
        if agent.name in names:
            yield f"{file}: agent {agent.name!r}: name: {names[agent.name]} has such an agent, too"
        names[agent.name] = file
        for index, user in enumerate(agent.users):
            where = f"{file}: agent {agent.name!r}: users[{index}]"
            if user.service_account is not None:
                other = accounts.setdefault(user.service_account, agent.name)
                if other != agent.name or user in agent.users[:index]:
                    yield f"{where}: {user.service_account!r} is a user of agent {other!r}, too"
                continue
            mine = user.prefix or ""
            for prefix, other in prefixes:
                if mine.startswith(prefix) or prefix.startswith(mine):
                    yield f"{where}: prefix {mine!r} meets {prefix!r} of agent {other!r}"
            prefixes.append((mine, agent.name))
