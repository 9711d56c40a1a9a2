"""The check that leases and CSINodes share: one object per node, named after the node."""

from noderestrict.policy.attributes import Attributes
from noderestrict.policy.cel import Context, Form
from noderestrict.policy.decision import Denied, forbidden


def _allows(context: Context) -> tuple[str, ...]:
    named = "variables.objectName" if context.operation == "CREATE" else "variables.name"
    return (f"{named} == variables.node",)


NAMED_AS_NODE = Form(
    _allows,
    "the object has another name than the node; node {node} may write only the object named {node}",
)


def named_as_node(request: Attributes) -> Denied | None:
    """Deny an object not named after the node: by its own name on CREATE, else by the request's."""
    name = request.name
    field = "the request's name"
    if request.operation == "CREATE":
        name = (request.new.metadata.name if request.new.metadata else None) or ""
        field = "metadata.name"
    if name == request.node:
        return None
    return forbidden(
        f"{request.where}: {field} is {name!r}; node {request.node!r} may write only the object "
        f"named {request.node!r}",
    )
