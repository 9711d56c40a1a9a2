"""Which relations hold between one request of an agent and its node.

What a policy enforces is in ``noderestrict.agents``; tests prove that it allows what these say.
"""

import re
from collections.abc import Iterator
from typing import Any

from noderestrict.admission import Request
from noderestrict.agents.file import Bound, Owner, Plain, Relation
from noderestrict.agents.load import REFERENCED_RESOURCES
from noderestrict.graph.graph import Graph
from noderestrict.policy.listers import Listers
from noderestrict.replay.audit.events import Selectors
from noderestrict.replay.audit.patches import Object, Path, value_at
from noderestrict.replay.audit.whole import Whole

#: From the one that says most to the one that says least.
_ORDER = ("own-node", "own-pods", "name", "field", "label", "owner", "referenced")
#: Fields and labels by which others find an object's node too come first.
_USUAL = ("spec.nodeName", "kubernetes.io/hostname")
_TEMPLATE = re.compile(r"[a-z0-9.:-]*\{node\}[a-z0-9.:-]*")
_PLAIN_STEP = re.compile(r"[A-Za-z_$][A-Za-z0-9_-]*")
_LABEL_KEY = re.compile(
    r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"
)
#: Whoever writes an object chooses how often it repeats the name of the node.
_MOST = 50
_DEEPEST = 8
#: Identity and bookkeeping are other relations, or none.
_NO_FIELDS = ("metadata", "kind", "apiVersion")


def rank(relation: Relation) -> tuple[int, int, int, str]:
    """Return the order in which relations are preferred, all else being equal."""
    if isinstance(relation, Plain):
        return _ORDER.index(relation.value), 0, 0, ""
    kind = next(key for key in Bound.__struct_fields__ if getattr(relation, key))
    value = str(getattr(relation, kind))
    return _ORDER.index(kind), value not in _USUAL, len(value), value


def needs_object(relation: Relation) -> bool:
    """Return whether only an object, that of the request or a pod, tells if a relation holds."""
    return relation is Plain.OWN_PODS or (isinstance(relation, Bound) and relation.name is None)


def of_write(request: Request, whole: Whole, node: str, listers: Listers) -> Iterator[Relation]:
    """Yield the relations that hold for a write.

    Args:
        request: without its objects.
        whole: its objects, as far as the log shows them.
        node: the agent's.
        listers: look up pods.
    """
    objects = [one for one in (whole.new, whole.old) if one is not None]
    names = {_name(one) for one in objects} if not request.sub_resource else set()
    names.add(request.name)
    names.discard("")
    if len(names) == 1:
        yield from _of_name(request, names.pop(), node)
    if request.group == "" and request.resource == "pods":
        yield from _own_pods(request, objects, node, listers)
        return
    if request.operation == "CONNECT" or request.sub_resource in ("eviction", "binding", "token"):
        return
    if objects:
        yield from _of_objects(objects, node)


def pod_is_unknown(request: Request, whole: Whole, listers: Listers) -> bool:
    """Return whether the node of the pod that a request is about is not known."""
    if request.group != "" or request.resource != "pods":
        return False
    objects = [one for one in (whole.new, whole.old) if one is not None]
    if objects and not request.sub_resource:
        return False
    return listers.pod(request.namespace, request.name) is None and not any(
        value_at(one, ("spec", "nodeName")) for one in objects
    )


def _of_name(request: Request, name: str, node: str) -> Iterator[Relation]:
    if name == node and request.group == "" and request.resource == "nodes":
        yield Plain.OWN_NODE
        return
    at = name.find(node)
    while at >= 0:
        template = f"{name[:at]}{{node}}{name[at + len(node) :]}"
        if _TEMPLATE.fullmatch(template):
            yield Bound(name=template)
        at = name.find(node, at + 1)


def _own_pods(
    request: Request, objects: list[Object], node: str, listers: Listers
) -> Iterator[Relation]:
    shown = [value_at(one, ("spec", "nodeName")) for one in objects if one.get("kind") == "Pod"]
    if shown and (not request.sub_resource or any(shown)):
        if all(one == node for one in shown):
            yield Plain.OWN_PODS
        return
    pod = listers.pod(request.namespace, request.name) if request.name else None
    if pod is not None and pod.node_name == node:
        yield Plain.OWN_PODS


def _of_objects(objects: list[Object], node: str) -> Iterator[Relation]:
    first, *others = objects
    for path in _paths_to(first, node):
        if all(value_at(one, path) == node for one in others):
            yield Bound(field=".".join(path))
    labels = value_at(first, ("metadata", "labels"))
    for key, value in list(labels.items())[:_MOST] if isinstance(labels, dict) else ():
        path = ("metadata", "labels", key)
        is_node = value == node and all(value_at(one, path) == node for one in others)
        if is_node and _LABEL_KEY.fullmatch(key):
            yield Bound(label=key)
    if all(_owning_nodes(one) == {node} for one in objects):
        yield Bound(owner=Owner.NODE)


def _paths_to(value: Object, node: str) -> list[Path]:
    """Return the paths of fields whose value is the name of the node."""
    found: list[Path] = []

    def look(one: Any, path: Path) -> None:
        if len(found) >= _MOST or len(path) > _DEEPEST:
            return
        if one == node:
            found.append(path)
        elif isinstance(one, dict):
            for key, inner in one.items():
                if _PLAIN_STEP.fullmatch(key):
                    look(inner, (*path, key))

    for key, inner in value.items():
        if key not in _NO_FIELDS and _PLAIN_STEP.fullmatch(key):
            look(inner, (key,))
    return found


def _owning_nodes(value: Object) -> set[str]:
    owners = value_at(value, ("metadata", "ownerReferences"))
    return {
        str(one.get("name"))
        for one in (owners if isinstance(owners, list) else ())
        if isinstance(one, dict) and one.get("kind") == "Node" and one.get("apiVersion") == "v1"
    }


def _name(value: Object) -> str:
    name = value_at(value, ("metadata", "name"))
    return name if isinstance(name, str) else ""


def of_read(
    request: Request,
    verb: str,
    selectors: tuple[Selectors, Selectors],
    node: str,
    listers: Listers,
    graph: Graph,
) -> Iterator[Relation]:
    """Yield the relations that hold for a read.

    Args:
        request: with neither objects nor operation.
        verb: get, list or watch.
        selectors: what its field selector and its label selector demand.
        node: the agent's.
        listers: look up pods.
        graph: tells what pods refer to.
    """
    fields, labels = selectors
    group, resource = request.group, request.resource
    named = [value for key, value in sorted(fields) if key == "metadata.name"]
    name = request.name or (named[0] if named else "")
    if name:
        yield from _of_name(request, name, node)
    if group == "" and resource == "pods":
        pod = listers.pod(request.namespace, name) if name and request.namespace else None
        if ("spec.nodeName", node) in fields or (pod is not None and pod.node_name == node):
            yield Plain.OWN_PODS
        return
    may_be = (group, resource) in REFERENCED_RESOURCES and not request.sub_resource
    if name and may_be and graph.reaches(node, (resource, request.namespace, name)):
        yield Plain.REFERENCED
    if verb == "get":
        return
    for key, value in sorted(fields):
        if value == node and key != "metadata.name" and _is_path(key):
            yield Bound(field=key)
    for key, value in sorted(labels):
        if value == node and _LABEL_KEY.fullmatch(key):
            yield Bound(label=key)


def _is_path(key: str) -> bool:
    return all(map(_PLAIN_STEP.fullmatch, key.split(".")))
