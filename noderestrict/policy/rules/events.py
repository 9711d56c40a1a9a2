"""Events, beyond the in-tree plugin: a node reports about itself and its own pods.

The rule is off unless the operator asks for it. Events mislead people and controllers that read
them; the API server stores whatever a node says.
"""

from noderestrict.api import corev1
from noderestrict.policy.attributes import Attributes
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


@rule("events/about-own", *TARGETS, demands="about its own Node or a pod bound to it", strict=True)
def about_own(request: Attributes) -> Denied | None:
    """Refuse events about anything but the own Node and pods bound to it.

    Fields: involvedObject, in events.k8s.io regarding, of the new and of the existing event. A pod
    that is not there passes: kubelets report the end of pods that are just deleted.
    """
    if request.operation != "DELETE" and (found := _foreign(request, request.new)):
        return forbidden(f"{request.where}: {found}; {_limit(request)}")
    if request.operation != "CREATE" and (found := _foreign(request, request.old)):
        return forbidden(
            f"{request.where}: the existing event is about another; {_limit(request)}", found
        )
    return None


def _limit(request: Attributes) -> str:
    return (
        f"a strict rule of this cluster lets node {request.node!r} report only about its Node and "
        f"pods bound to it"
    )


def _foreign(request: Attributes, event: corev1.Event) -> str:
    """Return which field of an event names what is not the node's, and what it names; "" if none.

    A pod without a namespace is one of the event's own namespace: there, people look for its
    events.
    """
    named = {"involvedObject": event.involvedObject, "regarding": event.regarding}
    objects = {field: found for field, found in named.items() if found is not None}
    if not objects:
        return "involvedObject is missing, which an event needs"
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
