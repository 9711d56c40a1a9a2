"""Events, beyond the in-tree plugin: a node may report only about itself and its own pods.

The rule is off by default. False events can mislead people and controllers, and the API server
stores whatever a node reports.
"""

from noderestrict.api import corev1
from noderestrict.policy.attributes import Attributes
from noderestrict.policy.cel import Uncovered
from noderestrict.policy.decision import Denied, forbidden
from noderestrict.policy.rule import ANY, CREATE, DELETE, OPERATIONS, Target, rule

TARGETS = tuple(
    Target(
        group,
        "events",
        ANY,
        operation,
        "Event",
        new=None if operation == DELETE else corev1.Event,
        old=None if operation == CREATE else corev1.Event,
    )
    for group in ("", "events.k8s.io")
    for operation in OPERATIONS
)


@rule(
    "events/about-own",
    *TARGETS,
    demands="about its own Node or a pod bound to it",
    strict=True,
    cel=Uncovered.LOOKUP,
)
def about_own(request: Attributes) -> Denied | None:
    """Deny events about anything but the node's own Node and the pods bound to it.

    Fields: involvedObject (regarding in events.k8s.io) of the new and of the existing event. A
    missing pod is allowed: kubelets report the end of pods that have just been deleted.
    """
    if request.operation != "DELETE" and (found := _foreign(request, request.new)):
        return forbidden(f"{request.where}: {found}; {_limit(request)}")
    if request.operation != "CREATE" and (found := _foreign(request, request.old)):
        return forbidden(
            f"{request.where}: the existing event is about another object; {_limit(request)}",
            found,
        )
    return None


def _limit(request: Attributes) -> str:
    return (
        f"a strict rule of this cluster lets node {request.node!r} report only about its own Node "
        f"and the pods bound to it"
    )


def _foreign(request: Attributes, event: corev1.Event) -> str:
    """Return the field of an event that names a foreign object, with that object; "" if none does.

    A pod without a namespace counts as one in the event's namespace, where people look for its
    events.
    """
    named = {"involvedObject": event.involvedObject, "regarding": event.regarding}
    objects = {field: found for field, found in named.items() if found is not None}
    if not objects:
        return "involvedObject is missing; an event needs one"
    for field, found in objects.items():
        kind, namespace, name = found.kind or "", found.namespace or "", found.name or ""
        if kind == "Node" and name == request.node:
            continue
        if kind == "Pod":
            pod = request.listers.pod(namespace or request.namespace, name)
            if pod is None or pod.node_name == request.node:
                continue
        what = f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
        return f"{field} is {what!r}"
    return ""
