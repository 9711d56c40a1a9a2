"""One module per resource. A rule is a function over Attributes under ``@rule``.

A rule returns None when it has no objection. Its docstring names the attack that it stops.
"""
