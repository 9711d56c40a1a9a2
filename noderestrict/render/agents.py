"""What makes an API server ask about agents: webhooks for writes, conditions for reads.

The API server asks about these users only, and not about what a condition alone proves allowed: so
much of an agent's work goes on while nobody answers. It evaluates every condition of a webhook for
every request that its rules match, so there is one, which begins with the users.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from noderestrict.agents.file import (
    Agent,
    Bound,
    Operation,
    Plain,
    Read,
    RelationKind,
    Unnamed,
    Verb,
    Write,
    kind_of,
)
from noderestrict.agents.paths import FieldPath, parse_path
from noderestrict.agents.reads import KUBELET_API
from noderestrict.render.agent_cel import (
    ADMISSION,
    ALL,
    AUTHORIZATION,
    NODE_NAME,
    POD_NAME,
    POD_UID,
    Terms,
    accounts,
    at,
    every,
    has_token_source,
    is_agent,
    is_bound,
    is_one,
    matches,
    node_of_token,
    of_resources,
    prefixes,
    present,
    some,
    text,
    texts,
)
from noderestrict.render.load import Object

#: End of the names of all webhooks for agents.
DOMAIN = "agents.noderestrict.io"
_OPERATIONS: tuple[str, ...] = tuple(operation.value for operation in Operation)
_READS = ("get", "list", "watch")
#: Characters of an expression. An API server compiles 100,000; what is longer than this is split,
#: and what cannot be split leaves nothing out.
_LONGEST, _LONGEST_OF_ONE = 50_000, 95_000
#: Since then, conditions of authorizers see selectors.
_SELECTORS_SINCE = 32


def webhooks(agents: Sequence[Agent]) -> dict[str, tuple[list[Object], Object]]:
    """Return the rules and the match condition of each webhook, by name.

    An agent whose unnamed writes are refused is asked about whatever it writes, another one about
    the resources that its policy names.

    Args:
        agents: of checked policies.
    """
    closed = [agent for agent in agents if agent.unnamed_writes == Unnamed.REFUSE]
    named = [agent for agent in agents if agent.unnamed_writes == Unnamed.ALLOW and agent.write]
    found: dict[str, tuple[list[Object], Object]] = {}
    for number, part in enumerate(_parts(closed, _write_expression)):
        condition = _condition(part)
        found[_name("all", number)] = resource_rules(part), condition
    for number, part in enumerate(_parts(named, _write_expression)):
        found[_name("named", number)] = resource_rules(part), _condition(part)
    return found


def is_for_agents(webhook: Mapping[str, Any]) -> bool:
    """Return whether a webhook of a registration is one for agents."""
    return str(webhook.get("name")).endswith(DOMAIN)


def _name(kind: str, number: int) -> str:
    return f"{kind}-{number + 1}.{DOMAIN}" if number else f"{kind}.{DOMAIN}"


def _parts(
    agents: Iterable[Agent], expression: Callable[[Sequence[Agent]], str]
) -> Iterator[list[Agent]]:
    """Yield the agents in parts whose expressions an API server takes."""
    part: list[Agent] = []
    for agent in agents:
        if part and len(expression([*part, agent])) > _LONGEST:
            yield part
            part = []
        part.append(agent)
    if part:
        yield part


def read_conditions(agents: Sequence[Agent], minor: int) -> list[str]:
    """Return the CEL expressions that select the reads that agents are asked about.

    Args:
        agents: of checked policies.
        minor: Kubernetes version of the API server, 1.``minor``.

    Returns:
        One for each part of the agents; none if no reads are held.
    """
    held = [agent for agent in agents if agent.read is not None]
    parts = _parts(held, lambda part: _read_expression(part, minor))
    return [_read_expression(part, minor) for part in parts]


def _read_expression(held: Sequence[Agent], minor: int) -> str:
    asked = "request.resourceAttributes"
    kubelets = every(
        f"has({asked}.resource)",
        f"{asked}.resource == 'nodes'",
        f"has({asked}.subresource)",
        is_one(f"{asked}.subresource", sorted(KUBELET_API)),
    )
    reads = some((f"{asked}.verb in {texts(_READS)}", kubelets))
    cases = list(_cases(held, AUTHORIZATION, lambda agent: _read_cases(agent, minor)))
    of_agents = every(
        f"has({asked})",
        f"has({asked}.verb)",
        reads,
        "has(request.user)",
        some(is_agent(agent, AUTHORIZATION) for agent in held),
    )
    return _unless(of_agents, cases)


def _rule(group: str, operations: Sequence[str], resources: Sequence[str]) -> Object:
    return {
        "apiGroups": [group],
        "apiVersions": [ALL],
        "operations": list(operations),
        "resources": list(resources),
        "scope": ALL,
    }


def resource_rules(agents: Sequence[Agent]) -> list[Object]:
    """Return rules for what an API server asks about agents.

    Args:
        agents: of checked policies, all of which refuse unnamed writes, or none.

    Returns:
        One for everything, or those for exactly what entries name.
    """
    if any(agent.unnamed_writes == Unnamed.REFUSE for agent in agents):
        return [_rule(ALL, _OPERATIONS, ["*/*"])]
    return list(_rules(agents))


def _rules(agents: Iterable[Agent]) -> Iterator[Object]:
    wanted: dict[str, dict[str, dict[str, None]]] = {}
    for agent in agents:
        for write in agent.write:
            for group in write.api_groups:
                for resource in write.resources:
                    known = wanted.setdefault(group, {}).setdefault(resource, {})
                    known.update(dict.fromkeys(operation.value for operation in write.operations))
    for group, resources in wanted.items():
        by_operations: dict[tuple[str, ...], list[str]] = {}
        for resource, operations in resources.items():
            ordered: tuple[str, ...] = tuple(one for one in _OPERATIONS if one in operations)
            by_operations.setdefault(ordered, []).append(resource)
        for ordered, names in by_operations.items():
            yield _rule(group, ordered, names)


def _condition(agents: Sequence[Agent]) -> Object:
    name = "agents-beyond-what-is-surely-theirs"
    return {"name": name, "expression": _write_expression(agents)}


def _write_expression(agents: Sequence[Agent]) -> str:
    users = some(is_agent(agent, ADMISSION) for agent in agents)
    asked = every("has(request.userInfo.username)", users)
    cases = list(_cases(agents, ADMISSION, _write_cases))
    return _unless(asked, cases)


def _unless(asked: str, cases: Sequence[str]) -> str:
    """Return a test that is asked about, but in some cases; in all if that gets too long."""
    whole = every(asked, f"!{some(cases)}") if cases else asked
    return whole if len(whole) <= _LONGEST_OF_ONE else asked


def _cases(
    agents: Iterable[Agent],
    terms: Terms,
    cases: Callable[[Agent], Iterable[tuple[bool, str]]],
) -> Iterator[str]:
    """Yield a test for what is surely allowed to the users of each agent.

    Args:
        agents: of checked policies.
        terms: name the requester.
        cases: returns a test for each kind of request, and whether it needs the node.
    """
    for agent in agents:
        for users in (accounts(agent), prefixes(agent)):
            if not users:
                continue
            part = replace(agent, users=users)
            found = list(cases(part))
            always = [test for needs_node, test in found if not needs_node]
            known = _node_is_known(part, terms)
            with_node = [test for needs_node, test in found if needs_node] if known else []
            tests = [*always, *([every(known, some(with_node))] if with_node else [])]
            if tests:
                yield every(is_agent(part, terms), some(tests))


# The node.


def _node_is_known(agent: Agent, terms: Terms) -> str:
    """Return a test that CEL can tell the node of an agent; "" if it never can."""
    if not accounts(agent):
        return "true"
    return is_bound(terms, POD_NAME, POD_UID, NODE_NAME) if has_token_source(agent) else ""


def _is_node(agent: Agent, terms: Terms, value: str) -> str:
    """Return a test that a text is the name of the node, given that it is known."""
    if accounts(agent):
        return f"{value} == {node_of_token(terms)}"
    names = (f"{text(user.prefix or '')} + {value} == {terms.username}" for user in agent.users)
    return every(f"{value} != ''", some(names))


def _is_named(agent: Agent, terms: Terms, relation: Plain | Bound, value: str) -> str:
    """Return a test that a name belongs to the node; "false" if CEL cannot tell."""
    template = relation.name if isinstance(relation, Bound) else None
    prefix, _, suffix = (template or "{node}").partition("{node}")
    if not prefix and not suffix:
        return _is_node(agent, terms, value)
    if not accounts(agent):
        return "false"
    return f"{value} == {text(prefix)} + {node_of_token(terms)} + {text(suffix)}"


# Writes.


def _write_cases(agent: Agent) -> Iterator[tuple[bool, str]]:
    """Yield a test for each kind of write that is surely allowed, and whether it needs the node."""
    for write in filter(None, map(_provable, agent.write)):
        for operation in write.operations:
            related = _write_relation(agent, write, operation)
            if related == "false":
                continue
            fields = "" if operation != Operation.UPDATE else _unchanged(write)
            yield bool(related), every(_about_write(write, operation), related, fields)


def _about_write(write: Write, operation: Operation) -> str:
    tests = [
        f"request.operation == {text(operation.value)}",
        is_one("request.resource.group", write.api_groups),
        of_resources(write.resources, "request.resource.resource", "request.subResource"),
    ]
    if write.namespaces:
        tests.append(every("has(request.namespace)", is_one("request.namespace", write.namespaces)))
    if write.names:
        tests.append(every("has(request.name)", is_one("request.name", write.names)))
    return every(*tests)


def _write_relation(agent: Agent, write: Write, operation: Operation) -> str:
    """Return a test that the relation holds; "" if it always does, "false" if CEL cannot tell."""
    kind, relation = kind_of(write.relation), write.relation
    if kind == RelationKind.ANY:
        return ""
    if kind in (RelationKind.OWN_NODE, RelationKind.NAME):
        created = operation == Operation.CREATE and not any("/" in one for one in write.resources)
        name = "object.metadata.name" if created else "request.name"
        there = present(("metadata", "name"), "object") if created else "has(request.name)"
        named = _is_named(agent, ADMISSION, relation, name)
        if named == "false" or (operation == Operation.CREATE and not created):
            return "false"
        return every(there, named)
    steps = _steps(relation)
    if steps is None:
        return "false"
    roots = {"CREATE": ("object",), "UPDATE": ("oldObject", "object"), "DELETE": ("oldObject",)}
    tests = []
    for root in roots.get(operation.value, ()):
        value = at(root, steps)
        tests += [present(steps, root), f"type({value}) == string"]
        tests.append(_is_node(agent, ADMISSION, value))
    return every(*tests) if tests and "false" not in tests else "false"


#: Subresources that send whole pods.
OF_PODS = ("", "ephemeralcontainers", "resize", "status")


def _provable(write: Write) -> Write | None:
    """Return the part of an entry that CEL can tell: what sends objects, if that matters."""
    if write.relation != Plain.OWN_PODS:
        return write
    resources = tuple(one for one in write.resources if one.partition("/")[2] in OF_PODS)
    return replace(write, resources=resources) if resources else None


def _steps(relation: Plain | Bound) -> tuple[str, ...] | None:
    """Return where an object names its node; None if that is no single text."""
    if relation == Plain.OWN_PODS:
        return "spec", "nodeName"
    if isinstance(relation, Bound) and relation.field is not None:
        return parse_path(relation.field, exact=True).steps
    if isinstance(relation, Bound) and relation.label is not None:
        return "metadata", "labels", relation.label
    return None


def _unchanged(write: Write) -> str:
    """Return a test that an update changes only fields that may change."""
    if write.fields is None:
        return ""
    tree: _Tree = {}
    for path in map(parse_path, (*write.fields, *_BOOKKEEPING)):
        _grow(tree, path)
    return every("object != null", "oldObject != null", *_same("oldObject", "object", tree, 0))


#: What the API server itself changes with each write.
_BOOKKEEPING = ("metadata.generation", "metadata.managedFields", "metadata.resourceVersion")


@dataclass(slots=True)
class _Items:
    """The items of a list that may change: those with some values of a key."""

    key: str
    values: list[str]


#: What may change: all of a field (None), some of its items, or what is below it.
_Tree = dict[str, Any]


def _grow(tree: _Tree, path: FieldPath) -> None:
    """Add a path to what may change; not what is in an item of a list, which is asked about."""
    steps, last = path.steps, len(path.steps) - 1
    if ALL in steps or any(count != last for count, _ in path.lists):
        return
    names = steps[:last] if path.lists else steps
    for step in names[:-1]:
        below = tree.setdefault(step, {})
        if not isinstance(below, dict):
            return
        tree = below
    if not path.lists:
        tree[names[-1]] = None
        return
    _, key = path.lists[0]
    items = tree.setdefault(names[-1], _Items(key, []))
    if isinstance(items, _Items) and items.key == key:
        items.values.append(steps[last].partition("=")[2])


def _same(old: str, new: str, tree: _Tree, depth: int) -> Iterator[str]:
    """Yield tests that two maps are equal but for what a tree names."""
    key = f"k{depth}"
    exact = [step for step in tree if ALL not in step]
    tests = [is_one(key, exact)] if exact else []
    tests += [matches(key, step) for step in tree if ALL in step]
    free = " || ".join((*tests, ""))
    # Some checkers do not see by themselves that what has a key in brackets may be a map.
    yield f"dyn({new}).all({key}, {free}({key} in {old} && {old}[{key}] == {new}[{key}]))"
    yield f"dyn({old}).all({key}, {free}{key} in {new})"
    for step, below in tree.items():
        if below is None:
            continue
        both = [f"{text(step)} in {old}", f"{text(step)} in {new}"]
        was, becomes = (at(value, (step,)) for value in (old, new))
        kind = "list" if isinstance(below, _Items) else "map"
        alike = (
            _same_items(was, becomes, below)
            if isinstance(below, _Items)
            else _same(was, becomes, below, depth + 1)
        )
        same = every(*both, f"type({was}) == {kind}", f"type({becomes}) == {kind}", *alike)
        yield some((every(*(f"!({test})" for test in both)), same))


def _same_items(old: str, new: str, items: _Items) -> Iterator[str]:
    """Yield tests that two lists have the same items but for some, and no key twice."""
    key = text(items.key)
    exact = [value for value in items.values if ALL not in value]
    tests = [is_one(f"i[{key}]", exact)] if exact else []
    tests += [matches(f"i[{key}]", value) for value in items.values if ALL in value]
    for value in (old, new):
        yield f"dyn({value}).all(i, type(i) == map && {key} in i && type(i[{key}]) == string)"
        yield f"dyn({value}).all(i, dyn({value}).exists_one(j, j[{key}] == i[{key}]))"
    was, becomes = (f"dyn({value}).filter(i, !{some(tests)})" for value in (old, new))
    yield f"{becomes} == {was}"


# Reads.


def _read_cases(agent: Agent, minor: int) -> Iterator[tuple[bool, str]]:
    """Yield a test for each kind of read that is surely left to RBAC; likewise."""
    for read in agent.read or ():
        for verb in read.verbs:
            related = _read_relation(agent, read, verb, minor)
            if related != "false":
                yield bool(related), every(_about_read(read, verb), related)


def _about_read(read: Read, verb: Verb) -> str:
    asked = "request.resourceAttributes"
    tests = [f"{asked}.verb == {text(verb.value)}"]
    if set(read.api_groups) == {""}:
        tests.append(f"(!has({asked}.group) || {asked}.group == '')")
    else:
        tests.append(every(f"has({asked}.group)", is_one(f"{asked}.group", read.api_groups)))
    tests.append(f"has({asked}.resource)")
    tests.append(of_resources(read.resources, f"{asked}.resource", f"{asked}.subresource"))
    if {"nodes/*", "nodes/proxy"} & set(read.resources):
        # Entries for writes are about that.
        tests.append(f"(!has({asked}.subresource) || {asked}.subresource != 'proxy')")
    for key, values in (("namespace", read.namespaces), ("name", read.names)):
        if values:
            tests.append(every(f"has({asked}.{key})", is_one(f"{asked}.{key}", values)))
    return every(*tests)


def _read_relation(agent: Agent, read: Read, verb: Verb, minor: int) -> str:
    kind, relation = kind_of(read.relation), read.relation
    asked = "request.resourceAttributes"
    if kind == RelationKind.ANY:
        return ""
    if kind in (RelationKind.OWN_NODE, RelationKind.NAME):
        named = _is_named(agent, AUTHORIZATION, relation, f"{asked}.name")
        return named if named == "false" else every(f"has({asked}.name)", named)
    if verb == Verb.GET or minor < _SELECTORS_SINCE:
        return "false"
    if kind == RelationKind.OWN_PODS:
        return _selects(agent, f"{asked}.fieldSelector", "spec.nodeName")
    if isinstance(relation, Bound) and relation.field is not None:
        key = ".".join(parse_path(relation.field, exact=True).steps)
        return _selects(agent, f"{asked}.fieldSelector", key)
    if isinstance(relation, Bound) and relation.label is not None:
        return _selects(agent, f"{asked}.labelSelector", relation.label)
    return "false"


def _selects(agent: Agent, selector: str, key: str) -> str:
    """Return a test that a selector demands the node as the value of a key."""
    demands = every(
        "has(r.key)",
        f"r.key == {text(key)}",
        "has(r.operator)",
        "r.operator == 'In'",
        "has(r.values)",
        "size(r.values) == 1",
        _is_node(agent, AUTHORIZATION, "r.values[0]"),
    )
    requirements = f"{selector}.requirements"
    return every(f"has({selector})", f"has({requirements})", f"{requirements}.exists(r, {demands})")
