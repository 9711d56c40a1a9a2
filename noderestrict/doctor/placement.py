"""On which nodes the scheduler may place a pod.

Source: GetRequiredNodeAffinity of component-helpers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from noderestrict.api.metav1 import LabelSelectorRequirement
from noderestrict.policy.rules.nodes import label_is_forbidden
from noderestrict.rbac.selectors import holds

_GREATER, _LESS = "Gt", "Lt"


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on a label of a node, or on its name.

    Attributes:
        requirement: key, operator and values.
        of_name: whether it is on the name; the key is then ``metadata.name``.
    """

    requirement: LabelSelectorRequirement
    of_name: bool = False

    def __str__(self) -> str:
        """Return it as ``kubectl --selector`` takes it, as far as it does."""
        key, values = self.requirement.key or "", self.requirement.values or ()
        match self.requirement.operator, values:
            case "Exists", _:
                return key
            case "DoesNotExist", _:
                return f"!{key}"
            case "In", [value]:
                return f"{key}={value}"
            case "In" | "NotIn" as operator, _:
                return f"{key} {operator.lower()} ({','.join(values)})"
            case operator, _:
                return f"{key} {'>' if operator == _GREATER else '<'} {','.join(values)}"

    def holds(self, node: Any) -> bool:
        """Tell whether it holds for a Node."""
        metadata = node["metadata"]
        given = {"metadata.name": metadata["name"]} if self.of_name else metadata.get("labels")
        operator = self.requirement.operator
        if operator in (_GREATER, _LESS):
            try:
                (bound,) = map(int, self.requirement.values or ())
                value = int((given or {})[self.requirement.key or ""])
            except (KeyError, ValueError):
                return False
            return value > bound if operator == _GREATER else value < bound
        return holds(self.requirement, given or {})

    def wanted(self) -> tuple[str, str] | None:
        """Return a label, key and value, with which it holds, none if it needs no label."""
        if self.of_name or self.requirement.operator not in ("In", "Exists"):
            return None
        return self.requirement.key or "", (self.requirement.values or [""])[0]


@dataclass(frozen=True, slots=True)
class Placement:
    """Nodes that a pod may run on, as far as their labels and names decide it.

    Attributes:
        terms: one of them must hold, with all of its conditions; None if any node will do.
    """

    terms: Sequence[Sequence[Condition]] | None

    def __str__(self) -> str:
        """Return the conditions, "" if there are none."""
        return " or ".join(",".join(sorted(map(str, one))) for one in self.terms or ())

    def matching(self, nodes: Mapping[str, Any]) -> list[str]:
        """Return the names of those Nodes that it selects."""
        terms = [()] if self.terms is None else self.terms
        return sorted(
            name
            for name, node in nodes.items()
            if any(all(condition.holds(node) for condition in term) for term in terms)
        )

    def labels(self) -> list[tuple[str, str]]:
        """Return labels, keys and values, that a node needs."""
        return sorted(set(self._wanted((self.terms or ())[:1])))

    def selecting(self) -> list[str]:
        """Return the keys of all labels that can make a node one of the selected."""
        return sorted({key for key, _ in self._wanted(self.terms or ())})

    def is_guarded(self) -> bool:
        """Tell whether a node can never set on itself what selects it."""
        return bool(self.terms) and all(
            any(is_dedicated(key) for key, _ in self._wanted([term])) for term in self.terms or ()
        )

    @staticmethod
    def _wanted(terms: Sequence[Sequence[Condition]]) -> Iterator[tuple[str, str]]:
        return (found for term in terms for one in term if (found := one.wanted()) is not None)


def is_dedicated(key: str) -> bool:
    """Tell whether a label or taint marks nodes as dedicated, out of the nodes' own control."""
    return label_is_forbidden(key) and "node-restriction.kubernetes.io/" in key


def placement_of(pod_spec: Mapping[str, Any]) -> Placement:
    """Return where the pods of a template may run: by its node selector and required affinity."""
    always = [
        Condition(LabelSelectorRequirement(key, "In", [value]))
        for key, value in (pod_spec.get("nodeSelector") or {}).items()
    ]
    affinity = (pod_spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return Placement([always] if always else None)
    # A term without conditions selects nothing.
    terms = [found for one in required.get("nodeSelectorTerms") or () if (found := _term(one))]
    return Placement([[*always, *term] for term in terms])


def _term(value: Mapping[str, Any]) -> list[Condition]:
    return [
        Condition(msgspec.convert(one, LabelSelectorRequirement), of_name)
        for field, of_name in (("matchExpressions", False), ("matchFields", True))
        for one in value.get(field) or ()
    ]
