"""Policy beyond the in-tree plugin: off unless the operator asks for it."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from noderestrict.policy.keys import NodeKeys
from noderestrict.policy.rules import STRICT_RULES

#: This rule is on where there is anything to forbid.
FORBIDDEN_LABELS = "nodes/forbidden-labels"
ALL = "all"


@dataclass(frozen=True, slots=True)
class Extra:
    """What is judged beyond the in-tree plugin.

    Attributes:
        rules: ids of the strict rules that are on.
        allowed_labels: of the own Node, besides those that Kubernetes opens to nodes.
        forbidden_labels: of the own Node, whatever else opens them.
        allowed_annotations: of the own Node, besides the kubelet's own, where ``nodes/annotations``
            is on.
    """

    rules: frozenset[str] = frozenset()
    allowed_labels: NodeKeys = field(default_factory=NodeKeys)
    forbidden_labels: NodeKeys = field(default_factory=NodeKeys)
    allowed_annotations: NodeKeys = field(default_factory=NodeKeys)

    @classmethod
    def of(
        cls,
        strict: Iterable[str] = (),
        allowed_labels: NodeKeys | None = None,
        forbidden_labels: NodeKeys | None = None,
        allowed_annotations: NodeKeys | None = None,
    ) -> "Extra":
        """Return the policy with these strict rules, and what its keys bring with them."""
        forbidden = forbidden_labels or NodeKeys()
        return cls(
            frozenset([*strict, *([FORBIDDEN_LABELS] if forbidden else [])]),
            allowed_labels or NodeKeys(),
            forbidden,
            allowed_annotations or NodeKeys(),
        )

    def flags(self) -> list[str]:
        """Return the command line flags that mean this policy."""
        strict = ",".join(rule for rule in STRICT_RULES if rule in self.rules - {FORBIDDEN_LABELS})
        values = {
            "strict-rules": strict,
            "allow-node-labels": str(self.allowed_labels),
            "forbid-node-labels": str(self.forbidden_labels),
            "allow-node-annotations": str(self.allowed_annotations),
        }
        return [f"--{name}={value}" for name, value in values.items() if value]


def parse_strict_rules(text: str) -> tuple[str, ...]:
    """Return the rules of ``RULE,RULE``, or all that need no more than to be named.

    Raises:
        ValueError: one is no strict rule.
    """
    selectable = tuple(rule for rule in STRICT_RULES if rule != FORBIDDEN_LABELS)
    wanted = tuple(filter(None, (part.strip() for part in text.split(","))))
    if wanted == (ALL,):
        return selectable
    for rule in wanted:
        if rule not in selectable:
            raise ValueError(
                f"{rule!r} is no strict rule; known: {ALL}, or of {', '.join(selectable)}"
            )
    return wanted
