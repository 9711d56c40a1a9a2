"""Kubernetes objects that register and run the webhooks, made from the code's own tables."""
