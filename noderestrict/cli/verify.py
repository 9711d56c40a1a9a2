"""``noderestrict verify``: find out from outside whether a cluster holds its nodes."""

import argparse
import asyncio
from typing import TYPE_CHECKING, Any

from noderestrict.cli._errors import UsageError
from noderestrict.cli._output import has_colours
from noderestrict.cli.argument_types import OBJECT_NAME, RULES_OF, checked, parse_host_and_port
from noderestrict.cli.fields import add_flags, from_flags
from noderestrict.cli.shared_flags import KubectlAccess, StrictPolicy, add_output_flag
from noderestrict.policy.releases import LATEST
from noderestrict.verify import reports

if TYPE_CHECKING:
    from noderestrict.verify.results import Findings


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's parser."""
    parser = subparsers.add_parser(
        "verify",
        help="test from outside whether a cluster holds its nodes, whoever does it",
        description="Send a node's requests to a live cluster, ours installed or not: for each "
        "rule, one that must be refused and one that must pass. All are dry runs or reviews, and "
        "nothing is created. Takes the right to impersonate a node, or the kubeconfig of a "
        "kubelet.",
    )
    parser.add_argument(
        "--node",
        type=checked(OBJECT_NAME.parse),
        metavar="NAME",
        help="node whose requests to send (default: that of the credential, or else any)",
    )
    parser.add_argument(
        "--webhook-configuration",
        type=checked(OBJECT_NAME.parse),
        default="noderestrict",
        metavar="NAME",
        help="ValidatingWebhookConfiguration of noderestrict, if it is installed",
    )
    parser.add_argument(
        "--connect",
        type=checked(parse_host_and_port),
        metavar="HOST:PORT",
        help="address at which noderestrict's server is reachable from here, such as a forwarded "
        "port: its webhook is then asked directly too",
    )
    parser.add_argument(
        "--rules",
        type=checked(RULES_OF.parse),
        metavar=RULES_OF.metavar,
        help="Kubernetes release whose rules the cluster must hold (default: latest)",
    )
    add_flags(parser, StrictPolicy)
    add_output_flag(parser, reports.NAMES)
    add_flags(parser, KubectlAccess)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the report; return 1 if a rule does not hold, 2 if that could not be told, else 0.

    Raises:
        UsageError: no cluster can be reached, or the flags contradict its credential.
    """
    from noderestrict.cluster.connection import ClusterError
    from noderestrict.verify.run import IdentityError

    try:
        findings = asyncio.run(_findings(options))
    except (ClusterError, IdentityError) as error:
        raise UsageError(str(error)) from None
    print(reports.written(options.output, findings, colour=has_colours()), end="")
    return findings.exit_code


async def _findings(options: argparse.Namespace) -> "Findings":
    from noderestrict.verify.run import Options, verify

    wanted = Options(
        options.node,
        from_flags(StrictPolicy, options).extra(),
        options.rules or LATEST,
        options.webhook_configuration,
        options.connect,
    )
    access = from_flags(KubectlAccess, options)
    async with access.connected() as connection:
        return await verify(connection, wanted)
