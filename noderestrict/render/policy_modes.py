"""Modes of rules in policies."""

from collections.abc import Mapping

DENY, WARN, AUDIT, OFF = "deny", "warn", "audit", "off"
#: What a binding does with a refusal; an API server takes no binding that both denies and warns.
ACTIONS: Mapping[str, tuple[str, ...]] = {
    DENY: ("Deny",),
    WARN: ("Warn", "Audit"),
    AUDIT: ("Audit",),
}
