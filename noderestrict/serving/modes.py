"""Modes of rules: what a denial leads to, rule by rule."""

from collections.abc import Mapping
from dataclasses import dataclass, field

ENFORCE, WARN, AUDIT, OFF = "enforce", "warn", "audit", "off"
MODES = (ENFORCE, WARN, AUDIT, OFF)


@dataclass(frozen=True, slots=True)
class Modes:
    """The mode of each rule.

    Attributes:
        default: of rules that are not in ``by_rule``. ``enforce`` denies; ``warn`` allows with a
            warning to the client; ``audit`` allows, and reports in the audit log, the metrics and
            the log; ``off`` ignores the rule.
        by_rule: by rule id.
    """

    default: str = ENFORCE
    by_rule: Mapping[str, str] = field(default_factory=dict)

    def of(self, rule: str) -> str:
        """Return the mode of a rule."""
        return self.by_rule.get(rule, self.default)
