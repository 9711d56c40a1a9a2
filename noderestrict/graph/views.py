"""Paths through the graph, for people and for programs."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from noderestrict.api.resources import RESOURCES
from noderestrict.graph.edges import Vertex
from noderestrict.graph.graph import Graph
from noderestrict.policy.text import printable

#: What a node can reach.
REACHED = (
    "pods",
    "secrets",
    "configmaps",
    "serviceaccounts",
    "persistentvolumeclaims",
    "persistentvolumes",
    "resourceclaims",
    "volumeattachments",
    "resourceslices",
    "podcertificaterequests",
)


@dataclass(frozen=True, slots=True)
class Way:
    """How a node reaches an object; ``path`` starts with the node, and is empty for no path."""

    node: str
    vertex: Vertex
    path: tuple[Vertex, ...]


def vertex_of(kind: str, name: str, namespace: str | None = None) -> Vertex:
    """Return the object that an operator names.

    Args:
        kind: plural, singular or short name, in upper or lower case.
        name: ``NAMESPACE/NAME``, or ``NAME`` for cluster-scoped resources.
        namespace: of a name without one; None if it must have one.

    Raises:
        ValueError: the graph has no such kind, or the name does not have that form.
    """
    wanted = kind.lower()
    resources = (RESOURCES[plural] for plural in REACHED)
    resource = next((one for one in resources if one.is_called(wanted)), None)
    if resource is None:
        raise ValueError(f"KIND {kind!r} is not one of {', '.join(REACHED)}")
    plural = resource.plural
    if namespace and resource.namespaced and "/" not in name:
        name = f"{namespace}/{name}"
    namespace, slash, title = name.partition("/")
    if not resource.namespaced:
        if slash or not name:
            raise ValueError(f"{name!r}: {plural} are cluster-scoped; write NAME")
        return resource.key("", name)
    if not namespace or not title or "/" in title:
        raise ValueError(f"{name!r}: {plural} are namespaced; write NAMESPACE/NAME")
    return resource.key(namespace, title)


def why(graph: Graph, node: str, vertex: Vertex) -> Way:
    """Return the path from a node to an object."""
    return Way(node, vertex, tuple(graph.path(node, vertex)))


def reachable(graph: Graph, node: str) -> list[Way]:
    """Return the paths to everything that a node reaches."""
    paths = graph.paths(node)
    return [Way(node, vertex, tuple(paths[vertex])) for vertex in graph.reachable(node)]


def who(graph: Graph, vertex: Vertex) -> list[Way]:
    """Return the paths of all nodes that reach an object."""
    return [why(graph, node, vertex) for node in graph.who(vertex)]


def missing(graph: Graph, way: Way) -> str:
    """Return why there is no path."""
    if not graph.reachable(way.node):
        return f"no pod is bound to node {printable(way.node)}, and no object names it"
    others = graph.who(way.vertex)
    elsewhere = (
        f"; nodes that reach it: {printable(', '.join(others))}"
        if others
        else "; no node reaches it"
    )
    return f"nothing on node {printable(way.node)} refers to {title(way.vertex)}{elsewhere}"


def title(vertex: Vertex) -> str:
    """Return an object as ``secret default/password``, printable."""
    plural, namespace, name = vertex
    singular = RESOURCES[plural].kind.lower()
    return printable(f"{singular} {namespace}/{name}" if namespace else f"{singular} {name}")


def as_table(ways: Sequence[Way]) -> str:
    """Return one line per path: the node, the object, and what connects them."""
    rows = [("NODE", "OBJECT", "THROUGH")]
    for way in ways:
        between = " ← ".join(title(vertex) for vertex in way.path[1:-1])
        rows.append((printable(way.node), title(way.vertex), between or "itself"))
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "".join(
        f"{node:<{widths[0]}}  {what:<{widths[1]}}  {through}\n" for node, what, through in rows
    )


def as_json(ways: Iterable[Way]) -> str:
    """Return a JSON array of objects with node, object and path."""
    return (
        json.dumps(
            [
                {
                    "node": way.node,
                    **_object(way.vertex),
                    "reachable": bool(way.path),
                    "path": [_object(vertex) for vertex in way.path],
                }
                for way in ways
            ],
            indent=2,
        )
        + "\n"
    )


def _object(vertex: Vertex) -> dict[str, str]:
    plural, namespace, name = vertex
    return {"resource": plural, "namespace": namespace, "name": name}


def as_dot(ways: Iterable[Way]) -> str:
    """Return a Graphviz digraph whose arrows lead from nodes to what they reach."""
    edges: dict[tuple[str, str], None] = {}
    for way in ways:
        for start, end in zip(way.path, way.path[1:], strict=False):
            edges[title(start), title(end)] = None
    lines = (f"  {_quoted(start)} -> {_quoted(end)};\n" for start, end in edges)
    return f"digraph noderestrict {{\n  rankdir=LR;\n{''.join(lines)}}}\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
