"""Modes of rules: what a denial leads to, rule by rule."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from noderestrict.agents.agents import RULE_PREFIX, agent_of
from noderestrict.policy.modes import ENFORCE, MODES


@dataclass(frozen=True, slots=True)
class Modes:
    """The mode of each rule.

    Attributes:
        default: of rules that are not in ``by_rule``. ``enforce`` denies; ``warn`` allows with a
            warning to the client; ``audit`` allows, and reports in the audit log, the metrics and
            the log; ``off`` ignores the rule.
        by_rule: by rule id; ``agents/NAME`` stands for all rules of an agent.
        by_agent: of all rules of an agent, as its policy says, unless ``default`` is weaker;
            ``by_rule`` wins.
    """

    default: str = ENFORCE
    by_rule: Mapping[str, str] = field(default_factory=dict)
    by_agent: Mapping[str, str] = field(default_factory=dict)

    def of(self, rule: str) -> str:
        """Return the mode of a rule."""
        mode = self.by_rule.get(rule)
        if mode is None and rule.startswith(RULE_PREFIX):
            agent = agent_of(rule)
            mode = self.by_rule.get(f"{RULE_PREFIX}{agent}")
            if mode is None and agent in self.by_agent:
                # The weaker one: a server that enforces nothing enforces no policy either.
                return max(self.default, self.by_agent[agent], key=MODES.index)
        return mode or self.default
