"""Requests that try out the rules on a live cluster: some must be refused, others must pass.

Nothing here sends anything. Every request is a server-side dry run, except token requests, which
the API server answers with an error even if nobody refuses them.
"""
