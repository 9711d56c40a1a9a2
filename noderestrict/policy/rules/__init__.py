"""One module per resource; each rule a small function over Attributes.

A rule returns None when it has no objection.
"""
