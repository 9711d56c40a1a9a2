"""``noderestrict render authorizer``: write the files that install the authorizer."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noderestrict.cli._errors import UsageError
from noderestrict.cli._files import write_files
from noderestrict.cli._kubeadm import add_api_server, read_kubeadm
from noderestrict.cli.agent_files import add_agents_flag, agents_to_render
from noderestrict.cli.argument_types import (
    AUDIENCES,
    IMAGE,
    KUBERNETES_VERSION,
    PATH,
    checked,
)
from noderestrict.cli.fields import Group, add_flags, from_flags, setting, switch

_CLUSTER = Group("cluster")


@dataclass(frozen=True, kw_only=True)
class AuthorizerConfig:
    """What the files depend on."""

    kubeadm_config: Path | None = setting(
        None,
        PATH,
        "kubeadm's ClusterConfiguration of the cluster, as in ConfigMap kubeadm-config, to add to; "
        "without it, kubeadm.yaml holds only what the authorizer needs",
        _CLUSTER,
    )
    kubernetes_version: int | None = setting(
        None,
        KUBERNETES_VERSION,
        "Kubernetes version of the API server; without it, that of the ClusterConfiguration",
        _CLUSTER,
    )
    api_audiences: tuple[str, ...] | None = setting(
        None,
        AUDIENCES,
        "the API server's --api-audiences; without it, those of the ClusterConfiguration",
        _CLUSTER,
    )
    image: str | None = setting(
        None, IMAGE, "image of the server; without it, the one of this version", _CLUSTER
    )
    node_leases: bool = switch(
        "also let nodes get and update Leases in kube-node-lease, which keeps them Ready while the "
        "authorizer is away; only where admission denies nodes the Leases of others",
        _CLUSTER,
    )


def add_kind(render: Any) -> None:
    """Add the parser to that of ``render``."""
    parser = render.add_kind(
        "authorizer",
        description="Write the files that install the authorizer beside an API server: its "
        "AuthorizationConfiguration and kubeconfig, the server's static pod and permissions, and "
        "kubeadm's configuration. See docs/authorizer.md.",
    )
    parser.add_argument(
        "directory",
        type=checked(PATH.parse),
        nargs="?",
        default=Path("authorizer"),
        metavar="DIR",
        help="directory to write to; created if missing",
    )
    add_api_server(parser)
    add_flags(parser, AuthorizerConfig)
    add_agents_flag(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write all files, print their paths and return 0.

    Raises:
        UsageError: the ClusterConfiguration is unusable, or a file cannot be written.
    """
    from noderestrict.render.authorizer_files import Options, files
    from noderestrict.render.workload import IMAGE

    config = from_flags(AuthorizerConfig, options)
    kubeadm = read_kubeadm(config.kubeadm_config, options.api_server)
    try:
        minor = kubeadm.minor() if config.kubernetes_version is None else config.kubernetes_version
        agents, texts = agents_to_render(options.agents, minor)
        rendered = files(
            Options(
                kubeadm,
                minor,
                config.api_audiences or kubeadm.api_audiences(),
                config.image or IMAGE,
                config.node_leases,
                agents,
                texts,
            )
        )
    except ValueError as error:
        at = f"--kubeadm-config {config.kubeadm_config}: " if config.kubeadm_config else ""
        raise UsageError(f"{at}{error}") from None
    write_files(options.directory, rendered)
    return 0
