"""Which users are nodes, as in pkg/auth/nodeidentifier of Kubernetes."""

from collections.abc import Collection

NODE_USER_PREFIX = "system:node:"
NODES_GROUP = "system:nodes"


def node_name(username: str, groups: Collection[str]) -> str | None:
    """Return the node's name, "" for a node user without one, None for any other user.

    A node user needs both the prefix in its name and the group.
    """
    if not username.startswith(NODE_USER_PREFIX) or NODES_GROUP not in groups:
        return None
    return username[len(NODE_USER_PREFIX) :]
