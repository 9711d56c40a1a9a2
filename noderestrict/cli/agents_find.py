"""``noderestrict agents find``: what a stolen node would get with the agents on it."""

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from noderestrict.cli._output import has_colours
from noderestrict.cli.argument_types import NAMESPACE
from noderestrict.cli.cluster_objects import (
    add_version_flag,
    check_version_flag,
    from_cluster,
    from_files,
)
from noderestrict.cli.fields import add_flags, from_flags, setting
from noderestrict.cli.shared_flags import CLUSTER, KubectlAccess, add_output_flag, add_size_flag
from noderestrict.survey import reports

if TYPE_CHECKING:
    from noderestrict.survey.objects import Objects


@dataclass(frozen=True, kw_only=True)
class FindAccess(KubectlAccess):
    """How to reach the API server, and of which namespace to report."""

    namespace: str | None = setting(
        None, NAMESPACE, "report only agents of this namespace, not of all", CLUSTER
    )


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's parser."""
    parser = subparsers.add_parser(
        "find",
        help="rank the agents by what a stolen node would get with them",
        description="List the service accounts of DaemonSets, with what RBAC lets them do beyond "
        "their node, worst first. Needs the right to list DaemonSets, pods, roles and their "
        "bindings; says what it could not see.",
    )
    parser.add_argument(
        "--state",
        action="append",
        default=[],
        metavar="FILE",
        help="file or folder with cluster objects, as 'kubectl get -A -o json' writes them: "
        "daemonsets, pods, clusterroles, clusterrolebindings, roles and rolebindings; may be "
        "repeated; without it, the live cluster is read",
    )
    parser.add_argument(
        "--agents",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="policy files of agents, whose rights count as held",
    )
    add_version_flag(parser)
    add_output_flag(parser, reports.NAMES)
    add_size_flag(parser)
    add_flags(parser, FindAccess)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the report; return 1 for a right that harms others, 2 for what is unknown, else 0.

    Raises:
        UsageError: a file cannot be read, or no cluster can be reached.
    """
    from noderestrict.cli.agent_files import agents_of
    from noderestrict.survey.run import survey

    check_version_flag(options)
    agents = agents_of(options.agents).all
    objects = objects_of(options, options.kubernetes_version)
    namespace = from_flags(FindAccess, options).namespace
    if namespace is not None:
        for plural in ("daemonsets", "pods"):
            objects.by_resource[plural] = [
                one for one in objects.by_resource[plural] if one.metadata.namespace == namespace
            ]
    findings = survey(objects, agents)
    print(reports.written(options.output, findings, colour=has_colours()), end="")
    return findings.exit_code


def objects_of(options: argparse.Namespace, minor: int | None = None) -> "Objects":
    """Return the objects of the files that are given, or else of the live cluster.

    Args:
        options: with the flags of the command.
        minor: Kubernetes version that the files come from, None if it is not known.

    Raises:
        UsageError: a file cannot be read, or no cluster can be reached.
    """
    if not options.state:
        from noderestrict.survey import live

        return from_cluster(live.from_cluster, options)
    from noderestrict.survey import files

    return from_files(lambda limit: files.from_files(options.state, minor, limit), options)
