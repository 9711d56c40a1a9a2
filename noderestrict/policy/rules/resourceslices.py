"""ResourceSlices: a node may publish and withdraw its own devices.

The source is admitResourceSlice in plugin/pkg/admission/noderestriction of Kubernetes.
"""

from noderestrict.api import resourcev1
from noderestrict.policy.attributes import Attributes
from noderestrict.policy.cel import Context, Form
from noderestrict.policy.decision import Denied, forbidden
from noderestrict.policy.releases import Part, since
from noderestrict.policy.rule import ANY, CREATE, DELETE, Target, rule

_GROUP, _KIND = "resource.k8s.io", "ResourceSlice"
CREATE_SLICE = Target(_GROUP, "resourceslices", ANY, CREATE, _KIND, new=resourcev1.ResourceSlice)
DELETE_SLICE = Target(_GROUP, "resourceslices", ANY, DELETE, _KIND, old=resourcev1.ResourceSlice)

DELETE_PART = Part("the same for delete", since(31))


def _allows(context: Context) -> tuple[str, ...]:
    if context.operation == DELETE and not context.demands(DELETE_PART):
        return ()
    name = "oldSliceNodeName" if context.operation == DELETE else "sliceNodeName"
    return (f"variables.{name} == variables.node",)


@rule(
    "resourceslices/own-node-name",
    CREATE_SLICE,
    DELETE_SLICE,
    demands="`spec.nodeName` is the node",
    since=since(30),
    parts=(DELETE_PART,),
    cel=Form(
        _allows,
        "spec.nodeName is not the node; node {node} may create and delete only slices with "
        "spec.nodeName set to it",
    ),
)
def own_resource_slice(request: Attributes) -> Denied | None:
    """Deny a slice of another node or of none, with which a node could fake or hide devices.

    Field: spec.nodeName, on DELETE of the existing slice. The field is immutable.
    """
    creates = request.operation == "CREATE"
    if not creates and not request.demands(DELETE_PART):
        return None
    resource_slice: resourcev1.ResourceSlice = request.new if creates else request.old
    name = resource_slice.node_name
    if name == request.node:
        return None
    limit = f"node {request.node!r} may create and delete only slices with spec.nodeName set to it"
    if creates:
        return forbidden(f"{request.where}: spec.nodeName is {name!r}; {limit}")
    return forbidden(
        f"{request.where}: spec.nodeName of the existing slice differs; {limit}",
        f"the slice has spec.nodeName {name!r}",
    )
