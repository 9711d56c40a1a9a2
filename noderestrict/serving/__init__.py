"""The server: sockets, TLS, limits, life cycle."""
