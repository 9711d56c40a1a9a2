"""Learn from audit logs what agents do, and write it as a policy file."""
