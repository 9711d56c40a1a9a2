"""The rule that leases and CSINodes share: one object per node, named as the node."""

from noderestrict.policy.attributes import Attributes
from noderestrict.policy.decision import Denied, forbidden


def named_as_node(request: Attributes) -> Denied | None:
    """Refuse an object not named as the node: the object's name on CREATE, else the request's."""
    name = request.name
    field = "the request's name"
    if request.operation == "CREATE":
        name = (request.new.metadata.name if request.new.metadata else None) or ""
        field = "metadata.name"
    if name == request.node:
        return None
    return forbidden(
        f"{request.where}: {field} is {name!r}; node {request.node!r} may write only the one "
        f"named {request.node!r}",
    )
