"""``noderestrict agents find``: what a stolen node would get with the agents on it."""

import argparse
import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any

from noderestrict.cli._errors import UsageError
from noderestrict.cli._output import shows_unicode
from noderestrict.cli.argument_types import KUBERNETES_VERSION, checked
from noderestrict.cli.fields import add_flags, from_flags
from noderestrict.cli.shared_flags import ClusterAccess, add_size_flag
from noderestrict.survey import reports

if TYPE_CHECKING:
    from noderestrict.agents.agents import Agents
    from noderestrict.survey.objects import Objects


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's parser."""
    parser = subparsers.add_parser(
        "find",
        help="rank the agents by what a stolen node would get with them",
        description="List the service accounts of DaemonSets, with what RBAC lets them do beyond "
        "their node, worst first. Needs the right to list DaemonSets, pods, roles and their "
        "bindings; says what it could not see. Exit code 1 if an agent has a critical or high "
        "right that nothing holds; else 2 if something could not be seen; else 0.",
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
    parser.add_argument(
        "--kubernetes-version",
        type=checked(KUBERNETES_VERSION.parse),
        metavar=KUBERNETES_VERSION.metavar,
        help="Kubernetes version of the API server that the files come from",
    )
    parser.add_argument(
        "--output", choices=reports.NAMES, default="table", help="format (default: table)"
    )
    add_size_flag(parser)
    add_flags(parser, ClusterAccess)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the report; return 1 for a right that harms others, 2 for what is unknown, else 0.

    Raises:
        UsageError: a file cannot be read, or no cluster can be reached.
    """
    from noderestrict.survey.run import survey

    if options.kubernetes_version is not None and not options.state:
        raise UsageError("--kubernetes-version is for --state; a live cluster tells its version")
    agents = agents_of(options.agents).all
    objects = objects_of(options)
    findings = survey(objects, agents)
    shows_unicode()
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(reports.written(options.output, findings, colour=colour), end="")
    return findings.exit_code


def agents_of(files: "list[str]") -> "Agents":
    """Return the agents of some policy files.

    Raises:
        UsageError: a file is unusable.
    """
    from noderestrict.agents.load import PolicyFileError
    from noderestrict.cli.agent_files import read_agents

    try:
        return read_agents(files)
    except PolicyFileError as error:
        raise UsageError(f"--agents {error}") from None


def objects_of(options: argparse.Namespace) -> "Objects":
    """Return the objects of the files that are given, or else of the live cluster.

    Raises:
        UsageError: a file cannot be read, or no cluster can be reached.
    """
    return _from_files(options) if options.state else _from_cluster(options)


def _from_files(options: argparse.Namespace) -> "Objects":
    from noderestrict.replay.sources import MIB
    from noderestrict.replay.state import StateError
    from noderestrict.survey.files import from_files

    try:
        minor = getattr(options, "kubernetes_version", None)
        return from_files(options.state, minor, options.max_file_mib * MIB)
    except StateError as error:
        raise UsageError(str(error)) from None


def _from_cluster(options: argparse.Namespace) -> "Objects":
    from noderestrict.cluster.connection import ClusterError
    from noderestrict.cluster.judge import connected
    from noderestrict.survey.live import from_cluster

    access = from_flags(ClusterAccess, options)

    async def read() -> "Objects":
        async with connected(access.kubeconfig, access.context, access.api_server) as connection:
            return await from_cluster(connection)

    try:
        return asyncio.run(read())
    except ClusterError as error:
        raise UsageError(str(error)) from None
