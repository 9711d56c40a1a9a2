"""The entries of an agent's policy in CEL: what a request is about, and whether it is allowed.

All are variables of a ValidatingAdmissionPolicy. ``rule`` is the rule by which the server denies a
request; what takes a look-up counts as it has to be for the request to be allowed.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from noderestrict.agents.agents import FIELDS, NODE, RULES, UNNAMED
from noderestrict.agents.changed import Changeable
from noderestrict.agents.file import (
    Agent,
    Bound,
    Operation,
    Plain,
    RelationKind,
    Unnamed,
    Write,
    kind_of,
)
from noderestrict.agents.identity import (
    IMPERSONATED,
    NAMES_NO_POD,
    OF_A_NODE,
    REQUESTED,
    WITHOUT_NODE,
    WITHOUT_POD,
    without_name,
)
from noderestrict.agents.paths import parse_path
from noderestrict.policy import cel
from noderestrict.policy.cel import EMPTY_LIST, EMPTY_TEXT, MOST_ENTRIES
from noderestrict.render.agent_cel import (
    ADMISSION,
    ALL,
    CREDENTIAL_ID,
    NODE_NAME,
    POD_NAME,
    POD_UID,
    accounts,
    at,
    every,
    has_token_source,
    is_at,
    is_bound,
    is_one,
    node_of_token,
    prefixes,
    some,
    text,
)
from noderestrict.render.agent_changes import NEW, OLD, VARIABLES, Changes
from noderestrict.render.agents import OF_PODS

_NAME, _POD_NODE = ("metadata", "name"), ("spec", "nodeName")


def definitions(agent: Agent) -> dict[str, str]:
    """Return the variables that do not depend on single entries; each uses only those before it."""
    return {
        **{name: cel.VARIABLES[name] for name in ("name", "requestNamespace", "subresource")},
        **VARIABLES,
        "node": _node(agent),
        "isKnown": _is_known(agent),
        "whyUnknown": _why_unknown(agent),
        "objectName": (
            "request.operation == 'CREATE' && variables.subresource == '' ? "
            f"{_value(NEW, _NAME)} : variables.name == '' ? {_value(OLD, _NAME)} : variables.name"
        ),
        "resource": (
            "request.resource.resource + (variables.subresource == '' ? '' : '/' + "
            "variables.subresource) + (request.resource.group == '' ? '' : ' of group ' + "
            "request.resource.group)"
        ),
        "may": "request.operation.lowerAscii()",
        "on": ("'its node'" if looks_up_node(agent) else '"node \'" + variables.node + "\'"'),
    }


def _value(name: str, steps: Sequence[str], default: str = EMPTY_TEXT) -> str:
    """Return what is at a path of the object before or after; a default if it is missing."""
    root = f"variables.{name}"
    value = at(root, steps)
    return f"({is_at(steps, root)} && {value} != null ? {value} : {default})"


def looks_up_node(agent: Agent) -> bool:
    """Return whether only a look-up tells the node of an agent."""
    return bool(accounts(agent)) and not has_token_source(agent)


def _by_prefix(agent: Agent, of_account: str, value: Callable[[str], str]) -> str:
    """Return an expression for each user.

    Args:
        agent: of a checked policy.
        of_account: the expression for a service account; "" if none is a user.
        value: returns that for users with a prefix.
    """
    expression = of_account
    for user in prefixes(agent):
        prefix = user.prefix or ""
        test = f"{ADMISSION.username}.startsWith({text(prefix)})"
        expression = f"{test} ? {value(prefix)} : {expression}" if expression else value(prefix)
    return expression


def _node(agent: Agent) -> str:
    """Return the name of the node, "" if it is not known."""
    of_account = ""
    if accounts(agent):
        known = is_bound(ADMISSION, POD_NAME, POD_UID, NODE_NAME)
        of_account = f"({known} ? {node_of_token(ADMISSION)} : {EMPTY_TEXT})"
    return _by_prefix(
        agent, of_account, lambda prefix: f"{ADMISSION.username}.substring({len(prefix)})"
    )


def _is_known(agent: Agent) -> str:
    """Return a test that the node is known, or that a look-up would tell it."""
    if not looks_up_node(agent):
        return "variables.node != ''"
    several = (
        f"{text(NODE_NAME)} in {ADMISSION.extra} && size({ADMISSION.extra}[{text(NODE_NAME)}])"
    )
    return every(is_bound(ADMISSION, POD_NAME, POD_UID), f"!({several} > 1)")


def _why_unknown(agent: Agent) -> str:
    extra = ADMISSION.extra

    def holds(key: str, count: str) -> str:
        return f"{text(key)} in {extra} && size({extra}[{text(key)}]) {count}"

    several = some(holds(key, "> 1") for key in (NODE_NAME, POD_NAME, POD_UID))
    cases = {
        f"has({extra}) && {several}": f"userInfo.extra names several nodes or pods, {IMPERSONATED}",
        is_bound(ADMISSION, POD_NAME, POD_UID): WITHOUT_NODE,
        "!has(request.userInfo.uid) || request.userInfo.uid == ''": WITHOUT_POD,
        f"has({extra}) && {holds(NODE_NAME, '> 0')}": OF_A_NODE,
        f"has({extra}) && {holds(CREDENTIAL_ID, '> 0')}": REQUESTED,
    }
    chosen = "".join(f"{test} ? {text(why)} : " for test, why in cases.items())
    of_account = f"{chosen}{text(NAMES_NO_POD)}"
    if not accounts(agent):
        of_account = ""
    return _by_prefix(agent, of_account, lambda prefix: text(without_name(prefix)))


# Entries.


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry for writes, as expressions refer to it.

    Attributes:
        write: with the resources that are looked up together.
        number: ends the names of its variables.
        changes: whether an update changes only what may change; "" if everything may.
    """

    write: Write
    number: int
    changes: str

    @property
    def kind(self) -> RelationKind:
        """Of its relation."""
        return kind_of(self.write.relation)

    @property
    def about(self) -> str:
        """Whether a request is about it."""
        return f"variables.about{self.number}"

    @property
    def related(self) -> str:
        """Whether its relation holds, given the node."""
        return f"variables.related{self.number}"


class Entries:
    """The entries of a policy, in the order in which the server tries them.

    Args:
        agent: of a checked policy.

    Attributes:
        variables: their definitions, by name.
        untold: paths of fields of entries for which no expression tells what else changes.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.untold: tuple[str, ...] = ()
        changes, tests = Changes(), dict[str, str]()
        self._all: list[_Entry] = []
        names: dict[tuple[str, ...] | None, str] = {None: ""}
        for number, write in enumerate(_in_order(agent.write)):
            if write.fields not in names:
                name = f"changes{len(names) - 1}"
                told = changes.only(name, write.fields or ())
                names[write.fields] = f"variables.{name}" if told else ""
                if not told:
                    self.untold += write.fields or ()
            entry = _Entry(write, number, names[write.fields])
            tests[f"about{number}"] = _about(write)
            tests[f"related{number}"] = _related(write)
            self._all.append(entry)
        self._looks_up = looks_up_node(agent)
        self.variables = {**changes.variables, **tests}

    def rules(self) -> list[str]:
        """Return the last parts of the ids of the rules by which a request may be denied."""
        kinds = {one.kind for one in self._related() if _can_tell(one.write)}
        found = {
            NODE: bool(self._related()),
            UNNAMED: self._agent.unnamed_writes == Unnamed.REFUSE,
            FIELDS: any(one.changes for one in self._all),
            **{kind.value: kind in kinds and not self._looks_up for kind in RelationKind},
        }
        return [rule for rule in RULES if found.get(rule)]

    def _related(self) -> list[_Entry]:
        return [one for one in self._all if one.kind != RelationKind.ANY]

    def rule(self, skipped: frozenset[str]) -> str:
        """Return the rule by which a request is denied, "" for none.

        Args:
            skipped: rules that are passed over.
        """
        allowed = [self._holds(one, skipped) for one in self._all]
        changed = [
            self._holds(one, skipped, changed=True)
            for one in self._all
            if one.changes and FIELDS not in skipped
        ]
        cases = {some(tests): rule for rule, tests in (("", allowed), (FIELDS, changed)) if tests}
        unnamed = UNNAMED
        if self._agent.unnamed_writes == Unnamed.ALLOW or UNNAMED in skipped:
            unnamed = ""
        *related, last = [(one.about, one.kind.value) for one in self._related()] or [("", unnamed)]
        if self._related():
            cases[f"!{some(one.about for one in self._all)}"] = unnamed
            cases["!variables.isKnown"] = NODE
        cases.update(related)
        chosen = "".join(f"{test} ? {text(rule)}\n: " for test, rule in cases.items())
        return f"{chosen}{text(last[1])}"

    def _holds(self, entry: _Entry, skipped: frozenset[str], *, changed: bool = False) -> str:
        """Return a test that an entry allows a request; or does but for what is changed."""
        tests = [entry.about]
        if entry.kind != RelationKind.ANY:
            is_held = not (self._looks_up or entry.kind in skipped)
            related = entry.related if is_held else ""
            if NODE not in skipped:
                tests.append(every("variables.isKnown", related))
            elif related:
                tests.append(f"(!variables.isKnown || {related})")
        if changed:
            tests.append(f"request.operation == 'UPDATE' && !{entry.changes}")
        elif entry.changes and FIELDS not in skipped:
            tests.append(f"(request.operation != 'UPDATE' || {entry.changes})")
        return every(*tests)

    def demands(self, rule: str) -> str:
        """Return what a rule demands, for when its message cannot be told."""
        agent = f"agent {self._agent.name!r}"
        if rule == NODE:
            return f"the node of {agent} is not known"
        if rule == UNNAMED:
            return f"the policy of {agent} does not name this"
        if rule == FIELDS:
            return f"{agent} may not change these fields"
        return f"{agent} may write only what belongs to its node"

    def message(self, rule: str) -> str:
        """Return the expression of a message."""
        agent = f"agent {self._agent.name!r}"
        if rule == NODE:
            return f"{text(f'the node of {agent} is not known: ')} + variables.whyUnknown"
        if rule == UNNAMED:
            return (
                f"{text(f'the policy of {agent} does not name this: ')} + variables.may + ' ' + "
                "variables.resource + '; if its work needs that, add it to write'"
            )
        if rule == FIELDS:
            shown = [
                (one.about, text(str(Changeable(tuple(map(parse_path, one.write.fields or ()))))))
                for one in self._all
                if one.changes
            ]
            return f"{text(f'{agent} may change only ')} + {_first(shown)}"
        demands = [(one.about, _demand(one.write)) for one in self._related() if one.kind == rule]
        return (
            f"{text(f'{agent} on ')} + variables.on + ' may ' + variables.may + ' only ' + "
            f"{_first(demands)}"
        )


def _first(cases: Sequence[tuple[str, str]]) -> str:
    """Return the value of the first case that holds, of the last one if none does."""
    *others, (_, last) = dict(cases).items()
    return f"({''.join(f'{test} ? {value} : ' for test, value in others)}{last})"


def _in_order(writes: Iterable[Write]) -> Iterator[Write]:
    """Yield entries; first what names a subresource, since the server tries that first."""
    for wanted in (False, True):
        for write in writes:
            resources = tuple(one for one in write.resources if one.endswith(f"/{ALL}") == wanted)
            if resources:
                yield replace(write, resources=resources)


def _about(write: Write) -> str:
    tests = [
        is_one("request.operation", (operation.value for operation in write.operations)),
        is_one("request.resource.group", write.api_groups),
        _of_resources(write.resources),
    ]
    if write.namespaces:
        tests.append(is_one("variables.requestNamespace", write.namespaces))
    if write.names:
        tests.append(is_one("variables.objectName", write.names))
    return every(*tests)


def _of_resources(resources: Sequence[str]) -> str:
    by_subresource: dict[str, list[str]] = {}
    for resource in resources:
        plural, _, sub = resource.partition("/")
        by_subresource.setdefault(sub, []).append(plural)
    sub, asked = "variables.subresource", "request.resource.resource"
    return some(
        every(f"{sub} != ''" if name == ALL else f"{sub} == {text(name)}", is_one(asked, plurals))
        for name, plurals in by_subresource.items()
    )


def _related(write: Write) -> str:
    """Return a test that the relation of an entry holds, as far as that is known."""
    relation, kind = write.relation, kind_of(write.relation)
    if kind == RelationKind.ANY:
        return "true"
    if kind in (RelationKind.OWN_NODE, RelationKind.NAME):
        named = f"variables.objectName == {_name_of(relation)}"
        return every(named, "(variables.name == '' || variables.name == variables.objectName)")
    if kind == RelationKind.OWN_PODS:
        sent = _each(write, lambda name: f"{_value(name, _POD_NODE)} == variables.node")
        if all("/" not in resource for resource in write.resources):
            return sent
        has_pod = f"variables.subresource == '' || {_value(OLD, ('kind',))} == 'Pod'"
        # Which node the pod is on takes a look-up.
        return f"({has_pod}) ? ({sent}) : variables.name != ''"
    if kind == RelationKind.OWNER:
        return _each(write, _is_owned)
    steps = _steps(relation)
    return _each(write, lambda name: f"{_value(name, steps)} == variables.node")


def _can_tell(write: Write) -> bool:
    """Return whether a relation is known without a look-up for some requests of an entry."""
    return write.relation != Plain.OWN_PODS or any(
        sub in (*OF_PODS, ALL) for sub in subresources(write)
    )


def subresources(write: Write) -> list[str]:
    """Return the subresource of each resource of an entry, "" for none."""
    return [resource.partition("/")[2] for resource in write.resources]


def _name_of(relation: Plain | Bound) -> str:
    """Return the name of the object that belongs to the node."""
    template = relation.name if isinstance(relation, Bound) else None
    parts = (template or "{node}").partition("{node}")
    return " + ".join(
        (*map(text, filter(None, parts[:1])), "variables.node", *map(text, filter(None, parts[2:])))
    )


def _steps(relation: Plain | Bound) -> Sequence[str]:
    """Return where an object names its node."""
    if isinstance(relation, Bound) and relation.label is not None:
        return "metadata", "labels", relation.label
    if isinstance(relation, Bound) and relation.field is not None:
        return parse_path(relation.field, exact=True).steps
    raise TypeError(f"{relation} is at no path")


#: Which objects an operation sends.
_SENT = {Operation.CREATE: (NEW,), Operation.UPDATE: (OLD, NEW), Operation.DELETE: (OLD,)}
_WITHOUT = {OLD: Operation.CREATE, NEW: Operation.DELETE}


def _each(write: Write, test: Callable[[str], str]) -> str:
    """Return a test of each object that an operation sends."""
    tests = []
    for name in (OLD, NEW):
        sends = {name in _SENT.get(one, (OLD, NEW)) for one in write.operations}
        if sends == {True}:
            tests.append(test(name))
        elif True in sends:
            without = f"request.operation == {text(_WITHOUT[name].value)}"
            tests.append(f"({without} || {test(name)})")
    return every(*tests)


def _is_owned(name: str) -> str:
    """Return a test that the own Node owns an object, and no other."""
    owners = _value(name, ("metadata", "ownerReferences"), EMPTY_LIST)
    is_node = "has(r.kind) && r.kind == 'Node' && has(r.apiVersion) && r.apiVersion == 'v1'"
    is_own = "has(r.name) && r.name == variables.node"
    return every(
        f"size({owners}) <= {MOST_ENTRIES}",
        f"{owners}.exists(r, {is_node})",
        f"{owners}.all(r, !({is_node}) || ({is_own}))",
    )


def _demand(write: Write) -> str:
    """Return the expression of what a relation demands, in words."""
    relation, kind = write.relation, kind_of(write.relation)
    if kind == RelationKind.OWN_NODE:
        return text("its own Node")
    if kind == RelationKind.OWN_PODS:
        return text("pods on its own node")
    if kind == RelationKind.OWNER:
        return text("objects that its own Node owns, and no other Node")
    if kind == RelationKind.NAME:
        return f"""{text("the object named '")} + {_name_of(relation)} + "'\""""
    label = relation.label if isinstance(relation, Bound) else None
    shown = ".".join(_steps(relation)) if label is None else f"metadata.labels[{label!r}]"
    return f"""{text(f"objects with {shown} '")} + variables.node + "'\""""
