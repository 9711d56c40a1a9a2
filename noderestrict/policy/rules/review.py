"""What is checked of every review of a node, before the rules of its resource."""

from noderestrict.policy.rule import Rule

NODE_NAME = Rule(
    "identity/node-name",
    "the user name names a node",
    by_name=True,
)
OBJECT = Rule(
    "request/object",
    "`object` and `oldObject` decode, and are of the kind that the review names",
)
