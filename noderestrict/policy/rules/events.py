"""Events, beyond the in-tree plugin: a node reports about itself and its own pods.

The rule is off unless the operator asks for it. Events mislead people and controllers that read
them; the API server stores whatever a node says.
"""

from noderestrict.api import corev1
from noderestrict.policy.attributes import Attributes
from noderestrict.policy.decision import Denied, forbidden


def about_own(request: Attributes) -> Denied | None:
    """Refuse events about anything but the own Node and pods bound to it.

    Fields: involvedObject, in events.k8s.io regarding, of the new and of the existing event. A pod
    that is not there passes: kubelets report the end of pods that are just deleted.
    """
    for event in _guarded(request):
        denied = _about_own(request, event)
        if denied is not None:
            return denied
    return None


def _guarded(request: Attributes) -> list[corev1.Event]:
    if request.operation == "CREATE":
        return [request.new]
    if request.operation == "DELETE":
        return [request.old]
    return [request.new, request.old]


def _about_own(request: Attributes, event: corev1.Event) -> Denied | None:
    named = {"involvedObject": event.involvedObject, "regarding": event.regarding}
    objects = {field: found for field, found in named.items() if found is not None}
    rule = "events/about-own"
    if not objects:
        return forbidden(rule, f"{request.where}: involvedObject is missing; an event names one")
    for field, found in objects.items():
        kind, namespace, name = found.kind or "", found.namespace or "", found.name or ""
        if kind == "Node" and name == request.node:
            continue
        if kind == "Pod":
            pod = request.listers.pod(namespace, name)
            if pod is None or pod.node_name == request.node:
                continue
        what = f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
        return forbidden(
            rule,
            f"{request.where}: {field} is {what!r}; a strict rule of this cluster lets node "
            f"{request.node!r} report only about its Node and pods bound to it",
        )
    return None
