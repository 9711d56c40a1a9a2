"""One module per resource. A rule is a function of Attributes, decorated with ``@rule``.

A rule returns None if it has no objection. Its docstring names the attack that it stops.
"""
