"""Modes of rules in policies."""

from collections.abc import Mapping

from noderestrict.policy.modes import AUDIT, WARN

DENY = "deny"
#: What a binding does with a refusal; an API server takes no binding that both denies and warns.
ACTIONS: Mapping[str, tuple[str, ...]] = {
    DENY: ("Deny",),
    WARN: ("Warn", "Audit"),
    AUDIT: ("Audit",),
}
