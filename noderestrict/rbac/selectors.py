"""Label selectors.

Source: LabelSelectorAsSelector of apimachinery.
"""

from collections.abc import Mapping

from noderestrict.api.metav1 import LabelSelector, LabelSelectorRequirement


def selects(selector: LabelSelector, labels: Mapping[str, str | None] | None) -> bool:
    """Return whether all conditions hold for the labels of an object; no condition always holds."""
    given = labels or {}
    return all(
        key in given and (given[key] or "") == value
        for key, value in (selector.matchLabels or {}).items()
    ) and all(holds(one, given) for one in selector.matchExpressions or ())


def holds(requirement: LabelSelectorRequirement, labels: Mapping[str, str | None]) -> bool:
    """Return whether a condition holds for the labels of an object."""
    key, values = requirement.key or "", requirement.values or ()
    value = labels.get(key) or ""
    match requirement.operator:
        case "In":
            return key in labels and value in values
        case "NotIn":
            return key not in labels or value not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    # The API server rejects any other one.
    return False
