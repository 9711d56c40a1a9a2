"""``noderestrict exposure``: what would fall with each node if it were taken over now."""

import argparse
from typing import TYPE_CHECKING, Any

from noderestrict.cli._errors import UsageError
from noderestrict.cli._output import has_colours
from noderestrict.cli.cluster_objects import (
    add_version_flag,
    check_version_flag,
    from_cluster,
    from_files,
)
from noderestrict.cli.fields import add_flags
from noderestrict.cli.shared_flags import KubectlAccess, add_output_flag, add_size_flag
from noderestrict.exposure import reports

if TYPE_CHECKING:
    from noderestrict.cluster.connection import Connection
    from noderestrict.exposure.detect import Answers
    from noderestrict.exposure.findings import Findings
    from noderestrict.exposure.setups import SetUp
    from noderestrict.exposure.world import World

_DETECT = "detect"
_SET_UPS = ("nothing", "in-tree", "noderestrict", "agents", "impersonation")
_CLUSTER_ADMIN = "cluster-admin"


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's parser."""
    parser = subparsers.add_parser(
        "exposure",
        help="rank the nodes by what would fall with them",
        description="Follow what a stolen node gives: the credentials of its pods, what RBAC "
        "grants these, and the credentials that this gives in turn. Lists nodes worst first, with "
        "each path and what would close it, and compares set-ups of node isolation. Writes "
        "nothing, and says what it could not see.",
    )
    parser.add_argument(
        "--state",
        action="append",
        default=[],
        metavar="FILE",
        help="file or folder with cluster objects, as written by 'kubectl get -A -o json' for "
        "nodes, namespaces, pods, serviceaccounts, persistentvolumes, roles and their bindings; "
        "may be repeated; without it, the live cluster is read",
    )
    parser.add_argument(
        "--set-up",
        choices=(_DETECT, *_SET_UPS),
        default=_DETECT,
        help="which halves of node isolation hold; all are compared (default: as a live cluster "
        "answers, or as its objects show; what does not show counts as off)",
    )
    parser.add_argument(
        "--agents",
        action="append",
        default=[],
        metavar="FILE",
        help="policy file of agents, for the set-up with them; may be repeated",
    )
    add_version_flag(parser)
    parser.add_argument(
        "--secrets",
        action="store_true",
        help="list all Secrets of the live cluster, too, without their data",
    )
    add_output_flag(parser, reports.NAMES)
    parser.add_argument(
        "--baseline",
        metavar="FILE",
        help="earlier report of --output json, to show what changed",
    )
    parser.add_argument(
        "--fail-on",
        choices=(_CLUSTER_ADMIN,),
        help="exit with 1 if a worker leads to cluster-admin, else with 2 if something could not "
        "be seen",
    )
    parser.add_argument(
        "--redact",
        action="store_true",
        help="replace the names of nodes, namespaces and all objects by numbers, to share the "
        "report",
    )
    add_size_flag(parser)
    add_flags(parser, KubectlAccess)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the report; return what --fail-on asks for, else 0.

    Raises:
        UsageError: a file cannot be read, flags contradict each other, or no cluster can be
            reached.
    """
    from noderestrict.exposure.redact import redacted

    if options.state and options.secrets:
        raise UsageError("--secrets is for a live cluster; put Secrets into the files of --state")
    check_version_flag(options)
    if options.set_up == "agents" and not options.agents:
        raise UsageError("--set-up agents needs --agents")
    findings = _findings(options)
    code = _exit_code(findings) if options.fail_on else 0
    if options.redact:
        findings = redacted(findings)
    print(reports.written(options.output, findings, colour=has_colours()), end="")
    return code


def _exit_code(findings: "Findings") -> int:
    if findings.falling:
        return 1
    return 2 if findings.not_seen else 0


def _findings(options: argparse.Namespace) -> "Findings":
    import msgspec

    from noderestrict.cli.agent_files import agents_of
    from noderestrict.exposure.baseline import BaselineError, changes, read
    from noderestrict.exposure.detect import detect
    from noderestrict.exposure.run import expose
    from noderestrict.exposure.setups import set_ups

    agents = agents_of(options.agents).all
    try:
        before = read(options.baseline) if options.baseline else None
    except BaselineError as error:
        raise UsageError(f"--baseline {error}") from None
    world, answers = _world(options)
    known = set_ups(agents, world.minor)
    chosen: SetUp
    if options.set_up == _DETECT:
        chosen, why = detect(world, agents, answers)
    elif options.set_up in known:
        chosen, why = known[options.set_up], "as --set-up says"
    else:
        raise UsageError(f"--set-up {options.set_up}: Kubernetes 1.{world.minor} does not have it")
    findings = expose(world, chosen, known.values(), why)
    if before is None:
        return findings
    return msgspec.structs.replace(findings, changes=changes(before, findings))


def _world(options: argparse.Namespace) -> "tuple[World, Answers | None]":
    """Return the cluster, and what it answers; files answer nothing."""
    if options.state:
        from noderestrict.exposure import files

        state, minor = options.state, options.kubernetes_version
        return from_files(lambda limit: files.from_files(state, minor, limit), options), None
    from noderestrict.exposure import live
    from noderestrict.exposure.detect import ask

    async def read(connection: "Connection") -> "tuple[World, Answers | None]":
        world = await live.from_cluster(connection, secrets=options.secrets)
        return world, await ask(connection) if options.set_up == _DETECT else None

    return from_cluster(read, options)
