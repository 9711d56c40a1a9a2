"""Policy beyond the in-tree plugin, off by default."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from noderestrict.policy.keys import NodeKeys

#: This rule is on if any label is forbidden.
FORBIDDEN_LABELS = "nodes/forbidden-labels"


@dataclass(frozen=True, slots=True)
class Extra:
    """Policy beyond the in-tree plugin. All labels and annotations are those of a node's own Node.

    Attributes:
        rules: ids of the strict rules that are on.
        allowed_labels: labels that nodes may set, in addition to those that Kubernetes allows.
        forbidden_labels: labels that nodes may not set, even if something else allows them.
        allowed_annotations: annotations that ``nodes/annotations`` allows, in addition to the
            kubelet's own.
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
        """Return the policy with these strict rules, and the one that forbids labels if needed."""
        forbidden = forbidden_labels or NodeKeys()
        return cls(
            frozenset([*strict, *([FORBIDDEN_LABELS] if forbidden else [])]),
            allowed_labels or NodeKeys(),
            forbidden,
            allowed_annotations or NodeKeys(),
        )
