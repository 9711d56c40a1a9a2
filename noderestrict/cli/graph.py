"""``noderestrict graph``: show what a node's credential gives access to."""

import argparse
import sys
from typing import Any

from noderestrict.cli._errors import UsageError
from noderestrict.cli.cluster_objects import from_cluster, from_files
from noderestrict.cli.fields import add_flags
from noderestrict.cli.shared_flags import ClusterAccess, add_size_flag
from noderestrict.graph import views
from noderestrict.graph.graph import Graph

_OUTPUTS = {"table": views.as_table, "json": views.as_json, "dot": views.as_dot}


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's parser."""
    parser = subparsers.add_parser(
        "graph",
        help="show which node reaches which object",
        description="Show which Secrets, ConfigMaps, claims, volumes and service accounts the "
        "Node authorizer lets a node read: what a stolen kubelet credential would give access to.",
    )
    questions = parser.add_subparsers(dest="question", metavar="QUESTION", required=True)
    why = questions.add_parser(
        "why", help="show the path from a node to an object; exit code 1 if there is none"
    )
    why.add_argument("node", metavar="NODE", help="name of the node")
    reachable = questions.add_parser("reachable", help="list everything that a node reaches")
    reachable.add_argument("node", metavar="NODE", help="name of the node")
    who = questions.add_parser("who", help="list all nodes that reach an object")
    for question in (why, who):
        question.add_argument(
            "kind", metavar="KIND", help="kind: secret, configmap, pvc, pv, serviceaccount, pod, …"
        )
        question.add_argument(
            "name",
            metavar="[NAMESPACE/]NAME",
            help="name of the object, after its namespace if it has one",
        )
    for question in (why, reachable, who):
        question.add_argument(
            "--output",
            choices=sorted(_OUTPUTS),
            default="table",
            help="format of the answer (default: table)",
        )
        question.add_argument(
            "--state",
            action="append",
            default=[],
            metavar="FILE",
            help="file with cluster objects, as written by 'kubectl get pods,pv,volumeattachments "
            "-A -o json'; may be repeated; without it, the live cluster is read",
        )
        add_size_flag(question)
        add_flags(question, ClusterAccess)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the answer; return 1 if ``why`` finds no path, else 0.

    Raises:
        UsageError: the kind is unknown, or the objects cannot be read.
    """
    try:
        vertex = views.vertex_of(options.kind, options.name) if "kind" in options else None
    except ValueError as error:
        raise UsageError(str(error)) from None
    graph = _graph(options)
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


def _graph(options: argparse.Namespace) -> Graph:
    """Return the graph of the files of ``--state``, or else of the live cluster."""
    if not options.state:
        from noderestrict.cluster.graph_sink import read_graph

        return from_cluster(read_graph, options)
    from noderestrict.replay.state import load_state

    graph = Graph(most_edges=None)
    from_files(lambda limit: load_state(options.state, graph, limit), options)
    return graph
