"""``noderestrict doctor``: check whether a cluster is protected."""

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noderestrict.cli._errors import UsageError
from noderestrict.cli.agent_files import add_agents_flag, agents_to_render
from noderestrict.cli.argument_types import (
    NAMESPACE,
    OBJECT_NAME,
    PATH,
    checked,
    parse_host_and_port,
)
from noderestrict.cli.fields import add_flags, from_flags, setting
from noderestrict.cli.shared_flags import CLUSTER, KubectlAccess, StrictPolicy, add_output_flag
from noderestrict.policy.modes import ENFORCE, MODES
from noderestrict.policy.text import printable
from noderestrict.rbac.subjects import ACCOUNT_PREFIX

if TYPE_CHECKING:
    from noderestrict.doctor.agent_policies import AgentPolicies
    from noderestrict.doctor.check import Check
    from noderestrict.doctor.findings import Finding


@dataclass(frozen=True, kw_only=True)
class ServerAccess(KubectlAccess):
    """How to reach the API server, and where ours runs."""

    namespace: str | None = setting(
        None,
        NAMESPACE,
        "namespace of the servers; without it, that in which they are found",
        CLUSTER,
    )


_MARKS = {"pass": "+", "warn": "!", "fail": "-", "unknown": "?"}


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's parser."""
    parser = subparsers.add_parser(
        "doctor",
        help="check a live cluster and say what to do",
        description="Check a live cluster: server version, registration, certificate, endpoints, "
        "rules (by requests that are not stored), permissions.",
    )
    parser.add_argument(
        "--webhook-configuration",
        type=checked(OBJECT_NAME.parse),
        default="noderestrict",
        metavar="NAME",
        help="ValidatingWebhookConfiguration to check",
    )
    parser.add_argument(
        "--connect",
        type=checked(parse_host_and_port),
        metavar="HOST:PORT",
        help="address at which the server is reachable from here, such as a forwarded port",
    )
    parser.add_argument(
        "--metrics",
        type=checked(parse_host_and_port),
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="address at which the metrics of a server are reachable from here; may be repeated",
    )
    parser.add_argument(
        "--server-user",
        metavar="USER",
        help="user of the server, whose permissions are checked (default: the service account "
        "noderestrict in the namespace of the server)",
    )
    parser.add_argument(
        "--node-kubeconfig",
        type=checked(PATH.parse),
        action="append",
        default=[],
        metavar="FILE",
        help="kubeconfig of a kubelet, whose credential is checked; may be repeated",
    )
    parser.add_argument(
        "--authorization-config",
        type=checked(PATH.parse),
        metavar="FILE",
        help="copy of the API server's AuthorizationConfiguration",
    )
    add_agents_flag(parser)
    add_flags(parser, StrictPolicy)
    parser.add_argument(
        "--expect-mode",
        choices=MODES,
        default=ENFORCE,
        metavar="MODE",
        help="mode in which every rule must run: enforce, warn, audit or off",
    )
    add_output_flag(parser)
    add_flags(parser, ServerAccess)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the findings; return 1 if any is a failure, else 2 if any is unknown, else 0.

    Raises:
        UsageError: no cluster can be reached.
    """
    from noderestrict.cluster.connection import ClusterError
    from noderestrict.doctor.findings import exit_code
    from noderestrict.doctor.report import as_json

    try:
        findings = asyncio.run(_findings(options))
    except ClusterError as error:
        raise UsageError(str(error)) from None
    if options.output == "json":
        print(as_json(findings), end="")
    else:
        _print_table(findings)
    return exit_code(finding for _, finding in findings)


def _print_table(findings: "list[tuple[Check, Finding]]") -> None:
    """Print findings; what mends several in a row, once after the last of them."""
    advice = [(finding.remedy, finding.command) for _, finding in findings]
    for (check, finding), following in zip(findings, [*advice[1:], None], strict=True):
        print(printable(f"[{_MARKS[finding.status]}] {check.name}: {finding.message}"))
        if finding.remedy and (finding.remedy, finding.command) != following:
            print(printable(f"      {finding.remedy}"))
            for command in finding.command.splitlines():
                print(printable(f"      $ {command}"))


async def _findings(options: argparse.Namespace) -> "list[tuple[Check, Finding]]":
    from noderestrict.doctor.cluster import Cluster, Options
    from noderestrict.doctor.installed_agents import with_installed_agents
    from noderestrict.doctor.namespace import find_namespace
    from noderestrict.doctor.run import examine

    access = from_flags(ServerAccess, options)
    wanted = Options(
        options.webhook_configuration,
        options.connect,
        node_kubeconfigs=tuple(options.node_kubeconfig),
        authorization_config=options.authorization_config,
        extra=from_flags(StrictPolicy, options).extra(),
        expected_mode=options.expect_mode,
        metrics=tuple(options.metrics),
        agents=agents_to_examine(options.agents),
    )
    async with access.connected() as connection:
        namespace = access.namespace or await find_namespace(Cluster(connection, wanted))
        user = options.server_user or f"{ACCOUNT_PREFIX}{namespace}:noderestrict"
        wanted = replace(wanted, namespace=namespace, server_user=user)
        wanted = await with_installed_agents(connection, wanted)
        return [finding async for finding in examine(connection, wanted)]


def agents_to_examine(files: Sequence[str]) -> "AgentPolicies":
    """Return the agents of some files, and which file has each.

    Raises:
        UsageError: a file is unusable, or two have the same name.
    """
    from noderestrict.doctor.agent_policies import policies

    _, texts = agents_to_render(files, None)
    return policies(
        {name: text.encode() for name, text in texts.items()},
        {Path(file).name: file for file in files},
    )
