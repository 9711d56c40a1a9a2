"""``noderestrict render``: write the manifests."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noderestrict.cli import render_authorizer, render_policies
from noderestrict.cli._errors import UsageError
from noderestrict.cli._files import read_ca, write_files
from noderestrict.cli.agent_files import add_agents_flag, agents_to_render
from noderestrict.cli.argument_types import (
    ADDRESSES,
    AUDIENCES,
    KUBERNETES_VERSION,
    NAMES,
    PATH,
    checked,
    plain_address,
)
from noderestrict.cli.fields import Group, add_flags, from_flags, setting
from noderestrict.cli.shared_flags import RULES, StrictPolicy
from noderestrict.render.infrastructure import ACCOUNTS

PODS = Group("pods")


@dataclass(frozen=True, kw_only=True)
class RenderConfig(StrictPolicy):
    """What the manifests depend on."""

    api_audiences: tuple[str, ...] | None = setting(
        None,
        AUDIENCES,
        "the API server's --api-audiences, for the server; needed only if the server cannot learn "
        "them from its token",
        RULES,
    )
    api_server: tuple[tuple[str, int], ...] = setting(
        (),
        ADDRESSES,
        "addresses at which our pods reach API servers; pods outside of the host network get those "
        "that are no loopback addresses; without it, pods on the host network use ports 6443 of "
        "127.0.0.1 and of their node, and others the Service of the cluster",
        PODS,
    )
    infrastructure_accounts: tuple[str, ...] = setting(
        ACCOUNTS,
        NAMES,
        "service accounts, NAMESPACE/NAME, of the pods that API servers need to reach a Service; "
        "token requests for these pods are left out of registrations of a Service; an empty value "
        "leaves out none",
        PODS,
    )
    kubernetes_version: int | None = setting(
        None,
        KUBERNETES_VERSION,
        "Kubernetes version of the API servers; before 1.29 they take no optional fields in match "
        "conditions, and before 1.28 they have none at all, so that requests about leases, nodes "
        "and pods are allowed while the webhook is away: else nodes would stop",
        PODS,
    )
    ca_bundle: Path | None = setting(
        None,
        PATH,
        "CA, in PEM, to put into the registrations; without it, no API server takes them until "
        "certs bootstrap puts it in",
        PODS,
    )


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's parser."""
    parser = subparsers.add_parser(
        "render",
        help="write the manifests, the policies, or the files of the authorizer",
        description="Write the manifests: for each way to run, DIR/overlays/NAME/install with the "
        "server, and DIR/overlays/NAME/enforce with its registration. 'render policies' writes "
        "ValidatingAdmissionPolicies, and 'render authorizer' the files of the authorizer instead.",
    )
    render_authorizer.add_kind(parser)
    render_policies.add_kind(parser)
    parser.add_argument(
        "directory",
        type=checked(PATH.parse),
        metavar="DIR",
        help="directory to write to; created if missing",
    )
    add_flags(parser, RenderConfig)
    add_agents_flag(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write all files, print their paths and return 0.

    Raises:
        UsageError: a flag has a bad value, or a file cannot be read or written.
    """
    from noderestrict.render.manifests import Options, manifests

    config = from_flags(RenderConfig, options)
    agents, texts = agents_to_render(options.agents, config.kubernetes_version)
    try:
        files = manifests(
            Options(
                config.extra(),
                config.api_audiences,
                tuple(map(plain_address, config.api_server)),
                config.infrastructure_accounts,
                read_ca(config.ca_bundle),
                config.kubernetes_version,
                agents,
                texts,
            )
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    write_files(options.directory, files)
    return 0
