"""The flags of a policy beyond the in-tree plugin."""

from noderestrict.policy.extra import FORBIDDEN_LABELS, Extra
from noderestrict.policy.table import STRICT_RULE_IDS


def policy_flags(extra: Extra) -> list[str]:
    """Return the flags of ``serve`` that set a policy."""
    named = extra.rules - {FORBIDDEN_LABELS}
    values = {
        "strict-rules": ",".join(rule for rule in STRICT_RULE_IDS if rule in named),
        "allow-node-labels": str(extra.allowed_labels),
        "forbid-node-labels": str(extra.forbidden_labels),
        "allow-node-annotations": str(extra.allowed_annotations),
    }
    return [f"--{name}={value}" for name, value in values.items() if value]
