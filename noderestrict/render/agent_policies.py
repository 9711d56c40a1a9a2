"""ValidatingAdmissionPolicies for agents: what an API server can tell itself of their policies.

Each agent has a policy of its own, whose match condition is its users. A request is denied by the
rule by which the server denies it. What takes a look-up is left open: an entry then demands what is
known without one, and the header of the file names it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from noderestrict import __version__
from noderestrict.agents.agents import FIELDS, OBJECT, READ, RULE_PREFIX, UNNAMED_READ, agent_of
from noderestrict.agents.file import Agent, Plain, RelationKind, kind_of
from noderestrict.policy.cel import MOST_ENTRIES, MOST_KEYS, Uncovered, used_variables
from noderestrict.policy.modes import OFF
from noderestrict.render.agent_cel import ADMISSION, every, is_agent, text
from noderestrict.render.agent_changes import MOST_WALKS, TOO_DEEP
from noderestrict.render.agent_entries import Entries, definitions, looks_up_node, subresources
from noderestrict.render.agents import OF_PODS, resource_rules
from noderestrict.render.load import Object
from noderestrict.render.policy_modes import ACTIONS, DENY
from noderestrict.render.registration import NAME, match_constraints
from noderestrict.render.written import POLICIES

#: Where policies deny more than the server.
STRICTER = (
    "Stricter than the webhook: a pod is not looked up if its token does not name its node. Of an "
    f"object that changes, an expression visits {MOST_KEYS} keys, or {MOST_WALKS} keys and items "
    f"of a list with what is in them; of owners, {MOST_ENTRIES}. More are denied. An empty list or "
    "object equals a missing one on the way to fields that may change, right beside it, and in "
    "spec and status, but not deeper.",
)
#: From the mode of a policy file to that of a binding.
_MODES = {"enforce": DENY}
_STRENGTH = (*ACTIONS, OFF)


@dataclass(frozen=True, slots=True)
class Modes:
    """The modes of the rules of agents.

    Attributes:
        default: of all rules: deny, warn or audit.
        by_rule: of single rules, by id, and of all rules of an agent as ``agents/NAME``.
    """

    default: str = DENY
    by_rule: Mapping[str, str] = field(default_factory=dict)

    def of_agent(self, agent: Agent) -> str:
        """Return the mode of an agent's rules that have none of their own.

        That of its policy, unless the default is weaker.
        """
        given = self.by_rule.get(f"{RULE_PREFIX}{agent.name}")
        if given is not None or agent.mode is None:
            return given or self.default
        its_own = _MODES.get(agent.mode.value, agent.mode.value)
        return max(self.default, its_own, key=_STRENGTH.index)

    def of(self, agent: Agent, rule: str) -> str:
        """Return the mode of a rule, given the last part of its id."""
        return self.by_rule.get(_id(agent, rule), self.of_agent(agent))


def why_not(rule_id: str, agents: Sequence[Agent]) -> str:
    """Return why a rule, or all rules of an agent, are in no policy; "" if they are in one."""
    agent = next((one for one in agents if one.name == agent_of(rule_id)), None)
    if agent is None:
        return "no file of --agents has this agent"
    rule = rule_id.removeprefix(_id(agent, "")) if rule_id.count("/") > 1 else ""
    if not rule or rule in _rules(agent):
        return ""
    if rule == OBJECT:
        return f"it {Uncovered.NEVER_SENT.value}"
    if rule in (READ, UNNAMED_READ):
        return "it is about reads, which only the authorizer sees"
    if rule == FIELDS and Entries(agent).untold:
        return f"it has {TOO_DEEP}"
    if any(kind_of(write.relation) == rule for write in agent.write):
        return f"it {Uncovered.LOOKUP.value}"
    return "no entry of the policy needs it"


def policies(agents: Iterable[Agent], modes: Modes) -> list[Object]:
    """Return the policies of agents, each followed by its binding."""
    return [
        one
        for agent in agents
        for mode in ACTIONS
        if (rules := _rules_with(agent, modes, mode))
        for one in _objects(agent, modes, mode, rules)
    ]


def open_parts(agents: Iterable[Agent], modes: Modes) -> list[str]:
    """Return what the policies leave open, one line for each part."""
    return [line for agent in agents for line in _open(agent, modes)]


def _id(agent: Agent, rule: str) -> str:
    return f"{RULE_PREFIX}{agent.name}/{rule}"


def _rules_with(agent: Agent, modes: Modes, mode: str) -> list[str]:
    return [rule for rule in _rules(agent) if modes.of(agent, rule) == mode]


def _objects(agent: Agent, modes: Modes, mode: str, rules: Sequence[str]) -> Iterator[Object]:
    name = f"{NAME}-agent-{agent.name}"
    if mode != modes.of_agent(agent):
        # No name of an agent has a dot.
        name += f".{mode}"
    metadata = {
        "name": name,
        "labels": {**POLICIES, "app.kubernetes.io/version": __version__},
    }
    skipped = {rule for rule in _rules(agent) if modes.of(agent, rule) not in (mode, DENY)}
    yield {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": metadata,
        "spec": _spec(agent, mode, rules, frozenset(skipped)),
    }
    yield {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": metadata,
        "spec": {"policyName": name, "validationActions": list(ACTIONS[mode])},
    }


def _spec(agent: Agent, mode: str, rules: Sequence[str], skipped: frozenset[str]) -> Object:
    entries = Entries(agent)
    defined = {**definitions(agent), **entries.variables, "rule": entries.rule(skipped)}
    validations = [
        {
            "expression": f"variables.rule != {text(rule)}",
            "message": f"{_id(agent, rule)}: {entries.demands(rule)}",
            "messageExpression": f"{text(f'{_id(agent, rule)}: ')} + {entries.message(rule)}",
            "reason": "Forbidden",
        }
        for rule in rules
    ]
    annotation = f"variables.rule == '' ? '' : {text(_id(agent, ''))} + variables.rule"
    shown = (one["messageExpression"] for one in validations)
    used = used_variables(["variables.rule", *shown], defined)
    return {
        "failurePolicy": "Fail",
        "matchConstraints": match_constraints(resource_rules([agent])),
        "matchConditions": [
            {
                "name": "agent",
                "expression": every(f"has({ADMISSION.username})", is_agent(agent, ADMISSION)),
            }
        ],
        "variables": [{"name": name, "expression": one} for name, one in used.items()],
        "validations": validations,
        # A policy that must not deny has none: one that fails denies, whatever the binding does.
        **(
            {"auditAnnotations": [{"key": "rule", "valueExpression": annotation}]}
            if mode == DENY
            else {}
        ),
    }


# What stays open.


def _rules(agent: Agent) -> list[str]:
    return Entries(agent).rules()


def _open(agent: Agent, modes: Modes) -> Iterator[str]:
    needs = Uncovered.LOOKUP.value
    if looks_up_node(agent) and any(
        kind_of(one.relation) != RelationKind.ANY for one in agent.write
    ):
        yield f"{_id(agent, '')}*: which node the agent is on {needs}"
    else:
        looked_up = [
            f"pods/{sub}"
            for write in agent.write
            if write.relation == Plain.OWN_PODS
            for sub in subresources(write)
            if sub not in OF_PODS
        ]
        if looked_up:
            resources = ", ".join(dict.fromkeys(looked_up))
            yield f"{_id(agent, RelationKind.OWN_PODS)}: {resources}: {needs}"
    too_deep = Entries(agent).untold
    if too_deep:
        yield f"{_id(agent, FIELDS)}: {', '.join(too_deep)}: {TOO_DEEP}"
    if agent.read is not None:
        yield f"{_id(agent, READ)}, {_id(agent, UNNAMED_READ)}: only the authorizer sees reads"
    off = [_id(agent, rule) for rule in _rules(agent) if modes.of(agent, rule) == OFF]
    if off:
        yield f"{', '.join(off)}: off"
