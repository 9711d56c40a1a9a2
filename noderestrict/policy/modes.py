"""Modes of rules: what a denial leads to."""

ENFORCE, WARN, AUDIT, OFF = "enforce", "warn", "audit", "off"
MODES = (ENFORCE, WARN, AUDIT, OFF)
