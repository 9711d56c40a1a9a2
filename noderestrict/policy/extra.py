"""Policy beyond the in-tree plugin: off unless the operator asks for it."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from noderestrict.policy.keys import NodeKeys

#: This rule is on where there is anything to forbid.
FORBIDDEN_LABELS = "nodes/forbidden-labels"


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
