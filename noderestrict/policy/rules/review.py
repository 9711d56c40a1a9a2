"""Checks of every review of a node that run before the rules of its resource."""

from noderestrict.policy.cel import Form, Uncovered
from noderestrict.policy.rule import Rule

NODE_NAME = Rule(
    "identity/node-name",
    "the user name contains a node name",
    by_name=True,
    cel=Form(("variables.node != ''",), "use a credential for system:node:NAME"),
)
OBJECT = Rule(
    "request/object",
    "`object` and `oldObject` decode, and have the kind that the review names",
    cel=Uncovered.NEVER_SENT,
)
