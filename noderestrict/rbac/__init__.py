"""What RBAC grants whom, as the API server's RBAC authorizer decides it."""
