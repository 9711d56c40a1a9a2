"""``noderestrict graph``: show what a node's credential gives access to."""

import argparse
import sys
from collections.abc import Set
from typing import TYPE_CHECKING, Any

from noderestrict.api.resources import RESOURCES
from noderestrict.cli._errors import UsageError
from noderestrict.cli._parser import described
from noderestrict.cli.cluster_objects import from_cluster, from_files
from noderestrict.cli.fields import add_flags
from noderestrict.cli.shared_flags import NamespacedAccess, add_output_flag, add_size_flag
from noderestrict.graph import views
from noderestrict.graph.edges import Vertex
from noderestrict.graph.graph import Graph

if TYPE_CHECKING:
    from noderestrict.cluster.connection import Connection

_OUTPUTS = {"table": views.as_table, "json": views.as_json, "dot": views.as_dot}


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's parser."""
    parser = subparsers.add_parser(
        "graph",
        help="show which node reaches which object",
        description="Show which Secrets, ConfigMaps, claims, volumes and service accounts the "
        "Node authorizer lets a node read: what a stolen kubelet credential would give access to.",
    )
    questions = parser.add_subparsers(
        title="questions", dest="question", metavar="QUESTION", required=True
    )
    why = questions.add_parser("why", **described("show the path from a node to an object"))
    why.add_argument("node", metavar="NODE", help="name of the node")
    reachable = questions.add_parser(
        "reachable", **described("list everything that a node reaches")
    )
    reachable.add_argument("node", metavar="NODE", help="name of the node")
    who = questions.add_parser("who", **described("list all nodes that reach an object"))
    for question in (why, who):
        question.add_argument(
            "kind",
            metavar="KIND",
            help="kind: secret, configmap, pvc, pv, serviceaccount, pod, ...",
        )
        question.add_argument(
            "name",
            metavar="[NAMESPACE/]NAME",
            help="name of the object, after its namespace if it has one",
        )
    for question in (why, reachable, who):
        add_output_flag(question, tuple(_OUTPUTS))
        question.add_argument(
            "--state",
            action="append",
            default=[],
            metavar="FILE",
            help="file with cluster objects, as written by 'kubectl get nodes,pods,pv,"
            "volumeattachments -A -o json'; may be repeated; without it, the live cluster is read",
        )
        add_size_flag(question)
        add_flags(question, NamespacedAccess)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the answer; return 1 if ``why`` finds no path, else 0.

    Raises:
        UsageError: the node, the kind or the object is unknown, or the objects cannot be read.
    """
    world = _live(options) if not options.state else _of_files(options)
    graph, vertex = world.graph, world.vertex
    if vertex is None:
        paths = views.reachable(graph, options.node)
    elif options.question == "who":
        paths = views.who(graph, vertex)
    else:
        path = views.why(graph, options.node, vertex)
        if not path.path:
            print(views.missing(graph, path), file=sys.stderr)
            if options.output == "json":
                print(views.as_json([path]), end="")
            return 1
        paths = [path]
    print(_OUTPUTS[options.output](paths), end="")
    return 0


class _Asked:
    """What the operator asks about.

    Args:
        options: of the command line.
        namespace: of an object that is named without one; None if there is none.

    Raises:
        UsageError: the kind is unknown, or the name does not have its form.
    """

    def __init__(self, options: argparse.Namespace, namespace: str | None) -> None:
        self.graph = Graph(most_edges=None)
        self.node = ("nodes", "", options.node) if "node" in options else None
        self.vertex: Vertex | None = None
        if "kind" in options:
            try:
                self.vertex = views.vertex_of(options.kind, options.name, namespace)
            except ValueError as error:
                raise UsageError(str(error)) from None

    def missing(self, known: Set[Vertex] = frozenset()) -> list[Vertex]:
        """Return the node and the object, unless the graph or a set has them."""
        return [
            each
            for each in (self.node, self.vertex)
            if each is not None and each not in known and not self.graph.knows(each)
        ]


def _of_files(options: argparse.Namespace) -> _Asked:
    """Return the graph of the files of ``--state``."""
    from noderestrict.replay.state import load_state

    asked = _Asked(options, getattr(options, "namespace", None))
    known: set[Vertex] = set()
    from_files(lambda limit: load_state(options.state, asked.graph, limit, known), options)
    # Files without objects, such as those of an empty cluster, do not tell what is unknown.
    for missing in asked.missing(known) if known else ():
        raise UsageError(f"{views.title(missing)} is unknown: no object of --state is or names it")
    return asked


def _live(options: argparse.Namespace) -> _Asked:
    """Return the graph of the live cluster."""
    from noderestrict.cluster.errors import ClusterError
    from noderestrict.cluster.exists import exists
    from noderestrict.cluster.graph_sink import read_graph

    async def read(connection: "Connection") -> _Asked:
        given = getattr(options, "namespace", None)
        asked = _Asked(options, given or connection.namespace)
        asked.graph = await read_graph(connection)
        for missing in asked.missing():
            resource, namespace, name = missing
            try:
                found = await exists(connection, RESOURCES[resource].key(namespace, name))
            except ClusterError as error:
                raise UsageError(
                    f"no object names {views.title(missing)}, and whether it exists cannot be "
                    f"seen: {error}"
                ) from None
            if not found:
                raise UsageError(f"{views.title(missing)} is unknown: the cluster does not have it")
        return asked

    return from_cluster(read, options)
