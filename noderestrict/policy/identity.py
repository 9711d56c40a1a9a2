"""Who is a node: pkg/auth/nodeidentifier of Kubernetes."""

from collections.abc import Collection

NODE_USER_PREFIX = "system:node:"
NODES_GROUP = "system:nodes"


def node_name(username: str, groups: Collection[str]) -> str | None:
    """Return the node's name, "" for a node user without one, None for anybody else.

    Both the prefix of the user name and the group are needed; each alone is no node.
    """
    if not username.startswith(NODE_USER_PREFIX) or NODES_GROUP not in groups:
        return None
    return username[len(NODE_USER_PREFIX) :]
