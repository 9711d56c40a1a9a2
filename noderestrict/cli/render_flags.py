"""The flags that say what the manifests depend on."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from noderestrict.cli._errors import UsageError
from noderestrict.cli._files import read_ca
from noderestrict.cli.agent_files import add_agents_flag, agents_to_render
from noderestrict.cli.argument_types import (
    ACCOUNTS,
    ADDRESSES,
    AUDIENCES,
    COUNT,
    HTTP_URL,
    IMAGE,
    KNOWN_PORT,
    KUBERNETES_VERSION,
    LABELS,
    NAMESPACE,
    OBJECT_NAME,
    PATH,
    checked,
    plain_address,
)
from noderestrict.cli.fields import Group, add_flags, from_flags, setting
from noderestrict.cli.shared_flags import RULES, StrictPolicy
from noderestrict.render import infrastructure, names

if TYPE_CHECKING:
    from noderestrict.render.manifests import Options

PODS = Group("pods")
NAMES_OF = Group("names")


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
        infrastructure.ACCOUNTS,
        ACCOUNTS,
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
    image: str = setting(names.IMAGE, IMAGE, "image of the server", NAMES_OF)
    replicas: int = setting(names.REPLICAS, COUNT, "number of servers behind a Service", NAMES_OF)
    namespace: str = setting(
        names.NAMESPACE,
        NAMESPACE,
        "namespace of the pods",
        NAMES_OF,
    )
    port: int = setting(names.PORT, KNOWN_PORT, "port at which the server listens", NAMES_OF)
    webhook_name: str = setting(
        names.REGISTRATION,
        OBJECT_NAME,
        "name of the ValidatingWebhookConfiguration",
        NAMES_OF,
    )
    docs_url: str | None = setting(
        None,
        HTTP_URL,
        "where the pages of docs/ are published, for the runbooks that alerts name; without it, "
        "alerts name files of the repository",
        NAMES_OF,
    )
    labels: dict[str, str] = setting(
        {},
        LABELS,
        "labels of every object, besides ours",
        NAMES_OF,
    )

    def installation(self) -> names.Installation:
        """Return what the installation has of its own."""
        return names.Installation(
            self.namespace,
            self.image,
            self.replicas,
            self.webhook_name,
            self.port,
            self.labels,
            (self.docs_url or names.DOCUMENTATION).rstrip("/"),
        )


def add_render_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say what the manifests depend on."""
    add_flags(parser, RenderConfig)
    parser.add_argument(
        "--ca-file",
        type=checked(PATH.parse),
        dest="ca_bundle",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="the same as --ca-bundle",
    )
    add_agents_flag(parser)


def options_of(options: argparse.Namespace) -> "Options":
    """Return what the manifests depend on.

    Raises:
        UsageError: a flag has a bad value, or a file cannot be read.
    """
    from noderestrict.render.manifests import Options

    config = from_flags(RenderConfig, options)
    agents, texts = agents_to_render(options.agents, config.kubernetes_version)
    return Options(
        config.extra(),
        config.api_audiences,
        tuple(map(plain_address, config.api_server)),
        config.infrastructure_accounts,
        read_ca(config.ca_bundle),
        config.kubernetes_version,
        agents,
        texts,
        config.installation(),
    )


def rendered(options: argparse.Namespace) -> dict[str, str]:
    """Return the content of every file, by its path.

    Raises:
        UsageError: a flag has a bad value, or a file cannot be read.
    """
    from noderestrict.render.manifests import all_files

    try:
        return all_files(options_of(options))
    except ValueError as error:
        raise UsageError(str(error)) from None
