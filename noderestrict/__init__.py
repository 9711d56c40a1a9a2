"""Kubernetes node isolation outside the API server."""
