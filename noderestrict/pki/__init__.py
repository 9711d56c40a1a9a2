"""Certificates: make them, check them, write them atomically."""
