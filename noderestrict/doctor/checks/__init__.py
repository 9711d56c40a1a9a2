"""The checks, one per module, none of which knows another."""
