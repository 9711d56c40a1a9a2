"""``noderestrict doctor``: is a cluster guarded."""

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noderestrict.cli._errors import UsageError
from noderestrict.cli._flags import add_extra_flags, extra_policy, host_and_port
from noderestrict.policy.text import printable

if TYPE_CHECKING:
    from noderestrict.doctor.check import Check
    from noderestrict.doctor.findings import Finding

_MARKS = {"pass": "+", "warn": "!", "fail": "-"}


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's parser."""
    parser = subparsers.add_parser(
        "doctor",
        help="check a live cluster, and say what to do",
        description="Check a live cluster: server version, registration, certificate, endpoints, "
        "a known-bad request (not stored), rights. Exit code 1 if anything fails.",
    )
    parser.add_argument("--webhook-configuration", default="noderestrict", metavar="NAME")
    parser.add_argument(
        "--connect",
        type=host_and_port,
        metavar="HOST:PORT",
        help="where the server is reached from here, such as a forwarded port",
    )
    parser.add_argument(
        "--server-user",
        default="system:serviceaccount:noderestrict:noderestrict",
        metavar="USER",
        help="whose rights are checked",
    )
    parser.add_argument(
        "--node-kubeconfig",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="of a kubelet, whose client certificate is checked; may be given again",
    )
    parser.add_argument(
        "--authorization-config",
        type=Path,
        metavar="FILE",
        help="a copy of the API server's AuthorizationConfiguration",
    )
    add_extra_flags(parser)
    parser.add_argument("--output", choices=("table", "json"), default="table")
    parser.add_argument(
        "--kubeconfig", metavar="FILE", help="default: the service account of the pod"
    )
    parser.add_argument("--context", metavar="NAME", help="of the kubeconfig")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the findings; returns 1 if one is a failure, else 0.

    Raises:
        UsageError: there is no cluster to connect to.
    """
    from noderestrict.cluster.connection import ClusterError
    from noderestrict.doctor.report import as_json

    try:
        findings = asyncio.run(_findings(options))
    except ClusterError as error:
        raise UsageError(str(error)) from None
    if options.output == "json":
        print(as_json(findings), end="")
    else:
        for check, finding in findings:
            print(printable(f"[{_MARKS[finding.status]}] {check.name}: {finding.message}"))
            if finding.remedy:
                print(printable(f"      {finding.remedy}"))
    return int(any(finding.status == "fail" for _, finding in findings))


async def _findings(options: argparse.Namespace) -> "list[tuple[Check, Finding]]":
    from noderestrict.cluster.judge import connected
    from noderestrict.doctor.cluster import Options
    from noderestrict.doctor.run import examine

    wanted = Options(
        options.webhook_configuration,
        options.connect,
        options.server_user,
        tuple(options.node_kubeconfig),
        options.authorization_config,
        extra_policy(options),
    )
    async with connected(options.kubeconfig, options.context) as connection:
        return [finding async for finding in examine(connection, wanted)]
